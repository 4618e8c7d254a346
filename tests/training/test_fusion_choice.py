"""How a fusion is chosen: on validation, and never worse there than the model alone."""

from dataclasses import replace

import numpy as np
import pytest
from one_pass_worlds import COUNT, world

from genrec.data.interactions import Histories
from genrec.data.splits import Split, Targets, leave_one_out
from genrec.errors import DataError, SettingError
from genrec.evaluation.metrics import hit_positions, ndcg_at
from genrec.training.fusion import FusionConfig, choose_fusion

TEXTS = [f"word{item % 5} thing{item % 3}" for item in range(COUNT)]


def walks(users: int = 60) -> Split:
    """Every user walks on from item to item, the next one mostly."""
    random = np.random.default_rng(0)
    starts, steps = random.integers(0, COUNT, users), random.choice([1, 1, 1, 2], (users, 6))
    return leave_one_out(
        Histories.from_lists([(start + np.cumsum(step)) % COUNT for start, step in zip(starts, steps, strict=True)])
    )


def ndcg(ranker, questions: Targets, exclude_seen: bool) -> float:
    rows, _ = ranker.rank(questions.histories, 10, exclude_seen)
    return float(ndcg_at(hit_positions(rows, questions.items), 10).mean())


@pytest.mark.parametrize("votes", [["cooccurrence"], ["texts"], ["texts", "cooccurrence"]])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_score_that_is_said_is_what_the_fused_ranker_gets_and_no_less_than_the_model(
    votes: list[str], exclude_seen: bool
) -> None:
    split, ranker = walks(), world("composed")
    alone = ndcg(ranker, split.validation, exclude_seen)
    fusion, best = choose_fusion(ranker, split, TEXTS, FusionConfig(tuple(votes)), exclude_seen, 1000, 0)
    assert list(fusion.chosen.weights) == votes
    ranker.fusion = fusion
    assert ndcg(ranker, split.validation, exclude_seen) == pytest.approx(best, abs=1e-3)
    assert best >= alone
    if "cooccurrence" in votes:
        assert best > alone + 0.2, "who walks on is easy to follow"


def test_without_validation_questions_nothing_can_be_chosen() -> None:
    split = walks()
    unasked = replace(split, validation=split.validation.select(np.zeros(0, np.int64)))
    with pytest.raises(DataError, match="validation"):
        choose_fusion(world("composed"), unasked, TEXTS, FusionConfig(("texts",)), True, 10, 0)


def test_votes_that_nobody_knows_or_that_come_twice_are_refused() -> None:
    with pytest.raises(SettingError, match="fame"):
        FusionConfig(("fame",))
    with pytest.raises(SettingError, match="once"):
        FusionConfig(("texts", "texts"))
