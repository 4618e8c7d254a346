"""SETRec's item tokens: a set of continuous vectors, one collaborative and several semantic ones, without order and without
codes.

    tokens = SetTokens(SetTokensConfig(tokens=4, width=64)).fit(text, collaborative)
    tokens.encode(text, collaborative)                       # [N, 1 + M, d] float32; the first is the collaborative one

The semantic tokens are the latent of an auto-encoder, cut into pieces; the collaborative one is the collaborative vector,
rotated into the same width. An item that nobody has met has a zero there, so that only its text speaks. A model that trains
them further starts from these. Source: SETRec (arXiv 2502.10833), where the auto-encoder is trained together with the language
model.

Legend: `N` items, `D` text width, `C` collaborative width, `M` semantic tokens, `d` token width.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from genrec.errors import DataError, SettingError, check_integer
from genrec.networks import apply_perceptron, arrays_of, check_training, perceptron, seeded, train_on
from genrec.tokenizers.base import canonical_order, checked_vectors


@dataclass(frozen=True)
class SetTokensConfig:
    """tokens: semantic tokens per item `M`. width: of a token `d`. hidden: layers of the encoder between the text vector and
    the tokens; the decoder mirrors them. steps, batch_size, learning_rate: of the training.
    """

    tokens: int = 4
    width: int = 64
    hidden: tuple[int, ...] = (512, 256, 128)
    steps: int = 5_000
    batch_size: int = 1024
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        check_integer("tokens", self.tokens, 1)
        for width in (*self.hidden, self.width):
            check_integer("hidden and width", width, 1)
        check_training(self.steps, self.batch_size, self.learning_rate, self.seed)


class SetTokens:
    """State: the layers of encoder and decoder, and `rotation` [C, d]."""

    def __init__(self, config: SetTokensConfig | None = None) -> None:
        self.config = config or SetTokensConfig()
        self.state: dict[str, np.ndarray] = {}

    def fit(self, text: np.ndarray, collaborative: np.ndarray) -> Self:
        """Learn from text vectors [N, D] and collaborative vectors [N, C], zero rows where nobody has met the item.

        Same vectors in any order and same seed, same tokens.
        """
        text, collaborative = checked_vectors(text, None), checked_vectors(collaborative, None)
        if len(text) != len(collaborative):
            raise DataError(
                f"There must be as many collaborative vectors as text vectors, {len(text)}, got {len(collaborative)}."
            )
        order = canonical_order(np.hstack([text, collaborative]))
        text, collaborative = text[order], collaborative[order]
        self.state = seeded(self.config.seed, lambda: self._train(text))
        # Principal directions, so that a narrower token keeps what varies most; a wider one is filled up with zeros.
        _, _, directions = np.linalg.svd(collaborative.astype(np.float64).T @ collaborative.astype(np.float64))
        signs = np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])
        rotation = np.zeros((collaborative.shape[1], self.config.width), np.float32)
        kept = min(rotation.shape)
        rotation[:, :kept] = (directions * signs[:, None])[:kept].T
        self.state["rotation"] = rotation
        return self

    def _train(self, text: np.ndarray) -> dict[str, np.ndarray]:
        config = self.config
        widths = (text.shape[1], *config.hidden, config.tokens * config.width)
        encoder, decoder = perceptron(widths), perceptron(widths[::-1])
        scale = float(np.sqrt((text.astype(np.float64) ** 2).mean())) or 1.0

        def loss(batch: Tensor) -> Tensor:
            return mse_loss(decoder(encoder(batch / scale)), batch / scale)

        train_on(
            text, nn.ModuleList([encoder, decoder]), loss, steps=config.steps, batch_size=config.batch_size,
            learning_rate=config.learning_rate, desc="Set tokens",
        )  # fmt: skip
        return arrays_of(encoder, "encoder") | arrays_of(decoder, "decoder") | {"scale": np.array([scale])}

    def encode(self, text: np.ndarray, collaborative: np.ndarray | None = None) -> np.ndarray:
        """The tokens of any items: float32 [n, 1 + M, d]. collaborative: None for items that nobody has met."""
        self._require_fit()
        text = checked_vectors(text, self.state["encoder_weight_0"].shape[1])
        rotation = self.state["rotation"]
        met = np.zeros((len(text), len(rotation)), np.float32) if collaborative is None else collaborative
        met = checked_vectors(met, len(rotation))
        if len(met) != len(text):
            raise DataError(f"There must be as many collaborative vectors as text vectors, {len(text)}, got {len(met)}.")
        semantic = apply_perceptron(self.state, "encoder", text / self.state["scale"])
        first = met.astype(np.float64) @ rotation
        return np.hstack([first, semantic]).reshape(len(text), 1 + self.config.tokens, self.config.width).astype(np.float32)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """The text vectors that tokens [n, 1 + M, d] stand for: float32 [n, D]."""
        self._require_fit()
        wanted = (1 + self.config.tokens, self.config.width)
        if np.ndim(tokens) != 3 or np.shape(tokens)[1:] != wanted:
            raise DataError(f"tokens must be [n, {wanted[0]}, {wanted[1]}], got {list(np.shape(tokens))}.")
        semantic = np.asarray(tokens, np.float64)[:, 1:].reshape(len(tokens), -1)
        return (apply_perceptron(self.state, "decoder", semantic) * self.state["scale"]).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write `set_tokens.json` and `set_tokens.safetensors` into `folder`."""
        self._require_fit()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: np.ascontiguousarray(v) for k, v in self.state.items()}, folder / "set_tokens.safetensors")
        (folder / "set_tokens.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        folder = Path(folder)
        tokens = cls(SetTokensConfig(**json.loads((folder / "set_tokens.json").read_text(encoding="utf-8"))))
        tokens.state = load_file(folder / "set_tokens.safetensors")
        return tokens

    def _require_fit(self) -> None:
        if not self.state:
            raise SettingError("The set tokens must be fitted first: call fit(text, collaborative).")
