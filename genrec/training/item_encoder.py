"""Training of an item encoder: first beside texts and beside each other, then in front of the language model.

In: item vectors and training histories. Out: phase 1, an encoder whose answers are near the texts of their items and near those
of items that people take one after the other; phase 2, batches of prompts whose histories are soft tokens.

Phase 1 has no language model in it. Item and text: the best of an item's queries is near the vector of its own text and far
from those of the batch's other items. So that it is not read off the text itself, the encoder sees the collaborative part alone
there, where vectors have one. Item and item: two items that follow each other in a history are nearer, by their best pair of
queries, than to the batch's other items. Both are InfoNCE in both directions, added up.

Phase 2 learns single targets, as an encoder-decoder does: [start], soft tokens of the items before, codes of the target, with
the loss on those codes alone.

Source: ILM (arXiv 2406.02844), its losses "ITC" and "II". Its text generation and text matching need a text side that reads
word by word, and are not here; nor are users, which it reads as items.
"""

import logging
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from genrec.data.interactions import Histories
from genrec.models.item_encoder import WIDTH, ItemEncoder, read_items
from genrec.models.tokens import TokenLayout, write_histories
from genrec.training.examples import IGNORED, positions
from genrec.training.targets import Example

log = logging.getLogger(__name__)

TEMPERATURE = 0.07
BATCH = 256  # pairs, and items beside their texts
MOST_PAIRS = 100_000  # of an epoch, drawn anew each time
RATE = 1e-3
SAME_TEXT = 1 - 1e-5  # cosine from which on two texts say the same, and are no negatives of each other


def align(encoder: ItemEncoder, histories: Histories, vectors: np.ndarray, content: int, epochs: int, seed: int) -> list[float]:
    """Phase 1, in place; the mean loss of each epoch. vectors: of the items, float32 [N, D], of which the first `content`
    numbers are of the text and the rest collaborative. Same arguments, same weights; torch's random state stays as it was."""
    pairs = histories.following_pairs()
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    home = next(encoder.parameters()).device
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = found or torch.device("cpu")
    encoder.to(device)
    table = torch.from_numpy(np.ascontiguousarray(vectors, np.float32)).to(device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text_side = nn.Linear(content, WIDTH).to(device)
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW([*weights, *text_side.parameters()], RATE)
    means = []
    for epoch in range(epochs):
        random = np.random.default_rng([seed, epoch, 2])
        drawn = random.permutation(pairs)[:MOST_PAIRS]
        losses = []
        for some in np.array_split(drawn, -(-max(len(drawn), 1) // BATCH)):
            items = random.choice(len(table), min(BATCH, len(table)), replace=False)
            loss = item_text_loss(encoder, text_side, table[torch.from_numpy(items)], content)
            if len(some) > 1:
                first, second = (torch.from_numpy(column.copy()).to(device) for column in some.T)
                loss = loss + item_item_loss(encoder, table, first, second)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        means.append(float(np.mean(losses)))
    if means:
        log.info("Item encoder aligned: loss %.3f in epoch 1, %.3f in epoch %d", means[0], means[-1], epochs)
    encoder.to(home)
    return means


def item_text_loss(encoder: ItemEncoder, text_side: nn.Module, vectors: Tensor, content: int) -> Tensor:
    """Each item beside its own text among the texts of all. vectors: [B, D], of different items."""
    texts, seen = vectors[:, :content], vectors
    if content < vectors.shape[1]:
        seen = torch.cat([torch.zeros_like(texts), vectors[:, content:]], dim=1)
    words, known = normalize(text_side(texts), dim=-1), normalize(texts, dim=-1)
    likeness = (normalize(encoder.answers(seen), dim=-1) @ words.T).amax(1)
    return contrast(likeness, known @ known.T > SAME_TEXT)


def item_item_loss(encoder: ItemEncoder, table: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Items beside those that came after them. table: vectors [N, D]; first, second: rows int64 [B]."""
    one, other = (normalize(encoder.answers(table[rows]), dim=-1) for rows in (first, second))
    alike = (first[:, None] == first) | (second[:, None] == second)
    return contrast(pair_likeness(one, other), alike)


def pair_likeness(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of the best pair of queries of each two items: [B, C] of normalised [B, Q, E] and [C, Q, E]."""
    return torch.einsum("bqe,cre->bcqr", one, other).amax((2, 3))


def contrast(likeness: Tensor, alike: Tensor) -> Tensor:
    """InfoNCE in both directions: the diagonal of [B, B] against its row and its column, but for what is `alike`, bool."""
    others = alike & ~torch.eye(len(likeness), dtype=torch.bool, device=likeness.device)
    scores = (likeness / TEMPERATURE).masked_fill(others, -torch.inf)
    right = torch.arange(len(scores), device=scores.device)
    return (cross_entropy(scores, right) + cross_entropy(scores.T, right)) / 2


class PromptCollator:
    """Examples of `HistoryTargets` -> `input_ids`, `attention_mask`, `labels`, `position_ids`, each int64 [B, T], and what an
    item encoder reads (`read_items`). vectors: of the items, [R, D]."""

    def __init__(self, codes: np.ndarray, layout: TokenLayout, vectors: np.ndarray) -> None:
        self.codes, self.layout, self.vectors = codes, layout, vectors

    def __call__(self, examples: list[Example]) -> dict[str, Tensor]:
        histories, items, _ = zip(*examples, strict=True)
        tokens, mask = write_histories(histories, self.codes, self.layout)
        answers = self.layout.to_tokens(self.codes[list(items)])
        mask = np.hstack([mask, np.ones_like(answers, bool)]).astype(np.int64)
        batch = {
            "input_ids": np.hstack([tokens, answers]),
            "attention_mask": mask,
            "labels": np.hstack([np.full_like(tokens, IGNORED), answers]),
            "position_ids": positions(mask),
            **read_items(cast(tuple[np.ndarray, ...], histories), self.vectors),
        }
        return {name: torch.from_numpy(array) for name, array in batch.items()}
