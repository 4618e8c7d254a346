"""A small causal transformer that ranks items, whatever represents them (after SASRec, arXiv 1808.09781).

In: training histories and a `Representation`. Out: a `Ranker` (see base.py). The same module that reads items scores them: the
score of an item is the product of its vector with the state after the history, and training is a softmax over the whole
catalogue, since a sampled one is known to make such a model look weak.

    ranker = NextItemModel(representation, config).fit(split.train)
    evaluate(ranker, split.test)

Legend: `N` items, `U` histories, `B` histories of a batch, `T` positions, `d` width.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from genrec.data.interactions import Histories, pad_histories
from genrec.errors import DataError, SettingError, check_integer
from genrec.evaluation.ranking import masked, top_of_each
from genrec.evaluation.representations import Representation, item_module, weights_of
from genrec.networks import check_training, seeded, train_on

CELLS = 2**25  # scores held at once: 128 MB


@dataclass(frozen=True)
class NextItemConfig:
    """width: of items and states. layers, heads: of the transformer. history: latest items that it sees. epochs, batch_size (in
    histories, fewer where the scores would not fit into memory), learning_rate, weight_decay, dropout, seed: of the training.
    """

    width: int = 64
    layers: int = 2
    heads: int = 2
    history: int = 50
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    dropout: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "history"):
            check_integer(name, getattr(self, name), 1)
        check_training(self.epochs, self.batch_size, self.learning_rate, self.seed)
        if self.width % self.heads:
            raise SettingError(f"width must be a multiple of heads, got {self.width} and {self.heads}.")
        if not 0 <= self.dropout < 1:
            raise SettingError(f"dropout must be from 0 to below 1, got {self.dropout}.")


class _Network(nn.Module):
    """States after each position of histories [B, T], padded on the right with -1: [B, T, d]."""

    def __init__(self, representation: Representation, config: NextItemConfig) -> None:
        super().__init__()
        self.items = item_module(representation, config.width)
        self.places = nn.Embedding(config.history, config.width)
        nn.init.normal_(self.places.weight, std=config.width**-0.5)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, 4 * config.width, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(config.width), enable_nested_tensor=False)

    def forward(self, histories: Tensor) -> Tensor:
        # What stands behind the end of a history is seen by nothing before it, and its own states are never asked for.
        length = histories.shape[1]
        vectors = self.items(histories.clamp(min=0)) + self.places(torch.arange(length, device=histories.device))
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=histories.device)
        return self.layers(self.drop(vectors), mask=causal, is_causal=True)


class NextItemModel:
    """See the module. `name` is the representation's."""

    def __init__(self, representation: Representation, config: NextItemConfig | None = None) -> None:
        self.representation, self.config, self.name = representation, config or NextItemConfig(), representation.name

    @property
    def weights(self) -> int:
        """Learned numbers of the fitted model."""
        return weights_of(self.network)

    def fit(self, train: Histories) -> Self:
        """Learn every item of every history but the first from the up to `history` before it. Raises `DataError` where no
        history has two items, or names one that is not there.
        """
        highest, items = int(train.items.max(initial=-1)), self.representation.items
        if highest >= items:
            raise DataError(f"Training histories must name rows of the catalogue, 0 to {items - 1}, got row {highest}.")
        by_id = train.select(np.argsort(train.user_ids.astype(str), kind="stable"))  # batches go by place
        rows = windows(by_id, self.config.history)
        if not len(rows):
            raise DataError("There is no next item to learn: no history has two items. Bring longer histories.")
        self.network = seeded(self.config.seed, lambda: self._trained(rows))
        return self

    def _trained(self, rows: np.ndarray) -> _Network:
        config, items = self.config, self.representation.items
        network = _Network(self.representation, config)

        def loss(batch: Tensor) -> Tensor:
            batch = batch[:, : int((batch >= 0).any(dim=0).sum())]  # most are far below the longest
            before, after = batch[:, :-1], batch[:, 1:]
            states = network(before)[after >= 0]
            catalogue = network.items(torch.arange(items, device=batch.device))
            return cross_entropy(states @ catalogue.T, after[after >= 0])

        size = int(np.clip(CELLS // (items * (rows.shape[1] - 1)), 1, config.batch_size))
        train_on(
            rows, network, loss, steps=max(1, config.epochs * len(rows) // size), batch_size=size,
            learning_rate=config.learning_rate, weight_decay=config.weight_decay, desc=f"Next item, {self.name}",
        )  # fmt: skip
        return network

    @torch.inference_mode()
    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`; the score is the logit. After an empty history nothing is known: every item scores 0, and the
        order is the catalogue's.
        """
        check_integer("k", k, 1)
        items, device = self.representation.items, next(self.network.parameters()).device
        catalogue = self.network.items(torch.arange(items, device=device))
        rows = np.full((len(histories), k), -1, np.int64)
        kept = np.full((len(histories), k), -np.inf, np.float32)
        size = int(np.clip(CELLS // items, 1, 256))
        for begin in range(0, len(histories), size):
            users = np.arange(begin, min(begin + size, len(histories)))
            batch = histories.select(users)
            latest = [history[-self.config.history :] for history in batch.to_lists()]
            padded = torch.from_numpy(pad_histories(latest, -1)).to(device)
            lengths = torch.tensor([len(history) for history in latest], device=device)
            states = self.network(padded)[torch.arange(len(users)), (lengths - 1).clamp(min=0)]
            scores = (states * (lengths > 0).unsqueeze(1) @ catalogue.T).cpu().numpy()
            rows[users], kept[users] = top_of_each(masked(scores, batch) if exclude_seen else scores, k)
        return rows, kept


def windows(histories: Histories, history: int) -> np.ndarray:
    """Histories cut from their end into windows of up to history + 1 items, each beginning with the last item of the one
    before, so that every item but a history's first is learned once: int64 [windows, T], padded on the right with -1.
    """
    cut = [items[max(0, end - history - 1) : end] for items in histories.to_lists() for end in range(len(items), 1, -history)]
    return pad_histories(cut, -1) if cut else np.zeros((0, 1), np.int64)
