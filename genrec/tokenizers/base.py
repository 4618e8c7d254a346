"""The item tokenizer contract: vectors in, codes out.

    tokenizer = RQKMeans(RQKMeansConfig(levels=3, codebook_size=256)).fit(vectors)   # [N, D] float32
    codes = tokenizer.encode(vectors)                                                # [N, L] int32
    vectors_again = tokenizer.decode(codes)                                          # [N, D] float32

A family is one file with one class of this shape. It knows nothing of item ids, collisions or models:
`collisions.assign` turns codes into a `CodeTable`. Every family passes the tests in tests/tokenizers/contract.py.

Legend: `N` items, `D` vector width, `L` levels, `K` codes per level.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from safetensors.numpy import load_file, save_file

from genrec.data.interactions import Histories
from genrec.errors import BundleError, DataError, SettingError


class ItemTokenizer(ABC):
    """Base of all families. Fitted state is a dict of arrays, so saving, hashing and loading are written once, here."""

    family: ClassVar[str]
    ordered: ClassVar[bool] = True  # False: no code depends on the codes before it
    shared_vocabulary: ClassVar[bool] = False  # True: code k means the same at every place

    def __init__(self) -> None:
        self.state: dict[str, np.ndarray] = {}

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """Codes per level of the fitted tokenizer: `L` numbers."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings that made it, JSON-able; `from_settings` takes them back."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        """An unfitted tokenizer with these settings."""

    @abstractmethod
    def _fit(self, vectors: np.ndarray, histories: Histories | None) -> dict[str, np.ndarray]:
        """Learn from [N, D] float32, a copy to work in, and histories of their rows (None unless `wants_histories`); return the
        fitted arrays.
        """

    @abstractmethod
    def _encode(self, vectors: np.ndarray) -> np.ndarray:
        """[N, D] float32 -> [N, L] int32."""

    @abstractmethod
    def _decode(self, codes: np.ndarray) -> np.ndarray:
        """[N, L] -> [N, D] float32, the vector that the codes stand for."""

    @property
    @abstractmethod
    def width(self) -> int:
        """`D` of the fitted tokenizer."""

    @property
    def is_fitted(self) -> bool:
        return bool(self.state)

    @property
    def wants_histories(self) -> bool:
        """Whether `fit` learns from what users did too."""
        return False

    def fit(self, vectors: np.ndarray, histories: Histories | None = None) -> Self:
        """Learn the codebooks from item vectors [N, D]; an earlier fit is forgotten. Same vectors and histories in any order
        and same seed, same codebooks. histories: training histories over the rows of `vectors`, for tokenizers that want them.
        """
        vectors = checked_vectors(vectors, None)
        order = canonical_order(vectors)
        if not self.wants_histories:
            histories = None
        elif histories is None:
            raise SettingError(f"This {self.family} tokenizer learns from histories too: call fit(vectors, histories).")
        elif len(histories.items) and not 0 <= histories.items.min() <= histories.items.max() < len(vectors):
            least, most = histories.items.min(), histories.items.max()
            raise DataError(f"histories must hold rows from 0 to {len(vectors) - 1}, got {least} to {most}.")
        else:
            histories = _canonical_histories(histories, vectors, order)
        self.state = self._fit(vectors[order], histories)
        return self

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Codes of any vectors [N, D], also of items never seen in `fit`: int32 [N, L]."""
        self._require_fit()
        return self._encode(checked_vectors(vectors, self.width))

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The vector each code tuple [N, L] stands for: float32 [N, D]."""
        self._require_fit()
        codes = np.asarray(codes)
        sizes = np.array(self.sizes)
        if codes.ndim != 2 or codes.shape[1] != len(sizes) or (codes < 0).any() or (codes >= sizes).any():
            raise DataError(f"codes must be [N, {len(sizes)}] with values below {self.sizes}, got shape {list(codes.shape)}.")
        return self._decode(codes)

    def last_distances(self, vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """How far each vector [n, D] would be from what it stood for with each other last code, the ones before kept: squared
        Euclidean, float64 [n, K]. For collision policies that move last codes.
        """
        far = np.empty((len(vectors), self.sizes[-1]))
        for code in range(self.sizes[-1]):
            other = np.column_stack([codes[:, :-1], np.full(len(codes), code, np.int32)])
            far[:, code] = ((vectors.astype(np.float64) - self.decode(other)) ** 2).sum(axis=1)
        return far

    @property
    def fingerprint(self) -> str:
        """SHA-256 of family, settings and fitted arrays: 64 hex digits."""
        self._require_fit()
        digest = hashlib.sha256(json.dumps([self.family, self.settings()], sort_keys=True).encode())
        for name in sorted(self.state):
            array = np.ascontiguousarray(self.state[name])
            digest.update(f"{name}{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `codebooks.safetensors` into `folder`."""
        self._require_fit()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: np.ascontiguousarray(v) for k, v in self.state.items()}, folder / "codebooks.safetensors")
        about = {"family": self.family, "settings": self.settings(), "fingerprint": self.fingerprint}
        (folder / "tokenizer.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises `BundleError` when it is another family or was changed."""
        folder = Path(folder)
        about = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        if about["family"] != cls.family:
            raise BundleError(f"{folder} holds a {about['family']!r} tokenizer, not {cls.family!r}.")
        tokenizer = cls.from_settings(about["settings"])
        tokenizer.state = load_file(folder / "codebooks.safetensors")
        if tokenizer.fingerprint != about["fingerprint"]:
            raise BundleError(f"The item tokenizer in {folder} was changed after it was saved. Copy the bundle again.")
        return tokenizer

    def _require_fit(self) -> None:
        if not self.is_fitted:
            raise SettingError(f"The {self.family} tokenizer must be fitted first: call fit(vectors).")


def canonical_order(vectors: np.ndarray) -> np.ndarray:
    """An order of the rows that does not depend on the order they came in: by their bytes."""
    rows = vectors.view(np.dtype((np.void, vectors.shape[1] * vectors.itemsize))).ravel()
    return np.argsort(rows, kind="stable")


def _canonical_histories(histories: Histories, vectors: np.ndarray, order: np.ndarray) -> Histories:
    """The histories over the rows in canonical order, users in an order that does not depend on who they are. Items with one
    vector are one to the tokenizer.
    """
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    new = np.r_[True, (vectors[order[1:]] != vectors[order[:-1]]).any(axis=1)]
    first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    moved = replace(histories, items=first[place[histories.items]])
    return moved.select(np.array(sorted(range(len(moved)), key=lambda user: moved[user].tobytes()), np.int64))


def checked_vectors(vectors: np.ndarray, width: int | None) -> np.ndarray:
    vectors = np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise DataError(f"Item vectors must be [items, width] with at least one of each, got shape {list(vectors.shape)}.")
    if width is not None and vectors.shape[1] != width:
        raise DataError(f"Item vectors must have the width the tokenizer was fitted on, {width}, got {vectors.shape[1]}.")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise DataError(f"Item vectors must be finite, got NaN or infinity in {len(bad)} rows, first in row {bad[0]}.")
    return vectors
