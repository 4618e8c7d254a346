"""Decoding against brute force: hypothesis chooses catalogue, depth, model family, beam, filters, overlay and batch."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BartConfig, BartForConditionalGeneration
from worlds import (
    ALL,
    FAMILIES,
    MAX_HISTORY,
    assert_same_ranking,
    brute_force,
    catalogues,
    histories_for,
    make_model,
    make_ranker,
)

from genrec.data.interactions import Histories
from genrec.decoding.diversity import Cap, Groups
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.overlay import Overlay
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Query, Rules, Snapshot
from genrec.decoding.steps import Head
from genrec.decoding.trial import check_model
from genrec.errors import SettingError
from genrec.models.tokens import TokenLayout

property_test = settings(max_examples=40, deadline=None)


def overlaid(draw: st.DrawFn, codes: np.ndarray, sizes: tuple[int, ...]) -> Snapshot:
    """The same rows as an index, an overlay, or either with removed rows."""
    later = np.array(draw(st.lists(st.booleans(), min_size=len(codes), max_size=len(codes))))
    gone = np.array(draw(st.none() | st.lists(st.booleans(), min_size=len(codes), max_size=len(codes))))
    live = None if gone.ndim == 0 else ~gone
    rows = np.arange(len(codes))
    if later.all() or not later.any():
        return Snapshot(CatalogueIndex.build(codes, sizes), codes, live)
    base, delta = (CatalogueIndex.build(codes[part], sizes, rows=rows[part]) for part in (~later, later))
    return Snapshot(Overlay.join(base, delta), codes, live)


@pytest.mark.parametrize("family", FAMILIES)
@property_test
@given(data=st.data())
def test_a_wide_beam_equals_scoring_the_whole_catalogue(family: str, data: st.DataObject) -> None:
    sizes, codes = data.draw(catalogues())
    ranker = make_ranker(sizes, codes, data.draw(st.integers(0, 3)), family)
    histories = histories_for(data.draw, len(codes))
    rows, scores = ranker.rank(Histories.from_lists(histories), len(codes), exclude_seen=False)
    for history, found, found_scores in zip(histories, rows, scores, strict=True):
        assert_same_ranking(found, found_scores, brute_force(ranker, history), set(range(len(codes))))


@pytest.mark.parametrize("family", ["mt5", "umt5"])
def test_relatives_of_t5_equal_scoring_the_whole_catalogue_too(family: str) -> None:
    codes = np.random.default_rng(0).integers(0, (4, 5, 3), (30, 3))
    ranker = make_ranker((4, 5, 3), codes, 2, family)
    histories = [np.array([3, 4, 3, 9, 9, 1]), np.array([7]), np.zeros(0, np.int64)]
    rows, scores = ranker.rank(Histories.from_lists(histories), 30, exclude_seen=False)
    for history, found, found_scores in zip(histories, rows, scores, strict=True):
        assert_same_ranking(found, found_scores, brute_force(ranker, history), set(range(30)))


def test_an_encoder_decoder_with_absolute_positions_is_refused() -> None:
    """The beams of a user stand side by side in one sequence: BART would take the second beam for a later part of the text."""
    bart = BartForConditionalGeneration(BartConfig(
        vocab_size=30, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64,
    ))  # fmt: skip
    with pytest.raises(SettingError, match=r"relative positions are decoded exactly \(t5, mt5, umt5\).*type 'bart'. Use a T5"):
        check_model(bart, 10)


@property_test
@given(st.data())
def test_filters_overlay_and_removals_equal_filtering_the_exact_ranking(data: st.DataObject) -> None:
    sizes, codes = data.draw(catalogues())
    snapshot = overlaid(data.draw, codes, sizes)
    ranker = make_ranker(sizes, codes, data.draw(st.integers(0, 3)), data.draw(st.sampled_from(FAMILIES)), snapshot)
    histories = histories_for(data.draw, len(codes))
    some_rows = st.lists(st.integers(0, len(codes) - 1), max_size=len(codes))
    only, excluded = data.draw(st.none() | some_rows), data.draw(some_rows)
    seen = data.draw(st.booleans())
    rules = Rules.of(snapshot, None if only is None else np.array(only, np.int64), np.array(excluded, np.int64))
    k = data.draw(st.integers(1, len(codes) + 3))
    rows, scores = ranker.rank(Histories.from_lists(histories), k, seen, rules)
    live = set(range(len(codes)) if snapshot.live is None else np.flatnonzero(snapshot.live).tolist())
    for history, found, found_scores in zip(histories, rows, scores, strict=True):
        allowed = (live if only is None else live & set(only)) - set(excluded) - (set(history.tolist()) if seen else set())
        assert (found >= 0).sum() == min(k, len(allowed))
        assert_same_ranking(found, found_scores, brute_force(ranker, history), allowed)


@property_test
@given(st.data())
def test_a_narrow_beam_still_fills_the_list_with_allowed_items(data: st.DataObject) -> None:
    sizes, codes = data.draw(catalogues())
    snapshot = overlaid(data.draw, codes, sizes)
    ranker = make_ranker(sizes, codes, data.draw(st.integers(0, 3)), data.draw(st.sampled_from(FAMILIES)), snapshot)
    history = histories_for(data.draw, len(codes))[:1]
    widths = data.draw(st.lists(st.integers(1, 8), min_size=len(sizes), max_size=len(sizes)))
    k = data.draw(st.integers(1, min(widths)))
    only = np.array(data.draw(st.lists(st.integers(0, len(codes) - 1), max_size=4)), np.int64)
    rules = Rules.of(snapshot, only)
    rows, scores = ranker.rank(Histories.from_lists(history), k, True, rules, beam_width=widths)
    live = set(range(len(codes)) if snapshot.live is None else np.flatnonzero(snapshot.live).tolist())
    allowed = (live & set(only.tolist())) - set(history[0].tolist())
    found = rows[0][rows[0] >= 0]
    assert len(found) == min(k, len(allowed))
    assert set(found.tolist()) <= allowed
    np.testing.assert_allclose(scores[0][rows[0] >= 0], brute_force(ranker, history[0])[found], atol=2e-4, rtol=5e-5)


@property_test
@given(st.data())
def test_a_rule_that_keeps_no_more_than_the_beam_is_answered_exactly(data: st.DataObject) -> None:
    sizes, codes = data.draw(catalogues(most=200))
    ranker = make_ranker(sizes, codes, data.draw(st.integers(0, 3)))
    only = np.unique(data.draw(st.lists(st.integers(0, len(codes) - 1), min_size=1, max_size=12)))
    rules = Rules.of(ranker.snapshot, only)
    [rows], [scores] = ranker.rank(Histories.from_lists([[0]]), len(only), False, rules, beam_width=len(only))
    assert_same_ranking(rows, scores, brute_force(ranker, np.array([0])), set(only.tolist()))


@property_test
@given(st.data())
def test_an_answer_does_not_depend_on_who_else_is_asked_about_or_on_padding(data: st.DataObject) -> None:
    sizes, codes = data.draw(catalogues())
    ranker = make_ranker(sizes, codes, data.draw(st.integers(0, 3)), data.draw(st.sampled_from(FAMILIES)))
    histories = histories_for(data.draw, len(codes))
    k = min(3, len(codes))
    together = ranker.rank(Histories.from_lists(histories), k, exclude_seen=True, beam_width=5)
    for user, history in enumerate(histories):
        alone = ranker.rank(Histories.from_lists([history]), k, exclude_seen=True, beam_width=5)
        np.testing.assert_allclose(alone[1][0], together[1][user], atol=2e-4, rtol=5e-5)
    again = ranker.rank(Histories.from_lists(histories), k, exclude_seen=True, beam_width=5)
    np.testing.assert_array_equal(together[0], again[0])
    np.testing.assert_array_equal(together[1], again[1])


@property_test
@given(st.data())
def test_every_allowed_item_is_reachable(data: st.DataObject) -> None:
    sizes, codes = data.draw(catalogues())
    snapshot = overlaid(data.draw, codes, sizes)
    ranker = make_ranker(sizes, codes, 0, snapshot=snapshot)
    row = data.draw(st.integers(0, len(codes) - 1))
    [rows], _ = ranker.rank(Histories.from_lists([[]]), 1, False, Rules.of(snapshot, np.array([row])), beam_width=1)
    assert rows.tolist() == [row if snapshot.live is None or snapshot.live[row] else -1]


def test_fixed_and_fitting_shapes_give_the_same_answers() -> None:
    """`static` is what a GPU uses; its shapes must not change a result."""
    from genrec.decoding.allowed import Allowed
    from genrec.decoding.beam import beam_search
    from genrec.models.tokens import write_histories

    random = np.random.default_rng(0)
    codes = random.integers(0, (5, 6, 4), (80, 3))
    base, delta = (
        CatalogueIndex.build(codes[part], (5, 6, 4), rows=np.arange(80)[part]) for part in (slice(60), slice(60, 80))
    )
    for index in (CatalogueIndex.build(codes, (5, 6, 4)), Overlay.join(base, delta)):
        ranker = make_ranker((5, 6, 4), codes, 1, snapshot=Snapshot(index, codes))
        tokens, mask = map(torch.from_numpy, write_histories([np.array([1, 2]), np.array([], int)], codes, ranker.layout))
        allowed = Allowed.of(80, excluded=torch.tensor([[3, 4], [70, -1]]))
        found = [
            beam_search(ranker.model, ranker.head, tokens, mask, index, ranker.layout, 7, 9, allowed, static=static)
            for static in (True, False)
        ]
        assert torch.equal(found[0][0], found[1][0])
        torch.testing.assert_close(found[0][1], found[1][1])


def test_scores_are_normalised_over_the_whole_vocabulary() -> None:
    codes = np.array([[a, b] for a in range(3) for b in range(4)])
    ranker = make_ranker((3, 4), codes)
    _, scores = ranker.rank(Histories.from_lists([[1, 5]]), 12, exclude_seen=False)
    total = float(np.exp(scores).sum())
    assert 0 < total < 1, "not renormalised over the catalogue: other tokens keep their share"


def test_a_head_cut_into_pieces_is_the_whole_head(monkeypatch: pytest.MonkeyPatch) -> None:
    for family in ("llama", "t5"):
        head = Head(make_model(family, 50, 0))
        hidden = torch.randn(2, 3, 16)
        whole = head.log_probs(hidden, 10, 7)
        with monkeypatch.context() as patch:
            patch.setattr("genrec.decoding.steps.HEAD_MEMORY", 4 * 6 * 8)  # eight rows at a time
            torch.testing.assert_close(head.log_probs(hidden, 10, 7), whole)


def test_a_model_that_changes_its_logits_is_followed_or_refused() -> None:
    """Gemma caps its logits, Granite and Cohere scale them: scores must be those of the model itself."""
    model = make_model("llama", 20, 5)
    model.config.logits_scaling = 3.0
    forward = type(model).forward
    divided = forward.__get__(model)

    def scaled(*args: object, **kwargs: object) -> object:
        output = divided(*args, **kwargs)
        output.logits = output.logits / 3.0
        return output

    model.forward = scaled
    hidden = torch.randn(1, 1, 16)
    torch.testing.assert_close(Head(model).log_probs(hidden, 0, 20), (model.lm_head(hidden) / 3).log_softmax(-1))
    model.config.logits_scaling = None
    with pytest.raises(SettingError, match="changes its logits"):
        Head(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_types": ["linear_attention", "full_attention"]}, "needs attention layers; Qwen3ForCausalLM has"),
        ({"layer_types": ["sliding_attention"] * 2, "sliding_window": 9}, "attends to the last 9 tokens"),
        ({"_attn_implementation": "flash_attention_2"}, "was loaded with 'flash_attention_2'"),
    ],
)
def test_models_that_would_not_decode_exactly_are_refused(settings: dict, message: str) -> None:
    model = copy.deepcopy(make_model("qwen3", 20, 0))
    check_model(model, 10)
    for name, value in settings.items():
        object.__setattr__(model.config, name, value)
    with pytest.raises(SettingError, match=message):
        check_model(model, 10)


def test_history_beyond_what_the_model_reads_is_still_masked() -> None:
    codes = np.array([[a, b] for a in range(4) for b in range(4)])
    ranker = make_ranker((4, 4), codes, 1)
    assert ranker.max_history == MAX_HISTORY < 12
    rows, _ = ranker.rank(Histories.from_lists([np.arange(12)]), 10, exclude_seen=True)
    assert set(rows[0][rows[0] >= 0]) == {12, 13, 14, 15}


def test_equal_scores_go_by_code_order_then_tie_order() -> None:
    """A model that knows nothing scores everything alike."""
    codes = np.array([[1, 1], [0, 1], [1, 0], [0, 1], [0, 0]])
    layout = TokenLayout.from_scratch((2, 2))
    model = make_model("qwen3", layout.vocabulary_size, 7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    snapshot = Snapshot.of(codes, (2, 2), tie_rank=np.array([0, 4, 2, 1, 3]))
    ranker = BeamRanker(model, layout, snapshot, ALL, MAX_HISTORY)
    [rows], _ = ranker.rank(Histories.from_lists([[]]), 5, exclude_seen=False)
    assert rows.tolist() == [4, 3, 1, 2, 0]
    # The same when some came later: those after the others of their tuple.
    early, late = np.array([0, 1, 4]), np.array([2, 3])
    ranks = np.array([0, 4, 2, 10, 3])
    overlay = Overlay.join(*(CatalogueIndex.build(codes[r], (2, 2), ranks[r], r) for r in (early, late)))
    [rows], _ = ranker.rank(Histories.from_lists([[]]), 5, False, snapshot=Snapshot(overlay, codes))
    assert rows.tolist() == [4, 1, 3, 2, 0]


@property_test
@given(st.data())
def test_requests_of_any_width_and_rules_share_a_batch_and_none_changes_anothers_answer(data: st.DataObject) -> None:
    sizes, codes = data.draw(catalogues())
    snapshot = overlaid(data.draw, codes, sizes)
    ranker = make_ranker(sizes, codes, data.draw(st.integers(0, 3)), data.draw(st.sampled_from(FAMILIES)), snapshot)
    queries = []
    for history in histories_for(data.draw, len(codes)):
        only = data.draw(st.none() | st.lists(st.integers(0, len(codes) - 1), max_size=len(codes)))
        excluded = np.array(data.draw(st.lists(st.integers(0, len(codes) - 1), max_size=4)), np.int64)
        groups = Groups(np.arange(len(codes) + 1), np.arange(len(codes)) % 3)
        caps = [Cap(groups, 1)] if data.draw(st.booleans()) else []
        rules = Rules.of(snapshot, None if only is None else np.array(only, np.int64), excluded, caps)
        k = data.draw(st.integers(1, 5))
        widths = tuple(data.draw(st.lists(st.integers(k, 9), min_size=len(sizes), max_size=len(sizes))))
        queries.append(Query(history, k, widths, data.draw(st.booleans()), rules))
    together = ranker.answer(queries)
    for query, (rows, scores) in zip(queries, together, strict=True):
        [(alone, alone_scores)] = ranker.answer([query])
        assert len(rows) == len(alone)
        np.testing.assert_allclose(scores, alone_scores, atol=2e-4, rtol=5e-5)
        np.testing.assert_allclose(scores, brute_force(ranker, query.history)[rows], atol=2e-4, rtol=5e-5)
