"""Fusion: the score is the formula's, a probability, and every rule holds as without it."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_pass_worlds import COUNT, METHODS, world
from worlds import brute_force, make_ranker

from genrec.data.interactions import Histories
from genrec.decoding.diversity import Cap, Groups
from genrec.decoding.fusion import Fusion, FusionWeights
from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.scorer import load_scorer, over_rows, save_scorer
from genrec.decoding.snapshot import Query, Rules, Snapshot
from genrec.errors import SettingError

CHOSEN = FusionWeights(power=0.5, weights={"cooccurrence": 0.6, "texts": 0.2}, decay=0.7, latest=3)


def matrices(seed: int = 0) -> dict[str, sp.csr_matrix]:
    """Sparse votes; item 1 calls for nothing."""
    random = np.random.default_rng(seed)
    found = {}
    for name in CHOSEN.weights:
        dense = random.random((COUNT, COUNT)) * (random.random((COUNT, COUNT)) < 0.3)
        dense[1] = 0
        found[name] = sp.csr_matrix(dense.astype(np.float32))
    return found


def fused(method: str, seed: int = 0, chosen: FusionWeights = CHOSEN) -> OnePassRanker:
    ranker = world(method, seed)
    ranker.fusion = Fusion(matrices(seed), chosen)
    return ranker


def by_hand(method: str, history: list[int], seed: int = 0) -> np.ndarray:
    """log of each item's share of s: [R]."""
    log_probs = world(method, seed).log_probs([np.array(history, np.int64)])[0].astype(np.float64)
    s = np.exp(CHOSEN.power * (log_probs - log_probs.max()))
    for name, matrix in matrices(seed).items():
        votes = np.zeros(COUNT)
        for steps, item in enumerate(reversed(history)):
            votes += CHOSEN.decay**steps * matrix.toarray()[item] if steps < CHOSEN.latest else 0
        s += CHOSEN.weights[name] * votes / (votes.max() or 1)
    return np.log(s / s.sum())


@given(st.sampled_from(["composed", "rpg", "h2rec"]), st.integers(0, 20), st.data())
def test_the_answer_is_the_formula_over_all_that_is_allowed(method: str, seed: int, data: st.DataObject) -> None:
    ranker = fused(method, seed)
    lists = data.draw(st.lists(st.lists(st.integers(0, COUNT - 1), max_size=6), min_size=1, max_size=4))
    only = data.draw(st.none() | st.sets(st.integers(0, COUNT - 1)))
    seen, k = data.draw(st.booleans()), data.draw(st.integers(1, 8))
    rules = Rules() if only is None else Rules.of(ranker.snapshot, np.array(sorted(only), np.int64))
    rows, scores = ranker.rank(Histories.from_lists(lists), k, seen, rules)
    for user, history in enumerate(lists):
        exact = by_hand(method, history, seed)
        allowed = sorted((set(range(COUNT)) if only is None else only) - (set(history) if seen else set()))
        found = rows[user][rows[user] >= 0]
        assert len(found) == min(k, len(allowed))
        np.testing.assert_allclose(scores[user, : len(found)], exact[found], atol=2e-4)
        np.testing.assert_allclose(exact[found], np.sort(exact[allowed])[::-1][:k], atol=2e-4)


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_sum_to_one_and_an_explanation_multiplies_to_the_score(method: str) -> None:
    ranker = fused(method)
    rows, scores = ranker.rank(Histories.from_lists([[1, 2], [], [3, 4, 5, 6, 7]]), COUNT, False)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-4)
    told = ranker.code_log_probs([np.array([1, 2])] * 5, rows[0, :5], ranker.snapshot)
    np.testing.assert_allclose(told.sum(axis=1), scores[0, :5], atol=1e-4)


def test_without_votes_and_with_power_one_nothing_changes() -> None:
    nothing = FusionWeights(power=1.0, weights={"cooccurrence": 0.0, "texts": 0.0}, decay=0.7, latest=3)
    histories = Histories.from_lists([[1, 2], [], [3]])
    rows, scores = world("composed").rank(histories, 6, True)
    same, same_scores = fused("composed", chosen=nothing).rank(histories, 6, True)
    np.testing.assert_array_equal(rows, same)
    np.testing.assert_allclose(scores, same_scores, atol=1e-4)


def test_an_item_of_no_probability_to_speak_of_keeps_its_place() -> None:
    fusion = Fusion(matrices(), CHOSEN)
    model = -1e6 * torch.arange(COUNT).float()[None]
    score = fusion.scores(
        lambda start, stop: model[:, start:stop], fusion.votes([np.array([1])]), torch.ones(COUNT, dtype=bool)
    )
    found = score(0, COUNT)[0]
    assert torch.isfinite(found).all()
    assert (found.diff() < 0).all()


def test_rows_that_came_after_the_fit_have_no_votes_and_call_for_nothing() -> None:
    """Row 0 came later; row r + 1 is what row r was in the fit."""
    fusion = Fusion(matrices(), CHOSEN)
    fitted = np.concatenate([[-1], np.arange(COUNT)])
    before = fusion.votes([np.array([2, 3])]).toarray()
    np.testing.assert_allclose(fusion.votes([np.array([3, 4])], fitted).toarray(), before)
    np.testing.assert_allclose(fusion.votes([np.array([0, 3, 4])], fitted).toarray(), before)
    assert not fusion.votes([np.array([0])], fitted).nnz

    ranker = world("rpg")
    codes = np.concatenate([ranker.snapshot.codes[:1], ranker.snapshot.codes])
    own = Snapshot.of(codes, ranker.layout.sizes)
    ranker.fusion = fusion
    rows, scores = ranker.answer(
        [Query(np.array([3, 4]), COUNT + 1, (), False)], Snapshot(own.index, own.codes, np.ones(COUNT + 1, bool), None, fitted)
    )[0]
    assert set(rows.tolist()) == set(range(COUNT + 1))
    assert np.isclose(np.exp(scores).sum(), 1, atol=1e-4)


WITH_ONE_PASS = FusionWeights(0.5, CHOSEN.weights | {"one-pass": 0.8}, CHOSEN.decay, CHOSEN.latest)


def fused_beam(scorer: OnePassRanker | None = None) -> BeamRanker:
    """A language model with a beam wider than the catalogue, so that every item is a candidate."""
    ranker = make_ranker((5, 4), np.random.default_rng(3).integers(0, (5, 4), (COUNT, 2)))
    ranker.fusion = Fusion(matrices(), CHOSEN if scorer is None else WITH_ONE_PASS, scorer)
    return ranker


@pytest.mark.parametrize("with_one_pass", [False, True])
@given(st.data())
@settings(max_examples=20)
def test_a_beam_generates_and_the_formula_puts_its_candidates_in_order(with_one_pass: bool, data: st.DataObject) -> None:
    scorer = world("composed") if with_one_pass else None
    ranker = fused_beam(scorer)
    history = np.array(data.draw(st.lists(st.integers(0, COUNT - 1), max_size=5)), np.int64)
    only = data.draw(st.none() | st.sets(st.integers(0, COUNT - 1)))
    k, seen = data.draw(st.integers(1, 8)), data.draw(st.booleans())
    rules = Rules() if only is None else Rules.of(ranker.snapshot, np.array(sorted(only), np.int64))
    allowed = sorted((set(range(COUNT)) if only is None else only) - (set(history.tolist()) if seen else set()))
    log_probs = brute_force(ranker, history)[allowed]
    expected = np.exp(0.5 * (log_probs - log_probs.max(initial=-np.inf)))
    expected += Fusion(matrices(), CHOSEN).votes([history]).toarray()[0, allowed]
    if scorer is not None:
        ours = scorer.log_probs([history])[0]
        expected += 0.8 * np.exp(0.5 * (ours - ours.max()))[allowed]
    [(rows, scores)] = ranker.answer([Query(history, k, (COUNT, COUNT), seen, rules)])
    assert len(rows) == min(k, len(allowed))
    assert set(rows.tolist()) <= set(allowed)
    logs = dict(zip(allowed, np.log(expected / expected.sum()), strict=True))
    np.testing.assert_allclose(scores, [logs[row] for row in rows.tolist()], atol=2e-4)
    np.testing.assert_allclose(scores, np.sort(list(logs.values()))[::-1][:k], atol=2e-4)


def test_caps_and_neighbours_in_the_batch_do_not_change_what_a_fused_beam_finds() -> None:
    ranker = fused_beam()
    caps = (Cap(Groups.of_prefix(ranker.snapshot.codes, 1), 1),)
    histories = [np.array([1, 2]), np.zeros(0, np.int64), np.array([7])]
    queries = [
        Query(histories[0], 3, (20, 20), True),
        Query(histories[1], 5, (4, 6), False),  # narrower than its neighbours
        Query(histories[2], 4, (20, 20), True, Rules(caps=caps)),
    ]
    together = ranker.answer(queries)
    for query, (rows, scores) in zip(queries, together, strict=True):
        [(alone, own)] = ranker.answer([query])
        assert rows.tolist() == alone.tolist()
        np.testing.assert_allclose(scores, own, atol=1e-4)
    firsts = ranker.snapshot.codes[together[2][0], 0]
    assert len(set(firsts.tolist())) == len(firsts) == 4


def test_a_scorer_that_was_saved_says_the_same_over_the_rows_of_another_catalogue(tmp_path: Path) -> None:
    ranker = world("composed")
    rows = np.random.default_rng(5).permutation(COUNT)
    other = over_rows(ranker, rows)
    save_scorer(other, tmp_path / "scorer")
    read = load_scorer(tmp_path / "scorer", "cpu")
    history = np.array([2, 5, 7])
    expected = ranker.log_probs([rows[history]])[0][rows]
    for again in (other, read):
        np.testing.assert_allclose(again.log_probs([history])[0], expected, atol=1e-4)


def test_a_fusion_that_was_saved_is_the_same_when_read(tmp_path: Path) -> None:
    fusion = Fusion(matrices(), CHOSEN)
    fusion.save(tmp_path / "fusion.safetensors")
    read = Fusion.load(tmp_path / "fusion.safetensors")
    assert read.chosen == CHOSEN
    assert all((read.matrices[name] != matrix).nnz == 0 for name, matrix in fusion.matrices.items())


@pytest.mark.parametrize(
    "wrong",
    [
        {"power": 0.0},
        {"power": float("nan")},
        {"weights": {"texts": -1.0}},
        {"weights": {"fame": 1.0}},
        {"decay": 0.0},
        {"decay": 1.1},
        {"latest": 0},
    ],
)
def test_weights_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(SettingError):
        FusionWeights(**({"power": 0.5, "weights": {"texts": 0.1}, "decay": 0.7, "latest": 10} | wrong))
