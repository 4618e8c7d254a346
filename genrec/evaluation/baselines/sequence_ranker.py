"""Trained baselines that know items by their ids alone: SASRec with the full softmax, and BSARec.

    sasrec = SequenceRanker().fit(split.train, items, split.validation, exclude_seen=True)
    bsarec = SequenceRanker(BSAREC).fit(split.train, items, split.validation, exclude_seen=True)
    evaluate(bsarec, split.test)

Both are rankers (see `base`). Every position of every training history is a question: which item came next? Training is by
cross-entropy over the whole catalogue, which is what makes SASRec strong (arXiv 2309.07602), and is stopped by NDCG@10 of
validation users over the full catalogue. Equal scores: the catalogue's order. An empty history gets the popularity order, and
its scores are then training counts.

Legend: `U` histories, `N` items, `B` histories of a batch, `T` positions.
"""

from collections.abc import Iterator
from typing import Self

import numpy as np
import torch
from torch import Tensor

from genrec.data.interactions import Histories, pad_histories
from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError, check_integer
from genrec.evaluation.baselines.popularity import Popularity
from genrec.evaluation.baselines.sequence_losses import Sampler, full_cross_entropy, sampled_cross_entropy
from genrec.evaluation.baselines.sequence_network import SequenceConfig, SequenceNetwork
from genrec.evaluation.metrics import hit_positions, ndcg_at
from genrec.evaluation.ranking import masked, top_of_each
from genrec.networks import EarlyStopping, length_cuts, seeded, train_on

SASREC = SequenceConfig()
BSAREC = SequenceConfig(filter_weight=0.7, heads=1)
BATCH, BATCH_CELLS = 256, 2**25  # histories ranked at once, fewer where their scores [B, N] would pass 128 MB


class SequenceRanker:
    """SASRec, or BSARec where the frequency filter has a weight."""

    def __init__(self, config: SequenceConfig | None = None) -> None:
        self.config = config or SASREC
        self.name = "bsarec" if self.config.filter_weight else "sasrec"

    def fit(self, train: Histories, items: int, validation: Targets, exclude_seen: bool) -> Self:
        """items: `N`, the size of the catalogue. validation: the questions to stop on. exclude_seen: whether what a user had
        before is left out of their answers.

        Leaves `scores`, the validation NDCG@10 after each epoch, and the weights of the best. Raises `DataError` where there is
        nothing to learn from or to stop on, `SettingError` for a catalogue too large for the full softmax.
        """
        if items > self.config.full_softmax_up_to and not self.config.sampled:
            raise SettingError(
                f"The full softmax is for at most full_softmax_up_to = {self.config.full_softmax_up_to} items, got {items}. "
                "Draw items for it, for example sampled=8192, or raise full_softmax_up_to and wait longer."
            )
        self.popularity = Popularity().fit(train, items)
        windows = training_windows(train, self.config.history)
        if not windows:
            raise DataError("A sequence model learns which item follows which, and no training history has two items.")
        if not len(validation):
            raise DataError("A sequence model needs validation questions to stop on, and the split has none.")
        questions = validation.sample(self.config.validation_users, self.config.seed)
        seeded(self.config.seed, lambda: self._train(windows, items, questions, exclude_seen))
        self.network.to("cuda" if torch.cuda.is_available() else "cpu")
        return self

    @property
    def weights(self) -> int:
        """Trained numbers."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`; the score is a logit of the softmax."""
        check_integer("k", k, 1)
        rows, kept = np.empty((len(histories), k), np.int64), np.empty((len(histories), k), np.float32)
        empty = np.flatnonzero(histories.lengths == 0)
        rows[empty], kept[empty] = self.popularity.rank(histories.select(empty), k, exclude_seen)
        for users, scores in self._scores(histories, exclude_seen):
            rows[users], kept[users] = top_of_each(scores, k)
        return rows, kept

    @torch.no_grad()
    def _scores(self, histories: Histories, exclude_seen: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of (numbers of the histories that are not empty [B], their scores [B, N]), short histories first."""
        table = self.network.table
        order = np.argsort(histories.lengths, kind="stable")
        order = order[histories.lengths[order] > 0]
        size = max(1, min(BATCH, BATCH_CELLS // len(table)))
        for users in (order[start : start + size] for start in range(0, len(order), size)):
            batch = histories.select(users)
            latest = [history[-self.config.history :] for history in batch.to_lists()]
            ends = torch.tensor([len(history) - 1 for history in latest], device=table.device)
            states = self.network(torch.from_numpy(pad_histories(latest, len(table))).to(table.device))
            states = states[torch.arange(len(users), device=table.device), ends]
            if not torch.isfinite(states).all():
                raise SettingError(f"Training {self.name} diverged: its states are no numbers. Lower learning_rate.")
            scores = (states @ table.T).cpu().numpy()
            yield users, masked(scores, batch) if exclude_seen else scores

    def _train(self, windows: list[np.ndarray], items: int, questions: Targets, exclude_seen: bool) -> None:
        config = self.config
        network = self.network = SequenceNetwork(items, config)
        sampler = Sampler(self.popularity.scores, config.sampled) if config.sampled else None

        def loss(batch: Tensor) -> Tensor:
            batch = batch[:, : int((batch != items).any(dim=0).sum())]
            before, after = batch[:, :-1], batch[:, 1:]
            asked = after != items
            states, right = network(before)[asked], after[asked]
            if sampler is None:
                return full_cross_entropy(states, network.table, right)
            drawn, log_expected = sampler.draw()
            return sampled_cross_entropy(states, network.table, right, drawn.to(right.device), log_expected.to(right.device))

        def score() -> float:
            rows, _ = self.rank(questions.histories, 10, exclude_seen)
            return float(ndcg_at(hit_positions(rows, questions.items), 10).mean())

        lengths = np.array([len(window) - 1 for window in windows], np.int64)
        per_epoch = len(length_cuts(lengths, config.batch_size)) - 1
        self.scores = train_on(
            pad_histories(windows, items),
            network,
            loss,
            steps=config.epochs * per_epoch,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            desc=f"Training {self.name}",
            lengths=lengths,
            stopping=EarlyStopping(score, per_epoch, config.patience),
        )


def training_windows(histories: Histories, history: int) -> list[np.ndarray]:
    """Stretches of 2 to `history` + 1 items, cut from the end; each begins with the item that the one before it ends with, so
    every step from one item to the next is in exactly one of them. They come in an order of their own, so that the order of
    the users changes nothing."""
    windows = [
        items[max(0, stop - history - 1) : stop] for items in histories.to_lists() for stop in range(len(items), 1, -history)
    ]
    return sorted(windows, key=lambda window: window.tobytes())
