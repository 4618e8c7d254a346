"""Our metrics beside those of others: trec_eval (through ir-measures) and scikit-learn; ranx: benchmarks/ranking_speed.py.

The references take scores. trec_eval puts the last name first among equal scores, so with names that fall as catalogue rows
rise it has our rule, the catalogue's order; elsewhere scores fall strictly.
"""

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, R, Success, nDCG
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from genrec.data.interactions import Histories
from genrec.evaluation.baselines.popularity import Popularity
from genrec.evaluation.metrics import METRICS, hit_positions
from genrec.evaluation.ranking import places, top, top_of_each

Rankings = tuple[np.ndarray, np.ndarray]


@st.composite
def rankings(draw: st.DrawFn) -> Rankings:
    """Lists of different items with empty places at the end [M, k], and targets [M], some of them in no list."""
    questions, items, k = draw(st.integers(1, 12)), draw(st.integers(1, 30)), draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = np.full((questions, k), -1)
    for line in rows:
        length = random.integers(0, min(k, items) + 1)
        line[:length] = random.permutation(items)[:length]
    return rows, random.integers(0, items, questions)


def as_run(rows: np.ndarray, targets: np.ndarray) -> tuple[dict, dict]:
    """What trec_eval reads: answers, and falling scores. An item of no catalogue stands in for an empty list."""
    answers = {f"q{i}": {f"i{target}": 1} for i, target in enumerate(targets)}
    run = {
        f"q{i}": {f"i{item}": float(len(line) - place) for place, item in enumerate(line) if item >= 0} or {"none": 0.0}
        for i, line in enumerate(rows)
    }
    return answers, run


def assert_equal_to_trec_eval(positions: np.ndarray, k: int, answers: dict, run: dict, ties: bool = False) -> None:
    # RR with a cut is not trec_eval's but MS MARCO's script's, which orders ties the other way. AP is RR with one answer.
    theirs = {"recall": R @ k, "ndcg": nDCG @ k, "mrr": AP @ k if ties else RR @ k, "map": AP @ k, "hit_rate": Success @ k}
    assert set(theirs) == set(METRICS)
    found = {(str(one.measure), one.query_id): one.value for one in ir_measures.iter_calc(theirs.values(), answers, run)}
    for name, measure in theirs.items():
        expected = [found[str(measure), f"q{i}"] for i in range(len(positions))]
        np.testing.assert_allclose(METRICS[name](positions, k), expected, rtol=0, atol=1e-9)


@settings(deadline=None)
@given(rankings(), st.integers(1, 12))
def test_every_metric_equals_trec_evals_question_by_question(ranked: Rankings, k: int) -> None:
    assert_equal_to_trec_eval(hit_positions(*ranked), k, *as_run(*ranked))


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(2, 30), st.integers(0, 3), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_every_metric_equals_trec_evals_on_rankings_with_ties(
    questions: int, items: int, highest: int, k: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    scores, targets = (
        random.integers(0, highest + 1, (questions, items)).astype(np.float32),
        random.integers(0, items, questions),
    )
    positions = hit_positions(top_of_each(scores, items)[0], targets)
    names = [f"i{items - row:02}" for row in range(items)]
    answers = {f"q{i}": {names[target]: 1} for i, target in enumerate(targets)}
    run = {f"q{i}": dict(zip(names, line.tolist(), strict=True)) for i, line in enumerate(scores)}
    assert_equal_to_trec_eval(positions, k, answers, run, ties=True)


@given(st.integers(2, 30), st.integers(1, 30), st.integers(0, 10**6))
def test_ndcg_and_mrr_equal_scikit_learns(items: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, target = random.permutation(items).astype(float), int(random.integers(items))
    truth = np.zeros((1, items))
    truth[0, target] = 1
    order = np.argsort(-scores)[None]
    cut = hit_positions(order[:, :k], np.array([target]))
    np.testing.assert_allclose(METRICS["ndcg"](cut, k)[0], ndcg_score(truth, scores[None], k=k), rtol=0, atol=1e-9)
    whole = METRICS["mrr"](hit_positions(order, np.array([target])), items)[0]
    assert whole == pytest.approx(label_ranking_average_precision_score(truth, scores[None]), abs=1e-9)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=12), st.data())
def test_equal_scores_are_ordered_by_catalogue_row_wherever_a_place_is_counted(scores: list[int], data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(scores) - 1))
    above = sum(score > scores[target] for score in scores)
    before = sum(score == scores[target] for score in scores[:target])
    line = np.array(scores, float)
    assert places(line[None], np.array([target])).tolist() == [above + before]
    assert hit_positions(top(line, len(line))[None], np.array([target])).tolist() == [above + before]


def test_a_ranker_whose_scores_all_tie_gets_the_metrics_of_the_catalogues_order() -> None:
    nobody = Histories.from_lists([[]] * 4)
    rows, scores = Popularity().fit(nobody, 4).rank(nobody, 4, exclude_seen=False)
    assert (scores == 0).all()
    assert METRICS["mrr"](hit_positions(rows, np.arange(4)), 3).tolist() == [1, 1 / 2, 1 / 3, 0]
