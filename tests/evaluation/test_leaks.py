"""Leak checks: every kind of planted leak is caught and counted, and clean splits raise no alarm."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data import mapped
from genrec.data.interactions import Histories
from genrec.data.splits import Split, Targets, global_time, leave_one_out, user_holdout
from genrec.errors import DataError
from genrec.evaluation import leaks
from genrec.evaluation.leaks import INHERENT, KINDS, Leak, check_leaks, report_leaks

CUTS: dict[str, Callable[[Histories], Split]] = {
    "leave-one-out": leave_one_out,
    "global-time": lambda histories: global_time(histories, 0.2, 0.2),
    "user-holdout": lambda histories: user_holdout(histories, 0.2, 0.2),
}
EVENTS, OTHERS = "a" * 64, "b" * 64


def world(users: int = 40, events: int = 6, seed: int = 0, times: bool = True) -> Histories:
    """Each user meets `events` of 50 items, all different, at moments that only grow."""
    random = np.random.default_rng(seed)
    plain = Histories.from_lists([random.permutation(50)[:events].tolist() for _ in range(users)])
    if not times:
        return plain
    moments = np.concatenate([np.cumsum(random.integers(1, 9, events)) + random.integers(0, 9) for _ in range(users)])
    return replace(plain, times=moments.astype(float))


def found(split: Split, **told: object) -> dict[str, tuple[int, int]]:
    """Kind -> (count, of how many), of what is not inherent."""
    return {leak.kind: (leak.count, leak.of) for leak in check_leaks(split, **told) if not leak.inherent}  # type: ignore[arg-type]


def with_histories(split: Split, user: str, items: list[int], times: list[float]) -> Split:
    """The split with one more training history."""
    train = split.train
    return replace(
        split,
        train=Histories(
            np.append(train.user_ids, user),
            np.append(train.indptr, train.indptr[-1] + len(items)),
            np.append(train.items, items),
            np.append(train.times, times),
        ),
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 40), st.integers(1, 9), st.integers(0, 10**6), st.booleans(), st.sampled_from(sorted(CUTS)))
def test_clean_splits_raise_no_alarm(users: int, events: int, seed: int, times: bool, name: str) -> None:
    try:
        split = CUTS[name](world(users, events, seed, times))
    except DataError:  # no times to cut at, or nobody left to train
        return
    assert found(split, events=EVENTS, learned_from={"model": EVENTS, "codes": None}) == {}


@pytest.mark.parametrize("name", sorted(CUTS))
@pytest.mark.parametrize("questions", ["warm", "cold"])
def test_clean_splits_raise_no_alarm_about_warm_or_cold_questions_either(name: str, questions: str) -> None:
    assert found(CUTS[name](world(users=300)).about(questions)) == {}


def test_without_questions_or_training_there_is_nothing_to_find() -> None:
    nothing = Histories.from_lists([])
    empty = Targets(nothing, np.zeros(0, np.int64))
    assert check_leaks(Split("leave-one-out", nothing, empty, empty, 0.0)) == []


@pytest.mark.parametrize("times", [True, False])
def test_targets_that_train_are_caught_with_and_without_times(times: bool) -> None:
    histories = world(times=times)
    split = leave_one_out(histories)
    assert found(replace(split, train=histories))["target-in-training"] == (80, 80)
    but_one = histories.select(np.arange(40), histories.lengths - 1)
    assert found(replace(split, train=but_one))["target-in-training"] == (40, 80), "the last but one, which validates"


def test_a_single_target_that_trains_out_of_its_place_is_caught() -> None:
    split = leave_one_out(world())
    planted = with_histories(split, "7", [int(split.test.items[7])], [float(split.test.times[7])])
    assert found(planted)["target-in-training"] == (1, 80)


def test_an_item_met_again_in_the_question_is_no_leak() -> None:
    repeated = Histories.from_lists([[3, 5, 3, 4, 3], [1, 2, 1, 1]])
    assert found(leave_one_out(repeated)) == {}
    assert found(leave_one_out(replace(repeated, times=np.arange(9.0)))) == {}


def test_later_events_of_the_same_user_in_training_are_caught() -> None:
    split = leave_one_out(world())
    later = with_histories(split, "7", [49], [float(split.test.times[7]) + 1])
    assert found(later) == {"own-future-in-training": (2, 80)}, "the user's validation and test question"
    unknown = leave_one_out(world(times=False))
    longer = with_histories(unknown, "7", [50, 50], [np.nan, np.nan])  # more events than there are before either question
    assert found(longer) == {"own-future-in-training": (2, 80)}


def test_training_events_after_the_questions_are_caught_in_a_split_by_time() -> None:
    split = CUTS["global-time"](world())
    asked = len(split.validation) + len(split.test)
    assert found(with_histories(split, "late", [0], [1e9])) == {"future-in-training": (asked, asked)}
    last = float(split.test.times.max())
    earlier = int(sum((asked.times < last).sum() for asked in (split.validation, split.test)))
    assert found(with_histories(split, "late", [0], [last])) == {"future-in-training": (earlier, asked)}


def test_held_out_users_who_train_or_are_held_out_twice_are_caught() -> None:
    split = CUTS["user-holdout"](world())
    asked = len(split.validation) + len(split.test)
    histories = split.test.histories
    first = histories.select(np.array([0]))
    planted = with_histories(split, first.user_ids[0], first.items.tolist(), first.times.tolist())
    assert found(planted) == {"user-in-training": (1, asked)}
    assert found(replace(split, validation=split.test)) == {"user-in-training": (2 * len(split.test), 2 * len(split.test))}


def test_an_event_twice_is_caught_and_the_same_item_at_another_time_is_not() -> None:
    plain = Histories.from_lists([[3, 5, 4, 3], [3, 5, 4, 3], [6, 7, 8, 9]])
    times = np.array([1, 1, 1, 1, 1, 2, 3, 4, 1, 2, 3, 4], float)
    assert found(leave_one_out(replace(plain, times=times))) == {"event-twice": (1, 5 + 1)}


def test_histories_out_of_time_order_are_caught_wherever_they_are() -> None:
    histories = world()
    swapped = histories.times.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert found(leave_one_out(replace(histories, times=swapped))) == {"not-in-time-order": (3, 120)}
    early = histories.times.copy()
    early[5] = early[0] - 1  # the test target of the first user
    out_of_order = found(leave_one_out(replace(histories, times=early)))
    assert out_of_order["not-in-time-order"] == (1, 120)
    partly = histories.times.copy()
    partly[1] = np.nan
    assert found(leave_one_out(replace(histories, times=partly))) == {}


def test_the_first_event_of_a_user_may_be_older_than_the_last_of_another() -> None:
    plain = Histories.from_lists([[1, 2, 3], [], [4, 5, 6], []])
    assert found(leave_one_out(replace(plain, times=np.array([7, 8, 9, 1, 2, 3], float)))) == {}


def test_codes_and_models_that_learned_from_other_events_are_named() -> None:
    split = leave_one_out(world())
    [leak] = [x for x in check_leaks(split, EVENTS, {"model": EVENTS, "codes": OTHERS}) if not x.inherent]
    assert (leak.kind, leak.count, leak.of) == ("other-events", 80, 80)
    assert "not the ones of the fit of the codes (hash bbbbbbbbbbbb)" in str(leak)
    [both] = [x for x in check_leaks(split, EVENTS, {"model": OTHERS, "codes": OTHERS}) if not x.inherent]
    assert "the model (hash bbbbbbbbbbbb) and the codes" in both.example


def test_how_much_of_the_future_leave_one_out_trains_on_is_told_as_a_share() -> None:
    plain = Histories.from_lists([[1, 2, 3, 4], [5, 6, 7, 8]])
    split = leave_one_out(replace(plain, times=np.array([1, 2, 3, 4, 10, 20, 30, 40], float)))
    [leak] = check_leaks(split)  # train times 1 2 10 20; asked at 3 and 30, 4 and 40
    assert (leak.kind, leak.count, leak.of, leak.inherent) == ("future-of-others", 2, 4, True)
    assert "25.0% of the training events are later than a question on average" in leak.example


def test_questions_that_time_does_not_order_are_told() -> None:
    histories = world()
    tied = histories.times.copy()
    tied[[5, 11, 17]] = tied[[4, 10, 16]]  # the last two events of three users
    kinds = {leak.kind: leak for leak in check_leaks(leave_one_out(replace(histories, times=tied)))}
    assert (kinds["tied-times"].count, kinds["tied-times"].of, kinds["tied-times"].inherent) == (3, 40, True)
    assert "tied-times" not in {leak.kind for leak in check_leaks(leave_one_out(histories))}


def out_of_order(histories: Histories) -> Histories:
    return replace(histories, times=histories.times[::-1])


# Kind -> a split with that leak, and what `check_leaks` is told beside it.
PLANTED: dict[str, Callable[[], tuple[Split, dict]]] = {
    "other-events": lambda: (leave_one_out(world()), {"events": EVENTS, "learned_from": {"codes": OTHERS}}),
    "target-in-training": lambda: (replace(leave_one_out(world()), train=world()), {}),
    "own-future-in-training": lambda: (with_histories(leave_one_out(world()), "7", [49], [1e9]), {}),
    "future-in-training": lambda: (with_histories(CUTS["global-time"](world()), "late", [0], [1e9]), {}),
    "user-in-training": lambda: (replace(CUTS["user-holdout"](world()), train=world()), {}),
    "event-twice": lambda: (leave_one_out(replace(Histories.from_lists([[3, 5, 4, 3]]), times=np.ones(4))), {}),
    "not-in-time-order": lambda: (leave_one_out(out_of_order(world())), {}),
    "future-of-others": lambda: (leave_one_out(world()), {}),
    "tied-times": lambda: (leave_one_out(replace(world(), times=np.zeros(240))), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_leak_of_each_kind_is_caught(kind: str) -> None:
    split, told = PLANTED[kind]()
    assert kind in {leak.kind for leak in check_leaks(split, **told)}


rows = st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=6), min_size=1, max_size=5)


@settings(max_examples=80, deadline=None)
@given(rows, rows, st.booleans())
def test_targets_are_found_as_counting_event_by_event_finds_them(
    trained: list[list[tuple[int, int]]], asked: list[list[tuple[int, int]]], times: bool
) -> None:
    """Whatever was planted: training holds more events like the target than the history before it."""

    def histories(lists: list[list[tuple[int, int]]]) -> Histories:
        plain = Histories.from_lists([[item for item, _ in row] for row in lists])
        return replace(plain, times=np.array([time for row in lists for _, time in row], float)) if times else plain

    asked = [row for row in asked if row]
    before = histories([row[:-1] for row in asked])
    targets = Targets(
        before,
        np.array([row[-1][0] for row in asked], np.int64),
        np.array([row[-1][1] for row in asked], float) if times else None,
    )
    nobody = Targets(Histories.from_lists([]), np.zeros(0, np.int64))
    split = Split("leave-one-out", histories(trained), nobody, targets, 0.0)

    def key(event: tuple[int, int]) -> tuple[int, int] | int:
        return event if times else event[0]

    expected = twice = 0
    for user, row in enumerate(asked):
        own = Counter(map(key, trained[user])) if user < len(trained) else Counter()
        past = Counter(map(key, row[:-1]))
        expected += own[key(row[-1])] > past[key(row[-1])]
        twice += times and 0 < own[key(row[-1])] <= past[key(row[-1])]
    for stretch, batch in ((1 << 20, 4096), (3, 2)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mapped, "STRETCH", stretch)
            patch.setattr(leaks, "BATCH", batch)
            counts = {leak.kind: leak.count for leak in check_leaks(split)}
        assert counts.get("target-in-training", 0) == expected
        assert counts.get("event-twice", 0) == twice


def test_leaks_are_warnings_inherent_ones_notes_and_strict_makes_mistakes_errors(caplog: pytest.LogCaptureFixture) -> None:
    histories = world()
    split = leave_one_out(histories)
    with caplog.at_level(logging.INFO, logger="genrec"):
        report_leaks(check_leaks(split), strict=True)
        assert {record.levelno for record in caplog.records} == {logging.INFO}, "future of others, nothing else"
        report_leaks(check_leaks(replace(split, train=histories)))
    assert "target-in-training: 80 of 80 questions have their own target event in training" in caplog.text
    assert max(record.levelno for record in caplog.records) == logging.WARNING
    with pytest.raises(DataError, match=r"was not run:\ntarget-in-training: 80 of 80"):
        report_leaks(check_leaks(replace(split, train=histories)), strict=True)


def test_every_kind_says_what_to_do_and_what_is_counted() -> None:
    assert set(KINDS) >= INHERENT
    for kind, (what, advice) in KINDS.items():
        assert str(Leak(kind, 1, 2, "one", advice)).startswith(f"{kind}: 1 of 2 {what} (one). ")
        assert advice.endswith(".")


def test_the_page_about_evaluation_names_every_kind() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    named = [line.split("`")[1] for line in page.split("## Leak checks")[1].split("## ")[0].splitlines() if line[:3] == "| `"]
    assert named == list(KINDS)
