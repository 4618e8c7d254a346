"""Training of small networks: batches by length, and stopping early."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from genrec import networks
from genrec.networks import EarlyStopping, length_cuts, seeded, train_on


class Walker(nn.Module):
    """One number that every step of training pushes up."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Tensor) -> Tensor:
        return -self.place.sum()


def walk(scores: list[float], patience: int, every: int = 2, steps: int = 20) -> tuple[Walker, list[float], list[float]]:
    """(the walker, where it was when its score was asked for, the scores that training returned)"""
    walker, given_scores, places = Walker(), iter(scores), []

    def score() -> float:
        assert not walker.training
        places.append(walker.place.item())
        return next(given_scores)

    stopping = EarlyStopping(score, every, patience)
    returned = train_on(
        np.zeros((4, 1)), walker, walker, steps=steps, batch_size=2, learning_rate=0.1, desc="", stopping=stopping
    )
    return walker, places, returned


def test_training_stops_after_so_many_scores_without_a_better_one_and_keeps_the_best_weights() -> None:
    walker, places, returned = walk([0.1, 0.5, 0.3, 0.5, 0.9], patience=2)
    assert returned == [0.1, 0.5, 0.3, 0.5]
    assert walker.place.item() == places[1]
    assert len(set(places)) == 4
    assert not walker.training


def test_a_score_that_gets_better_in_time_lets_training_go_on_to_its_end() -> None:
    walker, places, returned = walk([0.1, 0.0, 0.2, 0.1, 0.3], patience=2, every=4)
    assert len(returned) == 5
    assert walker.place.item() == places[4]


def test_scores_are_asked_for_without_changing_what_is_learnt() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)

    def trained(stopping: EarlyStopping | None) -> Tensor:
        layers = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
        train_on(
            rows, layers, lambda batch: (layers(batch) ** 2).mean(), steps=12, batch_size=8, learning_rate=0.1, desc="",
            stopping=stopping,
        )  # fmt: skip
        return layers[0].weight.detach()

    rising = iter(range(100))
    plain = seeded(1, lambda: trained(None))
    stopped = seeded(1, lambda: trained(EarlyStopping(lambda: next(rising), 3, 2)))
    assert torch.equal(plain, stopped)


class Killed(BaseException):
    """What ends a training from outside."""


def run_once(checkpoint: Path | None, scores: list[float], kill_at: int | None) -> tuple[Tensor, list[float], int]:
    """The weights and scores of a training with dropout and a patience of 2, whose n-th score is `scores[n]`, and how many
    were asked for. kill_at: the score while which it is killed."""
    rows, lengths = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32), np.arange(40) % 7 + 1
    layers, answered = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), []
    per_pass = len(length_cuts(lengths, 24)) - 1

    def score() -> float:
        if len(given_before) + len(answered) == kill_at:
            raise Killed
        answered.append(scores[len(given_before) + len(answered)])
        return answered[-1]

    given_before = [] if checkpoint is None or not checkpoint.exists() else torch.load(checkpoint, weights_only=True)["scores"]
    returned = train_on(
        rows, layers, lambda batch: (layers(batch) ** 2).mean(), steps=len(scores) * per_pass, batch_size=24,
        learning_rate=0.1, desc="", lengths=lengths, stopping=EarlyStopping(score, per_pass, 2, checkpoint),
    )  # fmt: skip
    return layers[0].weight.detach(), returned, len(answered)


@pytest.mark.parametrize("scores", [[0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.5, 0.4, 0.3, 0.9]])
@pytest.mark.parametrize("kills", [[1], [3], [1, 2, 3]])
def test_a_training_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path, scores: list[float], kills: list[int]) -> None:
    whole, expected, _ = seeded(1, lambda: run_once(None, scores, None))
    for number, kill_at in enumerate(kills):
        with pytest.raises(Killed):
            seeded(number + 1, lambda kill_at=kill_at: run_once(tmp_path / "kept.pt", scores, kill_at))
        (tmp_path / "kept.partial").write_bytes(b"half written")
    weights, returned, asked = seeded(1, lambda: run_once(tmp_path / "kept.pt", scores, None))
    assert torch.equal(weights, whole)
    assert returned == expected
    assert asked == len(expected) - kills[-1], "what was scored before is not scored again"
    again, returned, asked = seeded(5, lambda: run_once(tmp_path / "kept.pt", scores, None))
    assert (returned, asked) == (expected, 0), "a training that had ended does not train on"
    assert torch.equal(again, whole)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 200))
def test_cuts_make_batches_as_large_as_may_be(lengths: list[int], most: int) -> None:
    cuts, ordered = length_cuts(np.array(lengths), most), sorted(lengths)
    assert cuts[0] == 0
    assert cuts[-1] == len(lengths)
    for start, stop in itertools.pairwise(cuts):
        assert stop > start
        assert (stop - start) * ordered[stop - 1] <= most or stop - start == 1
        if stop < len(lengths):
            assert (stop - start + 1) * ordered[stop] > most


@pytest.mark.parametrize("most", [1, 12, 1000])
def test_a_pass_by_length_takes_every_row_once_and_neighbours_in_length_together(most: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 20, 37)
    batches = networks._length_batches(lengths, most, torch.device("cpu"))
    per_pass = len(length_cuts(lengths, most)) - 1
    passes = [[next(batches) for _ in range(per_pass)] for _ in range(2)]
    for made in passes:
        assert sorted(torch.cat(made).tolist()) == list(range(37))
        spans = sorted((lengths[batch].min(), lengths[batch].max()) for batch in made)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert torch.cat(passes[0]).tolist() != torch.cat(passes[1]).tolist()
