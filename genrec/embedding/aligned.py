"""Aligned content vectors: a projection of what an item says and shows, in which items that people take one after the other are
near.

In: content vectors by kind (text, and vectors that the user brought, such as of images) and pairs of items from training
histories. Out: [N, d] float32, rows of length 1, for any item that has content, met or not. Kinds are fused late: each is
projected by itself, and a gate that sees all of them weighs them, number by number, as in NoteLLM-2 (arXiv 2405.16789). Learned
by a contrastive loss over pairs with the other pairs of the batch as negatives, as FORGE aligns its features (arXiv
2509.20904).

Legend: `N` items, `D_k` width of kind k, `d` width of the result, `P` pairs.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from genrec.errors import SettingError
from genrec.networks import apply_perceptron, arrays_of, info_nce, seeded, train_on

TEMPERATURE, BATCH, LEARNING_RATE = 0.07, 512, 1e-3
EPOCHS, LEAST_STEPS, MOST_STEPS = 10, 100, 3_000


class _Fusion(nn.Module):
    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList([nn.Linear(inward, width, bias=False) for inward in widths])
        self.gate = nn.Linear(sum(widths), len(widths) * width)

    def forward(self, kinds: Sequence[Tensor]) -> Tensor:
        projected = torch.stack([layer(kind) for layer, kind in zip(self.projections, kinds, strict=True)], dim=1)
        gate = self.gate(torch.cat(list(kinds), dim=1)).view_as(projected).softmax(dim=1)
        return normalize((gate * projected).sum(dim=1), dim=1)


def learn_alignment(kinds: Sequence[np.ndarray], pairs: np.ndarray, width: int, seed: int) -> dict[str, np.ndarray]:
    """The fitted arrays, for `aligned`. kinds: content vectors, each [N, D_k] float32. pairs: int64 [P, 2], at least one.

    Raises `SettingError` where no two different items follow each other: there is nothing to learn from.
    """
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    if not len(pairs):
        raise SettingError("Aligned vectors need items that follow each other in training histories, and there are none.")
    return seeded(seed, lambda: _train(kinds, np.ascontiguousarray(pairs), width))


def _train(kinds: Sequence[np.ndarray], pairs: np.ndarray, width: int) -> dict[str, np.ndarray]:
    module = _Fusion([kind.shape[1] for kind in kinds], width)
    contents = [torch.from_numpy(np.ascontiguousarray(kind, np.float32)) for kind in kinds]

    def loss(batch: Tensor) -> Tensor:
        first, second = batch.cpu().unbind(1)
        a, b = (module([kind[rows].to(batch.device) for kind in contents]) for rows in (first, second))
        # The same item elsewhere in the batch is no negative.
        same, same_back = ((rows[None] == rows[:, None]).to(batch.device) for rows in (second, first))
        return info_nce(a, b, TEMPERATURE, same, same_back)

    steps = int(np.clip(EPOCHS * len(pairs) / BATCH, LEAST_STEPS, MOST_STEPS))
    train_on(pairs, module, loss, steps=steps, batch_size=BATCH, learning_rate=LEARNING_RATE, desc="Alignment")
    gate = arrays_of(module.gate, "align_gate")
    return gate | {
        f"align_projection_{kind}": layer.weight.detach().numpy()
        for kind, layer in enumerate(module.projections)
        if isinstance(layer, nn.Linear)
    }


def aligned(arrays: dict[str, np.ndarray], kinds: Sequence[np.ndarray]) -> np.ndarray:
    """Vectors of items with these contents: float32 [n, d]. In float64: they do not depend on who else is in the call."""
    contents = [kind.astype(np.float64) for kind in kinds]
    projected = np.stack(
        [kind @ arrays[f"align_projection_{number}"].T.astype(np.float64) for number, kind in enumerate(contents)], axis=1
    )
    gate = apply_perceptron(arrays, "align_gate", np.hstack(contents)).reshape(projected.shape)
    gate = np.exp(gate - gate.max(axis=1, keepdims=True))
    fused = (gate / gate.sum(axis=1, keepdims=True) * projected).sum(axis=1)
    norms = np.linalg.norm(fused, axis=1, keepdims=True)
    return (fused / np.where(norms > 1e-9, norms, 1)).astype(np.float32)
