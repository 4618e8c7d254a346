"""Training examples of an encoder-decoder: which events become targets, in which batches, and what a batch holds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.data.interactions import Histories
from genrec.data.splits import leave_one_out
from genrec.models.tokens import TokenLayout
from genrec.training.targets import HistoryTargets, TargetBatches, TargetCollator

lengths_of_users = st.lists(st.integers(0, 40), min_size=1, max_size=20).filter(any)


def numbered(lengths: list[int]) -> Histories:
    """Users whose items are the numbers of their events, from 0 on over all of them."""
    return Histories.from_lists(np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1]))


@given(lengths_of_users, st.integers(1, 8))
def test_a_target_comes_with_what_its_own_user_had_before_and_nothing_else(lengths: list[int], max_history: int) -> None:
    histories = numbered(lengths)
    targets = HistoryTargets(histories, max_history)
    assert len(targets) == sum(lengths)
    for user in range(len(histories)):
        for place, item in enumerate(histories[user]):
            history, target, name = targets[int(item)]
            assert target == item
            assert name == (histories.user_ids[user] if place % 4 else None), "one of four is learned without a name"
            np.testing.assert_array_equal(history, histories[user][:place][-max_history:])


def test_validation_and_test_targets_are_never_trained_on() -> None:
    split = leave_one_out(numbered([5, 3, 8]))
    targets = HistoryTargets(split.train, 20)
    batches = TargetBatches(targets, 0, 2, 1000, seed=0)
    seen = [item for batch in batches for event in batch for item in (*targets[event][0], targets[event][1])]
    assert set(seen) == set(split.train.items)
    assert not set(seen) & {*split.validation.items, *split.test.items}


@given(lengths_of_users, st.integers(0, 5))
def test_stretches_share_out_every_history_evenly(lengths: list[int], per_user: int) -> None:
    targets = HistoryTargets(numbered(lengths), 9)
    first, stop = targets.stretches(per_user)
    np.testing.assert_array_equal(
        np.concatenate([np.arange(a, b) for a, b in zip(first, stop, strict=True)]), np.arange(sum(lengths))
    )
    user = np.repeat(np.arange(len(lengths)), lengths)
    for number, length in enumerate(lengths):
        sizes = (stop - first)[user[first] == number]
        assert len(sizes) == (min(length, per_user) if per_user else length)
        assert not len(sizes) or sizes.max() - sizes.min() <= 1


@given(lengths_of_users, st.integers(0, 5), st.integers(1, 4), st.integers(20, 400))
def test_batches_take_one_target_of_each_stretch_within_the_budget(
    lengths: list[int], per_user: int, per_item: int, budget: int
) -> None:
    targets = HistoryTargets(numbered(lengths), 9)
    batches = TargetBatches(targets, per_user, per_item, budget, seed=3)
    first, stop = targets.stretches(per_user)
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        drawn = list(batches)
        assert len(drawn) == len(batches), "as many in every epoch"
        events = np.sort([event for batch in drawn for event in batch])
        assert ((first <= events) & (events < stop)).all()
        for batch in drawn:
            longest = max(len(targets[event][0]) for event in batch)
            assert len(batch) == 1 or len(batch) * (1 + per_item * (longest + 1)) <= budget
        assert list(batches) == drawn, "an epoch can be drawn again"


def test_epochs_draw_other_targets_until_all_had_their_turn() -> None:
    targets = HistoryTargets(numbered([12] * 20), 20)
    batches = TargetBatches(targets, 3, 2, 500, seed=0)
    epochs = []
    for epoch in range(60):
        batches.set_epoch(epoch)
        epochs.append({event for batch in batches for event in batch})
    assert all(len(events) == 60 for events in epochs)
    assert epochs[0] != epochs[1]
    assert set().union(*epochs) == set(range(240))


def test_batches_waste_little_on_padding() -> None:
    lengths = np.random.default_rng(0).geometric(0.12, 3000).tolist()
    targets = HistoryTargets(numbered(lengths), 20)
    read = [targets.lengths(np.array(batch)) for batch in TargetBatches(targets, 4, 4, 4096, seed=0)]
    padded = sum(len(batch) * (1 + 4 * batch.max()) for batch in read)
    assert sum((1 + 4 * batch).sum() for batch in read) / padded > 0.95


@pytest.mark.parametrize("start", [1, 7])
def test_the_encoder_reads_the_history_and_the_loss_is_on_the_targets_codes_alone(start: int) -> None:
    layout = TokenLayout(8, (4, 4), start, 0)
    codes = np.array([[a, b] for a in range(4) for b in range(4)])
    batch = TargetCollator(codes, layout)([(np.array([1, 6]), 11, "u1"), (np.array([], np.int64), 4, None)])
    assert batch["input_ids"].tolist() == [[start, 8, 13, 9, 14], [0, 0, 0, 0, start]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [0, 0, 0, 0, 1]]
    assert batch["labels"].tolist() == [[10, 15], [9, 12]]


def test_the_encoder_reads_a_users_token_before_the_items_where_the_model_has_them() -> None:
    layout = TokenLayout.from_scratch((4, 4), users=5)
    codes = np.array([[a, b] for a in range(4) for b in range(4)])
    tokens = TargetCollator(codes, layout)([(np.array([1]), 2, "u1"), (np.array([3]), 2, None)])["input_ids"]
    assert tokens[:, 0].tolist() == [layout.first_token("u1"), layout.start]
    assert tokens[0, 0] in range(10, 15), "behind the codes"
