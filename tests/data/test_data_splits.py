"""Promises of the splits: who tests, who trains, and that nothing from the future trains."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data import Histories, exclude_seen_by_default, global_time, leave_one_out, user_holdout
from genrec.errors import DataError, SettingError
from genrec.recipe import load_recipe
from genrec.tables import split_histories

lists = st.lists(st.lists(st.integers(0, 9), max_size=7), max_size=8)


@settings(max_examples=60, deadline=None)
@given(lists)
def test_leave_one_out_tests_the_last_item_and_validates_the_one_before(rows: list[list[int]]) -> None:
    split = leave_one_out(Histories.from_lists(rows))
    tested = [row for row in rows if len(row) >= 2]
    validated = [row for row in rows if len(row) >= 3]
    assert [h.tolist() for h in split.test.histories.to_lists()] == [row[:-1] for row in tested]
    assert split.test.items.tolist() == [row[-1] for row in tested]
    assert [h.tolist() for h in split.validation.histories.to_lists()] == [row[:-2] for row in validated]
    assert split.validation.items.tolist() == [row[-2] for row in validated]
    expected = [row[:-2] if len(row) >= 3 else row[:1] for row in rows]
    assert [h.tolist() for h in split.train.to_lists()] == expected
    assert split.repeat_share == Histories.from_lists(expected).repeat_share()


def timed(rows: list[list[int]]) -> Histories:
    """Times in order inside each user; the item is the time, so that times can be read off items."""
    plain = Histories.from_lists([sorted(row) for row in rows])
    return Histories(plain.user_ids, plain.indptr, plain.items, plain.items.astype(float))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=8), min_size=1, max_size=8).filter(any), st.sampled_from([0.1, 0.2, 0.4]))
def test_global_time_trains_on_the_past_alone(rows: list[list[int]], share: float) -> None:
    histories = timed(rows)
    times = np.sort(histories.times)
    try:
        split = global_time(histories, validation_share=share, test_share=share)
    except DataError:
        # Allowed only where the first window starts with the very first moment.
        assert np.quantile(times, 1 - 2 * share, method="higher") == times[0]
        return
    start_validation, start_test = np.quantile(times, [1 - share - share, 1 - share], method="higher")
    assert split.train.items.max() < start_validation
    assert len(split.train.items) == (times < start_validation).sum()
    for targets, low, high in ((split.validation, start_validation, start_test), (split.test, start_test, np.inf)):
        expected = [
            (sorted(row)[:place], moment)
            for row in rows
            for place, moment in enumerate(sorted(row))
            if place and low <= moment < high
        ]
        got = [(h.tolist(), item) for h, item in zip(targets.histories.to_lists(), targets.items.tolist(), strict=True)]
        assert got == expected
        assert all(max(history) <= item for history, item in got)


def test_global_time_needs_timestamps_and_sensible_shares() -> None:
    histories = timed([[1, 2, 3], [4, 5]])
    holes = Histories(histories.user_ids, histories.indptr, histories.items, np.array([1, np.nan, 3, 4, 5]))
    with pytest.raises(DataError, match=r"needs a timestamp in every interaction, got 1 of 5 without"):
        global_time(holes)
    for shares in [(0.0, 0.1), (0.5, 0.5), (-0.1, 0.2), (0.1, 1.0)]:
        with pytest.raises(SettingError, match=r"add up to less than 1"):
            global_time(histories, *shares)
    with pytest.raises(DataError, match=r"got none: 4 events share too few moments"):
        global_time(timed([[7, 7], [7, 7]]))


def walks(users: int = 400, seed: int = 0) -> Histories:
    """1 to 6 items per user, of 30."""
    random = np.random.default_rng(seed)
    return Histories.from_lists([random.integers(0, 30, random.integers(1, 7)).tolist() for _ in range(users)])


def test_a_user_holdout_asks_for_the_last_item_of_users_who_never_train() -> None:
    histories = walks()
    split = user_holdout(histories, validation_share=0.2, test_share=0.1, seed=3)
    training, validation, test = (
        set(part.user_ids) for part in (split.train, split.validation.histories, split.test.histories)
    )
    assert not training & validation
    assert not training & test
    assert not validation & test
    everything = dict(zip(histories.user_ids, histories.to_lists(), strict=True))
    for user, items in zip(split.train.user_ids, split.train.to_lists(), strict=True):
        assert items.tolist() == everything[user].tolist(), "who trains, trains with all there is"
    for asked in (split.validation, split.test):
        for user, history, item in zip(asked.histories.user_ids, asked.histories.to_lists(), asked.items, strict=True):
            assert [*history.tolist(), item] == everything[user].tolist()
            assert len(history)
    assert split.repeat_share == split.train.repeat_share()


def test_the_shares_of_a_user_holdout_are_shares_of_the_users() -> None:
    pairs = Histories.from_lists([[0, 1]] * 20_000)
    split = user_holdout(pairs, validation_share=0.2, test_share=0.05)
    assert len(split.validation) == pytest.approx(4_000, rel=0.05)
    assert len(split.test) == pytest.approx(1_000, rel=0.1)
    assert len(split.train) + len(split.validation) + len(split.test) == 20_000


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(60)), st.integers(0, 30))
def test_who_is_held_out_depends_on_the_user_and_the_seed_alone(order: list[int], dropped: int) -> None:
    histories = walks(60)
    everybody = user_holdout(histories, 0.1, 0.2, seed=1)
    some = user_holdout(histories.select(np.array(order[dropped:])), 0.1, 0.2, seed=1)
    left = set(histories.user_ids[order[dropped:]])
    for part in ("validation", "test"):
        found, whole = ({*getattr(split, part).histories.user_ids} for split in (some, everybody))
        assert found == whole & left
    assert {*some.train.user_ids} == {*everybody.train.user_ids} & left


def test_another_seed_holds_out_other_users_and_the_choice_is_the_same_for_ever() -> None:
    histories = walks()
    tested = [user_holdout(histories, seed=seed).test.histories.user_ids.tolist() for seed in (0, 1)]
    assert tested[0] != tested[1]
    ten = Histories.from_lists([[0, 1]] * 10)  # a bundle made today is evaluated on these users tomorrow
    assert user_holdout(ten, 0.3, 0.3).test.histories.user_ids.tolist() == ["3", "6", "9"]


def test_a_user_holdout_without_anybody_to_train_on_is_an_error() -> None:
    with pytest.raises(DataError, match="got none: all 1 are held out"):
        user_holdout(Histories.from_lists([[0, 1]]), 0.5, 0.499999)
    with pytest.raises(SettingError, match="add up to less than 1"):
        user_holdout(walks(), 0.5, 0.5)


@settings(max_examples=40, deadline=None)
@given(lists, st.sampled_from(["validation", "test"]))
def test_every_question_is_warm_or_cold_by_whether_its_target_trained(rows: list[list[int]], part: str) -> None:
    split = leave_one_out(Histories.from_lists(rows))
    trained = set(split.train.items.tolist())
    asked, warm, cold = (getattr(split.about(kind), part) for kind in ("all", "warm", "cold"))
    assert set(warm.items.tolist()) <= trained
    assert not set(cold.items.tolist()) & trained
    whole = list(zip(asked.histories.user_ids, asked.items.tolist(), strict=True))
    pieces = [*zip(warm.histories.user_ids, warm.items.tolist(), strict=True)]
    pieces += [*zip(cold.histories.user_ids, cold.items.tolist(), strict=True)]
    assert sorted(whole) == sorted(pieces)


def test_questions_carry_the_time_of_their_target() -> None:
    histories = timed([[1, 2, 30], [4, 5, 6, 7], [8]])
    for split in (leave_one_out(histories), global_time(histories, 0.2, 0.2), user_holdout(histories, 0.1, 0.1)):
        for asked in (split.validation, split.test):
            assert asked.times is not None
            assert asked.times.tolist() == asked.items.tolist()
            assert asked.sample(1, seed=0).times.tolist() == asked.sample(1, seed=0).items.tolist()


@pytest.mark.parametrize("split", ["leave-one-out", "global-time", "user-holdout"])
def test_the_recipe_names_every_split_and_the_kind_of_questions(split: str) -> None:
    plain = walks()
    histories = Histories(plain.user_ids, plain.indptr, plain.items, np.arange(len(plain.items), dtype=float) % 97)
    cut = split_histories(histories, load_recipe(overrides={"data.split": split}))
    assert cut.name == split
    warm = split_histories(histories, load_recipe(overrides={"data.split": split, "data.questions": "warm"}))
    assert 0 < len(warm.test) <= len(cut.test)
    assert np.isin(warm.test.items, cut.train.items).all()


def test_no_questions_of_the_asked_kind_is_an_error_that_says_why() -> None:
    same = Histories.from_lists([[0, 1, 0, 1]] * 30)
    with pytest.raises(DataError, match="None of the 30 validation questions of the leave-one-out split is cold"):
        split_histories(same, load_recipe(overrides={"data.questions": "cold"}))
    own = Histories.from_lists([[user, 100 + user, 200 + user] for user in range(30)])
    with pytest.raises(DataError, match="is warm: their targets all have no training events"):
        split_histories(own, load_recipe(overrides={"data.questions": "warm"}))
    with pytest.raises(DataError, match="leaves no .* questions.*held-out users with 2 events or more"):
        split_histories(Histories.from_lists([[0]] * 30), load_recipe(overrides={"data.split": "user-holdout"}))


def test_a_sample_of_questions_is_seeded_and_keeps_their_order() -> None:
    test = leave_one_out(Histories.from_lists([[user, user + 1] for user in range(50)])).test
    sample = test.sample(10, seed=3)
    assert len(sample) == 10
    assert np.all(np.diff(sample.items) > 0)
    assert [h.tolist() for h in sample.histories.to_lists()] == [[item - 1] for item in sample.items]
    assert sample.items.tolist() == test.sample(10, seed=3).items.tolist() != test.sample(10, seed=4).items.tolist()
    assert test.sample(50, seed=0) is test


def test_seen_items_are_left_out_where_users_hardly_repeat() -> None:
    assert exclude_seen_by_default(0.0)
    assert exclude_seen_by_default(0.001)
    assert not exclude_seen_by_default(0.3)
