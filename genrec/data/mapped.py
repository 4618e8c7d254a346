"""Tables and arrays on disk, mapped into memory: the system keeps the pages of them that are in use, and drops the others.

In: batches of an Arrow table, or the size of an array. Out: a table or an array like any other. The files lie in the folder for
temporary files (TMPDIR names another) and are gone with the table or the array, also when the process is killed.
"""

import contextlib
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike

from genrec.errors import DataError

# Events worked on together: what is computed with so many may be in memory. Beside this module's functions nobody reads it.
STRETCH = 1 << 20


def large_array(size: int, dtype: DTypeLike) -> np.ndarray:
    """An array [size] whose values are to be set: in memory if it is small, on disk above `STRETCH` values. Raises `DataError`
    where the disk has no room."""
    if size <= STRETCH:
        return np.empty(size, dtype)
    length = size * np.dtype(dtype).itemsize
    with _file() as file:
        try:
            if hasattr(os, "posix_fallocate"):  # or a full disk would end the process at the first page that has no place
                os.posix_fallocate(file.fileno(), 0, length)
            else:
                file.truncate(length)
        except OSError as error:
            raise _no_room(f"{length / 2**30:.1f} GiB", error) from None
        return np.frombuffer(mmap.mmap(file.fileno(), length), dtype)


def map_table(batches: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """The batches as one table: in memory up to `STRETCH` rows, else on disk. Raises `DataError` where the disk has no room."""
    coming = (batch.cast(schema) for batch in batches)
    first: list[pa.Table] = []
    for batch in coming:
        first.append(batch)
        if sum(map(len, first)) > STRETCH:
            break
    else:
        return pa.concat_tables(first) if first else schema.empty_table()
    file, written = _file(), 0

    def write(work: Callable[..., Any], *arguments: Any) -> None:
        try:
            work(*arguments)
        except OSError as error:
            raise _no_room(f"more than {written / 2**30:.1f} GiB", error) from None

    try:
        writer = pa.ipc.new_file(file, schema)
        for batch in chain(first, coming):
            write(writer.write_table, batch)
            written += batch.nbytes
        write(writer.close)
        write(file.flush)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    finally:
        with contextlib.suppress(OSError):  # a full disk, which has been told
            file.close()
    return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()


def pieces(column: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """A column in parts of at most `STRETCH` values, without copying it."""
    for chunk in column.chunks:
        for start in range(0, len(chunk), STRETCH):
            yield pa.chunked_array([chunk.slice(start, STRETCH)])


def parts(size: int) -> Iterator[slice]:
    """So many events in stretches."""
    for start in range(0, size, STRETCH):
        yield slice(start, min(start + STRETCH, size))


def stretches(indptr: np.ndarray) -> Iterator[tuple[int, int]]:
    """Users from the first to one behind the last, of one stretch of events together, or one user with more. indptr: int64
    [users + 1], where the events of each begin."""
    first, users = 0, len(indptr) - 1
    while first < users:
        last = max(first + 1, int(np.searchsorted(indptr, indptr[first] + STRETCH, "right")) - 1)
        yield first, last
        first = last


def _file() -> BinaryIO:
    try:
        return tempfile.TemporaryFile()  # type: ignore[return-value]
    except OSError as error:
        raise DataError(
            f"A folder for temporary files is needed, got: {error}. Set TMPDIR to one that can be written."
        ) from None


def _no_room(needed: str, error: OSError) -> DataError:
    return DataError(
        f"There must be room for {needed} of events in {tempfile.gettempdir()}, got: {error}. Make room there, or set "
        "TMPDIR to a folder on a larger disk."
    )
