"""The network of the sequence baselines: a causal transformer over item ids, with or without a frequency filter.

In: histories as catalogue rows, padded on the right. Out: one state per position, whose product with an item's row of the table
is the score of that item as the next one.

SASRec (arXiv 1808.09781): learned positions, causal self-attention, one item table for input and output. The blocks here
normalise after the residual sum and use GELU, which is how later work runs it.

BSARec (arXiv 2312.10325): beside attention, each block has a filter over time. With low(x) the lowest frequencies of the
sequence and high(x) = x - low(x), it gives low(x) + beta**2 * high(x), beta learned per dimension; the block's state is
weight * filter + (1 - weight) * attention. The paper filters a whole history at once, so that early states know later items,
and has to train on the last position of each prefix. Here position t gets what the filter gives at the end of the history up to
t, with zeros before it up to the full length: no state knows what comes later, and all positions train at once.

Legend: `N` items, `B` histories, `T` positions, `d` width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genrec.errors import SettingError, check_integer
from genrec.networks import check_training, low_pass


@dataclass(frozen=True)
class SequenceConfig:
    """The network. width: of states and item rows. layers: blocks. heads: of attention. history: items that the model sees, the
    latest. dropout: of states, attention and filter. filter_weight: share of the frequency filter in each block, 0 for none
    (SASRec). frequencies: how many the filter counts as low, the constant included.

    Training. epochs: passes over the data at most. patience: epochs without a better validation score before stopping.
    batch_size: positions per step, padding included. learning_rate: peak of the schedule. weight_decay: AdamW's. sampled: items
    drawn for each step's softmax, 0 for the softmax over the whole catalogue. full_softmax_up_to: size of the largest catalogue
    for that; a larger one is refused until one of the two is raised. validation_users: users drawn for the score after each
    epoch.
    """

    width: int = 64
    layers: int = 2
    heads: int = 2
    history: int = 50
    dropout: float = 0.5
    filter_weight: float = 0.0
    frequencies: int = 3
    epochs: int = 30
    patience: int = 5
    batch_size: int = 1024
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    sampled: int = 0
    full_softmax_up_to: int = 200_000
    validation_users: int = 4000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "history", "epochs", "patience", "validation_users"):
            check_integer(name, getattr(self, name), 1)
        check_training(self.epochs, self.batch_size, self.learning_rate, self.seed)
        check_integer("frequencies", self.frequencies, 1, self.history // 2 + 1)
        check_integer("sampled", self.sampled, 0)
        check_integer("full_softmax_up_to", self.full_softmax_up_to, 1)
        if self.width % self.heads:
            raise SettingError(f"width must be a multiple of heads, got {self.width} and {self.heads}.")
        if not 0 <= self.dropout < 1:
            raise SettingError(f"dropout must be from 0 to below 1, got {self.dropout}.")
        if not 0 <= self.filter_weight < 1:
            raise SettingError(f"filter_weight must be from 0 to below 1 (attention has the rest), got {self.filter_weight}.")
        if not self.weight_decay >= 0:
            raise SettingError(f"weight_decay must be 0 or more, got {self.weight_decay}.")


class SequenceNetwork(nn.Module):
    """Blocks over the sum of item rows and positions. Row N of the item table is the padding."""

    def __init__(self, items: int, config: SequenceConfig) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, config.width, padding_idx=items)
        self.places = nn.Embedding(config.history, config.width)
        self.norm, self.dropout = nn.LayerNorm(config.width), nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.items.weight[items].detach())

    @property
    def table(self) -> Tensor:
        """Rows of the items: [N, d]."""
        return self.items.weight[:-1]

    def forward(self, histories: Tensor) -> Tensor:
        """What is expected after each position: [B, T, d]. histories: [B, T], padded on the right with N."""
        places = self.places(torch.arange(histories.shape[1], device=histories.device))
        x = self.dropout(self.norm(self.items(histories) + places))
        for block in self.blocks:
            x = block(x)
        return x


class _Block(nn.Module):
    """Attention and filter side by side, then a perceptron; each with dropout, residual sum and normalisation."""

    low_pass: Tensor

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.weight = config.heads, config.filter_weight
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.after_attention, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)
        if self.weight:
            self.after_filter, self.beta = nn.LayerNorm(width), nn.Parameter(torch.randn(width))
            self.register_buffer("low_pass", low_pass(config.history, config.frequencies), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] -> [B, T, d]."""
        state = self.after_attention(x + self.dropout(self._attend(x)))
        if self.weight:
            filtered = self.after_filter(x + self.dropout(self._filter(x)))
            state = self.weight * filtered + (1 - self.weight) * state
        return self.after(state + self.dropout(self.narrow(nn.functional.gelu(self.wide(state)))))

    def _attend(self, x: Tensor) -> Tensor:
        # Written out: the fused kernels add up gradients in any order on a GPU, and the same seed would give other weights.
        batch, length, width = x.shape
        q, k, v = self.mixed(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        logits = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(later, -torch.inf)
        mixed = self.dropout(logits.softmax(-1)) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))

    def _filter(self, x: Tensor) -> Tensor:
        low = self.low_pass[: x.shape[1], : x.shape[1]] @ x
        return low + self.beta**2 * (x - low)
