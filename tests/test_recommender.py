"""The facade: histories in, items out."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from genrec import Recommender
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.errors import DataError, SettingError, UnknownItemError


@pytest.fixture(scope="module")
def recommender(bundle: Path) -> Recommender:
    return Recommender.load(bundle)


@pytest.fixture(scope="module")
def ids(shop: tuple[Catalogue, Interactions]) -> list[str]:
    return shop[0].item_ids.tolist()


def test_results_carry_id_rank_score_and_fields(recommender: Recommender, ids: list[str]) -> None:
    [items] = recommender.recommend([ids[:3]], k=5)
    assert [item.rank for item in items] == [1, 2, 3, 4, 5]
    scores = [item.score for item in items]
    assert scores == sorted(scores, reverse=True)
    assert max(scores) < 0
    for item in items:
        [fields] = recommender.bundle.catalogue.fields(recommender.bundle.catalogue.rows([item.item_id]))
        assert fields == {"item_id": item.item_id, **item.fields}
        assert item.fields["title"]


def test_each_history_gets_its_own_answer_and_a_new_user_gets_one_too(recommender: Recommender, ids: list[str]) -> None:
    answers = recommender.recommend([ids[:3], ids[40:44], []], k=4)
    assert [len(items) for items in answers] == [4, 4, 4]
    assert [i.item_id for i in answers[0]] != [i.item_id for i in answers[1]]
    assert recommender.recommend([], k=4) == []


def test_seen_items_are_left_out_when_asked(recommender: Recommender, ids: list[str]) -> None:
    [items] = recommender.recommend([ids[:60]], k=20, exclude_seen=True)
    assert {i.item_id for i in items} == set(ids[60:])
    [all_items] = recommender.recommend([ids[:60]], k=20, exclude_seen=False)
    assert {i.item_id for i in all_items} & set(ids[:60])


def test_rules_by_id_hold(recommender: Recommender, ids: list[str]) -> None:
    [items] = recommender.recommend([ids[:2]], k=10, only_item_ids=ids[10:15], exclude_item_ids=ids[10:12])
    assert {i.item_id for i in items} == set(ids[12:15])
    assert recommender.recommend([ids[:2]], k=10, only_item_ids=[]) == [[]]


def test_a_rule_is_worked_out_once_per_catalogue_and_the_oldest_is_forgotten(bundle: Path) -> None:
    recommender, hits = Recommender.load(bundle), []
    recommender.recent_rules.most = 2
    recommender.recent_rules.observe = hits.append
    cheap = [item.item_id for item in recommender.recommend([[]], k=80, beam_width=90, where="price < 15")[0]]
    for where in ("price < 15", "price < 20", "price < 25", "price < 15"):
        recommender.recommend([[]], k=3, where=where)
    assert hits == [False, True, False, False, False]
    recommender.catalogue.remove(cheap[:2])
    assert [i.item_id for i in recommender.recommend([[]], k=80, beam_width=90, where="price < 15")[0]] == cheap[2:]
    recommender.catalogue.merge()
    assert [i.item_id for i in recommender.recommend([[]], k=80, beam_width=90, where="price < 15")[0]] == cheap[2:]
    assert hits[-2:] == [False, False]


def test_where_max_per_and_prepared_filters_hold_together(recommender: Recommender, ids: list[str]) -> None:
    recommender.prepare_filter("affordable", where="price < 18")
    recommender.prepare_filter("not the first ten", exclude_item_ids=ids[:10])
    asked = {"where": 'brand != "Lumen"', "filters": ["affordable", "not the first ten"], "max_per": {"brand": 2}}
    [items] = recommender.recommend([ids[:2]], k=8, **asked)
    assert items
    assert all(item.fields["price"] < 18 and item.fields["brand"] != "Lumen" for item in items)
    assert not {item.item_id for item in items} & set(ids[:10])
    brands = [item.fields["brand"] for item in items]
    assert max(brands.count(brand) for brand in brands) <= 2
    scores = [item.score for item in items]
    assert scores == sorted(scores, reverse=True)


def test_rules_fill_the_list_however_few_items_they_keep(recommender: Recommender, ids: list[str]) -> None:
    table = recommender.bundle.catalogue.table
    for limit in (3, 6, 10, 30, 100):
        allowed = sum(price < limit for price in table.column("price").to_pylist())
        [items] = recommender.recommend([[]], k=20, where=f"price < {limit}")
        assert len(items) == min(20, allowed)


def test_at_most_so_many_with_the_same_first_code(recommender: Recommender, ids: list[str]) -> None:
    [items] = recommender.recommend([ids[:2]], k=10, max_per_prefix={1: 2})
    version = recommender.catalogue.current
    firsts = version.snapshot.codes[version.rows([item.item_id for item in items])][:, 0].tolist()
    assert max(firsts.count(code) for code in firsts) <= 2


def test_the_table_form_takes_the_same_rules(recommender: Recommender, shop: tuple[Catalogue, Interactions]) -> None:
    found = recommender.recommend_df(shop[1].table, k=3, where="price < 12", max_per={"brand": 1})
    assert max(found.column("price").to_pylist()) < 12


def test_unknown_items_are_raised_warned_about_or_ignored(
    recommender: Recommender, ids: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UnknownItemError, match=r"history 1: 1 ids are not in the catalogue of 80 items, for example 'nope'"):
        recommender.recommend([ids[:1], [ids[0], "nope"]])
    known = recommender.recommend([[ids[0]]], k=3)
    with caplog.at_level(logging.WARNING):
        assert recommender.recommend([[ids[0], "nope"]], k=3, unsupported="warn") == known
    assert "'nope'" in caplog.text
    caplog.clear()
    assert recommender.recommend([[ids[0], "nope"]], k=3, unsupported="ignore") == known
    assert not caplog.text
    with pytest.raises(UnknownItemError, match="exclude_item_ids"):
        recommender.recommend([[]], exclude_item_ids=["nope"])


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        (["a", "b"], r"For one user write recommend\(\[\[...\]\]\)"),
        ("abc", "histories must be a list of histories"),
        ([None], "got None inside the list"),
        (5, "histories must be a list of histories"),
        ([[None]], "got an empty one"),
        ([[float("nan")]], "got an empty one"),
    ],
)
def test_mistakes_in_histories_are_explained(recommender: Recommender, histories: object, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        recommender.recommend(histories)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be an integer"),
        ({"k": 21, "beam_width": 20}, "k must be at most the smallest beam_width, 20, got 21"),
        ({"beam_width": [20]}, "a list of 4, one per level"),
        ({"beam_width": 0}, "beam_width must be a whole number of at least 1"),
        ({"wher": "price < 5"}, "There is no argument 'wher'. Did you mean 'where'"),
        ({"where": "pric < 5"}, "no column 'pric'. Did you mean 'price'"),
        ({"filters": ["chep"]}, "There is no filter 'chep'"),
        ({"filters": "cheap"}, r"filters must be a list of names, got the text 'cheap'. Write \['cheap'\]"),
        ({"max_per": {"brnd": 2}}, "max_per names the column 'brnd'. Did you mean 'brand'"),
        ({"max_per": {"brand": 0}}, "must be an integer of at least 1"),
        ({"max_per_prefix": {9: 1}}, "must be an integer from 1 to 4"),
        ({"max_per": ["brand"]}, "max_per must be a mapping such as"),
        ({"max_per_prefix": 3}, "max_per_prefix must be a mapping such as"),
        ({"filters": 3}, "filters must be a list of names, got 3"),
        ({"filters": [["a"]]}, "filters must be a list of names"),
        ({"exclude_item_ids": None}, "exclude_item_ids must be a list of item ids, got None"),
        ({"only_item_ids": 3}, "only_item_ids must be a list of item ids, got 3"),
        ({"exclude_item_ids": [["a"]]}, "each a text or a whole number"),
        ({"exclude_seen": "no"}, "exclude_seen must be True, False or None, got 'no'"),
        ({"unsupported": "skip"}, "unsupported must be one of"),
        ({"only_item_ids": "a"}, "only_item_ids must be a list of item ids"),
    ],
)
def test_impossible_arguments_are_explained(recommender: Recommender, arguments: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        recommender.recommend([[]], **arguments)


def test_tables_in_tables_out(recommender: Recommender, shop: tuple[Catalogue, Interactions]) -> None:
    events = shop[1].table.slice(0, 50)
    arrow = recommender.recommend_df(events, k=3)
    frame = recommender.recommend_df(events.to_pandas(), k=3)
    assert isinstance(arrow, pa.Table)
    assert isinstance(frame, pd.DataFrame)
    assert arrow.column_names[:4] == ["user_id", "rank", "item_id", "score"]
    pd.testing.assert_frame_equal(arrow.to_pandas(), frame)
    users = list(dict.fromkeys(events.column("user_id").to_pylist()))
    assert list(dict.fromkeys(frame["user_id"])) == users
    assert (frame.groupby("user_id")["rank"].apply(list).apply(lambda r: r == [1, 2, 3])).all()
    history = shop[1].histories(shop[0])
    [alone] = recommender.recommend([shop[0].item_ids[events_of(events, users[0], shop[0])].tolist()], k=3)
    assert frame[frame["user_id"] == users[0]]["item_id"].tolist() == [i.item_id for i in alone]
    assert len(history) > 0


def events_of(events: pa.Table, user: str, catalogue: Catalogue) -> np.ndarray:
    histories = Interactions.from_table(events).histories(catalogue)
    return histories[histories.user_ids.tolist().index(user)]


def test_a_user_of_unknown_items_only_is_answered_like_a_new_one(recommender: Recommender, ids: list[str]) -> None:
    events = pa.table({"user_id": ["u", "v", "w"], "item_id": [ids[0], "nope", ids[1]]})
    table = recommender.recommend_df(events, k=2, unsupported="ignore")
    assert table.column("user_id").to_pylist() == ["u", "u", "v", "v", "w", "w"]
    [new] = recommender.recommend([[]], k=2)
    assert table.column("item_id").to_pylist()[2:4] == [i.item_id for i in new]


def test_a_table_of_strangers_or_of_nothing_is_an_error(recommender: Recommender) -> None:
    strangers = pa.table({"user_id": ["u"], "item_id": ["nope"]})
    with pytest.raises(UnknownItemError, match="events: 1 ids"):
        recommender.recommend_df(strangers)
    with pytest.raises(DataError, match="No event names an item"):
        recommender.recommend_df(strangers, unsupported="ignore")
    with pytest.raises(DataError, match="must have a column 'item_id'"):
        recommender.recommend_df(pa.table({"user_id": ["u"]}))
    with pytest.raises(SettingError, match="pandas DataFrame or an Arrow table, got list"):
        recommender.recommend_df([["a"]])
