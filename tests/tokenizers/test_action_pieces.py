"""ActionPiece: nothing is lost, what is learned is what stands together most, and company changes the spelling."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.data.interactions import Histories
from genrec.errors import DataError, SettingError
from genrec.tokenizers.action_pieces import ActionPieces, _apply, _nodes, _weights, ensemble

SIZES = (4, 4, 4)


def catalogue(seed: int = 0, items: int = 20) -> np.ndarray:
    """Codes of items that all differ: [items, 3]."""
    every = np.stack(np.unravel_index(np.arange(64), SIZES), axis=1)
    return every[np.random.default_rng(seed).permutation(64)[:items]]


def histories(seed: int = 0, users: int = 60, items: int = 20) -> Histories:
    random = np.random.default_rng(seed)
    return Histories.from_lists([random.integers(0, items, random.integers(1, 7)) for _ in range(users)])


@pytest.fixture(scope="module")
def pieces() -> ActionPieces:
    return ActionPieces(vocabulary=80).fit(catalogue(), SIZES, histories())


def held(codes: np.ndarray) -> Counter[tuple[int, int]]:
    return Counter((level, int(code)) for item in codes for level, code in enumerate(item))


def test_an_item_alone_is_its_features_again(pieces: ActionPieces) -> None:
    for item in catalogue():
        found = pieces.features(pieces.encode(item[None]))
        assert sorted(found) == [(level, int(code)) for level, code in enumerate(item)]


@given(history=st.lists(st.integers(0, 19), max_size=12), seed=st.none() | st.integers(0, 2**31))
def test_a_history_keeps_all_its_features_however_it_is_shuffled(
    pieces: ActionPieces, history: list[int], seed: int | None
) -> None:
    codes = catalogue()[history].reshape(-1, 3)
    tokens = pieces.encode(codes, None if seed is None else np.random.default_rng(seed))
    assert Counter(pieces.features(tokens)) == held(codes)


def test_the_first_merge_is_the_pair_that_weighs_most() -> None:
    # Two items of three features, tokens 0 4 8 and 1 5 9. Inside an item every pair weighs 2/3, across neighbours 1/9.
    codes = np.array([[0, 0, 0], [1, 1, 1]])
    assert _weights(_nodes([[0, 4, 8], [1, 5, 9]]), 3) == {
        **dict.fromkeys([(0, 4), (0, 8), (4, 8), (1, 5), (1, 9), (5, 9)], 36 * 2 // 3),
        **dict.fromkeys([(0, 1), (0, 5), (0, 9), (1, 4), (4, 5), (4, 9), (1, 8), (5, 8), (8, 9)], 36 // 9),
    }
    learned = ActionPieces(13).fit(codes, SIZES, Histories.from_lists([[0, 1], [1]]))
    assert learned.merges == [(1, 5)], "the second item is there twice; of its pairs the one of the smaller tokens"


def test_neighbours_may_weigh_more_than_what_is_inside() -> None:
    codes = np.array([[0], [1]])  # items of one feature have no pairs inside
    learned = ActionPieces(3 + 1).fit(codes, (3,), Histories.from_lists([[0, 1, 0], [1, 0]]))
    assert learned.merges == [(0, 1)]
    assert learned.encode(codes[[0, 1, 0]]) == [3, 0], "the first two share the slot between them"
    assert learned.encode(codes[[0, 0]]) == [0, 0]


def test_a_slot_takes_in_what_stands_beside_it() -> None:
    codes = np.array([[0], [1], [2]])
    learned = ActionPieces(5).fit(codes, (3,), Histories.from_lists([[0, 1, 2], [0, 1, 2], [0, 1]]))
    assert learned.merges == [(0, 1), (2, 3)]
    assert learned.encode(codes) == [4]
    assert learned.features([4]) == [(0, 2), (0, 0), (0, 1)]


def test_company_changes_how_an_item_is_written(pieces: ActionPieces) -> None:
    codes = catalogue()
    alone = {item: set(pieces.encode(codes[[item]])) for item in range(20)}
    pairs = [(a, b) for a in range(20) for b in range(20) if a != b]
    assert any(not alone[a] <= set(pieces.encode(codes[[a, b]])) for a, b in pairs)


def test_shuffles_write_one_history_in_many_ways(pieces: ActionPieces) -> None:
    codes = catalogue()[[3, 1, 4, 1, 5]]
    assert len({tuple(pieces.encode(codes, np.random.default_rng(seed))) for seed in range(20)}) > 1
    assert pieces.encode(codes, np.random.default_rng(3)) == pieces.encode(codes, np.random.default_rng(3))
    assert pieces.encode(codes) == pieces.encode(codes)


def test_merges_make_histories_shorter(pieces: ActionPieces) -> None:
    train = histories()
    written = [len(pieces.encode(catalogue()[history])) for history in train]
    assert sum(written) < 0.7 * 3 * sum(len(history) for history in train)


def test_saving_and_loading_changes_nothing(pieces: ActionPieces, tmp_path: Path) -> None:
    pieces.save(tmp_path / "pieces.json")
    loaded = ActionPieces.load(tmp_path / "pieces.json")
    assert loaded.encode(catalogue()) == pieces.encode(catalogue())
    random = [np.random.default_rng(0), np.random.default_rng(0)]
    assert loaded.encode(catalogue(), random[0]) == pieces.encode(catalogue(), random[1])


def test_users_in_another_order_teach_the_same_merges(pieces: ActionPieces) -> None:
    train = histories().to_lists()
    shuffled = Histories.from_lists([train[user] for user in np.random.default_rng(1).permutation(len(train))])
    assert ActionPieces(80).fit(catalogue(), SIZES, shuffled).merges == pieces.merges


def test_learning_step_by_step_is_learning_from_scratch(pieces: ActionPieces) -> None:
    """The counts are kept up to date: each merge is the heaviest pair of histories written with the merges before it."""
    codes, train = catalogue(), histories()
    for known in (0, 5, 20, 60):
        weights: Counter[tuple[int, int]] = Counter()

        for history in train:
            nodes = _nodes((codes[history] + np.array([0, 4, 8])).tolist())
            for number, pair in enumerate(pieces.merges[:known]):
                nodes = _apply(nodes, pair, 12 + number)
            weights.update(_weights(nodes, 3))
        assert pieces.merges[known] == min(weights, key=lambda pair: (-weights[pair], pair))


def test_items_with_the_same_codes_are_refused() -> None:
    with pytest.raises(DataError, match="Some items have the same codes"):
        ActionPieces(20).fit(np.array([[0, 0, 0], [0, 0, 0]]), SIZES, Histories.from_lists([[0, 1]]))


def test_wrong_input_says_what_is_wrong(pieces: ActionPieces) -> None:
    with pytest.raises(SettingError, match="above the number of codes, 12, got 12"):
        ActionPieces(12).fit(catalogue(), SIZES, histories())
    with pytest.raises(SettingError, match="must be fitted first"):
        ActionPieces(20).encode(catalogue())
    with pytest.raises(DataError, match="values below"):
        pieces.encode(np.array([[0, 0, 4]]))
    with pytest.raises(DataError, match="whole numbers below 80, got 80"):
        pieces.features([80])


def test_without_histories_nothing_is_merged() -> None:
    learned = ActionPieces(20).fit(catalogue(), SIZES, Histories.from_lists([]))
    assert learned.merges == []
    assert sorted(learned.encode(catalogue()[:1])) == sorted((catalogue()[0] + np.array([0, 4, 8])).tolist())


def test_an_ensemble_of_one_is_that_ranking_and_of_several_adds_gains() -> None:
    one = np.array([[[5, 2, 7]]])
    rows, scores = ensemble(one)
    assert rows.tolist() == [[5, 2, 7]]
    np.testing.assert_allclose(scores[0], [1.0, 1 / np.log2(3), 0.5])
    rows, scores = ensemble(np.array([[[5, 2, 7]], [[2, 5, -1]], [[9, 2, 5]]]))
    np.testing.assert_allclose(scores[0], [2 / np.log2(3) + 1, 1 + 1 / np.log2(3) + 0.5, 1.0])
    assert rows.tolist() == [[2, 5, 9]]
