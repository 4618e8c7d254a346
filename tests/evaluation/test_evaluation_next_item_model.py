"""The small sequence model learns planted rules from every representation, and ranks as every ranker does."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError
from genrec.evaluation import next_item_model
from genrec.evaluation.evaluate import evaluate
from genrec.evaluation.next_item_model import NextItemConfig, NextItemModel, windows
from genrec.evaluation.representations import Representation

ITEMS = 30
CODES = np.column_stack([np.arange(ITEMS) // 6, np.arange(ITEMS) % 6])
VECTORS = np.random.default_rng(0).standard_normal((ITEMS, 12))
FORMS = [
    Representation("unique id", ITEMS),
    Representation("vector", ITEMS, vectors=VECTORS),
    Representation("semantic id", ITEMS, codes=CODES, sizes=(5, 6)),
]
QUICK = NextItemConfig(width=16, layers=1, history=5, epochs=40, batch_size=32, learning_rate=1e-2, dropout=0.0)


def chains(users: int, seed: int) -> Histories:
    """The planted rule: after item n comes n + 7, whoever the user is."""
    random = np.random.default_rng(seed)
    starts, lengths = random.integers(0, ITEMS, users), random.integers(3, 9, users)
    return Histories.from_lists(
        [(start + 7 * np.arange(length)) % ITEMS for start, length in zip(starts, lengths, strict=True)]
    )


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_representation_learns_which_item_comes_next(form: Representation) -> None:
    ranker = NextItemModel(form, QUICK).fit(chains(200, seed=1))
    histories = chains(100, seed=2)
    asked = Targets(histories, np.array([(history[-1] + 7) % ITEMS for history in histories.to_lists()]))
    result = evaluate(ranker, asked, ks=(1,), exclude_seen=(False,), progress=False)
    assert result.metrics["unmasked"]["recall@1"].mean > 0.9
    assert result.name == form.name


def test_a_state_knows_nothing_of_what_comes_later_and_padding_changes_no_state() -> None:
    network = NextItemModel(FORMS[0], QUICK).fit(chains(20, seed=1)).network
    with torch.no_grad():
        one, two = network(torch.tensor([[1, 2, 3, 4]])), network(torch.tensor([[1, 2, 9, -1]]))
    torch.testing.assert_close(one[:, :2], two[:, :2])
    assert not torch.allclose(one[:, 2], two[:, 2])


@pytest.fixture(scope="module")
def ranker() -> NextItemModel:
    return NextItemModel(FORMS[2], replace(QUICK, epochs=2)).fit(chains(60, seed=1))


def test_a_masked_ranking_holds_every_other_item_once_best_first(ranker: NextItemModel) -> None:
    lists = [[0, 1, 2], [], list(range(ITEMS))]
    rows, scores = ranker.rank(Histories.from_lists(lists), ITEMS, exclude_seen=True)
    for history, found, values in zip(lists, rows, scores, strict=True):
        assert sorted(found[found >= 0]) == sorted(set(range(ITEMS)) - set(history))
        assert (np.diff(values[found >= 0]) <= 0).all()
        assert np.isneginf(values[found < 0]).all()
    assert rows[1].tolist() == list(range(ITEMS)), "nothing is known: the catalogue's order"
    assert ranker.rank(Histories.from_lists([]), 3, exclude_seen=True)[0].shape == (0, 3)


def test_other_batches_and_the_order_of_users_give_the_same_ranking(
    ranker: NextItemModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = chains(20, seed=3)
    rows, scores = ranker.rank(histories, 5, exclude_seen=True)
    monkeypatch.setattr(next_item_model, "CELLS", 3 * ITEMS)
    again, scores_again = ranker.rank(histories, 5, exclude_seen=True)
    np.testing.assert_array_equal(rows, again)
    np.testing.assert_allclose(scores, scores_again, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_model_whatever_the_order_of_users() -> None:
    train, config = chains(40, seed=1), replace(QUICK, epochs=2, dropout=0.3)
    order = np.random.default_rng(0).permutation(40)
    _, one = NextItemModel(FORMS[0], config).fit(train).rank(train, 3, exclude_seen=True)
    _, two = NextItemModel(FORMS[0], config).fit(train.select(order)).rank(train, 3, exclude_seen=True)
    _, other = NextItemModel(FORMS[0], replace(config, seed=1)).fit(train).rank(train, 3, exclude_seen=True)
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)


@given(st.lists(st.lists(st.integers(0, 99), max_size=20), max_size=5), st.integers(1, 6))
def test_windows_ask_for_every_item_but_the_first_once_with_what_stood_before_it(lists: list[list[int]], history: int) -> None:
    rows = windows(Histories.from_lists(lists), history)
    pairs = [(int(a), int(b)) for row in rows for a, b in itertools.pairwise(row) if b >= 0]
    expected = [(a, b) for items in lists for a, b in itertools.pairwise(items)]
    assert sorted(pairs) == sorted(expected)
    assert rows.shape[1] <= history + 1


def test_what_cannot_be_learned_is_refused() -> None:
    with pytest.raises(DataError, match="no history has two items"):
        NextItemModel(FORMS[0], QUICK).fit(Histories.from_lists([[1], []]))
    with pytest.raises(DataError, match="0 to 29, got row 30"):
        NextItemModel(FORMS[0], QUICK).fit(Histories.from_lists([[1, 30]]))
    with pytest.raises(SettingError, match="multiple of heads"):
        NextItemConfig(width=5)
    with pytest.raises(SettingError, match="dropout"):
        NextItemConfig(dropout=1.0)
