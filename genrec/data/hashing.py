"""A fingerprint of a table's content, to record which data made a result.

In: an Arrow table. Out: a sha256. Chunks, column order, file format and the width of types do not count: a table read from
CSV and the same table read from parquet agree. Row order counts, because it decides ties in time.
"""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.mapped import pieces


def table_hash(table: pa.Table) -> str:
    """sha256 (64 hex digits) of names and values; missing values and NaN are the same, times count to the microsecond."""
    whole = hashlib.sha256(str(table.num_rows).encode())
    for name in sorted(table.column_names):
        streams: dict[str, hashlib._Hash] = {}
        for piece in pieces(table.column(name)):
            for chunk in _plain(piece).chunks:
                _feed(chunk, "", streams)
        whole.update(f"\0{name}".encode())
        for place in sorted(streams):
            whole.update(f"\0{place}\0".encode() + streams[place].digest())
    return whole.hexdigest()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """One Arrow type per kind of value."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return column.cast(pa.binary())
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return column.cast(pa.int64())
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
        return pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    if pa.types.is_large_list(kind):
        return column.cast(pa.list_(kind.value_type))
    return column


def _feed(array: pa.Array, place: str, streams: dict[str, "hashlib._Hash"]) -> None:
    """Add one chunk to the streams of its column.

    Each stream (validity, lengths, values of one kind) is one run of bytes, so it does not matter where a chunk ends.
    """
    kind = array.type

    def add(stream: str, values: np.ndarray) -> None:
        # Byte order is fixed so that every machine gives the same hash.
        data = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        streams.setdefault(f"{place}/{stream}", hashlib.sha256()).update(data.view(np.uint8).data)

    if not len(array):
        return
    add("valid", _numpy(array.is_valid()).astype(np.uint8))
    if pa.types.is_null(kind):
        return
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        name = "text" if pa.types.is_string(kind) else "bytes"
        array = pc.fill_null(array, "" if name == "text" else b"")
        add(f"{name} lengths", _numpy(pc.binary_length(array)).astype(np.int64))
        _, offsets, data = array.buffers()
        ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
        add(name, np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]])
    elif pa.types.is_list(kind):
        add("list lengths", _numpy(pc.fill_null(pc.list_value_length(array), 0)).astype(np.int64))
        for chunk in _plain(pa.chunked_array([array.flatten()])).chunks:
            _feed(chunk, place + "/item", streams)
    elif pa.types.is_struct(kind):
        for field, part in zip(kind, array.flatten(), strict=True):
            for chunk in _plain(pa.chunked_array([part])).chunks:
                _feed(chunk, f"{place}/{field.name}", streams)
    elif pa.types.is_boolean(kind):
        add("bool", _numpy(pc.fill_null(array, False)).astype(np.uint8))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        add("whole" if pa.types.is_integer(kind) else "float", _numpy(pc.fill_null(array, 0)))
    elif pa.types.is_timestamp(kind):
        add("time", _numpy(pc.fill_null(array.cast(pa.int64()), 0)))
    else:  # dates, decimals, maps and the like: rare enough for the slow way
        text = "\0".join(map(repr, array.to_pylist())) + "\0"
        add("other", np.frombuffer(text.encode(), np.uint8))


def _numpy(array: pa.Array) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False)
