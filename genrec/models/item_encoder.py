"""The item encoder: a Q-Former that turns an item's vector into a few soft tokens, which a frozen language model reads.

In: item vectors (content and collaborative side by side). Out: `queries` vectors an item, of the width of a language model's
embeddings. Where a history is read, they stand in the places of the item's codes; the answer is written in codes as ever.

Learned queries look at each other and, by cross-attention, at the item's vector. A single key would get all the attention of
every query, so the vector is cut into pieces, and the queries choose among those. An item that came later is read as any
other, for its vector is made of its text.

Source: ILM (arXiv 2406.02844), whose encoder is BLIP-2's Q-Former (arXiv 2301.12597). There it reads a collaborative vector and
begins as a BERT; ours reads all that the bundle knows of an item and begins at random.

Legend: `N` items, `D` vector width, `P` pieces, `Q` queries, `E` width of the encoder, `H` hidden size of the language model,
`M` items of all histories of a batch.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad
from transformers import PreTrainedModel

from genrec.models.config import ModelConfig
from genrec.models.user_adapter import size_of_embeddings

NAME = "item_encoder"  # of the module in a model that is trained, which peft is told to train in full
WIDTH, LAYERS, HEADS = 128, 2, 4
PIECE = 32  # numbers of a vector that are one key


class ItemEncoder(nn.Module):
    """width: of item vectors, D. hidden: H. queries: Q. scale: of the vectors beside which the soft tokens stand, their
    standard deviation. Random weights (seed torch first), always float32, no dropout."""

    reads = ("vectors", "places")  # what `forward` takes, as `read_items` names it

    def __init__(self, width: int, hidden: int, queries: int, scale: float = 1.0) -> None:
        super().__init__()
        self.width, self.hidden, self.queries = width, hidden, queries
        self.pieces = nn.Linear(PIECE, WIDTH)
        self.where = nn.Parameter(torch.randn(-(-width // PIECE), WIDTH))  # which piece it is
        self.asked = nn.Parameter(torch.randn(queries, WIDTH))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(LAYERS)
        )
        self.outer = nn.Linear(WIDTH, hidden)
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, vectors: Tensor, places: Tensor) -> Tensor:
        """Soft tokens float32 [M, Q, H] of what `read_items` says. Every weight takes part in every batch, as DDP needs."""
        with torch.autocast(vectors.device.type, enabled=False):
            soft = self.outer(self.answers(vectors))
            return (layer_norm(soft, soft.shape[2:]) * self.scale)[places]

    def answers(self, vectors: Tensor) -> Tensor:
        """What the queries found in each vector [N, D]: float32 [N, Q, E], before the language model's width."""
        spread = vectors * math.sqrt(self.width)  # vectors have about the length 1, and so numbers near 0
        cut = pad(spread, (0, len(self.where) * PIECE - self.width)).unflatten(1, (-1, PIECE))
        keys = self.pieces(cut) + self.where
        found = self.asked.expand(len(vectors), -1, -1)
        for layer in self.layers:
            found = layer(found, keys)
        return layer_norm(found, found.shape[2:])

    def save(self, path: Path) -> None:
        """Write the weights, a safetensors file."""
        about = {name: str(getattr(self, name)) for name in ("width", "hidden", "queries")}
        save_file({name: weight.detach().contiguous() for name, weight in self.state_dict().items()}, path, about)

    @classmethod
    def load(cls, path: Path) -> "ItemEncoder":
        """Read what `save` wrote, on the CPU."""
        with safe_open(path, "pt") as file:
            about = file.metadata()
            encoder = cls(*(int(about[name]) for name in ("width", "hidden", "queries")))
            encoder.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  # no dict
        return encoder.eval()


def read_items(histories: Sequence[np.ndarray], vectors: np.ndarray) -> dict[str, np.ndarray]:
    """What an `ItemEncoder` reads, by the names of its arguments. histories: catalogue rows, as far as they are read; vectors:
    of the items, float32 [R, D].

    Returns vectors float32 [N, D], of each item once, and places int64 [M], which of them each item of the histories is, in the
    order in which `write_histories` keeps places for their soft tokens.
    """
    rows = np.concatenate([np.zeros(0, np.int64), *histories])
    items, places = np.unique(rows, return_inverse=True)
    return {"vectors": np.asarray(vectors[items], np.float32), "places": places.astype(np.int64)}


def add_item_encoder(model: PreTrainedModel, config: ModelConfig, width: int) -> None:
    """Give a model that is to be trained the item encoder that `config` asks for, if any, as a module of its own."""
    if config.item_encoder is not None:
        hidden, scale = size_of_embeddings(model)
        model.add_module(NAME, ItemEncoder(width, hidden, config.item_encoder_queries, scale))


def encoder_of(model: nn.Module) -> ItemEncoder | None:
    """The item encoder of a model that is trained, under peft too."""
    return getattr(model, NAME, None)


def take_item_encoder(model: nn.Module) -> ItemEncoder | None:
    """The item encoder of a trained model, taken out of it: what is left is a plain model, as transformers loads it."""
    encoder = encoder_of(model)
    if encoder is not None:
        delattr(model, NAME)
    return encoder
