"""The item embedder: text vectors and collaborative vectors side by side, for the catalogue now and for items to come.

In: a catalogue and training histories. Out: [N, D] float32, what the item tokenizer quantises.
Text vectors are centred first: sentence encoders put all items of one shop into one corner of the space, and a quantiser
would spend its first codes on that. An item nobody has met gets the collaborative vector that its text lets expect.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from safetensors.numpy import load_file, save_file

from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Histories
from genrec.embedding.collaborative import collaborative_vectors, text_to_collaborative
from genrec.embedding.encoders import TextEncoder, load_encoder, make_encoder
from genrec.embedding.text import default_template, render


@dataclass(frozen=True)
class EmbeddingConfig:
    """encoder, template: see `encoders` and `text`. width: of the collaborative part, 0 for none. weight: its length."""

    encoder: str = "minilm"
    template: str = "auto"
    width: int = 64
    weight: float = 1.0
    seed: int = 0


class ItemEmbedder:
    """Fit once on a catalogue and its training histories; encode any items with the same columns afterwards."""

    def __init__(self, config: EmbeddingConfig, encoder: TextEncoder | None = None) -> None:
        self.config = config
        self.encoder = encoder or make_encoder(config.encoder, config.seed)
        self.template = config.template
        self.arrays: dict[str, np.ndarray] = {}

    def fit(
        self,
        catalogue: Catalogue,
        train: Histories,
        encode_once: Callable[[Callable[[], np.ndarray]], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Learn from the catalogue and return its vectors [N, D]. `encode_once` may cache the slow text encoding."""
        if self.template == "auto":
            self.template = default_template(catalogue)
        texts = render(catalogue, self.template)
        self.encoder.fit(texts)
        raw = encode_once(lambda: self.encoder.encode(texts)) if encode_once else self.encoder.encode(texts)
        self.arrays = {"mean": raw.mean(axis=0)}
        text = self._centred(raw)
        if not self.config.width:
            return text
        width = min(self.config.width, len(catalogue) - 1)
        collaborative = collaborative_vectors(train, len(catalogue), width, self.config.seed)
        self.arrays["text_to_collaborative"] = text_to_collaborative(text, collaborative)
        unmet = np.linalg.norm(collaborative, axis=1) == 0
        collaborative[unmet] = self._expected(text[unmet])
        return np.hstack([text, self.config.weight * collaborative])

    def encode(self, catalogue: Catalogue) -> np.ndarray:
        """Vectors of items that `fit` did not see, from their text alone: [n, D] float32."""
        text = self._centred(self.encoder.encode(render(catalogue, self.template)))
        if "text_to_collaborative" not in self.arrays:
            return text
        return np.hstack([text, self.config.weight * self._expected(text)])

    def _centred(self, raw: np.ndarray) -> np.ndarray:
        centred = raw - self.arrays["mean"]
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        return np.asarray(centred / np.where(norms > 1e-6, norms, 1), np.float32)

    def _expected(self, text: np.ndarray) -> np.ndarray:
        guess = text @ self.arrays["text_to_collaborative"]
        norms = np.linalg.norm(guess, axis=1, keepdims=True)
        return np.asarray(guess / np.where(norms > 1e-6, norms, 1), np.float32)

    def save(self, folder: Path) -> None:
        """Write the settings, the encoder and the fitted arrays into `folder`."""
        self.encoder.save(folder)
        about = {**asdict(self.config), "template": self.template}
        (folder / "embedder.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        save_file({name: np.ascontiguousarray(a) for name, a in self.arrays.items()}, folder / "embedder.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        config = EmbeddingConfig(**json.loads((folder / "embedder.json").read_text(encoding="utf-8")))
        embedder = cls(config, load_encoder(folder))
        embedder.arrays = load_file(folder / "embedder.safetensors")
        return embedder
