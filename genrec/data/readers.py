"""Read a user's tables, whatever they are kept in, under genrec's column names.

In: a file (.parquet .pq .csv .tsv .jsonl .ndjson .json, the text formats also gzipped; RecBole's .inter .item .user), a folder
of parquet files, a folder written by `datasets.save_to_disk`, a Hugging Face dataset as `hf:NAME[:CONFIG]@SPLIT`, or a table
in memory (Arrow, pandas, `datasets`, or anything else that exports Arrow, such as polars).
Out: an Arrow table, a `Catalogue` or `Interactions`.

    from genrec.data import load_catalogue, load_interactions
    catalogue = load_catalogue("items.csv", {"item_id": "asin"})
    interactions = load_interactions("events.parquet", {"user_id": "reviewerID", "item_id": "asin"})
"""

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from genrec.columns import INTERACTION_COLUMNS, ITEM_ID, USER_ID
from genrec.data.catalogue import Catalogue, plain_type
from genrec.data.hashing import table_hash
from genrec.data.interactions import Interactions
from genrec.data.mapped import map_table
from genrec.data.text_files import Opened, open_atomic, open_csv, open_json
from genrec.errors import DataError, SettingError, check_choice, nearest

__all__ = ["load_catalogue", "load_interactions", "read_table", "table_hash"]

PARQUET = (".parquet", ".pq")
SUFFIXES = (*PARQUET, ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".inter", ".item", ".user")
HUB_NAME = re.compile(r"hf:(?P<name>[^:@]+)(:(?P<config>[^@]+))?@(?P<split>.+)")
STREAM_ROWS = 10_000  # rows per batch from an iterable data set
# Arrow reads ahead, 16 batches of 4 files at once and all that is asked of a row group: gigabytes with long rows or row groups.
FEW_AT_ONCE: dict[str, Any] = {
    "batch_readahead": 1,
    "fragment_readahead": 1,
    "fragment_scan_options": pads.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False),
}


def read_table(source: Any, columns: Mapping[str, str] | None = None, only: Sequence[str] | None = None) -> pa.Table:
    """Read `source` (see the module's first lines) as an Arrow table.

    columns: genrec's name -> the name in the source. Other columns keep their names. A mapped column wins: where the source
    also has a column that already bears the genrec name, that one is left out (unless it is mapped to something else, so two
    names can be swapped).
    only: genrec names to read; those that the source lacks are passed over, everything else is not read at all.
    In text files the columns that become `user_id` and `item_id` are read as text, so "007" stays "007".
    Raises `DataError` for a source that is missing, damaged, of unknown format, or without a mapped column.
    """
    return _read(source, columns, only, required=())


def load_catalogue(source: Any, columns: Mapping[str, str] | None = None) -> Catalogue:
    """Read the items table with all its columns. Raises `DataError`, which names the source."""
    table = _read(source, columns, None, required=(ITEM_ID,))
    try:
        return Catalogue.from_table(table)
    except DataError as error:
        raise DataError(f"{_label(source)}: {error}") from error


def load_interactions(source: Any, columns: Mapping[str, str] | None = None, extra: Sequence[str] = ()) -> Interactions:
    """Read the interactions table: its user, item, timestamp and position columns, and those of `extra`, which must be there.
    Parquet, and a stream of `datasets` that knows its types, may be larger than memory: what is read of it lies on disk (see
    mapped.py). Raises `DataError`."""
    for name in columns or {}:
        check_choice("columns of the interactions table", name, INTERACTION_COLUMNS)
    table = _read(source, columns, (*INTERACTION_COLUMNS, *extra), required=(USER_ID, ITEM_ID, *extra), on_disk=True)
    try:
        return Interactions.from_table(table)
    except DataError as error:
        raise DataError(f"{_label(source)}: {error}") from error


def _read(
    source: Any,
    columns: Mapping[str, str] | None,
    only: Sequence[str] | None,
    required: Sequence[str],
    on_disk: bool = False,
) -> pa.Table:
    mapping = dict(columns or {})
    for name, theirs in mapping.items():
        if not (isinstance(name, str) and isinstance(theirs, str)):
            raise SettingError(f"columns must map names to names, got {name!r}: {theirs!r}.")
    opened = _open(source, [mapping.get(name, name) for name in (USER_ID, ITEM_ID)])
    plan = [(name, theirs) for name, theirs in _plan(opened, mapping) if only is None or name in only]
    for name in required:
        if name not in [target for target, _ in plan]:
            raise DataError(
                f"{opened.label} must have a column {name!r}, got {_some(opened.names)}.{nearest(name, opened.names)} "
                f"Rename it, or map it with columns={{{name!r}: '<your name>'}}."
            )
    chosen = list(dict.fromkeys(theirs for _, theirs in plan))
    twice = next((name for name in chosen if opened.names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"{opened.label} must have every column name once, got {twice!r} {opened.names.count(twice)} times. Rename one."
        )
    others = {theirs for name, theirs in plan if name not in (USER_ID, ITEM_ID)}
    ids = [theirs for _, theirs in plan if theirs not in others]  # what is an id and more keeps its type
    table = _mapped(opened, chosen, ids) if on_disk and opened.stream else opened.load(chosen)
    return pa.table([table.column(theirs) for _, theirs in plan], names=[name for name, _ in plan])


def _mapped(opened: Opened, names: list[str], ids: list[str]) -> pa.Table:
    """The columns on disk, as types that need no copy later: dictionaries are spelled out, and numbers in `ids` are text."""
    assert opened.stream
    schema, tables = opened.stream(names)
    plain = [
        (name, pa.string() if name in ids and pa.types.is_integer(kind) else plain_type(kind))
        for name, kind in zip(names, schema.types, strict=True)
    ]
    return map_table(tables, pa.schema(plain))


def _plan(opened: Opened, mapping: dict[str, str]) -> list[tuple[str, str]]:
    """(name after reading, name in the source), in the order of the source."""
    for name, theirs in mapping.items():
        if theirs not in opened.names:
            raise DataError(
                f"columns maps {name!r} to {theirs!r}, which must be a column of {opened.label}, got "
                f"{_some(opened.names)}.{nearest(theirs, opened.names)}"
            )
    plan = []
    for theirs in opened.names:
        targets = [name for name, mapped in mapping.items() if mapped == theirs]
        if not targets and theirs not in mapping:
            targets = [theirs]
        plan += [(name, theirs) for name in targets]
    return plan


def _open(source: Any, text_columns: list[str]) -> Opened:
    if isinstance(source, str) and source.startswith("hf:"):
        return _open_hub(source)
    if isinstance(source, (str, PathLike)):
        return _open_path(Path(source).expanduser(), text_columns)
    if isinstance(source, pa.Table):
        return Opened(_label(source), source.column_names, source.select)
    # A source of these kinds can only exist where its package has been imported; importing them here would take seconds.
    pandas, datasets = sys.modules.get("pandas"), sys.modules.get("datasets")
    if pandas and isinstance(source, pandas.DataFrame):
        return _open_pandas(source)
    if datasets and isinstance(source, datasets.Dataset):
        return _open_dataset(source, _label(source))
    if datasets and isinstance(source, datasets.IterableDataset):
        return _open_iterable(source)
    if datasets and isinstance(source, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        raise DataError(
            f"A data set must be one split, got {list(source)}. Pass one of them, such as data[{next(iter(source))!r}]."
        )
    if hasattr(source, "__arrow_c_stream__"):
        table = pa.table(source)
        return Opened(_label(source), table.column_names, table.select)
    raise DataError(
        "A table must be a path, 'hf:NAME[:CONFIG]@SPLIT', an Arrow table, a pandas DataFrame or a Hugging Face data set, "
        f"got {type(source).__name__}."
    )


def _open_path(path: Path, text_columns: list[str]) -> Opened:
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise DataError(_missing(path))
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    match suffix.lower():
        case ".parquet" | ".pq":
            return _open_parquet([path], None)
        case ".csv":
            return open_csv(path, text_columns)
        case ".tsv":
            return open_csv(path, text_columns, "\t")
        case ".jsonl" | ".ndjson" | ".json":
            return open_json(path, text_columns)
        case ".inter" | ".item" | ".user":
            return open_atomic(path)
    raise DataError(
        f"The name of a table file must end in one of {', '.join(SUFFIXES)} (text formats also with .gz), got {path}."
        f"{nearest(suffix, SUFFIXES)} Rename it to what it holds, or convert it."
    )


def _missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"There is no file {path}: the folder {folder} does not exist."
    names = sorted(entry.name for entry in folder.iterdir())
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5) or [n for n in names if n.endswith(SUFFIXES)][:5]
    hint = f" The folder has {', '.join(map(repr, near))}." if near else ""
    return f"There is no file {path}.{hint} Give the path of an existing table."


def _open_folder(folder: Path) -> Opened:
    if (folder / "dataset_dict.json").exists():
        splits = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        raise DataError(
            f"{folder} must be one split of a saved data set, got several: {splits}. Give the folder of one of them."
        )
    if (folder / "dataset_info.json").exists() and (folder / "state.json").exists():
        import datasets

        try:
            return _open_dataset(datasets.load_from_disk(str(folder)), str(folder))
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder} cannot be read as a saved Hugging Face data set: {error}.") from error
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PARQUET)
    if not files:
        names = sorted(entry.name for entry in folder.iterdir())
        raise DataError(
            f"A folder must hold parquet files or a data set saved by `datasets.save_to_disk`, got {folder} with "
            f"{_some(names)}. Give the path of one file."
        )
    return _open_parquet(files, folder)


def _open_parquet(files: list[Path], folder: Path | None) -> Opened:
    """One table from many files, in the order of their names. Columns that only some files have are missing in the others."""
    label = str(folder or files[0])

    def damaged(error: Exception) -> DataError:
        return DataError(f"{label} cannot be read as parquet: {error}. Check that every file is complete.")

    try:
        if folder is None:
            data = pads.dataset(str(files[0]), format="parquet")
        else:
            # Folder names such as day=1 are columns, as Spark writes them.
            paths = [str(path) for path in files]
            options = {"format": "parquet", "partitioning": "hive", "partition_base_dir": str(folder)}
            data = pads.dataset(paths, **options)
            schemas = [part.physical_schema for part in data.get_fragments()]
            data = pads.dataset(
                paths, schema=pa.unify_schemas([*schemas, data.schema], promote_options="permissive"), **options
            )
    except (pa.ArrowException, OSError) as error:
        raise damaged(error) from error

    def load(names: list[str]) -> pa.Table:
        try:
            return data.to_table(columns=names)
        except (pa.ArrowException, OSError) as error:
            raise damaged(error) from error

    def stream(names: list[str]) -> tuple[pa.Schema, Iterator[pa.Table]]:
        return pa.schema([data.schema.field(name) for name in names]), tables(names)

    def tables(names: list[str]) -> Iterator[pa.Table]:
        try:
            for batch in data.to_batches(columns=names, **FEW_AT_ONCE):
                yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise damaged(error) from error

    return Opened(label, data.schema.names, load, stream)


def _open_pandas(frame: Any) -> Opened:
    names = [str(name) for name in frame.columns]

    def load(chosen: list[str]) -> pa.Table:
        part = frame.iloc[:, [names.index(name) for name in chosen]]
        try:
            return pa.Table.from_pandas(part, preserve_index=False).rename_columns(chosen)
        except pa.ArrowException as error:
            raise DataError(
                f"{_label(frame)} must have values of one type in every column: {error.args[-1]}. "
                "Convert the column, for example with df[name].astype(str)."
            ) from error

    return Opened(_label(frame), names, load)


def _open_hub(source: str) -> Opened:
    found = HUB_NAME.fullmatch(source)
    if not found:
        raise DataError(f"A Hugging Face data set must be written hf:NAME@SPLIT or hf:NAME:CONFIG@SPLIT, got {source!r}.")
    import datasets

    try:
        data = datasets.load_dataset(found["name"], found["config"], split=found["split"])
    except Exception as error:  # the library raises a dozen kinds, each with a message worth passing on
        raise DataError(f"{source} cannot be loaded: {error} (name {found['name']!r}, split {found['split']!r}).") from error
    return _open_dataset(data, source)


def _open_dataset(data: Any, label: str) -> Opened:
    # Formatting as Arrow also applies a shuffle or selection, which `data.data` would not.
    return Opened(label, data.column_names, lambda names: data.select_columns(names).with_format("arrow")[:])


def _open_iterable(data: Any) -> Opened:
    """A stream, read once by batches; only the chosen columns are kept."""
    names = data.column_names
    if names is None:
        first = next(iter(data), None)
        if first is None:
            raise DataError("An iterable data set must yield at least one row, got none.")
        names = list(first)

    def tables(chosen: list[str]) -> Iterator[pa.Table]:
        try:
            if data.features is not None:
                for part in data.with_format("arrow").iter(STREAM_ROWS):
                    yield part.select(chosen)
            else:  # types unknown: batches as Arrow would break where one has only missing values
                for batch in data.iter(STREAM_ROWS):
                    yield pa.table({name: batch[name] for name in chosen})
        except (pa.ArrowException, KeyError) as error:
            raise differ(chosen, error) from error

    def load(chosen: list[str]) -> pa.Table:
        try:
            return pa.concat_tables(tables(chosen), promote_options="permissive")
        except pa.ArrowException as error:
            raise differ(chosen, error) from error

    def stream(chosen: list[str]) -> tuple[pa.Schema, Iterator[pa.Table]]:
        return pa.schema([data.features.arrow_schema.field(name) for name in chosen]), tables(chosen)

    def differ(chosen: list[str], error: Exception) -> DataError:
        return DataError(f"{_label(data)} must have the columns {chosen} with one type each in every row: {error}.")

    return Opened(_label(data), names, load, stream if data.features is not None else None)


def _label(source: Any) -> str:
    """How messages name a source."""
    return str(source) if isinstance(source, (str, PathLike)) else f"The {type(source).__name__} given"


def _some(names: Sequence[str], most: int = 20) -> str:
    return f"{list(names[:most])}" + (f" and {len(names) - most} more" if len(names) > most else "")
