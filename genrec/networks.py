"""What item tokenizers, embedders and baselines with a neural network share: perceptrons, training, and use without PyTorch.

In: arrays. Out: weights as NumPy arrays, so that what was fitted is arrays like any other. Networks are trained in
float32 and used in float64, so that an item's codes do not depend on who else is in the call.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from genrec.errors import SettingError, check_integer

log = logging.getLogger(__name__)


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers widths[0] -> ... -> widths[-1] with ReLU between them, none after the last."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def arrays_of(network: nn.Module, name: str) -> dict[str, np.ndarray]:
    """The weights of a perceptron as arrays: `{name}_weight_0`, `{name}_bias_0`, ..."""
    found = {}
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    for number, layer in enumerate(linear):
        found[f"{name}_weight_{number}"] = layer.weight.detach().cpu().numpy()
        found[f"{name}_bias_{number}"] = layer.bias.detach().cpu().numpy()
    return found


def apply_perceptron(state: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    """What the perceptron saved under `name` gives for x [N, in]: float64 [N, out]."""
    x, number = x.astype(np.float64), 0
    while f"{name}_weight_{number}" in state:
        x = np.maximum(x, 0) if number else x
        x = x @ state[f"{name}_weight_{number}"].T.astype(np.float64) + state[f"{name}_bias_{number}"]
        number += 1
    return x


def seeded(seed: int, work: Callable[[], Any]) -> Any:
    """Run `work` with PyTorch's random numbers started from `seed`; the caller's go on as if nothing had happened."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        return work()


@dataclass(frozen=True)
class EarlyStopping:
    """score: of the module as it is, higher is better; called every `every` steps, with the module in evaluation mode.
    patience: scores in a row that are not above the best before training stops. checkpoint: a file that holds all there is to
    know after each score; a training that finds one goes on from it, to the same weights as one that was never interrupted.
    `every` must be whole passes over the data then."""

    score: Callable[[], float]
    every: int
    patience: int
    checkpoint: Path | None = None

    def lost_patience(self, scores: list[float]) -> bool:
        """Whether to stop after these scores."""
        return bool(scores) and len(scores) - 1 - int(np.argmax(scores)) >= self.patience


def train_on(
    rows: np.ndarray,
    module: nn.Module,
    loss: Callable[[Tensor], Tensor],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    desc: str,
    lengths: np.ndarray | None = None,
    stopping: EarlyStopping | None = None,
) -> list[float]:
    """AdamW over random batches of the rows of an array [N, ...], with a warm-up and a linear way down; on a GPU where there is
    one.

    lengths: of the rows [N], where they differ: a batch then holds rows of nearly the same length, and `batch_size` is its rows
    times its longest length (see `length_cuts`). stopping: leave the module at its best score. Returns the scores, none without
    `stopping`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device).train()
    data = torch.from_numpy(rows).to(device)
    optimizer = torch.optim.AdamW(module.parameters(), learning_rate, weight_decay=weight_decay)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    if lengths is None:
        batches = _random_batches(len(data), batch_size, device)
    else:
        batches = _length_batches(lengths, batch_size, device)
    scores: list[float] = []
    best: dict[str, Tensor] = {}
    kept = None if stopping is None else stopping.checkpoint
    done = 0  # steps of a run before this one
    if stopping is not None and kept is not None and kept.exists():
        scores, best = _go_on_from(kept, module, optimizer, schedule)
        done = steps if stopping.lost_patience(scores) else len(scores) * stopping.every
    bar = tqdm(range(done + 1, steps + 1), desc=desc, leave=False)
    for step in bar:
        batch = data[next(batches)]
        optimizer.zero_grad()
        loss(batch).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if stopping is None or step % stopping.every:
            continue
        module.eval()
        with torch.no_grad():
            scores.append(stopping.score())
        module.train()
        if scores[-1] > max(scores[:-1], default=-np.inf):
            best = {name: value.clone() for name, value in module.state_dict().items()}
        bar.set_postfix(score=f"{scores[-1]:.4f}", best=f"{max(scores):.4f}")
        if kept is not None:
            _keep(kept, module, optimizer, schedule, scores, best)
        if stopping.lost_patience(scores):
            break
    if best:
        module.load_state_dict(best)
    module.to("cpu").eval()
    return scores


def _keep(
    path: Path, module: nn.Module, optimizer: Optimizer, schedule: LRScheduler, scores: list[float], best: dict[str, Tensor]
) -> None:
    """Write a checkpoint whole or not at all: a kill on the way leaves the one before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    everything = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "random": [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])],
        "scores": scores,
        "best": best,
    }
    torch.save(everything, partial)
    partial.replace(path)


def _go_on_from(
    path: Path, module: nn.Module, optimizer: Optimizer, schedule: LRScheduler
) -> tuple[list[float], dict[str, Tensor]]:
    """Put everything to where `_keep` left it; the scores so far and the best weights."""
    kept = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(kept["module"])
    optimizer.load_state_dict(kept["optimizer"])
    schedule.load_state_dict(kept["schedule"])
    torch.set_rng_state(kept["random"][0])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(kept["random"][1:])
    log.info("Going on after epoch %d", len(kept["scores"]))
    return kept["scores"], kept["best"]


def _random_batches(count: int, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Row numbers of one batch after the other, without end; what is left of a pass over the rows is left out."""
    batch_size = min(batch_size, count)
    while True:
        order = torch.randperm(count, device=device)
        for start in range(0, count - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def _length_batches(lengths: np.ndarray, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """The same, of rows of nearly the same length; a pass takes every row once, in `len(length_cuts(...)) - 1` batches."""
    cuts = length_cuts(lengths, batch_size)
    while True:
        drawn = torch.randperm(len(lengths)).numpy()
        order = torch.from_numpy(drawn[np.argsort(lengths[drawn], kind="stable")]).to(device)
        for number in torch.randperm(len(cuts) - 1).tolist():
            yield order[cuts[number] : cuts[number + 1]]


def length_cuts(lengths: np.ndarray, most: int) -> list[int]:
    """Where to cut rows sorted by length, so that a batch's rows times its longest length is at most `most`, or it is one row:
    the first row of each batch, and at the end the number of rows."""
    cuts, first = [0], 0
    for number, longest in enumerate(np.sort(lengths)):
        if number > first and longest * (number - first + 1) > most:
            cuts.append(number)
            first = number
    return [*cuts, len(lengths)]


def info_nce(
    a: Tensor, b: Tensor, temperature: float, hidden: Tensor | None = None, hidden_back: Tensor | None = None
) -> Tensor:
    """Contrastive loss between rows of a and b [P, d] that belong together, in both directions, by cosine.

    hidden: bool [P, P], rows of b that are no negatives of a row of a (default: none); hidden_back: the same from b to a
    (default: `hidden` the other way round). A row's own partner is never hidden.
    """
    logits = normalize(a, dim=1) @ normalize(b, dim=1).T / temperature
    own = torch.eye(len(a), dtype=torch.bool, device=a.device)
    there = torch.zeros_like(own) if hidden is None else hidden & ~own
    back = there.T if hidden_back is None else hidden_back & ~own
    right = torch.arange(len(a), device=a.device)
    forth = cross_entropy(logits.masked_fill(there, -torch.inf), right)
    return (forth + cross_entropy(logits.T.masked_fill(back, -torch.inf), right)) / 2


def check_training(steps: int, batch_size: int, learning_rate: float, seed: int) -> None:
    """Refuse settings of a training that cannot be. Raises `SettingError`."""
    check_integer("steps", steps, 1)
    check_integer("batch_size", batch_size, 1)
    check_integer("seed", seed, 0, 2**31 - 1)
    if not learning_rate > 0:
        raise SettingError(f"learning_rate must be above 0, got {learning_rate}.")


def low_pass(history: int, frequencies: int) -> Tensor:
    """[history, history], lower triangle: row t gives the lowest `frequencies` of a sequence that ends at position t, at that
    position (BSARec, arXiv 2312.10325). Zeros before the sequence fill it up to `history` items.

    Keeping frequencies f < F of a transform over n items weighs the item that is a steps back by
    sum over f of m * cos(2 pi f a / n) / n, with m = 2 for each f that stands for itself and its mirror image, else 1.
    """
    step = torch.arange(history, dtype=torch.float64)
    frequency = torch.arange(frequencies, dtype=torch.float64)
    mirrored = torch.where((frequency > 0) & (2 * frequency < history), 2.0, 1.0)
    weights = (mirrored * torch.cos(2 * math.pi * step[:, None] * frequency / history)).sum(dim=1) / history
    back = (step[:, None] - step).long()
    return torch.where(back >= 0, weights[back.clamp(min=0)], 0.0).float()
