"""OPQ: codes without an order. The vector is rotated and cut into parts, and each part gets its own code, so that no code means
more than another and none depends on another: what models that predict all codes of an item at once want.

The rotation is learned together with the codebooks so that the parts carry equal shares (optimised product quantisation, Ge
et al. 2013), by faiss. Source for its use in recommendation: RPG (arXiv 2506.05781), ActionPiece (arXiv 2502.13581).

Legend: `N` items, `D` vector width, `M` parts, `K` codes per part, `d` width of a part.
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import faiss
import numpy as np

from genrec.data.interactions import Histories
from genrec.errors import SettingError, check_integer
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.residual import nearest


@dataclass(frozen=True)
class OPQConfig:
    """parts: codes per item `M`. bits: of a code, so `K` = 2^bits. width: the vectors are first reduced to so many numbers by
    PCA (0: as they are); a multiple of `parts`. iterations: rounds of rotation and codebooks.
    """

    parts: int = 16
    bits: int = 8
    width: int = 0
    iterations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("parts", self.parts, 1, 256)
        check_integer("bits", self.bits, 1, 12)
        check_integer("width", self.width, 0)
        check_integer("iterations", self.iterations, 1)
        check_integer("seed", self.seed, 0, 2**31 - 1)
        if self.width % self.parts:
            raise SettingError(f"width must be a multiple of parts, {self.parts}, got {self.width}.")


class OPQ(ItemTokenizer):
    """State: `mean` [D], `rotation` [M * d, D] and `codebooks` [M, K, d], float32."""

    family = "opq"
    ordered = False

    def __init__(self, config: OPQConfig | None = None) -> None:
        super().__init__()
        self.config = config or OPQConfig()

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.state["codebooks"].shape[1],) * self.config.parts

    @property
    def width(self) -> int:
        return self.state["rotation"].shape[1]

    def settings(self) -> dict[str, Any]:
        return asdict(self.config)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        return cls(OPQConfig(**settings))

    def _fit(self, vectors: np.ndarray, histories: Histories | None) -> dict[str, np.ndarray]:
        parts, count = self.config.parts, 2**self.config.bits
        if count > len(vectors):
            raise SettingError(
                f"bits must give at most as many codes as there are items, {len(vectors)}, got 2^{self.config.bits}."
            )
        mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = vectors - mean
        width = self.config.width or -(-vectors.shape[1] // parts) * parts
        if len(vectors) < max(width, parts):  # faiss ends the process when there are fewer items than dimensions
            width = max(1, len(vectors) // parts) * parts
        if width > len(vectors):
            raise SettingError(f"parts must be at most the number of items, {len(vectors)}, got {parts}. Lower it.")
        if width < vectors.shape[1]:
            _, directions = np.linalg.eigh(centred.astype(np.float64).T @ centred.astype(np.float64))
            first = directions.T[::-1][:width].astype(np.float32)  # principal ones
        else:
            first = np.eye(width, vectors.shape[1], dtype=np.float32)  # zeros fill the last part up
        reduced = np.ascontiguousarray(centred @ first.T)
        opq = faiss.OPQMatrix(width, parts)
        opq.niter = self.config.iterations
        quantiser = faiss.ProductQuantizer(width, parts, self.config.bits)
        quantiser.cp.seed = self.config.seed
        quantiser.cp.min_points_per_centroid = 1
        quantiser.cp.max_points_per_centroid = max(256, -(-len(vectors) // count))
        opq.pq = quantiser
        opq.train(reduced)
        rotation = faiss.vector_to_array(opq.A).reshape(width, width)
        rotated = np.ascontiguousarray(reduced @ rotation.T)
        quantiser.train(rotated)
        books = faiss.vector_to_array(quantiser.centroids).reshape(parts, count, width // parts)
        return {"mean": mean, "rotation": (rotation @ first).astype(np.float32), "codebooks": books.astype(np.float32)}

    def _encode(self, vectors: np.ndarray) -> np.ndarray:
        rotated = (vectors.astype(np.float64) - self.state["mean"]) @ self.state["rotation"].T.astype(np.float64)
        pieces = np.split(rotated, self.config.parts, axis=1)
        return np.stack([nearest(book, piece) for book, piece in zip(self.state["codebooks"], pieces, strict=True)], 1).astype(
            "i4"
        )

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        pieces = [book[codes[:, part]] for part, book in enumerate(self.state["codebooks"])]
        return np.hstack(pieces) @ self.state["rotation"] + self.state["mean"]
