"""Fusion: what a model says of an item, and what the items of the history call for by themselves, as one score.

    s(i) = (P(i) / highest P) ** power + sum over v of weight_v * votes_v(i) / highest votes_v
    votes_v(i) = sum over the latest items a of the history of decay ** (steps before its end) * M_v[a, i]

The matrices M are those of the co-occurrence + TF-IDF floor: items that followed each other in training histories, popularity
divided out, and items that read alike. Beside a language model a one-pass model can vote too, with its own (P / highest P) **
power. An item that came after the fit has no votes and stands on what the model says.

A one-pass model has an s for every item, and the score is the logarithm of s's share among all that can be found: that of a
probability, as without fusion. A beam search generates, then s scores: its candidates alone are put in order, and the score is
the logarithm of s's share among them.

Legend: `B` queries, `N` items of the fit, `R` catalogue rows, `n` rows of a piece, `W` candidates.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.special import logsumexp
from torch import Tensor

from genrec.data.interactions import Histories, query_matrix
from genrec.decoding.scoring import Score, pieces
from genrec.errors import SettingError, check_choice, check_integer

ONE_PASS = "one-pass"
VOTES = ("cooccurrence", "texts", ONE_PASS)
TOGETHER = 64  # histories that a one-pass model scores the whole catalogue for at once


class Scorer(Protocol):
    """A one-pass model over the items of the fit."""

    def log_probs(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """log P of every item up to a constant per history: float32 [B, N]. histories: rows of the fit."""
        ...


@dataclass(frozen=True)
class FusionWeights:
    """power: of the model's relative probability. weights: of the votes, by name. decay, latest: see the top of the file."""

    power: float
    weights: dict[str, float]
    decay: float
    latest: int

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            check_choice("votes of a fusion", name, list(VOTES))
            if not 0 <= weight < np.inf:
                raise SettingError(f"The weight of {name} must be 0 or more, got {weight}.")
        if not 0 < self.power < np.inf:
            raise SettingError(f"The power of the model must be above 0, got {self.power}.")
        if not 0 < self.decay <= 1:
            raise SettingError(f"decay must be above 0 and at most 1, got {self.decay}.")
        check_integer("latest", self.latest, 1)


@dataclass(frozen=True, eq=False)
class Fusion:
    """matrices: by name, float32 [N, N], how strongly an item (row) calls for another (column). scorer: the one-pass model that
    votes, where one does."""

    matrices: dict[str, sp.csr_matrix]
    chosen: FusionWeights
    scorer: Scorer | None = None

    def votes(self, histories: Sequence[np.ndarray], fitted: np.ndarray | None = None) -> sp.csr_matrix:
        """The sum over v in s, but for a one-pass model's: float32 [B, N]. histories: catalogue rows, oldest first; fitted: see
        `Snapshot`."""
        items = next(iter(self.matrices.values())).shape[0]
        rows = items if fitted is None else len(fitted)
        query = query_matrix(Histories.from_lists(histories), rows, self.chosen.decay, self.chosen.latest)
        if fitted is not None:
            known = np.flatnonzero(fitted >= 0)
            query = query @ sp.csr_matrix((np.ones(len(known), np.float32), (known, fitted[known])), (rows, items))
        weighed = [self.chosen.weights[name] * relative_votes(query @ matrix) for name, matrix in self.matrices.items()]
        return sum(weighed, sp.csr_matrix((len(histories), items), dtype=np.float32)).tocsr().astype(np.float32)

    def scores(self, model: Score, votes: sp.csr_matrix, counted: Tensor, fitted: np.ndarray | None = None) -> Score:
        """log s of runs of catalogue rows. model: log P, up to a constant per query; votes: of the same queries [B, N];
        counted: bool [R], rows that can be found."""
        by_item = votes.tocsc()
        highest = torch.full((votes.shape[0], 1), -torch.inf, device=counted.device)
        for start, stop in pieces(len(counted), votes.shape[0]):
            here = model(start, stop).masked_fill(~counted[start:stop], -torch.inf)
            highest = torch.maximum(highest, here.amax(dim=1, keepdim=True))

        def score(start: int, stop: int) -> Tensor:
            if fitted is None:
                added = by_item[:, start:stop].toarray()
            else:
                there = fitted[start:stop]
                added = by_item[:, np.maximum(there, 0)].toarray() * (there >= 0)
            # As logarithms, so that an item of hardly any probability keeps its place and can be returned.
            return torch.logaddexp(
                self.chosen.power * (model(start, stop) - highest), torch.from_numpy(added).to(counted.device).log()
            )

        return score

    def votes_at(self, histories: Sequence[np.ndarray], rows: np.ndarray, fitted: np.ndarray | None = None) -> np.ndarray:
        """The sum over v in s of some catalogue rows [B, W], -1 for none: float32 [B, W]."""
        known = rows if fitted is None else np.where(rows >= 0, fitted[rows], -1)
        found = np.zeros(rows.shape, np.float32)
        if self.matrices:
            found += self.votes(histories, fitted)[np.arange(len(rows))[:, None], np.maximum(known, 0)].toarray()
        if self.scorer is not None:
            read = [history if fitted is None else fitted[history] for history in histories]
            for start in range(0, len(read), TOGETHER):
                some = slice(start, start + TOGETHER)
                log_probs = self.scorer.log_probs([history[history >= 0] for history in read[some]])
                chances = np.take_along_axis(log_probs, np.maximum(known[some], 0), axis=1)
                chances -= log_probs.max(axis=1, keepdims=True)
                found[some] += self.chosen.weights[ONE_PASS] * np.exp(self.chosen.power * chances)
        return np.where(known >= 0, found, 0)

    def reorder(
        self, histories: Sequence[np.ndarray], rows: np.ndarray, log_probs: np.ndarray, fitted: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Candidates of a beam, rows int64 [B, W] (-1: none) with their log P, in the order of s; and the logarithms of their
        shares. Equal ones keep their order.
        """
        there = rows >= 0
        highest = log_probs.max(axis=1, keepdims=True, initial=-np.inf, where=there)
        with np.errstate(divide="ignore", invalid="ignore"):  # logarithms of no votes, and lists without any candidate
            own = self.chosen.power * (log_probs - highest)
            scores = np.where(there, np.logaddexp(own, np.log(self.votes_at(histories, rows, fitted))), -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")
        rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
        shares = scores[rows >= 0] - np.repeat(logsumexp(scores, axis=1), (rows >= 0).sum(axis=1))
        scores[rows >= 0] = shares
        return rows, scores.astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the matrices and what was chosen, a safetensors file. A scorer is not in it."""
        arrays = {
            f"{name}.{part}": np.ascontiguousarray(getattr(matrix, part))
            for name, matrix in self.matrices.items()
            for part in ("indptr", "indices", "data")
        }
        save_file(arrays, path, metadata={"chosen": json.dumps(asdict(self.chosen))})

    @classmethod
    def load(cls, path: Path, scorer: Scorer | None = None) -> "Fusion":
        """Read what `save` wrote."""
        with safe_open(path, "numpy") as file:
            chosen = FusionWeights(**json.loads(file.metadata()["chosen"]))
            matrices = {}
            for name in sorted({key.rsplit(".", 1)[0] for key in file.keys()}):  # noqa: SIM118  # no mapping
                data, indices, indptr = (file.get_tensor(f"{name}.{part}") for part in ("data", "indices", "indptr"))
                matrices[name] = sp.csr_matrix((data, indices, indptr), (len(indptr) - 1,) * 2)
        return cls(matrices, chosen, scorer)


def relative_votes(votes: sp.csr_matrix) -> sp.csr_matrix:
    """Votes [B, N] with 1 for the highest of each row; a row without any stays so."""
    highest = votes.max(axis=1).toarray()[:, 0]
    return sp.diags_array(1 / np.where(highest > 0, highest, 1)) @ votes
