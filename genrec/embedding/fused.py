"""The item embedder: content and collaborative vectors side by side, for the catalogue now and for items to come.

In: a catalogue and training histories. Out: [N, D] float32, what the item tokenizer quantises. Content is the text and, where
the user brought some, vectors of anything else. They are centred first: sentence encoders put all items of one shop into one
corner of the space, and a quantiser would spend its first codes on that. An item nobody has met gets the collaborative vector
that its content lets expect.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file, save_file

from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Histories
from genrec.embedding.aligned import aligned, learn_alignment
from genrec.embedding.collaborative import collaborative_vectors, text_to_collaborative
from genrec.embedding.encoders import TextEncoder, load_encoder, make_encoder
from genrec.embedding.graph import graph_vectors
from genrec.embedding.own import read_item_vectors
from genrec.embedding.sequence import sequence_vectors
from genrec.embedding.text import default_template, render
from genrec.errors import SettingError, check_choice, check_integer


@dataclass(frozen=True)
class EmbeddingConfig:
    """encoder: "minilm", "tfidf-svd" or "sentence-transformers:NAME". template: how an item is written, such as "{title} |
    {brand}", or "auto". item_vectors: a Parquet file of vectors that you bring, such as of images; "" for none.
    item_vectors_weight: their length when the text vector has length 1. fusion: "concatenate", or "aligned": text and your
    vectors are projected so that items which follow each other in histories are near. aligned_width: size of that projection.
    collaborative: where collaborative vectors come from: "cooccurrence", "sequence" (a small sequence model) or "graph".
    collaborative_width: their size, 0 for content alone. collaborative_weight: their length when the text vector has length 1.
    alignment: with "sequence", how strongly text is written into them; 0 not at all.
    """

    encoder: str = "minilm"
    template: str = "auto"
    item_vectors: str = ""
    item_vectors_weight: float = 1.0
    fusion: Literal["concatenate", "aligned"] = "concatenate"
    aligned_width: int = 256
    collaborative: Literal["cooccurrence", "sequence", "graph"] = "cooccurrence"
    collaborative_width: int = 64
    collaborative_weight: float = 1.0
    alignment: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("text.fusion", self.fusion, ["concatenate", "aligned"])
        check_choice("text.collaborative", self.collaborative, ["cooccurrence", "sequence", "graph"])
        check_integer("text.collaborative_width", self.collaborative_width, 0)
        check_integer("text.aligned_width", self.aligned_width, 1)
        check_integer("text.seed", self.seed, 0, 2**31 - 1)
        for name in ("item_vectors_weight", "collaborative_weight", "alignment"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"text.{name} must be 0 or more, got {getattr(self, name)}.")
        if self.fusion == "concatenate" and self.aligned_width != type(self).aligned_width:
            raise SettingError("text.aligned_width is of text.fusion 'aligned'. Set that, or leave the width out.")
        if self.item_vectors_weight != 1 and (self.fusion == "aligned" or not self.item_vectors):
            raise SettingError(
                "text.item_vectors_weight is for text.item_vectors beside the text; with text.fusion 'aligned' a gate weighs "
                "them. Leave it out."
            )
        if self.collaborative != "cooccurrence" and not self.collaborative_width:
            raise SettingError(f"text.collaborative {self.collaborative!r} needs text.collaborative_width above 0, got 0.")
        if self.collaborative_weight != 1 and not self.collaborative_width:
            raise SettingError("text.collaborative_weight needs text.collaborative_width above 0, got 0. Leave it out.")
        if self.alignment and self.collaborative != "sequence":
            raise SettingError(f"text.alignment needs text.collaborative 'sequence', got {self.collaborative!r}.")


class ItemEmbedder:
    """Fit once on a catalogue and its training histories; encode any items with the same columns afterwards."""

    def __init__(self, config: EmbeddingConfig, encoder: TextEncoder | None = None) -> None:
        self.config = config
        self.encoder = encoder or make_encoder(config.encoder, config.seed)
        self.template = config.template
        self.arrays: dict[str, np.ndarray] = {}

    @property
    def collaborative_width(self) -> int:
        """How many of the last numbers of a vector are collaborative."""
        return self.arrays["content_to_collaborative"].shape[1] if "content_to_collaborative" in self.arrays else 0

    def fit(
        self,
        catalogue: Catalogue,
        train: Histories | None,
        encode_once: Callable[[Callable[[], np.ndarray]], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Learn from the catalogue and return its vectors [N, D], which do not depend on the order of its rows. `encode_once`
        may cache the slow text encoding.

        train: None where there are no interactions; then nothing may be asked for that needs them, else `SettingError`.
        """
        config = self.config
        needed = config.collaborative_width > 0 or config.fusion == "aligned"
        train = train if needed else None
        if needed and train is None:
            raise SettingError(
                "Collaborative and aligned item vectors need interactions. Give them, or set text.collaborative_width to 0 and "
                "text.fusion to 'concatenate'."
            )
        if self.template == "auto":
            self.template = default_template(catalogue)
        ordered, place = _by_id(catalogue)
        if train is not None:
            train = replace(train, items=place[train.items]).select(np.argsort(train.user_ids.astype(str), kind="stable"))
        return self._fit(ordered, train, encode_once)[place]

    def _fit(
        self,
        catalogue: Catalogue,
        train: Histories | None,
        encode_once: Callable[[Callable[[], np.ndarray]], np.ndarray] | None,
    ) -> np.ndarray:
        config = self.config
        texts = render(catalogue, self.template)
        self.encoder.fit(texts)
        raw = encode_once(lambda: self.encoder.encode(texts)) if encode_once else self.encoder.encode(texts)
        own = self._read_own(catalogue, self.config.item_vectors)
        self.arrays = {"text_mean": raw.mean(axis=0)} | ({} if own is None else {"own_mean": own.mean(axis=0)})
        kinds = self._kinds(raw, own)
        if train is not None and config.fusion == "aligned":
            self.arrays |= learn_alignment(kinds, train.following_pairs(), config.aligned_width, config.seed)
        content = self._content(kinds)
        if train is None or not config.collaborative_width:
            return content
        collaborative = self._collaborative(train, content)
        self.arrays["content_to_collaborative"] = text_to_collaborative(content, collaborative)
        unmet = np.linalg.norm(collaborative, axis=1) == 0
        collaborative[unmet] = self._expected(content[unmet])
        return np.hstack([content, config.collaborative_weight * collaborative])

    def encode(self, catalogue: Catalogue, item_vectors: str | Path | None = None) -> np.ndarray:
        """Vectors of items that `fit` did not see, from their content alone: [n, D] float32.

        item_vectors: a Parquet file that has these items, where the catalogue was fitted with one. Raises `SettingError`
        without.
        """
        raw = self.encoder.encode(render(catalogue, self.template))
        content = self._content(self._kinds(raw, self._read_own(catalogue, item_vectors)))
        if "content_to_collaborative" not in self.arrays:
            return content
        return np.hstack([content, self.config.collaborative_weight * self._expected(content)])

    def move_to(self, catalogue: Catalogue) -> np.ndarray:
        """Take another catalogue in the place of that of `fit`: its texts are centred on their own mean, all else stays as it
        was learned. Returns its vectors [N, D], from content alone, which do not depend on the order of its rows.
        """
        ordered, place = _by_id(catalogue)
        raw = self.encoder.encode(render(ordered, self.template))
        self.arrays = self.arrays | {"text_mean": raw.mean(axis=0)}
        return self._content(self._kinds(raw, self._read_own(ordered, None)))[place]

    def _read_own(self, catalogue: Catalogue, path: str | Path | None) -> np.ndarray | None:
        """Vectors that the user brought, [n, D]; None where the catalogue has none."""
        if not self.config.item_vectors:
            return None
        if not path:
            raise SettingError(
                "The items of this catalogue have vectors of their own (text.item_vectors), which no text can replace. Give a "
                "Parquet file with those of the new items: `genrec tokenize --append-to ... --item-vectors FILE`."
            )
        width = self.arrays["own_mean"].shape[0] if "own_mean" in self.arrays else None
        return read_item_vectors(Path(path), catalogue.item_ids, width)

    def _kinds(self, raw: np.ndarray, own: np.ndarray | None) -> list[np.ndarray]:
        """Content vectors by kind, centred and of length 1."""
        kinds = [_unit(raw - self.arrays["text_mean"])]
        return kinds if own is None else [*kinds, _unit(own - self.arrays["own_mean"])]

    def _content(self, kinds: list[np.ndarray]) -> np.ndarray:
        if "align_projection_0" in self.arrays:
            return aligned(self.arrays, kinds)
        return np.hstack([kinds[0], *(self.config.item_vectors_weight * kind for kind in kinds[1:])])

    def _collaborative(self, train: Histories, content: np.ndarray) -> np.ndarray:
        """[N, width] float32, rows of length 1, or zero for items that training never met."""
        config = self.config
        width = min(config.collaborative_width, len(content) - 1)
        if config.collaborative == "sequence":
            return sequence_vectors(train, len(content), width, config.seed, content, config.alignment)
        if config.collaborative == "graph":
            return graph_vectors(train, content, width, config.seed)
        return collaborative_vectors(train, len(content), width, config.seed)

    def _expected(self, content: np.ndarray) -> np.ndarray:
        # In float64, so that it does not depend on who else is in the call.
        return _unit(content.astype(np.float64) @ self.arrays["content_to_collaborative"].astype(np.float64))

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


def _by_id(catalogue: Catalogue) -> tuple[Catalogue, np.ndarray]:
    """The catalogue by item id, and where each row went, int64 [N]. Sums of floats in another order are other floats, and a
    quantiser makes much of little."""
    order = np.argsort(catalogue.item_ids.astype(str), kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return Catalogue(catalogue.table.take(pa.array(order))), place


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 1e-6, norms, 1), np.float32)
