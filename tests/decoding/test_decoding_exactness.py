"""Decoding against brute force: hypothesis chooses catalogue, depth, beam and filters."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data.interactions import Histories
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.ranker import BeamRanker
from genrec.models.decoder import ModelConfig, build_decoder

ALL = 4096  # a beam wider than any catalogue here


def make_ranker(sizes: tuple[int, ...], codes: np.ndarray, seed: int) -> BeamRanker:
    """A random model whose probabilities are far from uniform, so that wrong ones show."""
    torch.manual_seed(seed)
    config = ModelConfig(hidden_size=16, layers=2, heads=2, feed_forward=32, dropout=0.0)
    model, layout = build_decoder(config, sizes, max_tokens=64)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return BeamRanker(model, layout, CatalogueIndex.build(codes, sizes), layout.to_tokens(codes), ALL, max_history=6)


def brute_force(ranker: BeamRanker, history: np.ndarray) -> np.ndarray:
    """log P(codes | history) of every item, one full forward pass each, full softmax: [N]."""
    scores = []
    with torch.no_grad():
        for target in ranker.item_tokens:
            past = [ranker.layout.start, *ranker.item_tokens[history].reshape(-1)]
            logits = ranker.model(torch.tensor([[*past, *target]])).logits[0].double()
            steps = logits.log_softmax(-1)[len(past) - 1 : -1]
            scores.append(float(steps[torch.arange(len(target)), torch.tensor(target)].sum()))
    return np.array(scores)


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[tuple[int, ...], np.ndarray]:
    sizes = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    items = draw(st.integers(1, 24))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    return sizes, random.integers(0, sizes, (items, len(sizes)))


def histories_for(draw: st.DrawFn, items: int) -> list[np.ndarray]:
    lists = draw(st.lists(st.lists(st.integers(0, items - 1), max_size=6), min_size=1, max_size=4))
    return [np.array(h, np.int64) for h in lists]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_wide_beam_equals_scoring_the_whole_catalogue(data: st.DataObject) -> None:
    sizes, codes = data.draw(catalogues())
    ranker = make_ranker(sizes, codes, data.draw(st.integers(0, 99)))
    histories = histories_for(data.draw, len(codes))
    rows, scores = ranker.rank(Histories.from_lists(histories), len(codes), exclude_seen=False)
    for history, found, found_scores in zip(histories, rows, scores, strict=True):
        exact = brute_force(ranker, history)
        assert sorted(found) == list(range(len(codes))), "every item comes back exactly once"
        np.testing.assert_allclose(found_scores, exact[found], atol=1e-4)
        assert (np.diff(found_scores) <= 0).all(), "best first"


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_filters_inside_the_search_equal_filtering_the_exact_ranking(data: st.DataObject) -> None:
    sizes, codes = data.draw(catalogues())
    ranker = make_ranker(sizes, codes, data.draw(st.integers(0, 99)))
    histories = histories_for(data.draw, len(codes))
    rows_of = st.lists(st.integers(0, len(codes) - 1), max_size=len(codes))
    only, excluded = data.draw(st.none() | rows_of), data.draw(rows_of)
    rows, scores = ranker.rank(
        Histories.from_lists(histories), len(codes), exclude_seen=True,
        only_rows=None if only is None else np.array(only, np.int64), excluded_rows=np.array(excluded, np.int64),
    )  # fmt: skip
    for history, found, found_scores in zip(histories, rows, scores, strict=True):
        allowed = set(range(len(codes)) if only is None else only) - set(excluded) - set(history.tolist())
        returned = found[found >= 0]
        assert set(returned) == allowed
        assert len(returned) == len(allowed), "no item twice"
        np.testing.assert_allclose(found_scores[found >= 0], brute_force(ranker, history)[returned], atol=1e-4)
        assert np.isneginf(found_scores[found < 0]).all()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_narrow_beam_still_fills_the_list_with_allowed_items(data: st.DataObject) -> None:
    sizes, codes = data.draw(catalogues())
    ranker = make_ranker(sizes, codes, data.draw(st.integers(0, 99)))
    history = histories_for(data.draw, len(codes))[:1]
    width = data.draw(st.integers(1, 8))
    k = data.draw(st.integers(1, width))
    only = np.array(data.draw(st.lists(st.integers(0, len(codes) - 1), max_size=4)), np.int64)
    rows, scores = ranker.rank(Histories.from_lists(history), k, exclude_seen=True, only_rows=only, beam_width=width)
    allowed = set(only.tolist()) - set(history[0].tolist())
    found = rows[0][rows[0] >= 0]
    assert len(found) == min(k, len(allowed))
    assert set(found) <= allowed
    np.testing.assert_allclose(scores[0][rows[0] >= 0], brute_force(ranker, history[0])[found], atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_an_answer_does_not_depend_on_who_else_is_asked_about(data: st.DataObject) -> None:
    sizes, codes = data.draw(catalogues())
    ranker = make_ranker(sizes, codes, data.draw(st.integers(0, 99)))
    histories = histories_for(data.draw, len(codes))
    k = min(3, len(codes))
    together = ranker.rank(Histories.from_lists(histories), k, exclude_seen=True, beam_width=5)
    for user, history in enumerate(histories):
        alone = ranker.rank(Histories.from_lists([history]), k, exclude_seen=True, beam_width=5)
        np.testing.assert_allclose(alone[1][0], together[1][user], atol=1e-4)


def test_probabilities_of_a_complete_code_space_sum_to_what_the_code_tokens_hold() -> None:
    sizes = (3, 4)
    codes = np.array([[a, b] for a in range(3) for b in range(4)])
    ranker = make_ranker(sizes, codes, 0)
    _, scores = ranker.rank(Histories.from_lists([[1, 5]]), 12, exclude_seen=False)
    total = float(np.exp(scores).sum())
    assert 0 < total < 1, "scores are not renormalised over the catalogue: other tokens keep their share"


def test_history_beyond_what_the_model_reads_is_still_masked() -> None:
    ranker = make_ranker((4, 4), np.array([[a, b] for a in range(4) for b in range(4)]), 1)
    history = np.arange(12)  # max_history is 6
    rows, _ = ranker.rank(Histories.from_lists([history]), 10, exclude_seen=True)
    assert set(rows[0][rows[0] >= 0]) == {12, 13, 14, 15}
