"""Choose how a model and what else votes are added up: on validation questions, after the training.

In: a trained ranker, training histories, item texts, perhaps a one-pass model beside a language model. Out: a `Fusion`. The
matrices are those of the co-occurrence + TF-IDF floor, made of training histories alone; power, weights and decay are the best
of a grid by NDCG@10, the same grid for every catalogue.

Legend: `M` questions, `B` of a batch, `N` items, `W` candidates of a beam.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from genrec.data.interactions import Histories
from genrec.data.splits import Split, Targets
from genrec.decoding.fusion import ONE_PASS, VOTES, Fusion, FusionWeights
from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.ranker import BeamRanker
from genrec.errors import DataError, SettingError, check_choice
from genrec.evaluation.baselines.floor import CooccurrenceTfidf, FloorConfig
from genrec.evaluation.metrics import ndcg_at
from genrec.evaluation.ranking import validation_ndcg

log = logging.getLogger(__name__)

POWERS, DECAYS = (0.5, 1.0), (0.5, 0.6, 0.7, 0.8)
WEIGHTS = {
    "cooccurrence": (0.0, 0.3, 0.6, 1.0, 1.5),
    "texts": (0.0, 0.1, 0.2, 0.4, 0.8),
    ONE_PASS: (0.0, 0.3, 0.6, 1.0, 2.0),
}


@dataclass(frozen=True)
class FusionConfig:
    """votes: what is added to the model's scores, of "cooccurrence" (items that followed each other), "texts" (items that read
    alike) and "one-pass" (beside a language model: what a one-pass model says); empty for the model alone. How much each counts
    is chosen on validation. scorer: bundle of the one-pass model that votes, fitted on the same tables and split.
    """

    votes: tuple[str, ...] = ()
    scorer: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "votes", tuple(self.votes))
        for name in self.votes:
            check_choice("fusion.votes", name, list(VOTES))
        if len(set(self.votes)) < len(self.votes):
            raise SettingError(f"fusion.votes must name each once, got {list(self.votes)}.")
        if (ONE_PASS in self.votes) != bool(self.scorer):
            raise SettingError(
                f"The vote {ONE_PASS!r} and fusion.scorer, the bundle that gives it, need each other; got fusion.votes "
                f"{list(self.votes)} and fusion.scorer {self.scorer!r}."
            )


def choose_fusion(
    ranker: OnePassRanker | BeamRanker,
    split: Split,
    texts: list[str],
    config: FusionConfig,
    exclude_seen: bool,
    most: int,
    seed: int,
    scorer: OnePassRanker | None = None,
) -> tuple[Fusion, float]:
    """The fusion with the best validation NDCG@10 (of equals, the first tried), and that score. texts: [N]; most: validation
    questions at most, drawn with `seed`; scorer: over the same catalogue rows. Raises `DataError` without questions.
    """
    floor = CooccurrenceTfidf().fit(split.train, texts)
    known = {"cooccurrence": floor.together, "texts": floor.alike}
    matrices = {name: known[name] for name in config.votes if name in known}
    latest = FloorConfig().query_items
    grid = [
        FusionWeights(power, dict(zip(config.votes, weights, strict=True)), decay, latest)
        for decay, power, weights in product(DECAYS, POWERS, product(*(WEIGHTS[name] for name in config.votes)))
    ]
    questions = split.validation.sample(most, seed)
    if isinstance(ranker, OnePassRanker):
        found = _of_all_items(ranker, questions, matrices, grid, exclude_seen)
    else:
        found = _of_candidates(ranker, questions, matrices, grid, exclude_seen, scorer)
    best = grid[int(found.argmax())]
    log.info("Fusion chosen on validation: NDCG@10 %.4f with %s", found.max(), best)
    return Fusion(matrices, best, scorer), float(found.max())


def _of_all_items(
    ranker: OnePassRanker, questions: Targets, matrices: dict, grid: list[FusionWeights], exclude_seen: bool
) -> np.ndarray:
    """NDCG@10 of each of the grid where every item has a score."""

    def scores(batch: Histories) -> Iterator[np.ndarray]:
        histories = batch.to_lists()
        log_probs = ranker.log_probs(histories)
        log_probs -= log_probs.max(axis=1, keepdims=True)
        alone: dict[tuple[str, float], np.ndarray] = {}
        for chosen in grid:
            fused = np.exp(chosen.power * log_probs)
            for name, weight in chosen.weights.items():
                if (name, chosen.decay) not in alone:
                    alone[name, chosen.decay] = _alone(name, matrices, chosen).votes(histories).toarray()
                fused += np.float32(weight) * alone[name, chosen.decay]
            yield fused

    items = len(ranker.snapshot.codes)
    return validation_ndcg(questions, items, scores, len(grid), exclude_seen, "Choosing the fusion")


def _of_candidates(
    ranker: BeamRanker,
    questions: Targets,
    matrices: dict,
    grid: list[FusionWeights],
    exclude_seen: bool,
    scorer: OnePassRanker | None,
) -> np.ndarray:
    """NDCG@10 of each of the grid where a beam brings the candidates and s puts them in order."""
    if not len(questions):
        raise DataError("There is nothing to choose a fusion on: the split has no validation questions. Leave it out.")
    rows, log_probs = ranker.rank(questions.histories, ranker.beam_width, exclude_seen, progress=True)
    histories = questions.histories.to_lists()
    log_probs = log_probs - log_probs.max(axis=1, keepdims=True, initial=-np.inf, where=rows >= 0)
    right = rows == questions.items[:, None]
    place, found = right.argmax(axis=1), right.any(axis=1)
    alone: dict[tuple[str, float, float], np.ndarray] = {}
    values = []
    for chosen in grid:
        fused = np.exp(chosen.power * log_probs)
        for name, weight in chosen.weights.items():
            # A one-pass model has no decay and the votes of items have no power: each is asked once for what it depends on.
            key = (name, 0.0, chosen.power) if name == ONE_PASS else (name, chosen.decay, 0.0)
            if key not in alone:
                alone[key] = _alone(name, matrices, chosen, scorer).votes_at(histories, rows)
            fused += np.float32(weight) * alone[key]
        fused[rows < 0] = -np.inf
        own = np.take_along_axis(fused, place[:, None], axis=1)
        before = np.arange(rows.shape[1]) < place[:, None]
        positions = ((fused > own) | ((fused == own) & before)).sum(axis=1)
        values.append(ndcg_at(np.where(found, positions, -1), 10).mean())
    return np.array(values)


def _alone(name: str, matrices: dict, chosen: FusionWeights, scorer: OnePassRanker | None = None) -> Fusion:
    """One vote, with weight 1."""
    one = FusionWeights(chosen.power, {name: 1.0}, chosen.decay, chosen.latest)
    return Fusion({name: matrices[name]} if name in matrices else {}, one, scorer if name == ONE_PASS else None)
