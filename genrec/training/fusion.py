"""Choose how a one-pass model and the votes of the history's items are added up: on validation questions, after the training.

In: a trained ranker, training histories and item texts. Out: a `Fusion`. The matrices are those of the co-occurrence + TF-IDF
floor, made of training histories alone; power, weights and decay are the best of a grid by NDCG@10, the same grid for every
catalogue.

Legend: `U` histories, `N` items.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from genrec.data.interactions import Histories
from genrec.data.splits import Split
from genrec.decoding.fusion import VOTES, Fusion, FusionWeights
from genrec.decoding.one_pass import OnePassRanker
from genrec.errors import SettingError, check_choice
from genrec.evaluation.baselines.floor import CooccurrenceTfidf, FloorConfig
from genrec.evaluation.ranking import validation_ndcg

log = logging.getLogger(__name__)

POWERS, DECAYS = (0.5, 1.0), (0.5, 0.6, 0.7, 0.8)
WEIGHTS = {"cooccurrence": (0.0, 0.3, 0.6, 1.0, 1.5), "texts": (0.0, 0.1, 0.2, 0.4, 0.8)}


@dataclass(frozen=True)
class FusionConfig:
    """votes: what is added to the model's scores, of "cooccurrence" (items that followed each other) and "texts" (items that
    read alike); empty for the model alone. How much each counts is chosen on validation.
    """

    votes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "votes", tuple(self.votes))
        for name in self.votes:
            check_choice("fusion.votes", name, list(VOTES))
        if len(set(self.votes)) < len(self.votes):
            raise SettingError(f"fusion.votes must name each once, got {list(self.votes)}.")


def choose_fusion(
    ranker: OnePassRanker, split: Split, texts: list[str], config: FusionConfig, exclude_seen: bool, most: int, seed: int
) -> tuple[Fusion, float]:
    """The fusion with the best validation NDCG@10 (of equals, the first tried), and that score. texts: [N]; most: validation
    questions at most, drawn with `seed`. Raises `DataError` without questions.
    """
    floor = CooccurrenceTfidf().fit(split.train, texts)
    known = {"cooccurrence": floor.together, "texts": floor.alike}
    matrices = {name: known[name] for name in config.votes}
    latest = FloorConfig().query_items
    grid = [
        FusionWeights(power, dict(zip(matrices, weights, strict=True)), decay, latest)
        for decay, power, weights in product(DECAYS, POWERS, product(*(WEIGHTS[name] for name in matrices)))
    ]

    def scores(batch: Histories) -> Iterator[np.ndarray]:
        histories = batch.to_lists()
        log_probs = ranker.log_probs(histories)
        relative = {power: np.exp(power * (log_probs - log_probs.max(axis=1, keepdims=True))) for power in POWERS}
        for decay in DECAYS:
            alone = {
                name: Fusion(matrices, FusionWeights(1.0, {name: 1.0}, decay, latest)).votes(histories).toarray()
                for name in matrices
            }
            for power, weights in product(POWERS, product(*(WEIGHTS[name] for name in matrices))):
                fused = relative[power].copy()
                for name, weight in zip(matrices, weights, strict=True):
                    fused += np.float32(weight) * alone[name]
                yield fused

    questions = split.validation.sample(most, seed)
    found = validation_ndcg(questions, len(texts), scores, len(grid), exclude_seen, "Choosing the fusion")
    best = grid[int(found.argmax())]
    log.info("Fusion chosen on validation: NDCG@10 %.4f with %s", found.max(), best)
    return Fusion(matrices, best), float(found.max())
