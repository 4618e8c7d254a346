"""The loss of the sequence baselines: cross-entropy of the next item over the whole catalogue, or over drawn items.

In: states [P, d], the item table [N, d], the item that came next [P]. Out: the mean loss.

Over the whole catalogue, scores are made and forgotten a few positions at a time, with the gradient made on the way: memory
does not grow with P * N. Over drawn items, each drawn score is lowered by the log of how often it is expected to be drawn, so
that the sum over the draws stands for the sum over the catalogue (arXiv 1412.2007). The item that came next is always there, so
its score stays as it is, and draws of it do not count (arXiv 2507.09331).

Legend: `P` positions, `N` items, `d` width, `S` drawn items.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

CELLS = 2**24  # scores held at once: 64 MB


def full_cross_entropy(states: Tensor, table: Tensor, right: Tensor, cells: int = CELLS) -> Tensor:
    """Mean of -log softmax(states @ table.T)[right], with at most `cells` scores in memory (one position's at least)."""
    return _FullCrossEntropy.apply(states, table, right, max(1, cells // len(table)))


class _FullCrossEntropy(torch.autograd.Function):
    """d loss / d score = probability - [is the right item]. Known as soon as the scores are, so made with them."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, right: Tensor, rows: int) -> Tensor:
        loss = states.new_zeros(())
        to_states, to_table = torch.empty_like(states), torch.zeros_like(table)
        for start in range(0, len(states), rows):
            part = states[start : start + rows]
            own = right[start : start + rows, None]
            scores = part @ table.T
            highest = scores.max(dim=1, keepdim=True).values
            loss -= (scores.gather(1, own) - highest).sum()
            odds = scores.sub_(highest).exp_()
            total = odds.sum(dim=1, keepdim=True)
            loss += total.log().sum()
            odds.scatter_add_(1, own, -total)  # odds / total is now the gradient by the scores
            to_states[start : start + rows] = odds @ table / total
            to_table.addmm_(odds.T, part / total)
        ctx.save_for_backward(to_states.div_(len(states)), to_table.div_(len(states)))
        return loss / len(states)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        to_states, to_table = ctx.saved_tensors
        return grad * to_states, grad * to_table, None, None


def sampled_cross_entropy(states: Tensor, table: Tensor, right: Tensor, drawn: Tensor, log_expected: Tensor) -> Tensor:
    """The same over the right item and the drawn ones. drawn: [S] items; log_expected: [S], the log of how often each is
    expected among S draws."""
    own = (states * table[right]).sum(dim=1, keepdim=True)
    others = states @ table[drawn].T - log_expected
    others = others.masked_fill(drawn == right[:, None], -torch.inf)
    return (torch.cat([own, others], dim=1).logsumexp(dim=1) - own[:, 0]).mean()


class Sampler:
    """Draws items with replacement, as often as training met them, and once more each: no item has no chance."""

    def __init__(self, counts: np.ndarray, size: int) -> None:
        """counts: training events per item [N]. size: `S`."""
        share = (counts + 1.0) / (counts + 1.0).sum(dtype=np.float64)
        self.bounds = torch.from_numpy(np.cumsum(share, dtype=np.float64))
        self.log_expected = torch.from_numpy(np.log(size * share)).float()
        self.size = size

    def draw(self) -> tuple[Tensor, Tensor]:
        """(items int64 [S], log of how often each is expected float32 [S])."""
        drawn = torch.searchsorted(self.bounds, torch.rand(self.size, dtype=torch.float64), right=True)
        drawn = drawn.clamp(max=len(self.bounds) - 1)  # the sum of all shares may be a hair below 1
        return drawn, self.log_expected[drawn]
