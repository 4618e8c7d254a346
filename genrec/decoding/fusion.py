"""Fusion: what a one-pass model says of an item, and what the items of the history call for by themselves, as one score.

    s(i) = (P(i) / highest P) ** power + sum over v of weight_v * votes_v(i) / highest votes_v
    votes_v(i) = sum over the latest items a of the history of decay ** (steps before its end) * M_v[a, i]

The matrices M are those of the co-occurrence + TF-IDF floor: items that followed each other in training histories, popularity
divided out, and items that read alike. The score is the logarithm of s's share among all items that can be found, so it is that
of a probability, as without fusion. An item that came after the fit has no votes and stands on what the model says.

Legend: `B` queries, `N` items of the fit, `R` catalogue rows, `n` rows of a piece.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from genrec.data.interactions import Histories, query_matrix
from genrec.decoding.scoring import Score, pieces
from genrec.errors import SettingError, check_choice, check_integer

VOTES = ("cooccurrence", "texts")


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
    """matrices: by name, float32 [N, N], how strongly an item (row) calls for another (column)."""

    matrices: dict[str, sp.csr_matrix]
    chosen: FusionWeights

    def votes(self, histories: Sequence[np.ndarray], fitted: np.ndarray | None = None) -> sp.csr_matrix:
        """The sum over v in s: float32 [B, N]. histories: catalogue rows, oldest first; fitted: see `Snapshot`."""
        items = next(iter(self.matrices.values())).shape[0]
        rows = items if fitted is None else len(fitted)
        query = query_matrix(Histories.from_lists(histories), rows, self.chosen.decay, self.chosen.latest)
        if fitted is not None:
            known = np.flatnonzero(fitted >= 0)
            query = query @ sp.csr_matrix((np.ones(len(known), np.float32), (known, fitted[known])), (rows, items))
        weighed = [weight * relative_votes(query @ self.matrices[name]) for name, weight in self.chosen.weights.items()]
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

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        arrays = {
            f"{name}.{part}": np.ascontiguousarray(getattr(matrix, part))
            for name, matrix in self.matrices.items()
            for part in ("indptr", "indices", "data")
        }
        save_file(arrays, path, metadata={"chosen": json.dumps(asdict(self.chosen))})

    @classmethod
    def load(cls, path: Path) -> "Fusion":
        """Read what `save` wrote."""
        with safe_open(path, "numpy") as file:
            chosen = FusionWeights(**json.loads(file.metadata()["chosen"]))
            matrices = {}
            for name in chosen.weights:
                data, indices, indptr = (file.get_tensor(f"{name}.{part}") for part in ("data", "indices", "indptr"))
                matrices[name] = sp.csr_matrix((data, indices, indptr), (len(indptr) - 1,) * 2)
        return cls(matrices, chosen)


def relative_votes(votes: sp.csr_matrix) -> sp.csr_matrix:
    """Votes [B, N] with 1 for the highest of each row; a row without any stays so."""
    highest = votes.max(axis=1).toarray()[:, 0]
    return sp.diags_array(1 / np.where(highest > 0, highest, 1)) @ votes
