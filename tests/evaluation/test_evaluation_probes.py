"""Probes find what was planted in user vectors, and nothing where nothing is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import make_ranker

from genrec.data.interactions import Histories
from genrec.data.splits import Targets, global_time, leave_one_out
from genrec.errors import DataError, SettingError
from genrec.evaluation.probes import (
    Probe,
    by_question,
    commonest_label,
    draw_others,
    first_questions,
    label_from_end,
    learns_from,
    probe,
    probe_model,
    probe_table,
)
from genrec.evaluation.user_vectors import last_item, random_vectors, user_vectors_of
from genrec.models.tokens import write_histories
from genrec.tokenizers.das import user_vectors
from genrec.tokenizers.quality import unit_rows

ITEMS, KINDS = 150, 5
LABELS = np.array([f"kind {item % KINDS}" for item in range(ITEMS)], object)
ITEM_VECTORS = unit_rows(np.random.default_rng(7).standard_normal((ITEMS, 16)))
POPULARITY = np.ones(ITEMS)
LAST, THIRD, NUMBER = (
    "category of the last item",
    "category of the third item from the end",
    "logarithm of the number of events",
)
NEXT, NEXT_ITEM = "category of the next item", "next item (sampled99)"
COMMONEST, FUTURE = "commonest category of the history", "commonest category of the future"


def world(users: int = 600, seed: int = 0) -> Targets:
    """Everything at random, so that one planted thing tells nothing of another."""
    random = np.random.default_rng(seed)
    lists = [random.integers(0, ITEMS, random.integers(4, 12)) for _ in range(users)]
    return Targets(Histories.from_lists(lists), random.integers(0, ITEMS, users))


def onehot(answers: np.ndarray) -> np.ndarray:
    return (answers[:, None] == np.unique(answers)).astype(float)


def asked(vectors: np.ndarray, questions: Targets, future: Histories | None = None) -> dict[str, Probe]:
    found = probe("planted", vectors, questions, LABELS, ITEM_VECTORS, POPULARITY, future)
    return {one.question: one for one in found}


def margin(found: Probe) -> float:
    """Four standard errors of a share among the users scored."""
    return 4 * np.sqrt(found.floor * (1 - found.floor) / found.users) + 0.01


@pytest.mark.parametrize("planted", [LAST, THIRD, NEXT, COMMONEST])
def test_a_planted_category_is_found_and_no_other(planted: str) -> None:
    questions = world()
    histories, labels = questions.histories, LABELS.astype(str)
    answers = {
        LAST: label_from_end(histories, labels, 1),
        THIRD: label_from_end(histories, labels, 3),
        NEXT: labels[questions.items],
        COMMONEST: commonest_label(histories, labels),
    }
    random = np.random.default_rng(1)
    # Hidden under a rotation and a shift: a probe has to be linear, not to look at single numbers.
    vectors = onehot(answers[planted]) @ random.standard_normal((KINDS, 12)) + random.standard_normal(12)
    found = asked(vectors, questions)
    assert found[planted].value > 0.95
    for other in {LAST, THIRD, NEXT} - {planted}:
        if planted != COMMONEST:  # the commonest category is often that of a certain item
            assert found[other].value < found[other].floor + margin(found[other])
    assert abs(found[NUMBER].value) < 0.25


def test_a_planted_number_of_events_is_found() -> None:
    questions = world()
    noise = np.random.default_rng(2).standard_normal((len(questions), 5))
    vectors = noise + 3 * np.log(questions.histories.lengths)[:, None]
    found = asked(vectors, questions)
    assert found[NUMBER].value > 0.9
    assert found[NUMBER].metric == "correlation"
    assert found[NUMBER].floor == 0


def test_the_next_item_is_found_through_a_bilinear_score_where_its_vector_was_planted() -> None:
    questions = world()
    mixed = ITEM_VECTORS[questions.items] @ np.random.default_rng(3).standard_normal((16, 16))
    found = asked(mixed, questions)
    assert found[NEXT_ITEM].value > 0.8
    assert found[NEXT_ITEM].floor < 0.1


def test_nothing_is_found_in_random_vectors() -> None:
    questions = world(users=1000)
    found = asked(random_vectors(questions.histories, 16, seed=4), questions)
    for name, one in found.items():
        if name == NUMBER:
            assert abs(one.value) < 4 / np.sqrt(one.users)
        else:
            assert abs(one.value - one.floor) < margin(one) + 0.03, name


def test_what_the_user_did_later_is_asked_where_it_is_known() -> None:
    questions = world(users=300)
    random = np.random.default_rng(5)
    later = random.integers(0, KINDS, 300)
    lists = [[kind, kind + KINDS, kind + 2 * KINDS] for kind in later]
    future = Histories.from_lists(lists)
    assert asked(onehot(later), questions, future)[FUTURE].value > 0.95
    assert FUTURE not in asked(onehot(later), questions)
    assert FUTURE not in asked(onehot(later), questions, Histories.from_lists([[row[0]] for row in lists])), "one event each"
    some = Histories.from_lists([row if user % 3 else row[:1] for user, row in enumerate(lists)])
    assert asked(onehot(later), questions, some)[FUTURE].users < asked(onehot(later), questions, future)[FUTURE].users


def test_users_whose_category_is_unknown_or_whose_history_is_too_short_are_not_asked() -> None:
    questions = world(users=400)
    scored = sum(not learns_from(str(user)) for user in range(400))
    labels = LABELS.copy()
    labels[questions.items[:200]] = ""
    found = probe("x", np.ones((400, 2)), questions, labels, ITEM_VECTORS, POPULARITY)
    unknown = labels[questions.items] == ""
    by_question = {one.question: one for one in found}
    assert by_question[NEXT].users == sum(not learns_from(str(user)) for user in range(400) if not unknown[user])
    assert by_question[NUMBER].users == scored
    short = Targets(Histories.from_lists([[0, 1]] * 200 + [[0, 1, 2], [3, 4, 5]] * 100), questions.items)
    third = asked(np.ones((400, 2)), short)[THIRD]
    assert third.users == sum(not learns_from(str(user)) for user in range(200, 400))


def test_the_order_of_users_changes_nothing() -> None:
    questions = world(users=200)
    vectors = random_vectors(questions.histories, 4, seed=0) + onehot(LABELS[questions.items]) @ np.eye(5, 4)
    order = np.random.default_rng(6).permutation(200)
    moved = Targets(questions.histories.select(order), questions.items[order])
    assert asked(vectors, questions) == asked(vectors[order], moved)
    np.testing.assert_array_equal(
        random_vectors(questions.histories, 4, seed=0)[order], random_vectors(moved.histories, 4, seed=0)
    )


def test_half_of_the_users_learn_and_the_hash_decides() -> None:
    share = np.mean([learns_from(f"U{number}") for number in range(4000)])
    assert 0.46 < share < 0.54
    assert learns_from("somebody") == learns_from("somebody")


@given(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=6))
def test_the_commonest_category_is_that_of_counting_and_of_equals_the_latest(lists: list[list[int]]) -> None:
    labels = np.array(["", "a", "b", "c", "a", "b", "", "c", "c", "a"])
    expected = []
    for history in lists:
        named = [labels[item] for item in history if labels[item]]
        latest = {label: place for place, label in enumerate(named)}
        expected.append(max(latest, key=lambda label: (named.count(label), latest[label])) if named else "")
    assert commonest_label(Histories.from_lists(lists), labels).tolist() == expected


@settings(max_examples=25)
@given(st.integers(0, 1000), st.booleans())
def test_candidates_are_the_target_and_different_items_that_training_met(seed: int, repeat: bool) -> None:
    random = np.random.default_rng(seed)
    popularity = random.integers(0, 4, 40)
    history = random.integers(0, 40, 5)
    target = int(history[0]) if repeat else int(np.setdiff1d(np.arange(40), history)[0])
    [drawn] = draw_others(Histories.from_lists([history]), np.array([target]), popularity, seed, others=9)
    assert len(set(drawn)) == 10
    assert sorted(drawn) == drawn.tolist()
    assert target in drawn
    others = [item for item in drawn if item != target]
    assert (popularity[others] > 0).all()
    if not repeat:
        assert not set(others) & set(history.tolist())


def test_candidates_come_by_popularity() -> None:
    popularity = np.array([100.0, *[1.0] * 50])
    histories = Histories.from_lists([[]] * 500)
    drawn = draw_others(histories, np.full(500, 50), popularity, seed=0, others=1)
    share = (drawn[:, 0] == 0).mean()
    assert 0.58 < share < 0.76, "100 of 149"


def test_a_catalogue_too_small_for_the_candidates_is_not_asked_for_them() -> None:
    assert (draw_others(Histories.from_lists([[0]]), np.array([1]), np.ones(20), seed=0) == -1).all()
    questions = Targets(Histories.from_lists([[0, 1, 2]] * 60), np.tile([0, 1], 30))
    found = probe("x", np.ones((60, 1)), questions, LABELS[:20], ITEM_VECTORS[:20], POPULARITY[:20])
    assert np.isnan({one.question: one for one in found}[NEXT_ITEM].value)


def test_one_question_per_user_is_the_first_and_the_rest_is_the_future() -> None:
    lists = [[0, 1, 2, 3], [4, 5], [6, 7, 8]]
    histories = replace(Histories.from_lists(lists, ["b", "a", "c"]), times=np.array([1, 2, 8, 9, 1, 8, 1, 2, 9.0]))
    questions, future = first_questions(global_time(histories, 0.1, 0.4).test)
    assert questions.histories.user_ids.tolist() == future.user_ids.tolist() == ["a", "b", "c"]
    assert [list(map(int, one)) for one in future.to_lists()] == [[5], [2, 3], [8]]
    assert questions.items.tolist() == [5, 2, 8]
    assert [history.tolist() for history in questions.histories.to_lists()] == [[4], [0, 1], [6, 7]]
    _, single = first_questions(leave_one_out(histories).test)
    assert single.lengths.tolist() == [1, 1, 1]


@pytest.mark.parametrize("family", ["qwen3", "t5"])
def test_the_users_vector_is_the_state_after_the_history_whatever_else_is_in_the_batch(family: str) -> None:
    codes = np.array([[a, b] for a in range(3) for b in range(4)])
    ranker = make_ranker((3, 4), codes, family=family)
    histories = Histories.from_lists([[1, 2], [], [5, 4, 3, 2, 1, 0, 9, 8], [7]])
    vectors = user_vectors_of(ranker, histories)
    assert vectors.shape == (4, 16)
    for user in range(4):
        alone = user_vectors_of(ranker, histories.select(np.array([user])))
        np.testing.assert_allclose(vectors[user], alone[0], rtol=1e-3, atol=1e-4)
    if family == "qwen3":
        tokens, _ = write_histories([histories[2][-ranker.max_history :]], codes, ranker.layout)
        with torch.no_grad():
            states = ranker.model(torch.from_numpy(tokens), output_hidden_states=True).hidden_states[-1]
        np.testing.assert_allclose(vectors[2], states[0, -1].numpy(), rtol=1e-3, atol=1e-4)


def test_reference_vectors_by_hand() -> None:
    items = np.array([[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]])
    histories = Histories.from_lists([[0, 1], [], [2, 2, 0]])
    np.testing.assert_allclose(user_vectors(items, histories), [[0.5, 1], [0, 0], [3, 8 / 3]], rtol=1e-6)
    np.testing.assert_allclose(last_item(histories, items), [[0, 2], [0, 0], [1, 0]])


def test_a_model_is_probed_beside_what_could_stand_in_for_its_vectors() -> None:
    codes = np.array([[a, b] for a in range(10) for b in range(15)])
    ranker = make_ranker((10, 15), codes)
    questions = leave_one_out(world(users=120).histories).test
    found = probe_model(ranker, questions, LABELS, onehot(LABELS), POPULARITY, most_users=100)
    names, rows = by_question(found)
    assert names == ["model", "mean item", "last item", "random"]
    assert [row[1] for row in rows] == [LAST, THIRD, NUMBER, NEXT, NEXT_ITEM, COMMONEST]
    by_vectors = {one.vectors: one for one in found if one.question == LAST}
    assert by_vectors["last item"].value > 0.95 > 0.5 > by_vectors["random"].value, "here an item's vector is its category"
    assert sum(one.users for one in found if one.vectors == "model" and one.question == NUMBER) < 100, "half of those drawn"
    unknown = probe_model(ranker, questions, np.full(ITEMS, "", object), ITEM_VECTORS, POPULARITY, most_users=100)
    assert {one.question for one in unknown if not np.isnan(one.value)} == {NUMBER, NEXT_ITEM}


def test_the_table_has_a_column_per_kind_of_vectors_and_refuses_unlike_questions() -> None:
    one = Probe("model", "g", "q", "accuracy", 0.75, 0.5, 10)
    page = probe_table([one, replace(one, vectors="random", value=float("nan"))])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    assert cells[0] == ["group", "question", "metric", "users", "floor", "model", "random"]
    assert cells[2] == ["g", "q", "accuracy", "10", "0.500", "0.750", "-"]
    with pytest.raises(SettingError, match="same questions"):
        probe_table([one, replace(one, vectors="random", users=9)])


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    questions = world(users=20)
    with pytest.raises(DataError, match=r"shape \[20, d\]"):
        asked(np.ones((19, 2)), questions)
    with pytest.raises(DataError, match="finite"):
        asked(np.full((20, 2), np.nan), questions)
    with pytest.raises(DataError, match="one row per catalogue row"):
        probe("x", np.ones((20, 2)), questions, LABELS[:-1], ITEM_VECTORS, POPULARITY)
    twice = Targets(questions.histories.select(np.zeros(20, np.int64)), questions.items)
    with pytest.raises(DataError, match="more than once"):
        asked(np.ones((20, 2)), twice)
    with pytest.raises(DataError, match="same order"):
        asked(np.ones((20, 2)), questions, Histories.from_lists([[0]] * 20, [f"other {n}" for n in range(20)]))
