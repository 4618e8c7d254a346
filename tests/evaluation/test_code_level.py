"""Code-level numbers: what counting alike items as hits gives away, to the digit; and that ours count items."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.codes import CodeTable
from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import SettingError
from genrec.evaluation.code_level import code_hit_positions, code_level, tokenizer_codes
from genrec.evaluation.evaluate import evaluate
from genrec.evaluation.metrics import hit_positions

CODES = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [1, 0], [1, 0]])  # items 0 1 | 2 | 3 4 5


class Prepared:
    """A ranker that was told its lists."""

    name = "prepared"

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        return self.rows[:, :k], np.zeros((len(self.rows), k), np.float32)


def test_the_first_item_with_the_codes_of_the_target_is_the_place() -> None:
    lists = np.array([[2, 1, 0], [3, 5, 4], [2, 0, -1], [-1, -1, -1], [4, 2, 5]])
    targets = np.array([0, 4, 2, 5, 1])
    assert code_hit_positions(lists, targets, CODES).tolist() == [1, 0, 0, -1, -1]
    assert hit_positions(lists, targets).tolist() == [2, 2, 0, -1, -1]


@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 3), st.integers(1, 3), st.integers(0, 10**6))
def test_code_hits_are_what_comparing_tuples_one_by_one_gives_and_never_below_item_hits(
    items: int, k: int, levels: int, sizes: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    codes = random.integers(0, sizes, (items, levels))
    lists = np.array([np.resize(np.append(random.permutation(items), -np.ones(k, int)), k) for _ in range(5)])
    targets = random.integers(0, items, 5)
    expected = [
        next((place for place, row in enumerate(line) if row >= 0 and (codes[row] == codes[target]).all()), -1)
        for line, target in zip(lists, targets, strict=True)
    ]
    got, ours = code_hit_positions(lists, targets, codes), hit_positions(lists, targets)
    assert got.tolist() == expected
    assert ((got >= 0) & (got <= ours))[ours >= 0].all()
    if len(np.unique(codes, axis=0)) == items:
        assert got.tolist() == ours.tolist()


def test_counting_alike_items_as_hits_differs_from_ours_by_exactly_what_was_planted() -> None:
    """Of 50 questions: 7 get only the target's twin, at the top; 5 the twin before the target; 10 the target; 28 neither."""
    target, twin, strangers = 3, 4, [0, 1, 2]
    lists = np.array([[twin, *strangers]] * 7 + [[twin, target, 0, 1]] * 5 + [[target, *strangers]] * 10 + [[0, 1, 2, -1]] * 28)
    asked = Targets(Histories.from_lists([[]] * 50), np.full(50, target))
    ours = evaluate(Prepared(lists), asked, ks=(4,), exclude_seen=(False,), progress=False).metrics["unmasked"]
    fooled = code_level(lists, asked.items, CODES, ks=(4,))
    second = 1 / np.log2(3)
    assert ours["recall@4"].mean == pytest.approx(15 / 50)
    assert ours["ndcg@4"].mean == pytest.approx((10 + 5 * second) / 50)
    assert fooled["code_recall@4"] - ours["recall@4"].mean == pytest.approx(7 / 50)
    assert fooled["code_ndcg@4"] - ours["ndcg@4"].mean == pytest.approx((7 + 5 * (1 - second)) / 50)
    assert (fooled["recall@4"], fooled["ndcg@4"]) == (ours["recall@4"].mean, ours["ndcg@4"].mean), "ours stands beside it"


def test_places_that_the_lists_do_not_have_are_refused() -> None:
    with pytest.raises(SettingError, match="ks must be an integer from 1 to 2, got 5"):
        code_level(np.array([[0, 1]]), np.array([0]), CODES)


@pytest.mark.parametrize(
    ("policy", "levels"),
    [("suffix", 1), ("popular-suffix", 1), ("id", 1), ("hash-16", 1), ("shared", 2), ("knn-5", 2), ("sinkhorn", 2)],
)
def test_a_code_that_the_policy_added_does_not_tell_items_apart(policy: str, levels: int) -> None:
    table = CodeTable(np.array(["a", "b", "c"], object), np.array([[0, 0], [0, 1], [1, 0]]), (2, 2), policy, "t")
    assert tokenizer_codes(table).tolist() == table.codes[:, :levels].tolist()
