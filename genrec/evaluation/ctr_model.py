"""A small click-through model: attention of the candidate over the history, then a perceptron (DIN, arXiv 1706.06978).

In: a `CtrTask` and a `Representation` of its items. Out: a probability per impression, and what it cost. As in the paper, the
weight of a history item is the output of a small network on the item, the candidate and their product, and the history is
the weighted sum, without a softmax: how much there is counts. Activations are ReLU where the paper has PReLU or Dice.

    model = train_ctr(task.train, representation, CtrConfig())
    print(measure_ctr(model, task.test, config))

Legend: `M` impressions, `B` impressions of a batch, `T` items of the longest history, `d` width.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from genrec.errors import DataError, check_integer
from genrec.evaluation.ctr import Impressions
from genrec.evaluation.ctr_metrics import auc, gauc, log_loss
from genrec.evaluation.representations import Representation, item_module, weights_of
from genrec.networks import check_training, perceptron, seeded, train_on

SCORED = 1024  # impressions scored at once


@dataclass(frozen=True)
class CtrConfig:
    """width: of item vectors. hidden: of the perceptrons. history: latest items that the model sees. epochs, batch_size,
    learning_rate, weight_decay, seed: of the training.
    """

    width: int = 32
    hidden: int = 64
    history: int = 50
    epochs: int = 5
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "hidden", "history"):
            check_integer(name, getattr(self, name), 1)
        check_training(self.epochs, self.batch_size, self.learning_rate, self.seed)


@dataclass(frozen=True)
class CtrResult:
    """auc, gauc (NaN where no user has both labels), log_loss (nats): of `impressions`. weights: learned numbers.
    inference_ms: milliseconds to score 1,000 users, one candidate each.
    """

    auc: float
    gauc: float
    log_loss: float
    impressions: int
    weights: int
    inference_ms: float


class InterestNetwork(nn.Module):
    """Logits of candidates [B] before histories [B, T], padded with -1."""

    def __init__(self, representation: Representation, config: CtrConfig) -> None:
        super().__init__()
        self.items = item_module(representation, config.width)
        self.activation = perceptron([3 * config.width, config.hidden, 1])
        self.head = perceptron([3 * config.width, config.hidden, 1])

    def forward(self, candidates: Tensor, histories: Tensor) -> Tensor:
        candidate, history = self.items(candidates), self.items(histories.clamp(min=0))
        interest = (self.attention(candidate, history, histories >= 0).unsqueeze(-1) * history).sum(dim=1)
        return self.head(torch.cat([interest, candidate, interest * candidate], dim=1)).squeeze(-1)

    def attention(self, candidate: Tensor, history: Tensor, there: Tensor) -> Tensor:
        """How much each history item [B, T, d] counts for the candidate [B, d]: [B, T], 0 where nothing is there."""
        other = candidate.unsqueeze(1).expand_as(history)
        weights = self.activation(torch.cat([history, other, history * other], dim=2)).squeeze(-1)
        return weights.masked_fill(~there, 0.0)


def train_ctr(impressions: Impressions, representation: Representation, config: CtrConfig) -> InterestNetwork:
    """Learn from impressions for `epochs` passes over them. Raises `DataError` where they name items that are not there."""
    highest = max(int(impressions.items.max(initial=-1)), int(impressions.histories.items.max(initial=-1)))
    if highest >= representation.items:
        raise DataError(f"Impressions must name rows of the catalogue, 0 to {representation.items - 1}, got row {highest}.")

    def learn() -> InterestNetwork:
        model = InterestNetwork(representation, config)

        def loss(batch: Tensor) -> Tensor:
            chosen = batch.cpu().numpy()
            labels = torch.from_numpy(impressions.labels[chosen]).float()
            return binary_cross_entropy_with_logits(_logits(model, impressions, chosen, config), labels.to(batch.device))

        steps = max(1, config.epochs * len(impressions) // config.batch_size)
        train_on(
            np.arange(len(impressions)), model, loss, steps=steps, batch_size=config.batch_size,
            learning_rate=config.learning_rate, weight_decay=config.weight_decay, desc=f"CTR, {representation.name}",
        )  # fmt: skip
        return model

    return seeded(config.seed, learn)


@torch.inference_mode()
def click_probabilities(model: InterestNetwork, impressions: Impressions, config: CtrConfig) -> np.ndarray:
    """The probability of each impression: float64 [M]."""
    found = [np.zeros(0)]
    for begin in range(0, len(impressions), SCORED):
        chosen = np.arange(begin, min(begin + SCORED, len(impressions)))
        found.append(_logits(model, impressions, chosen, config).double().sigmoid().cpu().numpy())
    return np.concatenate(found)


def measure_ctr(model: InterestNetwork, impressions: Impressions, config: CtrConfig) -> CtrResult:
    """Quality on impressions that the model did not learn from, and cost. Raises `DataError` where all labels are the same."""
    started = time.perf_counter()
    probabilities = click_probabilities(model, impressions, config)
    seconds = time.perf_counter() - started
    labels = impressions.labels
    return CtrResult(
        auc(labels, probabilities),
        gauc(labels, probabilities, impressions.user_ids) if _some_user_has_both(impressions) else float("nan"),
        log_loss(labels, probabilities),
        len(impressions),
        weights_of(model),
        1e6 * seconds / len(impressions),
    )


def _logits(model: InterestNetwork, impressions: Impressions, chosen: np.ndarray, config: CtrConfig) -> Tensor:
    device = next(model.parameters()).device
    candidates = torch.from_numpy(impressions.items[chosen]).to(device)
    return model(candidates, torch.from_numpy(impressions.padded(chosen, config.history)).to(device))


def _some_user_has_both(impressions: Impressions) -> bool:
    shown, clicked = np.bincount(impressions.users), np.bincount(impressions.users, impressions.labels)
    return bool(((clicked > 0) & (clicked < shown)).any())
