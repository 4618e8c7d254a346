"""The transformer of the one-pass recommenders, and who may look at whom in it.

In: vectors [B, P, d] and a mask [P, P]. Out: states [B, P, d]. Blocks normalise first (GPT-2). Attention is written out: the
fused kernels drop a mask silently in some versions, and on a GPU add up gradients in any order.

Masks: hybrid, bidirectional within an item and causal across items (arXiv 2506.06270); blocked, causal across items and blind
for siblings, with queries (arXiv 2502.10833).

Legend: `B` histories, `T` items of the longest, `S` slots per item, `P` positions, `d` width.
"""

import math

import torch
from torch import Tensor, nn

from genrec.errors import check_choice
from genrec.models.one_pass.config import Shape
from genrec.networks import low_pass


def attention_mask(attention: str, items: int, slots: int) -> Tensor:
    """Whether position p may look at position q: bool [P, P]. items: `T`.

    "hybrid": P = T * S, item by item; p sees q where item(q) <= item(p).
    "blocked": P = 2 * T * S, first the items, then the queries, which stand behind their item. A slot sees itself and all
    slots of earlier items. A query sees itself and all slots up to its item; nobody sees a query.
    """
    check_choice("attention", attention, ["hybrid", "blocked"])
    item = torch.arange(items).repeat_interleave(slots)
    if attention == "hybrid":
        return item[None, :] <= item[:, None]
    earlier, own = item[None, :] < item[:, None], torch.eye(items * slots, dtype=torch.bool)
    nothing = torch.zeros_like(own)
    return torch.cat([torch.cat([earlier | own, nothing], 1), torch.cat([earlier | (item[None] == item[:, None]), own], 1)])


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: nn.Module) -> Tensor:
    """Softmax attention, each [B, heads, P, d / heads]. mask: bool [1, 1, P, P], True where p may look at q."""
    logits = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~mask, -torch.inf)
    return dropout(logits.softmax(-1)) @ v


class Block(nn.Module):
    """Attention, with a filter over time beside it where there is one, then a perceptron; each on normalised input, with
    dropout and a residual sum. The filter is BSARec's (arXiv 2312.10325), low(x) + beta**2 * (x - low(x)), causal."""

    low_pass: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, shape.feed_forward), nn.Linear(shape.feed_forward, width)
        self.dropout = nn.Dropout(shape.dropout)
        self.filter_weight = shape.config.filter_weight
        if self.filter_weight:
            self.beta = nn.Parameter(torch.randn(width))
            self.register_buffer("low_pass", low_pass(shape.history + 1, shape.config.frequencies), persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, P, d] -> [B, P, d]. mask: bool [P, P]."""
        batch, length, width = x.shape
        normal = self.before(x)
        q, k, v = self.mixed(normal).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = attend(q, k, v, mask[None, None], self.dropout)
        told = self.out(seen.transpose(1, 2).reshape(batch, length, width))
        if self.filter_weight:
            low = self.low_pass[:length, :length] @ normal
            told = (1 - self.filter_weight) * told + self.filter_weight * (low + self.beta**2 * (normal - low))
        x = x + self.dropout(told)
        return x + self.dropout(self.narrow(nn.functional.gelu(self.wide(self.between(x)))))


class Encoder(nn.Module):
    """Blocks over vectors that know their place already."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm, self.dropout, self.last = nn.LayerNorm(shape.width), nn.Dropout(shape.dropout), nn.LayerNorm(shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, P, d] -> [B, P, d]. mask: bool [P, P], on the device of `x`."""
        x = self.dropout(self.norm(x))
        for block in self.blocks:
            x = block(x, mask)
        return self.last(x)
