"""The user index: what a user likes in the long run, as a few tokens before the history.

In: the item vectors, and whole histories. Out: per user one code a level, which the layout writes as tokens behind [start].

A model reads the latest `max_history` items of a history; the index is made of all of them. A user's vector is the mean of the
vectors of the items that are given, brought to length 1, and the index is its residual k-means codes. So no user has to be
known: whoever brings a history has an index, and it moves as the history grows. An item whose vector is zero says nothing. Who
has no history, or none but such items, is the unknown user, who has a token too.

ULMRec (arXiv 2412.05543) quantises vectors of reviews and of user ids by an RQ-VAE; reviews and ids are what a new user lacks.

Legend: `B` histories, `R` catalogue rows, `D` vector width, `U` levels of the index, `K` codes of a level.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from genrec.data.interactions import Histories
from genrec.data.mapped import stretches
from genrec.errors import SettingError
from genrec.tokenizers.das import user_vectors
from genrec.tokenizers.residual import residual_codes, subtract_nearest
from genrec.tokenizers.rq_kmeans import RQKMeans, RQKMeansConfig

UNKNOWN = -1  # in the place of every code of the unknown user
MOST_USERS = 100_000  # that centroids are fitted on: enough for any of them, and they have to fit into memory


@dataclass(frozen=True, eq=False)
class UserIndex:
    """centroids: one matrix a level, float32 [K, D]."""

    centroids: tuple[np.ndarray, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes per level [U]."""
        return tuple(len(matrix) for matrix in self.centroids)

    @classmethod
    def fit(cls, train: Histories, vectors: np.ndarray, sizes: Sequence[int], seed: int) -> "UserIndex":
        """Learn the centroids. train: the training part of the histories and nothing else; vectors: float32 [R, D].

        Raises `SettingError` where there are fewer users than codes.
        """
        users = np.flatnonzero(train.lengths)
        if len(users) > MOST_USERS:
            users = np.sort(np.random.default_rng(seed).choice(users, MOST_USERS, replace=False))
        some = train.select(users)
        parts = [_tastes(some.select(np.arange(*part)), vectors) for part in stretches(some.indptr)]
        tastes = np.concatenate([np.zeros((0, vectors.shape[1]), np.float32), *parts])
        left = tastes[np.any(tastes, axis=1)]
        centroids = []
        for level, size in enumerate(sizes):
            if size > len(left):
                raise SettingError(
                    f"model.user_index asks for {size} codes, and {len(left)} users train. Lower it to a part of them."
                )
            centroids += RQKMeans(RQKMeansConfig(levels=1, codebook_size=size, seed=seed + level)).fit(left).centroids
            subtract_nearest(left, centroids[-1])
        return cls(tuple(centroids))

    def codes(self, histories: Sequence[np.ndarray], vectors: np.ndarray) -> np.ndarray:
        """The index of whole histories (catalogue rows): int64 [B, U], `UNKNOWN` in every place of an unknown user. What a
        history gets does not depend on the others. vectors: float32 [R, D]."""
        tastes = _tastes(Histories.from_lists(histories), vectors)
        known = np.any(tastes, axis=1, keepdims=True)
        return np.where(known, residual_codes(self.centroids, tastes), UNKNOWN).astype(np.int64)

    def save(self, path: Path) -> None:
        """Write the centroids, a safetensors file."""
        save_file({f"level_{number}": np.ascontiguousarray(matrix) for number, matrix in enumerate(self.centroids)}, path)

    @classmethod
    def load(cls, path: Path) -> "UserIndex":
        """Read what `save` wrote."""
        levels = load_file(path)
        return cls(tuple(levels[f"level_{number}"] for number in range(len(levels))))


def _tastes(histories: Histories, vectors: np.ndarray) -> np.ndarray:
    """Mean item vectors of length 1, zero where there is nothing to go by: float32 [B, D]."""
    met, places = np.unique(histories.items, return_inverse=True)  # the catalogue may be large, and is not copied for a batch
    means = user_vectors(vectors[met], replace(histories, items=places.reshape(-1)))
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.where(lengths > 1e-6, lengths, np.inf), np.float32)
