"""Tables on their way out: Parquet, CSV or JSON lines, by the ending of the file's name.

In: an Arrow table and a path. Out: a file. CSV has no columns of lists or structs, so those are left out there.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from genrec.errors import SettingError

ENDINGS = (".parquet", ".csv", ".jsonl", ".ndjson")


def check_writable(path: Path) -> None:
    """Raise `SettingError` where no file could be written: told before the work, not after."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise SettingError(f"{path} cannot be written: it is a folder, or its folder does not exist.")


def check_table(path: Path) -> None:
    """As `check_writable`, and for an ending that is none of `ENDINGS`."""
    check_writable(path)
    if path.suffix not in ENDINGS:
        raise SettingError(f"--out must end in .parquet, .csv or .jsonl, got {path.name!r}.")


def write_table(table: pa.Table, path: Path) -> None:
    """Write `table`. Raises as `check_table`."""
    check_table(path)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".csv":
        table = table.select([f.name for f in table.schema if not str(f.type).startswith(("list", "large_list", "struct"))])
        pyarrow.csv.write_csv(table, path)
    else:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in table.to_pylist())
