"""Tables larger than memory: whatever is kept on disk, everything is as it would be in memory, and memory does not fill."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data import Catalogue, Histories, Interactions, load_interactions, mapped, table_hash
from genrec.data.splits import Split, Targets, global_time, leave_one_out, user_holdout
from genrec.errors import DataError

CATALOGUE = Catalogue.from_table(pa.table({"item_id": list("abcdef")}))
CUTS = {
    "leave-one-out": leave_one_out,
    "global-time": lambda histories: global_time(histories, 0.2, 0.2),
    "user-holdout": lambda histories: user_holdout(histories, 0.2, 0.3),
}
EVENT = st.tuples(
    st.sampled_from(["u", "v", "w", "x", "y"]),
    st.sampled_from("abcdefz"),
    st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 2),
)


def numbers(histories: Histories) -> list[np.ndarray]:
    return [histories.user_ids, histories.indptr, histories.items, histories.times]


def of_targets(targets: Targets) -> list[np.ndarray]:
    return [*numbers(targets.histories), targets.items, np.zeros(0) if targets.times is None else targets.times]


def of_split(split: Split) -> list[np.ndarray]:
    parts = [*numbers(split.train), *of_targets(split.validation), *of_targets(split.test)]
    return [*parts, np.array([split.repeat_share])]


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=60), st.sampled_from(list(CUTS)), st.integers(1, 12), st.data())
def test_histories_and_splits_are_the_same_however_little_is_worked_on_at_once(
    rows: list[tuple], name: str, stretch: int, data: st.DataObject
) -> None:
    if data.draw(st.booleans()):  # a cut in time needs all times
        rows = [(user, item, time or 0, place) for user, item, time, place in rows]
    kept = [row for row in rows if row[1] != "z"]
    columns = list(zip(*rows, strict=True))
    kinds = {"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.int64(), "position": pa.float64()}
    table = pa.table([pa.array(values, kind) for values, kind in zip(columns, kinds.values(), strict=True)], names=list(kinds))

    def found() -> list[np.ndarray]:
        histories = Interactions.from_table(table).histories(CATALOGUE, "drop")
        try:
            return numbers(histories) + [
                part for asked in ("all", "warm") for part in of_split(CUTS[name](histories).about(asked))
            ]
        except DataError as error:
            return [*numbers(histories), np.array([str(error)])]

    if not kept:
        with pytest.raises(DataError, match="No interaction names an item"):
            found()
        return
    expected = found()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "STRETCH", stretch)
        got = found()
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype

    users: dict[str, list[tuple]] = {}  # and both are what a plain sort gives
    for number, (user, item, time, place) in enumerate(kept):
        users.setdefault(user, []).append((time, place, number, item))
    for user, of in users.items():
        timed, placed = all(event[0] is not None for event in of), all(event[1] is not None for event in of)
        of.sort(key=lambda event: (event[0] if timed else 0, event[1] if placed else 0, event[2]))
        row = expected[0].tolist().index(user)
        assert "".join(event[3] for event in of) == "".join(
            CATALOGUE.item_ids[expected[2][expected[1][row] : expected[1][row + 1]]]
        )
    assert list(users) == expected[0].tolist(), "users in the order of their first event"


def shards(folder: Path) -> pa.Table:
    """Events in three files of a folder, with ids as numbers; the table that they are together."""
    random = np.random.default_rng(0)
    table = pa.table({
        "user_id": random.integers(0, 20, 900), "item_id": random.integers(0, 50, 900),
        "timestamp": pa.array(random.integers(0, 10**6, 900), pa.timestamp("ms")),
        "place": pa.array(random.choice(["shop", "web"], 900)).dictionary_encode(),
    })  # fmt: skip
    folder.mkdir()
    for number in range(3):
        pq.write_table(table.slice(300 * number, 300), folder / f"part-{number}.parquet", row_group_size=70)
    return table


def test_parquet_files_and_streams_are_read_onto_the_disk_and_are_the_table_that_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "STRETCH", 100)
    table = shards(tmp_path / "events")
    expected = Interactions.from_table(table).table
    before = pa.total_allocated_bytes()
    read = load_interactions(tmp_path / "events", extra=["place"]).table
    assert pa.total_allocated_bytes() - before < read.nbytes / 10, "what is held of it is the map of a file"
    files = sorted(map(str, (tmp_path / "events").iterdir()))
    stream = datasets.load_dataset(
        "parquet", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path / "cache")
    )
    for other in (read, load_interactions(stream, extra=["place"]).table):
        assert other.to_pylist() == expected.to_pylist()
        assert table_hash(other) == table_hash(expected)
    assert str(read.schema.field("user_id").type) == "string"
    (tmp_path / "events" / "part-1.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"events cannot be read as parquet"):
        load_interactions(tmp_path / "events")


def test_a_full_disk_is_told_with_what_is_needed_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mapped, "STRETCH", 100)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    shards(tmp_path / "events")
    with pytest.raises(DataError, match=r"room for 0\.0 GiB of events in .*No space left.*set TMPDIR"):
        load_interactions(tmp_path / "events").histories(Catalogue.from_table(pa.table({"item_id": list(range(50))})))


@pytest.mark.parametrize("folder", ["missing", "read-only"])
def test_a_small_table_needs_no_folder_for_temporary_files_and_a_large_one_says_so(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards(tmp_path / "events")
    monkeypatch.setattr("tempfile.tempdir", "/nowhere" if folder == "missing" else "/proc")
    assert len(load_interactions(tmp_path / "events"))
    monkeypatch.setattr(mapped, "STRETCH", 3)
    with pytest.raises(DataError, match="folder for temporary files is needed.*set TMPDIR|Set TMPDIR"):
        load_interactions(tmp_path / "events")


def test_a_column_that_is_an_id_and_something_else_is_what_it_is_in_memory(tmp_path: Path) -> None:
    table = pa.table({"u": [3, 1, 2], "item_id": ["a", "b", "a"]})
    pq.write_table(table, tmp_path / "events.parquet")
    columns = {"user_id": "u", "position": "u"}
    read, expected = (load_interactions(source, columns=columns).table for source in (tmp_path / "events.parquet", table))
    assert read.schema == expected.schema
    assert table_hash(read) == table_hash(expected)


LIMITED = """
import resource, signal, sys
from genrec.data import load_interactions, mapped
from genrec.errors import DataError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
mapped.STRETCH = 3
try:
    load_interactions(sys.argv[1])
except DataError as error:
    print(error)
"""


def test_a_disk_that_fills_while_a_table_is_written_is_told_too(tmp_path: Path) -> None:
    shards(tmp_path / "events")
    run = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path / "events")], capture_output=True, text=True)
    assert "There must be room for more than" in run.stdout, run.stderr


def test_what_goes_wrong_in_a_source_is_not_said_to_be_the_disk() -> None:
    def broken() -> Iterator[pa.Table]:
        yield pa.table({"a": range(10)})
        raise ConnectionError("no network")

    with pytest.raises(ConnectionError, match="no network"):
        mapped.map_table(broken(), pa.schema([("a", pa.int64())]))


FILL = """
import resource, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from genrec.data import Catalogue, leave_one_out, load_interactions, mapped, table_hash
from genrec.evaluation.leaks import check_leaks

def read(path):
    events = load_interactions(path)
    table_hash(events.table)
    histories = events.histories(catalogue)
    check_leaks(leave_one_out(histories))

def write(path, size):
    schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(0, size, 50_000):
            users, items = random.integers(0, size // 50, 50_000).astype(str), random.integers(0, 500, 50_000).astype(str)
            writer.write_table(pa.table([users, items, random.integers(0, 10**9, 50_000)], schema=schema))

mapped.STRETCH = 1 << 15
pa.set_cpu_count(1)
random, folder, size, most = np.random.default_rng(0), sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
catalogue = Catalogue.from_table(pa.table({"item_id": np.arange(500)}))
write(folder + "/few.parquet", 100_000)
write(folder + "/many.parquet", size)
read(folder + "/few.parquet")  # whatever is taken only once
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
held = int(status["VmData"].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + most, held + most))
read(folder + "/many.parquet")
print("read", most)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux caps the memory that is no file's")
def test_reading_and_splitting_takes_less_memory_than_the_events_would(tmp_path: Path) -> None:
    """A million events take 20 bytes each as the numbers of user, item and time alone, and more as text. They are hashed,
    sorted, split and checked for leaks in 16, most of which are for the stretches that are worked on."""
    size = 1_000_000
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", FILL, str(tmp_path), str(size), str(16 * size)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("read"), ran.stderr[-2000:]
