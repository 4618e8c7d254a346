"""Answers of several rounds: in order, no item twice, all that may be found comes back, and each round is an exact search."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_pass_worlds import COUNT, HISTORY, world
from torch.nn.functional import cosine_similarity

from genrec.data.interactions import Histories
from genrec.decoding.diversity import Cap, Groups
from genrec.decoding.one_pass import OnePassRanker, items_of
from genrec.decoding.snapshot import Rules
from genrec.errors import SettingError
from genrec.models.one_pass.config import OnePassConfig
from genrec.models.one_pass.model import OnePassModel

METHODS = st.sampled_from(["composed", "setrec", "h2rec"])
LISTS = st.lists(st.lists(st.integers(0, COUNT - 1), max_size=7), min_size=1, max_size=4)


def by_hand(ranker: OnePassRanker, history: list[int], k: int, allowed: set[int]) -> tuple[list[int], list[float]]:
    """The answer for one history alone, by full sorts."""
    model, config = ranker.model, ranker.model.shape.config
    read = history[-HISTORY:]
    with torch.no_grad():
        slots = model.tokens(items_of(ranker.snapshot, np.arange(COUNT), ranker._ids))
        tokens, ends = slots[read][None], torch.tensor([len(read)])
        states = [model.states(tokens)[:, len(read)]]
        found: list[int] = []
        scores: list[float] = []
        for number in range(config.rounds):
            cosines = cosine_similarity(states[-1], slots, dim=-1) / config.temperature
            log_probs = (cosines * model.weights).sum(dim=1).log_softmax(0)
            last = number + 1 == config.rounds
            most = k if last else min(k, (number + 1) * config.round_items)
            lowest = min(scores, default=0.0)
            best = sorted(allowed - set(found), key=lambda row: -log_probs[row].item())[: most - len(found)]
            found, scores = found + best, scores + [min(log_probs[row].item(), lowest) for row in best]
            if last or len(found) < (number + 1) * config.round_items or len(found) >= k:
                break
            shown = slots[found].view(1, number + 1, config.round_items, *slots.shape[1:])
            states.append(model.later_state(tokens, ends, shown, torch.stack(states, dim=1)))
    return found, scores


@settings(max_examples=40)
@given(METHODS, st.integers(0, 50), st.integers(2, 3), st.integers(1, 3), LISTS, st.integers(1, 12), st.booleans(), st.data())
def test_the_answer_is_that_of_one_full_sort_a_round(
    method: str, seed: int, rounds: int, each: int, lists: list[list[int]], k: int, seen: bool, data: st.DataObject
) -> None:
    ranker = world(method, seed, rounds=rounds, round_items=each)
    only = data.draw(st.none() | st.sets(st.integers(0, COUNT - 1)))
    rules = Rules() if only is None else Rules.of(ranker.snapshot, np.array(sorted(only), np.int64))
    rows, scores = ranker.rank(Histories.from_lists(lists), k, seen, rules)
    for user, history in enumerate(lists):
        allowed = (set(range(COUNT)) if only is None else only) - (set(history) if seen else set())
        expected, their_scores = by_hand(ranker, history, k, allowed)
        found = rows[user][rows[user] >= 0].tolist()
        assert len(found) == len(set(found)) == min(k, len(allowed))
        assert set(found) <= allowed
        assert (np.diff(scores[user, : len(found)]) <= 0).all()
        np.testing.assert_allclose(scores[user, : len(found)], their_scores, atol=2e-4)
        if found != expected:  # only where two items score the same
            place = next(n for n, (mine, right) in enumerate(zip(found, expected, strict=True)) if mine != right)
            others = their_scores[:place] + their_scores[place + 1 :]
            assert min(abs(their_scores[place] - other) for other in others) < 2e-4


def test_a_short_answer_is_the_beginning_of_a_longer_one() -> None:
    ranker = world("composed", 3, rounds=3, round_items=2)
    histories = Histories.from_lists([[1, 2], [], [7]])
    longest, _ = ranker.rank(histories, 12, True)
    for k in range(1, 12):
        assert np.array_equal(ranker.rank(histories, k, True)[0], longest[:, :k])


def test_what_was_found_before_changes_what_is_found_next() -> None:
    several, once = world("composed", 3, rounds=2, round_items=2), world("composed", 3)
    once.model.load_state_dict(several.model.state_dict(), strict=False)
    histories = Histories.from_lists([[1, 2], [7]])
    rows, plain = several.rank(histories, 8, True)[0], once.rank(histories, 8, True)[0]
    assert np.array_equal(rows[:, :2], plain[:, :2])
    assert not np.array_equal(rows[:, 2:], plain[:, 2:])


def test_caps_hold_over_all_rounds_and_a_full_answer_still_comes_back() -> None:
    ranker, brands = world("composed", 1, rounds=3, round_items=2), np.arange(COUNT) % 4
    cap = Cap(Groups(np.arange(COUNT + 1), brands), 2)
    rows, _ = ranker.rank(Histories.from_lists([[1, 2], []]), 12, False, Rules(caps=[cap]))
    for answer in rows:
        found = answer[answer >= 0]
        assert len(found) == len(set(found.tolist())) == 8
        assert (np.bincount(brands[found]) == 2).all()


def test_a_saved_model_answers_as_before(tmp_path: Path) -> None:
    ranker = world("setrec", 5, rounds=2, round_items=3)
    ranker.model.save(tmp_path)
    again = OnePassRanker(OnePassModel.load(tmp_path, "cpu"), ranker.layout, ranker.snapshot, ranker.train_counts)
    histories = Histories.from_lists([[1, 2, 3], [], [4]])
    for one, other in zip(ranker.rank(histories, 9, True), again.rank(histories, 9, True), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"loss": "codes"}, "loss 'codes' do not go together"),
        ({"sampled": 10}, "sampled do not go together"),
        ({"widths": (4,)}, "widths do not go together"),
        ({"mixture": 2}, "mixture do not go together"),
        ({"round_items": 0}, "one_pass.round_items"),
        ({"round_weight": 0.0}, "one_pass.round_weight must be above 0"),
    ],
)
def test_what_several_rounds_cannot_have_is_refused(others: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        OnePassConfig(rounds=2, **others)
