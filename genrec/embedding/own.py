"""Item vectors that the user brings, of images or anything else.

In: a Parquet file with `item_id` and one column of lists of numbers, all of one length. Out: [n, D] float32 in the order asked
for.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genrec.columns import ITEM_ID
from genrec.errors import DataError


def read_item_vectors(path: Path, item_ids: np.ndarray, width: int | None = None) -> np.ndarray:
    """Vectors of these items, [n, D] float32, from a Parquet file with `item_id` and one column of lists of numbers.

    Raises `DataError` naming what is missing.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"text.item_vectors {str(path)!r} cannot be read as Parquet: {error}") from None
    lists = [name for name in table.column_names if name != ITEM_ID]
    if ITEM_ID not in table.column_names or len(lists) != 1:
        raise DataError(f"{path} must have the columns item_id and one of vectors, got {table.column_names}.")
    vectors = table.column(lists[0]).combine_chunks()
    kind = vectors.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise DataError(f"The column {lists[0]!r} of {path} must hold lists of numbers, got {kind}.")
    if not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise DataError(f"The column {lists[0]!r} of {path} must hold lists of numbers, got {kind}.")
    lengths = set(pc.list_value_length(vectors).to_pylist())
    wanted = lengths if width is None else {width}
    if len(lengths) != 1 or None in lengths or lengths != wanted or 0 in lengths:
        hint = "" if width is None else f" of {width} numbers"
        raise DataError(f"Every vector of {path} must have the same length{hint}, got lengths {sorted(map(str, lengths))[:5]}.")
    found = pc.index_in(pa.array(item_ids.tolist(), pa.string()), value_set=table.column(ITEM_ID).cast(pa.string()))
    if found.null_count:
        missing = item_ids[found.is_null().to_numpy(zero_copy_only=False)]
        raise DataError(f"{path} has no vector for {len(missing)} items, for example {missing[0]!r}.")
    flat = pc.list_flatten(vectors).to_numpy(zero_copy_only=False).astype(np.float32)
    if not np.isfinite(flat).all():
        raise DataError(f"{path} holds NaN, infinity or nothing where numbers should be.")
    return flat.reshape(len(vectors), -1)[found.to_numpy(zero_copy_only=False)]
