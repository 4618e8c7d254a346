"""What a model may know of an item: an id of its own, its text, its semantic vector, or its semantic id.

In: a `Representation`. Out: a module that turns catalogue rows into vectors [.., d]; nothing else of a model differs. These are
the item forms of RecBench (arXiv 2503.05493) for models that are no language models: where one puts text into a prompt, here a
frozen vector of the text goes through a linear layer.

All start with entries of about the same size, so that one learning rate is fair to all.

Legend: `N` items, `D` width of given vectors, `L` levels of codes, `d` width of the model.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from genrec.codes import CodeTable
from genrec.errors import DataError

UNIQUE_ID, TEXT, SEMANTIC_VECTOR, SEMANTIC_ID = "unique id", "text", "semantic vector", "semantic id"


@dataclass(frozen=True, eq=False)
class Representation:
    """items: `N`. vectors: [N, D], frozen, seen through a linear layer that is learned; or codes: [N, L], with `sizes` codes
    per level, the vectors of an item's codes are learned and summed; or neither: every item has a learned vector of its own.
    Raises `DataError` for both, or for other than one row per item.
    """

    name: str
    items: int
    vectors: np.ndarray | None = None
    codes: np.ndarray | None = None
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.vectors is not None and self.codes is not None:
            raise DataError(f"Representation {self.name!r} must have vectors or codes, got both. Make one of each.")
        for name, given in (("vectors", self.vectors), ("codes", self.codes)):
            if given is not None and (given.ndim != 2 or len(given) != self.items):
                raise DataError(f"{name} must have one row per item, {self.items}, got shape {list(given.shape)}.")
        if self.codes is not None and self.codes.shape[1] != len(self.sizes):
            raise DataError(f"codes must have one column per level, {len(self.sizes)}, got {self.codes.shape[1]}.")


def all_representations(text: np.ndarray, vectors: np.ndarray, codes: CodeTable) -> list[Representation]:
    """The four of the module, of one catalogue: text [N, D], semantic vectors [N, D'] and the code table made of these."""
    items = len(codes)
    return [
        Representation(UNIQUE_ID, items),
        Representation(TEXT, items, vectors=text),
        Representation(SEMANTIC_VECTOR, items, vectors=vectors),
        Representation(SEMANTIC_ID, items, codes=codes.codes, sizes=codes.sizes),
    ]


def item_module(representation: Representation, width: int) -> nn.Module:
    """Rows int64 [..] -> vectors [.., width]. Seed PyTorch first."""
    if representation.vectors is not None:
        return _Given(representation.vectors, width)
    if representation.codes is not None:
        return _Summed(representation.codes, representation.sizes, width)
    table = nn.Embedding(representation.items, width)
    nn.init.normal_(table.weight, std=width**-0.5)
    return table


def weights_of(module: nn.Module) -> int:
    """Learned numbers of a module; given vectors and code tables are none."""
    return sum(parameter.numel() for parameter in module.parameters())


class _Given(nn.Module):
    """Given vectors [N, D] through a linear layer."""

    vectors: Tensor

    def __init__(self, vectors: np.ndarray, width: int) -> None:
        super().__init__()
        size = max(float(np.sqrt(np.square(vectors, dtype=np.float64).mean())), 1e-12)
        self.register_buffer("vectors", torch.from_numpy((vectors / size).astype(np.float32)), persistent=False)
        self.project = nn.Linear(vectors.shape[1], width)
        nn.init.normal_(self.project.weight, std=(width * vectors.shape[1]) ** -0.5)

    def forward(self, rows: Tensor) -> Tensor:
        once, place = torch.unique(rows, return_inverse=True)  # a batch names the same items many times
        return self.project(self.vectors[once])[place]


class _Summed(nn.Module):
    """The sum of a learned vector per code [N, L]."""

    places: Tensor

    def __init__(self, codes: np.ndarray, sizes: tuple[int, ...], width: int) -> None:
        super().__init__()
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        self.register_buffer("places", torch.from_numpy(codes + offsets), persistent=False)
        self.table = nn.Embedding(int(sum(sizes)), width)
        nn.init.normal_(self.table.weight, std=(width * len(sizes)) ** -0.5)

    def forward(self, rows: Tensor) -> Tensor:
        return self.table(self.places[rows]).sum(dim=-2)
