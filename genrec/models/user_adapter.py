"""The user adapter: what a user had before the window, as one or a few soft tokens behind [start].

In: the item vectors of what a model does not read, and of what it reads. Out: vectors of the width of its embeddings, which
stand in the places that the layout keeps for them (`TokenLayout.soft`).

A model reads the latest `max_history` items. The adapter pools the vectors of those before them, by their mean or by attention
whose query is the mean vector of the window, and a small network makes soft tokens of it. Nothing of it depends on the order of
the older items. Who has none, or none with a vector other than zero, is the cold user, whose soft tokens are learned as they
are.

Sources: PPlug (arXiv 2409.11901), which weighs a user's past by what is asked now; USER-LLM (arXiv 2402.13598), soft tokens of
a user before a frozen language model. Both read texts or a trained encoder of behaviour where we take the item vectors of the
bundle.

Legend: `B` histories, `M` older items of the longest, `D` vector width, `S` soft tokens, `P` pooled vectors, `H` hidden size of
the model, `T` tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm
from transformers import PreTrainedModel

from genrec.models.config import ModelConfig
from genrec.models.tokens import SOFT

NAME = "user_adapter"  # of the module in a model that is trained, which peft is told to train in full
MOST_OLDER = 256  # older items at most that are pooled, the latest: each is a vector in memory for each user of a batch


class UserAdapter(nn.Module):
    """width: of item vectors, D. hidden: H. tokens: S. pooling: one of `POOLINGS`. scale: of the vectors beside which the soft
    tokens stand, their standard deviation. Random weights (seed torch first), always float32."""

    reads = ("older", "there", "recent")  # what `forward` takes, as `outside` names it

    def __init__(self, width: int, hidden: int, tokens: int, pooling: str, scale: float = 1.0) -> None:
        super().__init__()
        self.width, self.hidden, self.tokens, self.pooling = width, hidden, tokens, pooling
        if pooling == "attention":
            self.queries = nn.Linear(width, tokens * width)  # one pooled vector a soft token
            self.keys = nn.Linear(width, width, bias=False)  # one would move all likenesses alike
        self.inner = nn.Linear(width * (tokens if pooling == "attention" else 1), hidden)
        self.outer = nn.Linear(hidden, tokens * hidden)
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.cold = nn.Parameter(torch.randn(tokens, hidden))

    def forward(self, older: Tensor, there: Tensor, recent: Tensor) -> Tensor:
        """Soft tokens float32 [B, S, H] of what `outside` says. Every weight takes part in every batch, as DDP needs."""
        with torch.autocast(older.device.type, enabled=False):
            known = there.any(1)
            weights = self._weights(older, there, recent)
            pooled = (weights @ older).flatten(1)
            pooled = layer_norm(pooled, pooled.shape[1:])  # many tastes have a short mean
            soft = self.outer(gelu(self.inner(pooled))).view(-1, self.tokens, self.hidden)
            soft = torch.where(known[:, None, None], soft, self.cold)
            return layer_norm(soft, soft.shape[2:]) * self.scale

    def _weights(self, older: Tensor, there: Tensor, recent: Tensor) -> Tensor:
        """What each older item counts: [B, P, M], sums of 1. Of a cold user all count the same, and nobody looks at them."""
        if self.pooling == "mean":
            likeness = torch.zeros_like(older[:, None, :, 0])
        else:
            queries = self.queries(recent).view(-1, self.tokens, self.width)
            likeness = queries @ self.keys(older).transpose(1, 2)
        return likeness.masked_fill(~there[:, None], torch.finfo(likeness.dtype).min).softmax(-1)

    def save(self, path: Path) -> None:
        """Write the weights, a safetensors file."""
        shape = {"width": self.width, "hidden": self.hidden, "tokens": self.tokens}
        about = {name: str(value) for name, value in shape.items()} | {"pooling": self.pooling}
        save_file({name: weight.detach().contiguous() for name, weight in self.state_dict().items()}, path, about)

    @classmethod
    def load(cls, path: Path) -> "UserAdapter":
        """Read what `save` wrote, on the CPU."""
        with safe_open(path, "pt") as file:
            about = file.metadata()
            adapter = cls(int(about["width"]), int(about["hidden"]), int(about["tokens"]), about["pooling"])
            adapter.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  # no dict
        return adapter.eval()


def outside(older: Sequence[np.ndarray], recent: Sequence[np.ndarray], vectors: np.ndarray) -> dict[str, np.ndarray]:
    """What a `UserAdapter` reads, by the names of its arguments. older: catalogue rows before each window, of which the latest
    `MOST_OLDER` count; recent: rows of the window, as far as they are known; vectors: of the items, float32 [R, D].

    Returns older float32 [B, M, D], there bool [B, M] (which of them says something), recent float32 [B, D], every vector of
    length 1, or 0 where there is nothing.
    """
    older = [rows[-MOST_OLDER:] for rows in older]
    width = max(1, *(len(rows) for rows in older)) if len(older) else 1
    found = np.zeros((len(older), width, vectors.shape[1]), np.float32)
    means = np.zeros((len(older), vectors.shape[1]), np.float32)
    for place, (before, window) in enumerate(zip(older, recent, strict=True)):
        found[place, : len(before)] = vectors[before]
        if len(window):
            means[place] = vectors[window].mean(axis=0)
    found, means = (array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-6) for array in (found, means))
    return {"older": found, "there": found.any(axis=-1), "recent": means}


def add_user_adapter(model: PreTrainedModel, config: ModelConfig, width: int) -> None:
    """Give a model that is to be trained the adapter that `config` asks for, if any, as a module of its own."""
    if config.user_adapter is not None:
        hidden, scale = size_of_embeddings(model)
        model.add_module(NAME, UserAdapter(width, hidden, config.soft_tokens, config.user_adapter, scale))


def size_of_embeddings(model: PreTrainedModel) -> tuple[int, float]:
    """Width and standard deviation of what a model's embeddings give: not their weight, which some models scale."""
    embeddings = model.get_input_embeddings()
    rows = cast(Tensor, embeddings.weight)
    with torch.no_grad():
        some = embeddings(torch.arange(min(len(rows), 4096), device=rows.device)).float()
    return some.shape[1], float(some.std())


def adapter_of(model: nn.Module) -> UserAdapter | None:
    """The adapter of a model that is trained, under peft too."""
    return getattr(model, NAME, None)


def take_user_adapter(model: nn.Module) -> UserAdapter | None:
    """The adapter of a trained model, taken out of it: what is left is a plain model, as transformers loads it."""
    adapter = adapter_of(model)
    if adapter is not None:
        delattr(model, NAME)
    return adapter


def read_inputs(model: PreTrainedModel, tokens: Tensor, soft: Tensor | None) -> dict[str, Tensor]:
    """What the first layer is given: the tokens [B, T] or, with soft tokens, vectors [B, T, H] in which they fill the places
    that hold `SOFT`, row after row. soft: [..., H], of a user adapter [B, S, H] or an item encoder [M, Q, H]."""
    if soft is None:
        return {"input_ids": tokens}
    vectors = model.get_input_embeddings()(tokens.clamp(min=0))
    return {"inputs_embeds": vectors.masked_scatter((tokens == SOFT).unsqueeze(-1), soft.to(vectors.dtype))}
