"""Identifiers: what an item looks like going in, as one or several vectors (slots).

In: `Items`, what is known of some catalogue rows. Out: [n, S, d], the slots of each. The same vectors are what a state is
compared with when whole items are asked for.

`Pooled`: the embeddings of an item's codes in one (RPG, arXiv 2506.05781), plus that of its id, plus its projected vector.
`PerCode`: a slot per code, its embedding plus the slice of the item's vector (RecGPT, arXiv 2506.06270).
`ContinuousSet`: one collaborative token and the pieces of an auto-encoder's latent of the content (SETRec, arXiv 2502.10833).
`Dual`: the item by its codes, weighed item by item, and by its id, which reads the codes by cross-attention (H2Rec, arXiv
2512.10388; the paper's equations were not at hand, these are ours).

Legend: `n` items, `N` rows of the id table, `L` codes per item, `S` slots, `M` semantic tokens, `D` vector width, `d` width.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, mse_loss, pad

from genrec.models.one_pass.config import Shape
from genrec.networks import perceptron

HIDDEN = (512, 256, 128)  # layers of SETRec's encoder between the content and the tokens


@dataclass(frozen=True)
class Items:
    """codes: int64 [n, L]. ids: int64 [n], rows of the id table, `N` for a cold item. vectors: float32 [n, D], content first,
    then collaborative; D is 0 where the identifier takes none."""

    codes: Tensor
    ids: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, codes: np.ndarray, ids: np.ndarray, vectors: np.ndarray | None) -> "Items":
        """The same from arrays."""
        vectors = np.zeros((len(codes), 0), np.float32) if vectors is None else vectors
        return cls(*(torch.from_numpy(np.ascontiguousarray(a)) for a in (codes.astype(np.int64), ids, vectors)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Tensor) -> "Items":
        return Items(self.codes[rows], self.ids[rows], self.vectors[rows])

    def to(self, device: torch.device) -> "Items":
        """These items on `device`."""
        return Items(self.codes.to(device), self.ids.to(device), self.vectors.to(device))


class Codes(nn.Module):
    """Embeddings of codes: a table per level, or one for all where a code means the same at every place."""

    first: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.sizes, shared = shape.sizes, shape.config.shared_codes
        starts = [0] * len(self.sizes) if shared else [0, *np.cumsum(self.sizes)[:-1].tolist()]
        self.register_buffer("first", torch.tensor(starts), persistent=False)
        self.rows = nn.Embedding(max(self.sizes) if shared else sum(self.sizes), shape.width)

    def forward(self, codes: Tensor) -> Tensor:
        """[n, L] -> [n, L, d]."""
        return self.rows(codes + self.first)

    def total(self, codes: Tensor) -> Tensor:
        """The sum over the codes, [n, L] -> [n, d], without the embeddings side by side in memory."""
        return embedding_bag(codes + self.first, self.rows.weight, mode="sum")

    def level(self, level: int) -> Tensor:
        """Embeddings of all codes of a level: [K, d]."""
        start = int(self.first[level])
        return self.rows.weight[start : start + self.sizes[level]]


class Cold(nn.Module):
    """What an item without training events lacks: its id, and the collaborative part of its vector, which only looks like one.
    In a training step some of the others are hidden in the same way, so that the model knows such items."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.cold, self.content, self.hide = shape.items, shape.content, shape.config.id_dropout

    def forward(self, items: Items) -> tuple[Tensor, Tensor]:
        """(ids int64 [n], vectors [n, D]) as the network sees them."""
        ids = items.ids
        if self.training and self.hide:
            ids = torch.where(torch.rand(ids.shape, device=ids.device) < self.hide, self.cold, ids)
        content, together = items.vectors.tensor_split([self.content], dim=1)
        return ids, torch.cat([content, together.masked_fill((ids == self.cold)[:, None], 0.0)], dim=1)


def id_table(shape: Shape) -> nn.Embedding:
    """A row per item, and row `N` for cold ones: zero, or learned from hidden ids."""
    zero = shape.config.cold_id == "zero"
    return nn.Embedding(shape.items + 1, shape.width, padding_idx=shape.items if zero else None)


class Pooled(nn.Module):
    """One slot: the sum of the codes' embeddings over the root of their number, plus the id's, plus the projected vector. Each
    part is as long as the others at first: in a mean over codes and id, 16 codes would leave the id a whisper."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        parts = shape.config.parts
        self.parts, self.scale = parts, len(shape.sizes) ** -0.5
        self.cold, self.ids = Cold(shape), id_table(shape) if "id" in parts else None
        self.project = nn.Linear(shape.content + shape.collaborative, shape.width, bias=False) if "vectors" in parts else None

    def forward(self, items: Items, codes: Codes | None) -> Tensor:
        """[n, 1, d]."""
        found: list[Tensor] = []
        ids, vectors = self.cold(items)
        if "codes" in self.parts:
            assert codes is not None
            found.append(codes.total(items.codes) * self.scale)
        if self.ids is not None:
            found.append(self.ids(ids))
        if self.project is not None:
            found.append(self.project(vectors))
        return torch.stack(found).sum(dim=0).unsqueeze(1)


class PerCode(nn.Module):
    """A slot per code: its embedding, plus its slice of the vector; both normalised, as in the paper."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.slots, self.norm, self.cold = shape.slots, nn.LayerNorm(shape.width), Cold(shape)
        whole = shape.content + shape.collaborative
        self.slice = -(-whole // shape.slots)
        self.inward = nn.Linear(self.slice, shape.width, bias=False) if "vectors" in shape.config.parts else None
        self.inward_norm = nn.LayerNorm(shape.width) if self.inward is not None else None

    def forward(self, items: Items, codes: Codes | None) -> Tensor:
        """[n, L, d]."""
        assert codes is not None
        found = self.norm(codes(items.codes))
        if self.inward is None or self.inward_norm is None:
            return found
        _, vectors = self.cold(items)
        filled = pad(vectors, (0, self.slots * self.slice - vectors.shape[1]))
        return found + self.inward_norm(self.inward(filled.view(len(items), self.slots, self.slice)))


class ContinuousSet(nn.Module):
    """1 + M slots, without an order and without codes. The first, collaborative one is zero for a cold item."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.content, self.tokens, self.cold = shape.content, shape.config.set_tokens, Cold(shape)
        widths = (shape.content, *HIDDEN, self.tokens * shape.width)
        self.encoder, self.decoder = perceptron(widths), perceptron(widths[::-1])
        self.collaborative = nn.Linear(shape.collaborative, shape.width, bias=False)

    def forward(self, items: Items, codes: Codes | None) -> Tensor:
        """[n, 1 + M, d]."""
        content, together = self.cold(items)[1].tensor_split([self.content], dim=1)
        return torch.cat(
            [self.collaborative(together).unsqueeze(1), self.encoder(content).view(len(items), self.tokens, -1)], dim=1
        )

    def reconstruction(self, items: Items, tokens: Tensor) -> Tensor:
        """How far the content is from what its tokens [n, 1 + M, d] say, as a share of its mean square."""
        content = items.vectors[:, : self.content]
        return mse_loss(self.decoder(tokens[:, 1:].flatten(1)), content) / content.square().mean().clamp(min=1e-12)


class Dual(nn.Module):
    """Two slots: the codes weighed item by item, and the id that reads the codes."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.cold, self.ids, self.mask = Cold(shape), id_table(shape), nn.Parameter(torch.zeros(width))
        self.grain = perceptron((len(shape.sizes) * width, width, len(shape.sizes)))
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))

    def weights(self, found: Tensor) -> Tensor:
        """How much each granularity says, [n, L] with rows that sum to 1. found: embeddings of the codes [n, L, d]."""
        return self.grain(found.flatten(1)).softmax(-1)

    def semantic(self, codes: Tensor, table: Codes, hidden: Tensor | None = None) -> Tensor:
        """The item by its codes: [n, d]. hidden: bool [n, L], codes that stand behind the mask."""
        found = table(codes)
        if hidden is not None:
            found = torch.where(hidden.unsqueeze(-1), self.mask, found)
        return (self.weights(found).unsqueeze(-1) * found).sum(dim=1)

    def forward(self, items: Items, codes: Codes | None) -> Tensor:
        """[n, 2, d]."""
        assert codes is not None
        found, own = codes(items.codes), self.ids(self.cold(items)[0])
        match = (self.key(found) @ self.query(own).unsqueeze(-1)).squeeze(-1) / math.sqrt(own.shape[1])
        read = (match.softmax(-1).unsqueeze(-1) * self.value(found)).sum(dim=1)
        return torch.stack([self.semantic(items.codes, codes), own + read], dim=1)


IDENTIFIERS = {"pooled": Pooled, "codes": PerCode, "set": ContinuousSet, "dual": Dual}
