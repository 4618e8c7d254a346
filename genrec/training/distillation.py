"""Distillation: what quantisation cut off is taught back while the decoder learns.

Once all codes of an item are written, the decoder's state there must tell the item's own vector from those of the other items
of the batch. Codes are all that is decoded, before and after: the head that learns this is thrown away. Source: the second
stage of PRORec and UNGER (arXiv 2502.06269), where an encoder-decoder has an extra token for it; a decoder's last code is that
place.

Legend: `N` items, `D` vector width, `B` windows, `T` tokens, `H` hidden width.
"""

import numpy as np
import torch
from torch import Tensor, nn

from genrec.models.tokens import TokenLayout
from genrec.networks import info_nce

TEMPERATURE = 0.07


class Distillation(nn.Module):
    """vectors [N, D]: the teachers, which nothing here changes. weight: of the loss."""

    def __init__(self, hidden: int, vectors: np.ndarray, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.head = nn.Linear(hidden, vectors.shape[1], bias=False)
        self.register_buffer("teachers", torch.from_numpy(np.ascontiguousarray(vectors, np.float32)), persistent=False)
        _, twins = np.unique(vectors, axis=0, return_inverse=True)
        self.register_buffer("twins", torch.from_numpy(twins.reshape(-1)), persistent=False)

    def forward(self, states: Tensor, items: Tensor) -> Tensor:
        """The weighted loss. states: [B, T, H]; items: int64 [B, T], the item whose last code stands there, -1 elsewhere."""
        ends = items >= 0
        rows = items[ends]
        same = self.get_buffer("twins")[rows]  # an item elsewhere in the batch, or one with its very vector, is no negative
        with torch.autocast(states.device.type, enabled=False):
            told = self.head(states[ends].float())
            return self.weight * info_nce(told, self.get_buffer("teachers")[rows], TEMPERATURE, same[:, None] == same[None])


def item_ends(windows: list[np.ndarray], layout: TokenLayout) -> np.ndarray:
    """For windows of item rows as `write_histories` writes them: the item whose last code stands at each token, -1 elsewhere:
    int64 [B, T].
    """
    levels = layout.levels
    width = layout.lead + levels * max(len(window) for window in windows)
    items = np.full((len(windows), width), -1, np.int64)
    for row, window in enumerate(windows):
        items[row, width - levels * len(window) + levels - 1 :: levels] = window
    return items
