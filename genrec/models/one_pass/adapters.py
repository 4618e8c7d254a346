"""Adapters of several rounds: what was found so far changes how a history is read (Ada-Retrieval, arXiv 2401.06633).

In: the slots of the history's items and of the items that earlier rounds found, and the states of those rounds. Out: the slots
as the next round reads them (`ItemAdapter`), and its state (`UserAdapter`).

Legend: `B` histories, `T` items of the longest, `S` slots per item, `R` rounds so far, `F` items found in each, `d` width.
"""

import math

import torch
from torch import Tensor, nn

from genrec.models.one_pass.config import Shape


class ItemAdapter(nn.Module):
    """Every item of the history looks at the items that were found, slot by slot. A learned filter over the frequencies of
    each round's list, in the order it was found, comes first: it takes noise out of it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, found = shape.width, shape.config.round_items
        self.filter = nn.Parameter(torch.zeros(found // 2 + 1, width, 2))  # real and imaginary parts
        self.mix = nn.Linear(width, width)
        self.filtered, self.norm, self.dropout = nn.LayerNorm(width), nn.LayerNorm(width), nn.Dropout(shape.dropout)

    def forward(self, tokens: Tensor, found: Tensor) -> Tensor:
        """[B, T, S, d]. tokens: of the history, [B, T, S, d]; found: [B, R, F, S, d]."""
        waves = torch.fft.rfft(found, dim=2, norm="ortho") * torch.view_as_complex(self.filter)[:, None]
        smooth = self.mix(torch.fft.irfft(waves, n=found.shape[2], dim=2, norm="ortho"))
        context = self.filtered(found + self.dropout(smooth)).flatten(1, 2)
        logits = torch.einsum("btsd,bfsd->bstf", tokens, context) / math.sqrt(tokens.shape[-1])
        read = torch.einsum("bstf,bfsd->btsd", logits.softmax(-1), context)
        return self.norm(tokens + self.dropout(read))


class UserAdapter(nn.Module):
    """A state is told what the states of the earlier rounds were, in their order."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.earlier = nn.GRU(width, width, batch_first=True)
        self.wide, self.narrow = nn.Linear(2 * width, 2 * width), nn.Linear(2 * width, width)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(shape.dropout)

    def forward(self, state: Tensor, earlier: Tensor) -> Tensor:
        """[B, S, d]. state: [B, S, d]; earlier: [B, R, S, d]."""
        told, _ = self.earlier(earlier.transpose(1, 2).flatten(0, 1))
        told = told[:, -1].view_as(state)
        return self.norm(state + self.dropout(self.narrow(torch.relu(self.wide(torch.cat([state, told], dim=-1))))))


class Adapters(nn.Module):
    """Both, the same for all rounds after the first."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.items, self.users = ItemAdapter(shape), UserAdapter(shape)
