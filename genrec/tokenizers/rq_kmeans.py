"""RQ-KMeans: residual quantisation, one k-means per level on what the levels before left over.

Level l assigns r_{l-1} to its nearest centroid and passes r_l = r_{l-1} - centroid on; the first level carries the coarse
meaning, later ones refine it. k-means is faiss's. Source: the RK-means tokenizer of GRID (arXiv 2507.22224) and OneRec
(arXiv 2502.18965, there with balanced clusters).
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import faiss
import numpy as np
from tqdm.auto import tqdm

from genrec.data.interactions import Histories
from genrec.errors import SettingError, check_integer
from genrec.tokenizers.balance import MOST_BALANCED, balanced
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.residual import last_distances, residual_codes, subtract_nearest, sum_of_codes


@dataclass(frozen=True)
class RQKMeansConfig:
    """levels: quantisation steps `L`. codebook_size: codes per level `K`; "auto" is the power of two at or above
    2 * sqrt(items), from 8 to 256. starts: how many starts of k-means get five rounds per level, in turn at items drawn from
    one sphere and at items as they are; the best goes on. iterations: its rounds. balanced: give every code nearly as many
    items; see balance.py.
    """

    levels: int = 3
    codebook_size: int | Literal["auto"] = "auto"
    iterations: int = 50
    starts: int = 2
    balanced: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("levels", self.levels, 1, 8)
        check_integer("iterations", self.iterations, 1)
        check_integer("starts", self.starts, 1)
        check_integer("seed", self.seed, 0, 2**31 - 1)
        if self.codebook_size != "auto":
            check_integer("codebook_size", self.codebook_size, 2, 65_536)
            if self.balanced and self.codebook_size > MOST_BALANCED:
                raise SettingError(
                    f"balanced takes a codebook_size of at most {MOST_BALANCED}, got {self.codebook_size}: it weighs every "
                    "code against every item. Use more levels instead."
                )


class RQKMeans(ItemTokenizer):
    """State: `centroids_0` .. `centroids_{L-1}`, each [K, D] float32."""

    family = "rq-kmeans"

    def __init__(self, config: RQKMeansConfig | None = None) -> None:
        super().__init__()
        self.config = config or RQKMeansConfig()

    @property
    def centroids(self) -> list[np.ndarray]:
        """One [K, D] matrix per level."""
        return [self.state[f"centroids_{level}"] for level in range(self.config.levels)]

    @property
    def _handicaps(self) -> list[np.ndarray]:
        """One [K] per level, of balanced codebooks only."""
        return [self.state[f"handicaps_{level}"] for level in range(self.config.levels)] if self.config.balanced else []

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(matrix) for matrix in self.centroids)

    @property
    def width(self) -> int:
        return self.centroids[0].shape[1]

    def settings(self) -> dict[str, Any]:
        return asdict(self.config)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        return cls(RQKMeansConfig(**settings))

    def codebook_size(self, items: int) -> int:
        """`K` for a catalogue of this many items. Raises `SettingError` when a fixed size is larger than the catalogue."""
        wanted = self.config.codebook_size
        size = min(items, 256, max(8, 2 ** int(np.ceil(np.log2(2 * np.sqrt(items)))))) if wanted == "auto" else wanted
        if size > items:
            raise SettingError(
                f"codebook_size must be at most the number of items, {items}, got {size}. Lower it, or set it to 'auto'."
            )
        return size

    def _fit(self, vectors: np.ndarray, histories: Histories | None) -> dict[str, np.ndarray]:
        size = self.codebook_size(len(vectors))
        state: dict[str, np.ndarray] = {}
        for level in tqdm(range(self.config.levels), desc="RQ-KMeans levels", leave=False):
            centroids = self._kmeans(vectors, size, np.random.default_rng([self.config.seed, level]))
            handicaps: np.ndarray = np.zeros(size)
            if self.config.balanced:
                centroids, handicaps = balanced(vectors, centroids, self.config.seed)
                state[f"handicaps_{level}"] = handicaps
            state[f"centroids_{level}"] = centroids
            subtract_nearest(vectors, centroids, handicaps)
        return state

    def _kmeans(self, vectors: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
        """Centroids float32 [size, D]."""
        tried = []
        for turn in range(self.config.starts):
            start = vectors[random.choice(len(vectors), size, replace=False)]
            if turn % 2 == 0:
                start = _on_one_sphere(start, vectors.mean(axis=0))
            tried.append(_rounds(vectors, start, 5))
        return _rounds(vectors, min(tried, key=lambda run: run[1])[0], self.config.iterations)[0]

    def _encode(self, vectors: np.ndarray) -> np.ndarray:
        return residual_codes(self.centroids, vectors, self._handicaps)

    def last_distances(self, vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
        far = last_distances(self.centroids, vectors.astype(np.float64), codes)
        return far + self._handicaps[-1] if self._handicaps else far

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        return sum_of_codes(self.centroids, codes)


def _on_one_sphere(rows: np.ndarray, center: np.ndarray) -> np.ndarray:
    """The rows [K, D], moved to their median distance from the center.

    Of centroids at different distances, those near the center are nearest to most vectors when `D` is large, and k-means stays
    there: one code then takes in a tenth of the catalogue.
    """
    away = rows - center
    length = np.linalg.norm(away, axis=1, keepdims=True)
    return center + away * np.divide(np.median(length), length, out=np.zeros_like(length), where=length > 0)


def _rounds(vectors: np.ndarray, start: np.ndarray, rounds: int) -> tuple[np.ndarray, float]:
    """Centroids after rounds of k-means, and the squared error before the last of them moved."""
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        len(start),
        niter=rounds,
        min_points_per_centroid=1,  # only silences faiss's warning; every item is used either way
        max_points_per_centroid=len(vectors),  # never train on a sample of the catalogue
    )
    kmeans.train(vectors, init_centroids=start)
    return np.asarray(kmeans.centroids, np.float32), float(np.asarray(kmeans.obj)[-1])
