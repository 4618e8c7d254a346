"""The live catalogue: what is added can be found, what is removed cannot, and no search ever sees half a change."""

import copy
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from worlds import MAX_HISTORY, make_ranker

from genrec import Recommender
from genrec.codes import CodeTable
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Histories
from genrec.decoding.changes import Change
from genrec.decoding.live import LiveCatalogue
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Snapshot
from genrec.errors import DataError, SettingError, UnknownItemError
from genrec.tokenizers.collisions import POLICIES, append, assign
from genrec.tokenizers.rq_kmeans import RQKMeans, RQKMeansConfig

SIZES = (4, 4, 8)


class CodesFromVectors:
    """Stands in for an item tokenizer: a vector is its codes."""

    sizes = SIZES[:2]

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        return np.asarray(vectors, np.int32)


class VectorsFromTitles:
    """Stands in for an embedder: a title such as "1 2" is a vector."""

    template = "{title}"

    def encode(self, catalogue: Catalogue) -> np.ndarray:
        return np.array([[int(part) for part in title.split()] for title in catalogue.table.column("title").to_pylist()])


def table(items: dict[str, str], price: float = 1.0) -> pa.Table:
    return pa.table({"item_id": list(items), "title": list(items.values()), "price": [price] * len(items)})


def make_live(items: dict[str, str], policy: str = "suffix", **settings: int) -> LiveCatalogue:
    codes = np.array([[*map(int, title.split()), 0] for title in items.values()], np.int32)
    if policy == "suffix":
        seen: dict[tuple, int] = {}
        for item in codes:
            key = tuple(item[:2].tolist())
            item[2] = seen[key] = seen.get(key, -1) + 1
    catalogue = Catalogue(table(items))
    sizes = SIZES if policy == "suffix" else SIZES[:2]
    codes = codes[:, : len(sizes)]
    return LiveCatalogue(
        catalogue, CodeTable(catalogue.item_ids, codes, sizes, policy, "test"), np.arange(len(codes)),
        lambda: (VectorsFromTitles(), CodesFromVectors()), **settings,
    )  # fmt: skip


def found(live: LiveCatalogue, **request: object) -> list[str]:
    """Ids of everything that a search can find now."""
    version = live.current
    ranker = make_ranker(live.sizes, version.snapshot.codes, 1, snapshot=version.snapshot)
    [rows], _ = ranker.rank(Histories.from_lists([[]]), 200, False, **request)
    return version.table.column("item_id").take(pa.array(rows[rows >= 0])).to_pylist()


class Changes(RuleBasedStateMachine):
    """Any order of changes: the catalogue is what a dict under the same changes is, and equals one built anew."""

    def __init__(self) -> None:
        super().__init__()
        self.items = {"a": "0 0", "b": "0 0", "c": "3 1"}
        self.live = make_live(self.items, merge_after=10**9, keep=4)
        self.journal: list[bytes] = []
        self.live.journal = lambda change: self.journal.append(change.encode())
        self.history = {0: dict(self.items)}
        self.new = 0

    def noted(self) -> None:
        self.history[self.live.current.number] = dict(self.items)

    @rule(titles=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4))
    def add(self, titles: list[tuple[int, int]]) -> None:
        added = {f"n{self.new + place}": f"{a} {b}" for place, (a, b) in enumerate(titles)}
        self.new += len(added)
        try:
            self.live.add(table(added))
        except DataError as error:
            assert "the suffix level holds 8" in str(error)  # noqa: PT017  # most adds succeed
            return
        self.items |= added
        self.noted()

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.items:
            gone = data.draw(st.lists(st.sampled_from(sorted(self.items)), min_size=1, max_size=3, unique=True))
            self.live.remove(gone)
            for item_id in gone:
                del self.items[item_id]
            self.noted()

    @rule(data=st.data(), a=st.integers(0, 3), b=st.integers(0, 3))
    def replace(self, data: st.DataObject, a: int, b: int) -> None:
        if self.items:
            item_id = data.draw(st.sampled_from(sorted(self.items)))
            try:
                self.live.replace(table({item_id: f"{a} {b}"}, price=2.0))
            except DataError:
                return
            self.items[item_id] = f"{a} {b}"
            self.noted()

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        to = data.draw(st.sampled_from([version.number for version in self.live.versions()]))
        self.live.rollback(to)
        self.items = dict(self.history[to])
        self.noted()

    @rule()
    def merge(self) -> None:
        self.live.merge()

    @rule()
    def start_again(self) -> None:
        """Every change is written down before it happens, and doing all again leads to the same version."""
        again = make_live({"a": "0 0", "b": "0 0", "c": "3 1"}, merge_after=10**9, keep=4)
        for written in self.journal:
            again.replay(Change.decode(written))
        assert again.current.hash == self.live.current.hash
        assert again.current.table.equals(self.live.current.table)
        np.testing.assert_array_equal(again.current.live, self.live.current.live)
        np.testing.assert_array_equal(again.current.snapshot.codes, self.live.current.snapshot.codes)

    @invariant()
    def what_is_found_is_what_there_is(self) -> None:
        version = self.live.current
        assert len(version) == len(self.items)
        assert sorted(found(self.live)) == sorted(self.items)
        rows = version.rows(list(self.items))
        assert version.table.column("title").take(pa.array(rows)).to_pylist() == list(self.items.values())
        codes = version.snapshot.codes[rows]
        assert [f"{a} {b}" for a, b, _ in codes.tolist()] == list(self.items.values())
        assert len({tuple(item) for item in codes.tolist()}) == len(codes), "no two items with the same codes"

    @invariant()
    def an_overlay_scores_as_an_index_built_anew(self) -> None:
        version = self.live.current
        if not len(version):
            return
        ranker = make_ranker(SIZES, version.snapshot.codes, 1, snapshot=version.snapshot)
        anew = Snapshot.of(version.snapshot.codes[version.live], SIZES)
        history = Histories.from_lists([version.rows(list(self.items))[:MAX_HISTORY]])
        rows, scores = ranker.rank(history, 12, False)
        kept = np.flatnonzero(version.live)
        again = make_ranker(SIZES, anew.codes, 1, snapshot=anew)
        before = Histories.from_lists([np.searchsorted(kept, history[0])])
        expected, expected_scores = again.rank(before, 12, False)
        np.testing.assert_allclose(scores, expected_scores, atol=2e-4)
        found = rows[rows >= 0]
        assert set(kept[expected[expected >= 0]]) == set(found)


Changes.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
TestChanges = Changes.TestCase


def test_what_cannot_be_written_down_does_not_happen() -> None:
    live = make_live({"a": "0 0"})

    def full_disk(change: Change) -> None:
        raise OSError("no space left")

    live.journal = full_disk
    for change in (lambda: live.add(table({"b": "1 1"})), lambda: live.remove(["a"])):
        with pytest.raises(OSError, match="no space"):
            change()
    assert live.current.number == 0
    assert found(live) == ["a"]
    live.journal = lambda change: None
    live.add(table({"c": "2 2"}))
    assert sorted(found(live)) == ["a", "c"]


def test_a_search_in_flight_keeps_its_version() -> None:
    live = make_live({"a": "0 0", "b": "1 0"})
    before = live.current
    live.remove(["a"])
    live.add(table({"c": "2 2"}))
    ranker = make_ranker(SIZES, before.snapshot.codes, 1, snapshot=before.snapshot)
    [rows], _ = ranker.rank(Histories.from_lists([[]]), 3, False)
    assert sorted(rows.tolist()) == [-1, 0, 1]
    assert sorted(found(live)) == ["b", "c"]


def test_removed_items_stay_readable_in_histories_and_may_come_back() -> None:
    live = make_live({"a": "0 0", "b": "1 0"})
    live.remove(["a"])
    assert live.current.rows(["a"]).tolist() == [0]
    assert found(live) == ["b"]
    live.remove(["a"])  # again: nothing happens
    live.add(table({"a": "0 0"}))
    assert sorted(found(live)) == ["a", "b"]


def test_replacing_a_price_moves_no_code_and_a_text_may() -> None:
    live = make_live({"a": "0 0", "b": "1 0"})
    codes = live.current.snapshot.codes[live.current.rows(["a"])].tolist()
    version = live.replace(pa.table({"item_id": ["a"], "price": [9.5]}))
    assert version.fields(version.rows(["a"])) == [{"item_id": "a", "title": "0 0", "price": 9.5}]
    assert version.snapshot.codes[version.rows(["a"])].tolist() == codes
    version = live.replace(pa.table({"item_id": ["a"], "title": ["3 3"]}))
    assert version.snapshot.codes[version.rows(["a"])].tolist() == [[3, 3, 0]]
    assert version.fields(version.rows(["a"]))[0]["price"] == 9.5


def test_a_freed_suffix_is_used_again_only_once_it_is_free() -> None:
    live = make_live({"a": "0 0", "b": "0 0"})
    version = live.add(table({"c": "0 0", "d": "0 0"}))
    assert version.snapshot.codes[version.rows(["a", "b", "c", "d"])][:, 2].tolist() == [0, 1, 2, 3]


def test_a_full_suffix_level_refuses_the_change_whole() -> None:
    live = make_live({f"i{n}": "0 0" for n in range(7)})
    with pytest.raises(DataError, match=r"Item 'y' would be number 9 with the same codes; the suffix level holds 8"):
        live.add(table({"w": "2 2", "x": "0 0", "y": "0 0"}))
    assert live.current.number == 0
    assert len(found(live)) == 7


def test_alike_items_share_codes_under_the_shared_policy_and_come_in_order_of_arrival() -> None:
    live = make_live({"a": "0 0", "b": "1 1"}, policy="shared")
    live.add(table({"c": "0 0"}))
    live.add(table({"d": "0 0"}))
    order = found(live)
    assert order.index("a") < order.index("c") < order.index("d")
    live.merge()
    assert found(live) == order


def test_merging_changes_no_answer_even_where_all_scores_are_equal() -> None:
    """Ties go by code order, wherever an item's codes are kept."""
    live = make_live({"a": "0 2", "b": "2 1", "c": "3 3"})
    live.add(table({"d": "2 0", "e": "0 3", "f": "1 1", "g": "2 3", "h": "0 2"}))
    orders = []
    for _ in range(2):
        version = live.current
        ranker = make_ranker(SIZES, version.snapshot.codes, 1, snapshot=version.snapshot)
        silent = copy.deepcopy(ranker.model)
        with torch.no_grad():
            for parameter in silent.parameters():
                parameter.zero_()
        ranker = BeamRanker(silent, ranker.layout, version.snapshot, 4096, MAX_HISTORY)
        for width in (4096, 3):
            [rows], _ = ranker.rank(Histories.from_lists([[]]), 3 if width == 3 else 8, False, beam_width=width)
            orders.append(version.snapshot.codes[rows].tolist())
        live.merge()
    assert orders[0] == sorted(orders[0])
    assert orders[1] == orders[0][:3], "also at the edge of a beam"
    assert orders[2:] == orders[:2]


def test_an_emptied_catalogue_fills_again() -> None:
    live = make_live({"a": "0 0"})
    live.remove(["a"])
    assert found(live) == []
    live.merge()
    assert found(live) == []
    live.add(table({"b": "2 1"}))
    assert found(live) == ["b"]


def test_vectors_may_be_given_and_must_fit() -> None:
    live = make_live({"a": "0 0"})
    version = live.add(pa.table({"item_id": ["v"]}), vectors=np.array([[2, 3]]))
    assert version.snapshot.codes[version.rows(["v"])].tolist() == [[2, 3, 0]]
    assert version.fields(version.rows(["v"])) == [{"item_id": "v", "title": None, "price": None}]
    with pytest.raises(DataError, match=r"one row per item, \[1, width\], got int64 \[2, 2\]"):
        live.add(pa.table({"item_id": ["w"]}), vectors=np.array([[2, 3], [1, 1]]))


def test_old_versions_go_and_rollback_names_those_that_are_kept() -> None:
    live = make_live({"a": "0 0"}, keep=3)
    for number in range(4):
        live.add(table({f"n{number}": "1 1"}))
    assert [version.number for version in live.versions()] == [2, 3, 4]
    with pytest.raises(SettingError, match=r"one of \[2, 3, 4\], got 0"):
        live.rollback(0)
    assert live.rollback(2).about == "rolled back to 2"
    assert sorted(found(live)) == ["a", "n0", "n1"]


def test_equal_changes_give_equal_names_and_other_changes_others() -> None:
    def after(item_id: str) -> str:
        live = make_live({"a": "0 0"})
        return live.add(table({item_id: "1 1"})).hash

    assert after("b") == after("b") != after("c")


def test_many_changes_are_merged_in_the_background() -> None:
    live = make_live({"a": "0 0"}, merge_after=5)
    for number in range(8):
        live.add(table({f"n{number}": f"{number % 4} {number // 4}"}))
    for thread in threading.enumerate():
        if thread.name == "genrec-merge":
            thread.join()
    assert len(live.current.snapshot.index) == 9
    assert len(live._base) >= 7, "a new base was built"
    assert len(found(live)) == 9


def test_readers_see_whole_versions_while_writers_write_and_merge() -> None:
    """Items come and go in pairs: no reader may ever see one without the other."""
    live = make_live({"a": "0 0"}, merge_after=3)
    stop, errors = threading.Event(), []

    def write() -> None:
        try:
            for number in range(30):
                title = f"{number % 4} {number // 8}"
                live.add(table({f"l{number}": title, f"r{number}": title}))
                live.remove([f"l{number}", f"r{number}"] if number % 2 else ["a"])
        finally:
            stop.set()

    def read() -> None:
        while not stop.is_set():
            version = live.current
            index = version.snapshot.index
            rows = index.rows_in_order.numpy()
            ids = {item["item_id"] for item in version.fields(rows[version.live[rows]])}
            if {i[1:] for i in ids if i[0] == "l"} != {i[1:] for i in ids if i[0] == "r"}:
                errors.append(ids)

    threads = [threading.Thread(target=work) for work in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(found(live)) == sorted(f"{side}{number}" for number in range(0, 30, 2) for side in "lr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda live: live.add(table({"a": "1 1"})), "add takes new items, got 1 that the catalogue has, for example 'a'"),
        (lambda live: live.add(pa.table({"item_id": ["x", "x"]})), "got an item id more than once"),
        (lambda live: live.add(pa.table({"item_id": ["x"], "titel": ["1 1"]})), "no column 'titel'. Did you mean 'title'"),
        (lambda live: live.add(pa.table({"title": ["1 1"]})), "item_id"),
        (lambda live: live.add(pa.table({"item_id": pa.array([], pa.string())})), "at least one row"),
        (lambda live: live.add([{"item_id": "x"}]), "items must be an Arrow table, got list"),
        (lambda live: live.replace(None), "items must be an Arrow table, got NoneType"),
        (lambda live: live.remove(None), "remove takes a list of item ids, got None"),
        (lambda live: live.add(pa.table([["x"], ["1 1"], ["2"]], ["item_id", "title", "title"])), "every column once"),
        (lambda live: live.add(table({"x": "1 1"}), vectors=np.array([["a"]])), "vectors must be numbers"),
        (lambda live: live.add(pa.table({"item_id": ["x"], "price": ["dear"]})), "Column 'price' holds double"),
        (lambda live: live.replace(table({"z": "1 1"})), "replace takes items of the catalogue, got 1 unknown"),
        (lambda live: live.remove(["z"]), "remove takes items of the catalogue, got 1 unknown ids, for example 'z'"),
        (lambda live: live.remove("a"), r"remove takes a list of item ids, got 'a'. Write \['a'\]"),
        (lambda live: live.remove(["a", "a"]), "remove takes every item once"),
    ],
)  # fmt: skip
def test_impossible_changes_are_explained_and_change_nothing(change: object, message: str) -> None:
    live = make_live({"a": "0 0"})
    with pytest.raises((DataError, SettingError, UnknownItemError), match=message):
        change(live)
    assert live.current.number == 0
    assert found(live) == ["a"]


def test_replacing_what_was_removed_is_explained() -> None:
    live = make_live({"a": "0 0", "b": "1 1"})
    live.remove(["a"])
    with pytest.raises(DataError, match="'a', which was removed. Use add"):
        live.replace(table({"a": "1 1"}))


@pytest.fixture
def shop_recommender(bundle: Path) -> Recommender:
    return Recommender.load(bundle)


def test_from_text_to_recommendation_without_a_new_fit(shop_recommender: Recommender) -> None:
    live = shop_recommender.catalogue
    twin = live.current.fields(np.array([0]))[0]
    live.add(pa.Table.from_pylist([twin | {"item_id": "twin", "price": 1.0}]))
    codes = live.current.snapshot.codes[live.current.rows(["twin", twin["item_id"]])]
    assert codes[0][0] == codes[1][0], "the same text begins with the same code; what people did with it is only expected"
    [only] = shop_recommender.recommend([["twin"]], k=3, only_item_ids=["twin"], exclude_seen=False)
    assert [item.item_id for item in only] == ["twin"]
    assert only[0].fields["price"] == 1.0
    live.remove(["twin"])
    assert shop_recommender.recommend([["twin"]], k=3, only_item_ids=["twin"], exclude_seen=False) == [[]]
    shop_recommender.recommend([["twin"]], k=3)  # a history may hold what is gone


def test_prepared_filters_follow_the_catalogue(shop_recommender: Recommender) -> None:
    live = shop_recommender.catalogue
    shop_recommender.prepare_filter("cheap", where="price < 0.5")
    assert shop_recommender.recommend([[]], k=5, filters=["cheap"]) == [[]]
    some = live.current.fields(np.array([3, 4]))
    live.add(pa.Table.from_pylist([item | {"item_id": f"offer {n}", "price": 0.1} for n, item in enumerate(some)]))
    [items] = shop_recommender.recommend([[]], k=5, filters=["cheap"])
    assert {item.item_id for item in items} == {"offer 0", "offer 1"}
    live.replace(pa.table({"item_id": ["offer 0"], "price": [7.0]}))
    [items] = shop_recommender.recommend([[]], k=5, filters=["cheap"])
    assert [item.item_id for item in items] == ["offer 1"]
    live.merge()
    [items] = shop_recommender.recommend([[]], k=5, filters=["cheap"], where='brand != "nobody"')
    assert [item.item_id for item in items] == ["offer 1"]


def test_prepared_filters_by_id_hold_in_every_version(shop_recommender: Recommender) -> None:
    """An id means another row after a replacement, and the old one again after a rollback."""
    live = shop_recommender.catalogue
    item_id = live.current.fields(np.array([0]))[0]["item_id"]
    shop_recommender.prepare_filter("without", exclude_item_ids=(i for i in [item_id]))
    shop_recommender.prepare_filter("only", only_item_ids=np.array([item_id]))

    def found(name: str) -> list[str]:
        [items] = shop_recommender.recommend([[]], k=80, filters=[name], beam_width=100)
        return [item.item_id for item in items]

    live.replace(pa.table({"item_id": [item_id], "price": [1.0]}))
    for version in (0, 1, 2, 3):
        live.rollback(version)
        assert item_id not in found("without")
        assert found("only") == [item_id]


@pytest.mark.parametrize("policy", POLICIES)
def test_an_item_added_while_serving_gets_the_codes_that_appending_to_the_table_gives(policy: str) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 4)).astype(np.float32)
    new = np.concatenate([vectors[:3], random.normal(size=(3, 4)).astype(np.float32)])
    tokenizer = RQKMeans(RQKMeansConfig(levels=3, codebook_size=8)).fit(vectors)
    ids, more = [f"old{i:02d}" for i in range(60)], [f"new{i}" for i in range(6)]
    codes = assign(ids, tokenizer.encode(vectors), tokenizer, policy, vectors, np.ones(len(ids)))
    live = LiveCatalogue(
        Catalogue(pa.table({"item_id": ids, "title": ids})), codes, np.arange(60), lambda: (VectorsFromTitles(), tokenizer)
    )
    live.add(pa.table({"item_id": more, "title": more}), new)
    expected = append(codes, more, tokenizer.encode(new), tokenizer, new)
    np.testing.assert_array_equal(live.current.snapshot.codes, expected.codes)
