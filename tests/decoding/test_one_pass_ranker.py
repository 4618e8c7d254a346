"""OnePassRanker: what it finds is what scoring every item by hand finds, under any rules and in a catalogue that changes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_pass_worlds import COUNT, HISTORY, METHODS, SIZES, world

from genrec.codes import CodeTable
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Histories
from genrec.decoding.diversity import Cap, Groups
from genrec.decoding.graph import ItemGraph, alike_by_codes, picked_sums
from genrec.decoding.live import LiveCatalogue
from genrec.decoding.one_pass import OnePassRanker, items_of
from genrec.decoding.snapshot import Query, Rules
from genrec.errors import DataError, SettingError
from genrec.evaluation.user_vectors import user_vectors_of
from genrec.models.one_pass.identifiers import Items
from genrec.models.tokens import TokenLayout


def by_hand(ranker: OnePassRanker, history: np.ndarray) -> np.ndarray:
    """log P of every item, one history alone, none of the ranker's own pieces: [R]."""
    model, codes = ranker.model, torch.from_numpy(ranker.snapshot.codes.astype(np.int64))
    ids = torch.tensor([row if row < 15 else COUNT for row in range(len(codes))])
    vectors = ranker.snapshot.vectors
    known = torch.zeros(len(codes), 0) if vectors is None else torch.from_numpy(vectors)
    with torch.no_grad():
        tokens = model.tokens(Items(codes, ids, known))
        read = torch.tensor(history[-HISTORY:], dtype=torch.int64)
        state = model.states(tokens[read][None])[:, -1]
        if model.shape.config.loss == "codes":
            logits = model.code_queries(state)[0]
            each = [(model.code_keys(level) @ logits[level]).log_softmax(0)[codes[:, level]] for level in range(len(SIZES))]
            return torch.stack(each).sum(dim=0).numpy()
        state, tokens = state[0][None, :, : ranker.width], tokens[..., : ranker.width]
        cosines = torch.nn.functional.cosine_similarity(state, tokens, dim=-1) / model.shape.config.temperature
        return (cosines * model.weights).sum(dim=1).log_softmax(0).numpy()


@given(st.sampled_from(sorted(METHODS)), st.integers(0, 50), st.data())
def test_the_answer_is_that_of_scoring_every_item(method: str, seed: int, data: st.DataObject) -> None:
    ranker = world(method, seed)
    lists = data.draw(st.lists(st.lists(st.integers(0, COUNT - 1), max_size=7), min_size=1, max_size=4))
    only = data.draw(st.none() | st.sets(st.integers(0, COUNT - 1)))
    seen, k = data.draw(st.booleans()), data.draw(st.integers(1, 8))
    rules = Rules() if only is None else Rules.of(ranker.snapshot, np.array(sorted(only), np.int64))
    rows, scores = ranker.rank(Histories.from_lists(lists), k, seen, rules)
    for user, history in enumerate(lists):
        exact = by_hand(ranker, np.array(history, np.int64))
        allowed = sorted((set(range(COUNT)) if only is None else only) - (set(history) if seen else set()))
        found = rows[user][rows[user] >= 0]
        assert len(found) == min(k, len(allowed))
        assert set(found.tolist()) <= set(allowed)
        np.testing.assert_allclose(scores[user, : len(found)], exact[found], atol=2e-4)
        np.testing.assert_allclose(exact[found], np.sort(exact[allowed])[::-1][:k], atol=2e-4)
        assert (np.diff(scores[user, : len(found)]) <= 0).all()


@settings(max_examples=30)
@given(st.sampled_from(["composed", "setrec", "h2rec"]), st.sampled_from([4, 8, 16]), st.integers(0, 50), st.integers(1, 8))
def test_the_answer_at_a_width_is_that_of_scoring_every_item_at_it(method: str, width: int, seed: int, k: int) -> None:
    ranker = world(method, seed, width, widths=(4, 8))
    for history in ([], [3], [1, 2, 3, 4, 5]):
        exact = by_hand(ranker, np.array(history, np.int64))
        [rows], [scores] = ranker.rank(Histories.from_lists([history]), k, False)
        np.testing.assert_allclose(scores, exact[rows], atol=2e-4)
        np.testing.assert_allclose(scores, np.sort(exact)[::-1][:k], atol=2e-4)
        told = ranker.code_log_probs([np.array(history, np.int64)], rows[:1], ranker.snapshot)
        assert told.sum() == pytest.approx(scores[0], abs=2e-4)


@pytest.mark.parametrize(("method", "slots"), [("composed", 1), ("setrec", 5)])
def test_only_the_numbers_that_are_looked_at_are_kept(method: str, slots: int) -> None:
    for width in (4, 8, 16):
        ranker = world(method, 0, width, widths=(4, 8))
        assert ranker.kept_bytes == 0
        ranker.rank(Histories.from_lists([[1]]), 3, False)
        assert ranker.kept_bytes == COUNT * slots * width * 4


def mixture_world(method: str, weights: list[float], seed: int = 0) -> OnePassRanker:
    """`world` with a mixture of several states. weights: of the last one, of the one before it, and so on."""
    ranker = world(method, seed, mixture=len(weights))
    ranker.model.mixture.copy_(torch.tensor(weights))
    return ranker


@settings(max_examples=30)
@given(
    st.sampled_from(sorted(METHODS)), st.sampled_from([[1.0, 0.5], [1.0, 0.25, 2.0], [0.5] * 6]), st.integers(0, 50),
    st.integers(1, 8),
)  # fmt: skip
def test_the_answer_of_a_mixture_is_the_weighed_mean_of_the_probabilities_after_each_item(
    method: str, weights: list[float], seed: int, k: int
) -> None:
    ranker = mixture_world(method, weights, seed)
    lists = [[], [3], [1, 2], [1, 2, 3, 4, 5, 6]]
    rows, scores = ranker.rank(Histories.from_lists(lists), k, False)
    for user, history in enumerate(lists):
        read = history[-HISTORY:]
        states = [read[: len(read) - back] for back in range(min(len(weights), max(1, len(read))))]
        shares = np.array(weights[: len(states)]) / sum(weights[: len(states)])
        each = [np.exp(by_hand(ranker, np.array(state, np.int64)).astype(np.float64)) for state in states]
        exact = np.log((shares[:, None] * each).sum(axis=0))
        np.testing.assert_allclose(scores[user], exact[rows[user]], atol=2e-4)
        np.testing.assert_allclose(scores[user], np.sort(exact)[::-1][:k], atol=2e-4)
        told = ranker.code_log_probs([np.array(history, np.int64)] * COUNT, np.arange(COUNT), ranker.snapshot)
        np.testing.assert_allclose(told.sum(axis=1), exact, atol=2e-4)
        assert (told <= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_mixture_whose_earlier_states_weigh_nothing_is_the_usual_answer(method: str) -> None:
    histories = Histories.from_lists([[], [3], [1, 2, 3, 4, 5, 6]])
    usual = world(method).rank(histories, 8, True)
    for weights in ([1.0], [1.0, 0.0, 0.0]):
        answer = mixture_world(method, weights).rank(histories, 8, True)
        np.testing.assert_array_equal(answer[0], usual[0])
        np.testing.assert_array_equal(answer[1], usual[1])


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_of_a_mixture_sum_to_one(method: str) -> None:
    ranker = mixture_world(method, [1.0, 0.7, 0.49])
    rows, scores = ranker.rank(Histories.from_lists([[1, 2], [], [5, 6, 7, 8, 9]]), COUNT, False)
    assert (scores <= 0).all()
    if ranker.model.shape.config.loss != "codes":
        np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-4)
        return
    for user in range(len(rows)):  # items with the same codes share their probability
        _, first = np.unique(ranker.snapshot.codes[rows[user]], axis=0, return_index=True)
        assert np.exp(scores[user, first]).sum() < 1 + 1e-4


def test_a_mixture_weighs_a_removed_item_as_if_it_were_there() -> None:
    ranker = mixture_world("composed", [1.0, 0.5])
    plain = replace(ranker.snapshot, live=np.arange(COUNT) != 7)
    told = ranker.code_log_probs([np.array([1, 2])], np.array([7]), plain)
    each = [np.exp(by_hand(ranker, np.array(state)).astype(np.float64)[7]) for state in ([1, 2], [1])]
    assert told.sum() == pytest.approx(np.log((each[0] + 0.5 * each[1]) / 1.5), abs=2e-4)
    gone = ranker.code_log_probs([np.array([1, 2])], np.array([8]), plain)
    assert gone.sum() > ranker.code_log_probs([np.array([1, 2])], np.array([8]), ranker.snapshot).sum()


def test_who_is_asked_beside_a_user_changes_no_mixture() -> None:
    ranker = mixture_world("composed", [1.0, 0.5, 0.25])
    lists = [[1, 2, 3], [], [4], [5, 6, 7, 8, 9, 10]]
    together = ranker.rank(Histories.from_lists(lists), 6, True)
    for user, history in enumerate(lists):
        rows, scores = ranker.rank(Histories.from_lists([history]), 6, True)
        np.testing.assert_array_equal(rows[0], together[0][user])
        np.testing.assert_allclose(scores[0], together[1][user], atol=1e-5)


def test_a_width_that_was_not_trained_is_refused() -> None:
    with pytest.raises(SettingError, match="width must be one that was trained, 4 or 8 or 16, got 12"):
        world("composed", 0, 12, widths=(4, 8))
    with pytest.raises(SettingError, match="width must be one that was trained, 16, got 8"):
        world("rpg", 0, 8)


@pytest.mark.parametrize("method", ["rpg", "recgpt"])
def test_items_that_share_all_codes_come_back_together_in_the_order_of_the_catalogue(method: str) -> None:
    ranker = world(method)
    codes = ranker.snapshot.codes
    rows, scores = ranker.rank(Histories.from_lists([[1, 2]]), COUNT, False)
    for first, second in zip(range(COUNT - 1), range(1, COUNT), strict=True):
        if (codes[rows[0, first]] == codes[rows[0, second]]).all():
            assert scores[0, first] == scores[0, second]
            assert rows[0, first] < rows[0, second]
    assert len(np.unique(codes, axis=0)) < COUNT, "some do share"


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_log_probabilities_of_the_whole_catalogue(method: str) -> None:
    ranker = world(method)
    _, scores = ranker.rank(Histories.from_lists([[1, 2], []]), COUNT, False)
    assert (scores <= 0).all()
    if ranker.model.shape.config.loss != "codes":
        np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_one_by_one_and_together_users_get_the_same(method: str) -> None:
    ranker = world(method)
    lists = [[1, 2, 3], [], [4], [5, 6, 7, 8, 9, 10]]
    together = ranker.rank(Histories.from_lists(lists), 6, True)
    for user, history in enumerate(lists):
        rows, scores = ranker.rank(Histories.from_lists([history]), 6, True)
        np.testing.assert_array_equal(rows[0], together[0][user])
        np.testing.assert_allclose(scores[0], together[1][user], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_request_takes_one_forward_pass(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ranker, calls = world(method), []
    real: Callable = ranker.model.states
    monkeypatch.setattr(ranker.model, "states", lambda tokens: calls.append(1) or real(tokens))
    ranker.rank(Histories.from_lists([[1, 2, 3], [4]]), 5, True)
    assert len(calls) == 1


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_of_an_items_codes_multiply_to_its_score(method: str) -> None:
    ranker = world(method)
    history = np.array([1, 2])
    told = ranker.code_log_probs([history] * COUNT, np.arange(COUNT), ranker.snapshot)
    assert told.shape == (COUNT, len(SIZES))
    assert (told <= 0).all()
    np.testing.assert_allclose(told.sum(axis=1), by_hand(ranker, history), atol=2e-4)


def test_the_first_code_is_as_probable_as_all_items_that_begin_with_it() -> None:
    ranker = world("composed")
    first = ranker.snapshot.codes[:, 0]
    told = ranker.code_log_probs([np.array([3])] * COUNT, np.arange(COUNT), ranker.snapshot)[:, 0]
    exact = np.exp(by_hand(ranker, np.array([3])))
    np.testing.assert_allclose(np.exp(told), [exact[first == code].sum() for code in first], atol=1e-4)


def test_caps_hold_and_cost_no_item_that_fits() -> None:
    ranker = world("composed")
    groups = Groups.of_prefix(ranker.snapshot.codes, 1)
    query = Query(np.array([1, 2]), 6, (), True, Rules(caps=[Cap(groups, 2)]))
    [(rows, _)] = ranker.answer([query])
    exact, taken, expected = by_hand(ranker, query.history), {}, []
    for row in np.argsort(-exact, kind="stable").tolist():
        group = groups.of(row)[0]
        if row not in (1, 2) and taken.get(group, 0) < 2 and len(expected) < 6:
            expected.append(row)
            taken[group] = taken.get(group, 0) + 1
    assert rows.tolist() == expected


def test_weights_of_the_slots_decide_which_side_speaks() -> None:
    ranker = world("setrec")
    model = ranker.model
    model.weights.copy_(torch.tensor([1.0, 0, 0, 0, 0]))
    rows, scores = ranker.rank(Histories.from_lists([[1, 2]]), COUNT, False)
    np.testing.assert_allclose(scores[0], by_hand(ranker, np.array([1, 2]))[rows[0]], atol=2e-4)
    own = dict(zip(rows[0].tolist(), scores[0].tolist(), strict=True))
    assert len({round(own[row], 5) for row in range(15, COUNT)}) == 1, "no cold item is told from another by who met it"
    model.weights.copy_(torch.tensor([0.0, 1, 1, 1, 1]))
    rows, scores = ranker.rank(Histories.from_lists([[1, 2]]), COUNT, False)
    own = dict(zip(rows[0].tolist(), scores[0].tolist(), strict=True))
    assert len({round(own[row], 5) for row in range(15, COUNT)}) > 1, "their content tells them apart"


def live_world() -> tuple[OnePassRanker, LiveCatalogue]:
    ranker = world("composed")
    table = pa.table({"item_id": [f"i{row}" for row in range(COUNT)], "title": [f"title {row}" for row in range(COUNT)]})
    codes = CodeTable(np.array(table.column("item_id").to_pylist(), object), ranker.snapshot.codes, SIZES, "shared", "none")
    live = LiveCatalogue(Catalogue.from_table(table), codes, np.arange(COUNT), _encoders, None, ranker.snapshot.vectors)
    return ranker, live


class _Encoders:
    """An embedder and a tokenizer that need no text: vectors are given, the codes are the signs of two numbers."""

    template, sizes = "{title}", SIZES

    def encode(self, what: object) -> np.ndarray:
        if isinstance(what, np.ndarray):
            return (what[:, :2] > 0).astype(np.int32)
        return np.full((len(what), 10), 0.5, np.float32)  # type: ignore[arg-type]


def _encoders() -> tuple:
    return _Encoders(), _Encoders()


def test_a_new_item_can_be_recommended_at_once_by_its_codes_and_vector_alone() -> None:
    ranker, live = live_world()
    ranker.rank(Histories.from_lists([[1]]), 5, True)  # what items look like is kept from here on
    vector = ranker.snapshot.vectors[3:4].copy()
    version = live.add(pa.table({"item_id": ["new"], "title": ["anything"]}), vector)
    rows, scores = ranker.rank(Histories.from_lists([[3]]), COUNT + 1, False, snapshot=version.snapshot)
    assert COUNT in rows[0]
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(np.exp(scores).sum(), 1, atol=1e-4)
    again = live.rollback(0)
    rows, _ = ranker.rank(Histories.from_lists([[3]]), COUNT + 1, False, snapshot=again.snapshot)
    assert COUNT not in rows[0]


def test_a_new_item_is_what_a_cold_item_with_its_codes_and_vector_is() -> None:
    ranker, live = live_world()
    cold = 17
    version = live.add(pa.table({"item_id": ["twin"], "title": ["t"]}), ranker.snapshot.vectors[cold : cold + 1])
    version.snapshot.codes[COUNT] = version.snapshot.codes[cold]
    _, scores = zip(*ranker.answer([Query(np.array([2]), COUNT + 1, (), False)], version.snapshot), strict=True)
    rows = ranker.rank(Histories.from_lists([[2]]), COUNT + 1, False, snapshot=version.snapshot)[0][0].tolist()
    assert scores[0][rows.index(COUNT)] == pytest.approx(scores[0][rows.index(cold)], abs=1e-5)


def test_an_item_keeps_its_id_when_its_fields_change_or_when_it_comes_back() -> None:
    ranker, live = live_world()
    before = live.replace(pa.table({"item_id": ["i3"], "title": ["title 3"]}))
    assert before.snapshot.fitted is not None
    assert before.snapshot.fitted[before.rows(["i3"])[0]] == 3
    assert before.rows(["i3"])[0] == COUNT
    np.testing.assert_array_equal(before.snapshot.vectors[COUNT], ranker.snapshot.vectors[3])
    live.remove(["i5"])
    back = live.add(pa.table({"item_id": ["i5", "other"], "title": ["a", "b"]}), np.ones((2, 10), np.float32))
    assert back.snapshot.fitted[back.rows(["i5", "other"])].tolist() == [5, -1]


def test_a_change_that_is_replayed_brings_its_vectors() -> None:
    changes = []
    _, live = live_world()
    live.journal = changes.append
    given_vectors = np.linspace(-1, 1, 20, dtype=np.float32).reshape(2, 10)
    live.add(pa.table({"item_id": ["a", "b"], "title": ["a", "b"]}), given_vectors)
    _, other = live_world()
    replayed = other.replay(type(changes[0]).decode(changes[0].encode()))
    np.testing.assert_array_equal(replayed.snapshot.vectors[COUNT:], given_vectors)
    assert replayed.hash == live.current.hash


def test_vectors_of_another_width_are_refused_and_change_nothing() -> None:
    _, live = live_world()
    with pytest.raises(DataError, match="vectors must be 10 wide"):
        live.add(pa.table({"item_id": ["a"], "title": ["a"]}), np.ones((1, 3), np.float32))
    assert live.current.number == 0


def test_a_graph_search_where_everybody_is_a_neighbour_finds_what_the_ranker_finds() -> None:
    ranker, history = world("rpg"), np.array([1, 2])
    model, codes = ranker.model, torch.from_numpy(ranker.snapshot.codes.astype(np.int64))
    with torch.no_grad():
        graph = ItemGraph.build(alike_by_codes([model.code_keys(level) for level in range(len(SIZES))], codes), COUNT, COUNT)
        log_probs = model.code_log_probs(model.code_queries(ranker.states([history], ranker.snapshot)))
        rows, scores = graph.best(picked_sums(log_probs, codes + torch.tensor([0, SIZES[0]])), 1, k=6, beam=6, rounds=1)
    expected = ranker.rank(Histories.from_lists([history]), 6, False)
    np.testing.assert_array_equal(rows.numpy(), expected[0])
    np.testing.assert_allclose(scores.numpy(), expected[1], atol=1e-5)


def test_a_ranker_refuses_what_does_not_belong_together() -> None:
    ranker = world("rpg")
    with pytest.raises(SettingError, match="they do not fit"):
        OnePassRanker(ranker.model, TokenLayout.from_scratch((4, 4)), ranker.snapshot, np.ones(COUNT))
    with pytest.raises(SettingError, match="fitted on 20 items"):
        OnePassRanker(ranker.model, ranker.layout, ranker.snapshot, np.ones(3))
    with pytest.raises(SettingError, match="k must be"):
        ranker.rank(Histories.from_lists([[1]]), 0, True)


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("method", ["composed", "setrec", "h2rec"])
def test_user_vectors_are_the_states_that_items_are_ranked_by(method: str, width: int) -> None:
    ranker = world(method, 0, width, widths=(8,))
    histories = Histories.from_lists([[1, 2, 3], [], [4], list(range(10))])
    vectors = user_vectors_of(ranker, histories)
    alone = np.concatenate([user_vectors_of(ranker, histories.select(np.array([user]))) for user in range(len(histories))])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    shape = ranker.model.shape
    states = torch.from_numpy(vectors).view(len(histories), shape.slots, width)
    with torch.no_grad():
        asked = ranker.model.weighed(ranker.model.dot_queries(states))
        tokens = ranker.model.tokens(items_of(ranker.snapshot, np.arange(COUNT), ranker._ids))[..., :width]
        best = (asked @ ranker.model.keys(tokens).flatten(1).T).argmax(dim=1)
    rows, _ = ranker.rank(histories, 1, exclude_seen=False)
    assert rows[:, 0].tolist() == best.tolist()
