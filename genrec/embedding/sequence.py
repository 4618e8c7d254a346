"""Collaborative item vectors of a sequence model: items are near when the same histories make them likely.

In: training histories, and text vectors. Out: [N, d] float32, rows of length 1, zero for items that training never met. A small
causal transformer learns to tell the next item from sampled others, and its item table is taken. With `alignment`, a
contrastive loss pulls an item's row and its projected text together while the model learns, so that what the text says is
written into the collaborative vector and neither drowns the other: the first stage of PRORec and UNGER (arXiv 2502.06269).

Legend: `N` items, `d` width, `B` histories, `T` positions, `S` sampled items.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from genrec.data.interactions import Histories, pad_histories
from genrec.networks import info_nce, seeded, train_on

LAYERS, HEADS, DROPOUT, LONGEST = 2, 2, 0.2, 50
SAMPLED, BATCH, LEARNING_RATE, TEMPERATURE = 1024, 128, 5e-3, 0.07
EPOCHS, LEAST_STEPS, MOST_STEPS = 20, 300, 20_000


class _SequenceModel(nn.Module):
    """SASRec (arXiv 1808.09781) with dropout only, d wide; row N of the table is the padding."""

    def __init__(self, items: int, width: int, text: Tensor | None) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, width, padding_idx=items)
        nn.init.normal_(self.items.weight, std=width**-0.5)
        self.places = nn.Embedding(LONGEST, width)
        layer = nn.TransformerEncoderLayer(width, HEADS, 2 * width, DROPOUT, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(width), enable_nested_tensor=False)
        self.adapter = None if text is None else nn.Linear(text.shape[1], width)

    def forward(self, histories: Tensor) -> Tensor:
        """What is expected after each position: [B, T, d]. histories: [B, T], padded with N."""
        length = histories.shape[1]
        places = self.places(torch.arange(length, device=histories.device))
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=histories.device)
        return self.layers(self.items(histories) + places, mask=causal, is_causal=True)


def sequence_vectors(
    histories: Histories, items: int, width: int, seed: int, text: np.ndarray | None = None, alignment: float = 0.0
) -> np.ndarray:
    """See the module. alignment: weight of the contrastive loss beside that of the next item; 0 leaves `text` [N, D] out."""
    met = np.zeros(items, bool)
    met[histories.items] = True
    vectors = seeded(seed, lambda: _train(histories, items, width, text if alignment else None, alignment))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(met[:, None], vectors / np.where(norms > 1e-9, norms, 1), 0).astype(np.float32)


def _train(histories: Histories, items: int, width: int, text: np.ndarray | None, alignment: float) -> np.ndarray:
    width += width % HEADS  # heads share it equally
    content = None if text is None else torch.from_numpy(text.astype(np.float32))
    model = _SequenceModel(items, width, content)
    long_enough = np.flatnonzero(histories.lengths > 1)
    rows = pad_histories([histories[user][-LONGEST - 1 :] for user in long_enough], items)
    if not len(rows):
        return np.zeros((items, width), np.float32)

    def loss(batch: Tensor) -> Tensor:
        # Histories of one batch are cut to the longest of them: most are far below LONGEST.
        batch = batch[:, : int((batch != items).any(dim=0).sum())]
        before, after = batch[:, :-1], batch[:, 1:]
        asked = (before != items) & (after != items)
        expected, right = model(before)[asked], after[asked]
        if items <= SAMPLED:
            total = cross_entropy(expected @ model.items.weight[:items].T, right)
        else:
            drawn = torch.randint(items, (SAMPLED,), device=batch.device)
            own = (expected * model.items(right)).sum(dim=1, keepdim=True)
            others = (expected @ model.items(drawn).T).masked_fill(drawn[None] == right[:, None], -torch.inf)
            total = cross_entropy(torch.cat([own, others], dim=1), torch.zeros_like(right))
        if model.adapter is None or content is None:
            return total
        here = torch.unique(right)
        words = model.adapter(content[here.cpu()].to(batch.device))
        return total + alignment * info_nce(model.items(here), words, TEMPERATURE)

    steps = int(np.clip(EPOCHS * len(rows) / BATCH, LEAST_STEPS, MOST_STEPS))
    train_on(rows, model, loss, steps=steps, batch_size=BATCH, learning_rate=LEARNING_RATE, desc="Sequence model")
    return model.items.weight.detach().numpy()[:items]
