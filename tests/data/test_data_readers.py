"""Promises of the readers: every format gives the same table, and what cannot be read is named."""

import gzip
import json
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genrec.data import Catalogue, load_catalogue, load_interactions, read_table, table_hash
from genrec.errors import DataError, SettingError

ROWS = [
    {"item_id": "007", "title": "Emoji 🧴 crème, 50 ml", "price": 1.5, "note": 'two\nlines and a "quote"'},
    {"item_id": "NA", "title": "日本語", "price": None, "note": ""},
    {"item_id": "2024-01-01", "title": "plain", "price": 3.0, "note": "x"},
]
TABLE = pa.Table.from_pylist(ROWS)


def csv_text(delimiter: str = ",") -> str:
    frame = pd.DataFrame(ROWS)
    return frame.to_csv(index=False, sep=delimiter)


def json_lines() -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", csv_text()),
        ("a.csv.gz", csv_text()),
        ("A.CSV", csv_text()),
        ("a.tsv", csv_text("\t")),
        ("a.tsv.gz", csv_text("\t")),
        ("bom.csv", "\ufeff" + csv_text()),
        ("windows.csv", csv_text().replace("lines\n", "lines")),
        ("a.jsonl", json_lines()),
        ("a.jsonl.gz", json_lines()),
        ("a.ndjson", json_lines()),
        ("a.json", json_lines()),
        ("bom.jsonl", "\ufeff" + json_lines()),
        ("array.json", json.dumps(ROWS)),
        ("array.json.gz", json.dumps(ROWS)),
    ],
)
def test_every_text_format_gives_the_same_table(tmp_path: Path, name: str, text: str) -> None:
    table = read_table(write(tmp_path / name, text))
    assert table.to_pylist() == ROWS
    assert table_hash(table) == table_hash(TABLE)


def in_parquet(folder: Path) -> Path:
    pq.write_table(TABLE, folder / "a.parquet")
    return folder / "a.parquet"


def in_folder(folder: Path) -> Path:
    (folder / "many" / "deep").mkdir(parents=True)
    pq.write_table(TABLE.slice(0, 2), folder / "many" / "a.parquet")
    pq.write_table(TABLE.slice(2), folder / "many" / "deep" / "b.pq")
    (folder / "many" / "_SUCCESS").touch()
    return folder / "many"


def in_saved_dataset(folder: Path) -> str:
    datasets.Dataset(TABLE).save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


@pytest.mark.parametrize(
    "source",
    [
        in_parquet,
        in_folder,
        in_saved_dataset,
        lambda _: TABLE,
        lambda _: TABLE.to_pandas(),
        lambda _: datasets.Dataset(TABLE),
        lambda _: datasets.Dataset(pa.concat_tables([TABLE.slice(1), TABLE.slice(0, 1)])).select([2, 0, 1]),
        lambda _: datasets.Dataset(TABLE).to_iterable_dataset(),
        lambda _: datasets.IterableDataset.from_generator(lambda: iter(ROWS)),
        lambda _: pa.RecordBatchReader.from_batches(TABLE.schema, TABLE.to_batches(max_chunksize=1)),
    ],
)
def test_every_other_source_gives_the_same_table(tmp_path: Path, source) -> None:
    assert table_hash(read_table(source(tmp_path))) == table_hash(TABLE)


def test_a_hub_name_is_loaded_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "shop").mkdir()
    in_parquet(tmp_path / "shop")
    assert read_table(f"hf:{tmp_path / 'shop'}@train", only=["title"]).to_pylist() == TABLE.select(["title"]).to_pylist()
    assert read_table(f"hf:{tmp_path / 'shop'}:default@train[:1]").num_rows == 1
    with pytest.raises(DataError, match=r"must be written hf:NAME@SPLIT"):
        read_table("hf:somebody/something")
    with pytest.raises(DataError, match=r"cannot be loaded.*split 'tset'"):
        read_table(f"hf:{tmp_path / 'shop'}@tset")


def test_recbole_atomic_files_keep_their_types(tmp_path: Path) -> None:
    path = write(
        tmp_path / "ml.item",
        'item_id:token\ttitle:token_seq\tprice:float\tvector:float_seq\n007\t"Toy" Story\t1.5\t0.5 1\n8\t\t\t\n',
    )
    table = read_table(path)
    assert table.to_pylist() == [
        {"item_id": "007", "title": '"Toy" Story', "price": 1.5, "vector": [0.5, 1.0]},
        {"item_id": "8", "title": "", "price": None, "vector": None},
    ]
    events = write(tmp_path / "ml.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n01\t007\t5\t8.8e8\n")
    assert load_interactions(events).table.to_pylist() == [{"user_id": "01", "item_id": "007", "timestamp": 8.8e8}]
    for header, message in [("user_id\titem_id:token", "NAME:TYPE"), ("a:tokn\tb:token", "Did you mean 'token'")]:
        with pytest.raises(DataError, match=message):
            read_table(write(tmp_path / "bad.user", header + "\n1\t2\n"))
    with pytest.raises(DataError, match=r"'vector' must hold numbers"):
        read_table(write(tmp_path / "bad.item", "item_id:token\tvector:float_seq\n1\t1 two\n"))


def test_mapped_ids_are_read_as_text_whatever_they_look_like(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "reviewer,asin,timestamp\n007,0010,5\n1e3,NA,6\n")
    table = read_table(path, {"user_id": "reviewer", "item_id": "asin"})
    assert table.column("user_id").to_pylist() == ["007", "1e3"]
    assert table.column("item_id").to_pylist() == ["0010", "NA"]
    assert table.schema.field("timestamp").type == pa.int64()
    lines = write(tmp_path / "a.jsonl", '{"asin": "2024-05-01", "n": 1}\n{"asin": "2024-05-02"}\n')
    assert read_table(lines, {"item_id": "asin"}).to_pylist() == [
        {"item_id": "2024-05-01", "n": 1},
        {"item_id": "2024-05-02", "n": None},
    ]


def test_numbers_as_json_ids_become_their_digits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"item_id": 7}\n{"item_id": 12}\n')
    assert list(load_catalogue(path).item_ids) == ["7", "12"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_only_keeps_the_asked_columns_that_exist(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.table({"user_id": ["1"], "item_id": ["2"], "big": ["x"]}), path)
    else:
        write(path, "user_id,item_id,big\n1,2,x\n" if name == "a.csv" else '{"user_id": "1", "item_id": "2", "big": "x"}\n')
    assert read_table(path, only=["item_id", "timestamp", "user_id"]).to_pylist() == [{"user_id": "1", "item_id": "2"}]
    assert load_interactions(path).table.column_names == ["user_id", "item_id"]


def test_a_mapped_column_replaces_one_that_has_its_name_and_names_can_be_swapped() -> None:
    table = pa.table({"item_id": [1, 2], "asin": ["a", "b"], "title": ["x", "y"]})
    assert read_table(table, {"item_id": "asin"}).to_pydict() == {"item_id": ["a", "b"], "title": ["x", "y"]}
    swapped = read_table(table, {"item_id": "title", "title": "item_id"}).to_pydict()
    assert swapped == {"title": [1, 2], "asin": ["a", "b"], "item_id": ["x", "y"]}
    assert read_table(table, {"name": "title", "brand": "title"}).column("brand").to_pylist() == ["x", "y"]


def test_a_wrong_mapping_names_the_nearest_column() -> None:
    table = pa.table({"reviewerID": ["1"], "item_id": ["2"]})
    with pytest.raises(DataError, match=r"'reviewer_id', which must be a column of .* Did you mean 'reviewerID'"):
        read_table(table, {"user_id": "reviewer_id"})
    with pytest.raises(SettingError, match=r"must be one of .*'user_id'.* got 'user'.* Did you mean 'user_id'"):
        load_interactions(table, {"user": "reviewerID"})
    with pytest.raises(SettingError, match=r"must map names to names, got 'user_id': 3"):
        read_table(table, {"user_id": 3})  # type: ignore[dict-item]


def test_a_missing_id_column_lists_what_the_source_has(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "itemid,title\n1,x\n")
    with pytest.raises(
        DataError, match=r"a\.csv must have a column 'item_id', got \['itemid', 'title'\]\. Did you mean 'itemid'"
    ):
        load_catalogue(path)
    with pytest.raises(DataError, match=r"must have a column 'user_id'"):
        load_interactions(path, {"item_id": "itemid"})


def test_a_missing_file_names_files_that_are_near(tmp_path: Path) -> None:
    write(tmp_path / "items.csv", "item_id\n1\n")
    with pytest.raises(DataError, match=r"no file .*item\.csv\. The folder has 'items\.csv'"):
        read_table(tmp_path / "item.csv")
    with pytest.raises(DataError, match=r"the folder .*nowhere does not exist"):
        read_table(tmp_path / "nowhere" / "item.csv")


def test_an_unknown_suffix_names_the_allowed_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must end in one of \.parquet, .*\.user .*, got .*a\.xlsx"):
        read_table(write(tmp_path / "a.xlsx", "x"))
    with pytest.raises(DataError, match=r"Did you mean '\.parquet'"):
        read_table(write(tmp_path / "a.parqet", "x"))


@pytest.mark.parametrize("source", [3, None, ["a"]])
def test_an_object_that_is_no_table_is_refused(source) -> None:
    with pytest.raises(DataError, match=r"must be a path, .* got " + type(source).__name__):
        read_table(source)


def test_a_folder_that_holds_no_single_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty" / "readme.md", "x")
    with pytest.raises(DataError, match=r"must hold parquet files .*readme\.md"):
        read_table(tmp_path / "empty")
    both = datasets.DatasetDict({"train": datasets.Dataset(TABLE), "test": datasets.Dataset(TABLE)})
    with pytest.raises(DataError, match=r"must be one split"):
        read_table(both)
    both.save_to_disk(str(tmp_path / "both"))
    with pytest.raises(DataError, match=r"one split .*\['test', 'train'\]"):
        read_table(tmp_path / "both")
    (tmp_path / "saved").mkdir()
    for name in ("dataset_info.json", "state.json"):
        write(tmp_path / "saved" / name, "{")
    with pytest.raises(DataError, match=r"saved cannot be read as a saved Hugging Face data set"):
        read_table(tmp_path / "saved")


def test_parquet_files_with_different_columns_make_one_table(tmp_path: Path) -> None:
    (tmp_path / "day=1").mkdir()
    (tmp_path / "day=2").mkdir()
    pq.write_table(pa.table({"item_id": ["a"], "n": pa.array([1], pa.int32())}), tmp_path / "day=1" / "a.parquet")
    pq.write_table(pa.table({"item_id": ["b"], "n": [2], "title": ["t"]}), tmp_path / "day=2" / "a.parquet")
    assert read_table(tmp_path).to_pylist() == [
        {"item_id": "a", "n": 1, "title": None, "day": 1},
        {"item_id": "b", "n": 2, "title": "t", "day": 2},
    ]
    pq.write_table(pa.table({"item_id": [3]}), tmp_path / "day=2" / "b.parquet")
    with pytest.raises(DataError, match=r"cannot be read as parquet"):
        read_table(tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    whole = in_parquet(tmp_path).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    packed = gzip.compress(csv_text().encode() * 200)
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "cut.json.gz").write_bytes(packed[: len(packed) // 2])
    for name in ("cut.parquet", "cut.csv.gz", "cut.json.gz"):
        with pytest.raises(DataError, match=rf"{name} cannot be read"):
            read_table(tmp_path / name)


def test_a_ragged_row_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "ragged.csv", "a,b\n1,2\n3,4,5\n")
    with pytest.raises(DataError, match=r"ragged\.csv cannot be read: .*Row #3: Expected 2 columns, got 3.* in quotes"):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("text.csv", "item_id,title\n1,crème\n".encode("latin1")),
        ("id.csv", "item_id,title\né1,x\n".encode("latin1")),
        ("head.csv", "item_id,crème\n1,x\n".encode("latin1")),
        ("wide.csv", "item_id,title\n1,x\n".encode("utf-16")),
        ("text.jsonl", '{"item_id": "1", "title": "crème"}\n'.encode("latin1")),
        ("array.json", '[{"item_id": "crème"}]'.encode("latin1")),
    ],
)
def test_a_file_in_another_encoding_is_named_and_the_cure_too(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}.*UTF-8.*iconv"):
        read_table(tmp_path / name)


def test_a_wrong_byte_far_down_a_file_is_found_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "late.csv").write_bytes(b"item_id,title\n" + b"1,fine\n" * 5000 + "2,crème\n".encode("latin1"))
    with pytest.raises(DataError, match=r"late.csv must be UTF-8 text, got other bytes in column 'title', row 5000 .*iconv"):
        read_table(tmp_path / "late.csv")
    (tmp_path / "id.csv").write_bytes(b"item_id,title\n" + b"1,fine\n" * 5000 + "é,x\n".encode("latin1"))
    with pytest.raises(DataError, match=r"id.csv cannot be read: .*iconv"):
        read_table(tmp_path / "id.csv")


def test_a_row_that_never_ends_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.data.text_files.BLOCK_BYTES", 1 << 20)
    path = write(tmp_path / "a.csv", 'item_id,title\n1,"open\n' + "2,x\n" * 1_000_000)
    with pytest.raises(DataError, match=r"A row must fit into 1 MiB; .* quotation mark that is never closed"):
        read_table(path)


def test_other_separators_are_recognised(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"separated by ',', got .* looks separated by ';'"):
        read_table(write(tmp_path / "a.csv", "item_id;title\n1;x\n"))
    with pytest.raises(DataError, match=r"or call it \.tsv"):
        read_table(write(tmp_path / "b.csv", "item_id\ttitle\n1\tx\n"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.csv", "", "got an empty file"),
        ("empty.jsonl", "", "got an empty file"),
        ("twice.csv", "item_id,item_id\n1,2\n", "must have every column name once, got 'item_id' 2 times"),
        ("mixed.jsonl", '{"price": 1}\n{"price": "2"}\n', "changed from number to string.*one type"),
        ("cut.jsonl", '{"item_id": 1}\n{"item_id":\n', "cut.jsonl cannot be read"),
        ("mixed.json", '[{"price": 1}, {"price": "2"}]', "column 'price' must hold values of one type"),
        ("numbers.json", "[1, 2]", "array of JSON objects, got '1'"),
    ],
)
def test_bad_text_files_say_what_is_wrong(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path / name, text))


def test_a_frame_of_mixed_types_says_how_to_convert_it() -> None:
    with pytest.raises(DataError, match=r"DataFrame given must have values of one type .*astype\(str\)"):
        read_table(pd.DataFrame({"item_id": [1, "a"]}))


def test_a_stream_without_rows_or_with_changing_types_is_refused() -> None:
    with pytest.raises(DataError, match=r"must yield at least one row"):
        read_table(datasets.IterableDataset.from_generator(lambda: iter([])))
    changing = [{"item_id": "a"}] * 10_000 + [{"item_id": 1}]
    with pytest.raises(DataError, match=r"with one type each"):
        read_table(datasets.IterableDataset.from_generator(lambda: iter(changing)))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_description_of_a_megabyte_is_read_whole(tmp_path: Path, name: str) -> None:
    text = "glow 🧴 " * 130_000
    rows = [{"item_id": "1", "description": text}, {"item_id": "2", "description": "short"}]
    if name == "a.csv":
        pd.DataFrame(rows).to_csv(tmp_path / name, index=False)
    elif name == "a.jsonl":
        write(tmp_path / name, "\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    catalogue = load_catalogue(tmp_path / name)
    assert catalogue.fields([0])[0]["description"] == text  # type: ignore[arg-type]
    assert len(catalogue) == 2


def test_loading_names_the_file_when_its_rows_are_unusable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"items\.csv: .*must be unique"):
        load_catalogue(write(tmp_path / "items.csv", "item_id\n1\n1\n"))
    with pytest.raises(DataError, match=r"events\.csv: .*1 blank ids"):
        load_interactions(write(tmp_path / "events.csv", "user_id,item_id\n1,2\n,2\n"))
    with pytest.raises(DataError, match=r"none\.csv: The items table must have at least one row, got 0"):
        load_catalogue(write(tmp_path / "none.csv", "item_id\n"))


def test_table_hash_sees_values_and_nothing_else() -> None:
    table = pa.table(
        {
            "text": ["a", None, "", "dd"],
            "number": pa.array([1, 2, None, 4], pa.int8()),
            "list": [["x"], None, [], ["y", None]],
            "yes": [True, None, False, True],
            "time": pa.array([1, 2, 3, None], pa.timestamp("s")),
            "part": [{"a": 1}, {"a": None}, None, {"a": 4}],
            "day": pa.array([1, 2, 3, None], pa.date32()),
            "raw": [b"1", b"", None, b"4"],
            "real": [0.5, float("nan"), None, 1.0],
            "none": pa.nulls(4),
        }
    )
    same = pa.concat_tables([table.slice(0, 1), table.slice(1, 0), table.slice(1)])
    same = same.select(same.column_names[::-1])
    for name, kind in [
        ("text", pa.large_string()),
        ("number", pa.int64()),
        ("time", pa.timestamp("ns")),
        ("raw", pa.large_binary()),
    ]:
        place = same.column_names.index(name)
        same = same.set_column(place, name, same.column(name).cast(kind))
    place = same.column_names.index("text")
    assert table_hash(same) == table_hash(table)
    assert table_hash(same.set_column(place, "text", same.column("text").dictionary_encode())) == table_hash(table)
    changed = [
        table.slice(0, 3),
        table.take([1, 0, 2, 3]),
        table.rename_columns(["other", *table.column_names[1:]]),
        table.set_column(0, "text", [["a", "", None, "dd"]]),
        table.set_column(0, "text", [["a", None, "d", "d"]]),
        table.set_column(1, "number", [[1, 2, None, 5]]),
        table.set_column(2, "list", [[["x"], [], None, ["y", None]]]),
        table.set_column(5, "part", [[{"a": 1}, {"a": None}, None, {"a": 5}]]),
        table.set_column(6, "day", pa.array([1, 2, 4, None], pa.date32())),
    ]
    hashes = {table_hash(other) for other in [table, *changed]}
    assert len(hashes) == 1 + len(changed)


def test_a_catalogue_of_one_item_or_with_emoji_titles_works() -> None:
    catalogue = Catalogue.from_table(pa.table({"item_id": ["🎁"], "title": ["ünï 🧴"]}))
    assert catalogue.rows(["🎁", "x"]).tolist() == [0, -1]
