"""FSQ: finite scalar quantisation of slices of the item vector; the codes are numbers, so nothing has to be learned for them.

The vector is cut into slices; a linear layer takes each to a few numbers, each number is rounded to one of a few levels, and
the numbers together are one code. All slices share one vocabulary (15,360 codes by default), which does not depend on any
catalogue: fitted once on many items, it spells items of other catalogues as well. Sources: FSQ (arXiv 2309.15505), RecGPT
(arXiv 2506.06270).

Legend: `N` items, `D` vector width, `M` slices, `K` codes, `F` numbers per slice.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from genrec.data.interactions import Histories
from genrec.errors import DataError, SettingError, check_integer
from genrec.networks import apply_perceptron, arrays_of, check_training, perceptron, seeded, train_on
from genrec.tokenizers.base import ItemTokenizer

EDGE = 1e-3  # how far inside its outermost level a number stays before it is rounded


@dataclass(frozen=True)
class FSQConfig:
    """slices: codes per item `M`. grid: levels of each of the `F` numbers; their product is the vocabulary. hidden: width of
    the decoder's hidden layer. steps, batch_size, learning_rate: of the training.
    """

    slices: int = 4
    grid: tuple[int, ...] = (8, 8, 8, 6, 5)
    hidden: int = 768
    steps: int = 5_000
    batch_size: int = 1024
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", tuple(self.grid))
        check_integer("slices", self.slices, 1, 64)
        for levels in self.grid:
            check_integer("grid", levels, 3, 256)  # two would need a bound beyond the outermost one
        if not self.grid or math.prod(self.grid) > 65_536:
            raise SettingError(f"grid must have one level count per number, with a product of at most 65536, got {self.grid}.")
        check_integer("hidden", self.hidden, 1)
        check_training(self.steps, self.batch_size, self.learning_rate, self.seed)


class FSQ(ItemTokenizer):
    """State: `inward` weight and bias, from slices to numbers; the layers of the decoder; `width`, `D`."""

    family = "fsq"
    shared_vocabulary = True

    def __init__(self, config: FSQConfig | None = None) -> None:
        super().__init__()
        self.config = config or FSQConfig()

    @property
    def sizes(self) -> tuple[int, ...]:
        return (int(np.prod(self.config.grid)),) * self.config.slices

    @property
    def width(self) -> int:
        return int(self.state["width"][0])

    def settings(self) -> dict[str, Any]:
        return asdict(self.config) | {"grid": list(self.config.grid)}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        return cls(FSQConfig(**settings))

    def _fit(self, vectors: np.ndarray, histories: Histories | None) -> dict[str, np.ndarray]:
        return seeded(self.config.seed, lambda: self._train(vectors))

    def _train(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        config = self.config
        slices, scale = self._slices(vectors), float(np.abs(vectors).mean()) or 1.0
        part, numbers = slices.shape[-1], len(config.grid)
        inward = perceptron((part, numbers))
        decoder = perceptron((config.slices * numbers, config.hidden, vectors.shape[1]))
        with torch.no_grad():  # numbers that fill their grid from the start: the slices' principal directions would do as well
            spread = inward(torch.from_numpy(slices.reshape(-1, part)).float()).std(0)
            layer = inward[0]
            assert isinstance(layer, nn.Linear)
            layer.weight /= spread.clamp(min=1e-6).unsqueeze(1)

        def loss(batch: Tensor) -> Tensor:
            cut = torch.nn.functional.pad(batch, (0, config.slices * part - batch.shape[1])).view(
                len(batch), config.slices, part
            )
            values = quantise(inward(cut), config.grid)
            return (decoder(values.flatten(1)) - batch / scale).abs().mean()

        train_on(
            vectors, nn.ModuleList([inward, decoder]), loss, steps=config.steps,
            batch_size=config.batch_size, learning_rate=config.learning_rate, desc="FSQ",
        )  # fmt: skip
        state = arrays_of(inward, "inward") | arrays_of(decoder, "decoder")
        state["decoder_weight_1"] = state["decoder_weight_1"] * np.float32(scale)
        state["decoder_bias_1"] = state["decoder_bias_1"] * np.float32(scale)
        return state | {"width": np.array([vectors.shape[1]])}

    def _slices(self, vectors: np.ndarray) -> np.ndarray:
        """[N, M, D / M], the last one filled up with zeros."""
        part = -(-vectors.shape[1] // self.config.slices)
        filled = np.zeros((len(vectors), self.config.slices * part), vectors.dtype)
        filled[:, : vectors.shape[1]] = vectors
        return filled.reshape(len(vectors), self.config.slices, part)

    def _encode(self, vectors: np.ndarray) -> np.ndarray:
        raw = apply_perceptron(self.state, "inward", self._slices(vectors))
        return to_index(grid_places(raw, self.config.grid), self.config.grid).astype(np.int32)

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        values = to_values(codes, self.config.grid)
        return apply_perceptron(self.state, "decoder", values.reshape(len(codes), -1)).astype(np.float32)


def _bound(grid: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half width, offset and shift of each number: it is rounded after tanh(z + shift) * half - offset."""
    levels = np.array(grid, np.float64)
    half = (levels - 1) * (1 - EDGE) / 2
    offset = np.where(levels % 2 == 0, 0.5, 0.0)
    return half, offset, np.arctanh(offset / half)


def quantise(z: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Numbers [..., F] rounded to their grid and divided by half of it, so within [-1, 1]; gradients pass as if not rounded."""
    half, offset, shift = (torch.tensor(a, dtype=z.dtype, device=z.device) for a in _bound(grid))
    bounded = torch.tanh(z + shift) * half - offset
    return (bounded + (bounded.round() - bounded).detach()) / torch.tensor(
        [n // 2 for n in grid], dtype=z.dtype, device=z.device
    )


def grid_places(z: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Which level each number [..., F] is rounded to, from 0: int64 [..., F]."""
    half, offset, shift = _bound(grid)
    return (np.round(np.tanh(z + shift) * half - offset) + np.array(grid) // 2).astype(np.int64)


def to_index(places: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Places [..., F] as one code: int64 [...]."""
    basis = np.cumprod([1, *grid[:-1]])
    return (places * basis).sum(axis=-1)


def to_values(index: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """The numbers that codes [...] stand for, as the decoder sees them: float64 [..., F]."""
    if index.size and (index.min() < 0 or index.max() >= np.prod(grid)):
        raise DataError(f"FSQ codes must be from 0 to {np.prod(grid) - 1}.")
    basis = np.cumprod([1, *grid[:-1]])
    places = index[..., None] // basis % np.array(grid)
    return (places - np.array(grid) // 2) / (np.array(grid) // 2)
