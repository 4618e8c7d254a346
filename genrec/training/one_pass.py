"""Train a one-pass recommender: at every position of every history, which item came next?

In: a model, what is known of the items, a split and the catalogue. Out: the model at its best validation NDCG@10.

    result = train_one_pass(model, snapshot, counts, split, TrainingConfig(), exclude_seen=True)

Losses, each a mean over positions: "items", cross-entropy of the next item over all items that training met, or over drawn
ones with log-Q correction (see `sequence_losses`); "slots", the same for each slot (SETRec, arXiv 2502.10833); "codes", the
mean over the codes' cross-entropies (RPG, arXiv 2506.05781; with a slot per code the shift-by-item loss of RecGPT, arXiv
2506.06270). Beside them what the identifier brings: SETRec's reconstruction, H2Rec's alignments (`alignment.py`). With
`one_pass.widths`, the first two are asked of the first numbers of state and item too, and the loss is the mean over the widths
and the whole (Matryoshka, arXiv 2205.13147; fMRLRec, arXiv 2409.16627, cuts the weights of the network as well).

Legend: `B` windows, `T` items of the longest, `P` positions that are asked, `N` items, `S` slots per item, `L` codes per item,
`n` items that a step needs, `d` width, `w` width that is asked, `F` numbers of a product.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genrec.data.interactions import pad_histories
from genrec.data.splits import Split, Targets
from genrec.decoding.one_pass import OnePassRanker, items_of, warm_ids
from genrec.decoding.snapshot import Snapshot
from genrec.errors import SettingError
from genrec.evaluation.baselines.sequence_losses import Sampler, full_cross_entropy, sampled_cross_entropy
from genrec.evaluation.metrics import hit_positions, ndcg_at
from genrec.models.one_pass.identifiers import ContinuousSet, Dual, Items
from genrec.models.one_pass.model import OnePassModel
from genrec.models.tokens import TokenLayout
from genrec.networks import EarlyStopping, length_cuts, seeded, train_on
from genrec.training.alignment import item_alignment, user_alignment
from genrec.training.config import TrainingConfig
from genrec.training.examples import HistoryWindows
from genrec.training.rounds import later_rounds_loss
from genrec.training.trainer import METRIC, TrainingResult

log = logging.getLogger(__name__)

FULL_SOFTMAX_UP_TO = 200_000  # items: beyond it, a step over the whole catalogue takes seconds
WEIGHTS = np.linspace(0, 1, 11)  # tried on validation


def train_one_pass(
    model: OnePassModel,
    snapshot: Snapshot,
    counts: np.ndarray,
    split: Split,
    config: TrainingConfig,
    exclude_seen: bool,
    seed: int = 0,
    folder: Path | None = None,
) -> TrainingResult:
    """Train `model` in place and leave it at its best validation score.

    snapshot: the catalogue with its vectors. counts: int [N], training events per item. exclude_seen: whether validation masks
    what a user had before. folder: keeps a checkpoint per epoch, from which a training of the same data and settings that was
    killed goes on to the same weights (None: none is kept). Same data and seed, same weights, whatever the order of the users.
    Raises `SettingError` for a catalogue too large for the full softmax.
    """
    choice = model.shape.config
    if choice.loss != "codes" and not choice.sampled and len(counts) > FULL_SOFTMAX_UP_TO:
        raise SettingError(
            f"The softmax over the whole catalogue is for at most {FULL_SOFTMAX_UP_TO} items, got {len(counts)}. Draw items "
            "for it, for example one_pass.sampled 8192, or ask for codes (one_pass.loss 'codes')."
        )
    if (choice.rounds - 1) * choice.round_items >= (counts > 0).sum():
        raise SettingError(
            f"one_pass.rounds {choice.rounds} with one_pass.round_items {choice.round_items} find all of the "
            f"{(counts > 0).sum()} items with training events before the last round. Lower one of them."
        )
    questions = split.validation.sample(config.validation_users, seed)
    cut = HistoryWindows(split.train, config.max_history, config.windows_per_user)
    windows = sorted((cut[number] for number in range(len(cut))), key=lambda window: window.tobytes())
    checkpoint = None if folder is None else folder / "one_pass.pt"
    return seeded(seed, lambda: _train(model, snapshot, counts, windows, questions, config, exclude_seen, checkpoint))


def _train(
    model: OnePassModel,
    snapshot: Snapshot,
    counts: np.ndarray,
    windows: list[np.ndarray],
    questions: Targets,
    config: TrainingConfig,
    exclude_seen: bool,
    checkpoint: Path | None,
) -> TrainingResult:
    choice, items = model.shape.config, len(counts)
    everything = items_of(snapshot, np.arange(items), warm_ids(counts))
    on_device = everything.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    sampler = Sampler(counts[counts > 0], choice.sampled) if choice.sampled else None
    if choice.loss == "slots":
        _weigh_semantic(model, 0.5 if choice.semantic_weight == "auto" else choice.semantic_weight)
    _weigh_states(model, 0.0 if choice.mixture_decay == "auto" else choice.mixture_decay)

    def score() -> float:
        return _validation(model, snapshot, counts, questions, exclude_seen)

    lengths = np.array([len(window) for window in windows], np.int64) * model.shape.places_per_item
    per_epoch = len(length_cuts(lengths, config.batch_tokens)) - 1
    scores = train_on(
        pad_histories(windows, items),
        model,
        lambda batch: step_loss(model, on_device, batch, sampler, exclude_seen),
        steps=config.epochs * per_epoch,
        batch_size=config.batch_tokens,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        desc="Training one-pass",
        lengths=lengths,
        stopping=EarlyStopping(score, per_epoch, config.patience, checkpoint),
    )
    if torch.cuda.is_available():
        model.to("cuda")
    best = int(np.argmax(scores))
    history = [{"epoch": float(epoch), f"eval_{METRIC}": value} for epoch, value in enumerate(scores, 1)]
    if not np.isfinite(scores[best]) or not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        raise SettingError("Training diverged: weights are no numbers. Lower training.learning_rate.")
    reached = scores[best]
    if choice.loss == "slots" and choice.semantic_weight == "auto":
        reached = _choose(partial(_weigh_semantic, model), score, "Weight of the semantic slots")
    if choice.mixture > 1 and choice.mixture_decay == "auto":
        reached = _choose(partial(_weigh_states, model), score, "Decay of the mixture of states")
    return TrainingResult(reached, float(best + 1), len(scores) * per_epoch, history)


def step_loss(
    model: OnePassModel, items: Items, batch: Tensor, sampler: Sampler | None = None, exclude_seen: bool = False
) -> Tensor:
    """The loss of some windows. items: of the whole catalogue [N]; batch: int64 [B, T], padded on the right with N; sampler:
    what draws from the items that have an id, by their number among those (None: all of them). exclude_seen: whether serving
    leaves out what a user had, which later rounds need to know.

    Cold items are in no softmax: nobody who could have taken one is known, and a model that saw them lose at every step would
    rank them last.
    """
    choice = model.shape.config
    batch = batch[:, : int((batch != len(items)).any(dim=0).sum())]
    asked = batch != len(items)
    right = batch[asked]
    drawn = expected = None
    warm = torch.nonzero(items.ids != len(items))[:, 0]
    if sampler is not None:
        drawn, expected = (part.to(batch.device) for part in sampler.draw())
        drawn = warm[drawn]
    if choice.loss == "codes":
        needed = right.unique()
    elif drawn is not None:
        needed = torch.cat([right, drawn]).unique()
    else:
        needed = warm
    some = items[needed]
    tokens = model.tokens(some)
    places = torch.searchsorted(needed, batch.clamp(max=len(items) - 1)).clamp(max=len(needed) - 1)
    before = places[:, :-1]
    states = model.states(tokens[before])
    told = states[asked]
    if choice.loss == "codes":
        queries = model.code_queries(told)
        losses = [
            full_cross_entropy(queries[:, level], model.code_keys(level), items.codes[right, level])
            for level in range(queries.shape[1])
        ]
        loss = torch.stack(losses).mean()
    else:
        own = places[asked]
        pairs = [pair for width in model.shape.widths for pair in _pairs(model, told[..., :width], tokens[..., :width])]
        if drawn is None or expected is None:
            losses = [full_cross_entropy(query, key, own) for query, key in pairs]
        else:
            place = torch.searchsorted(needed, drawn)
            losses = [sampled_cross_entropy(query, key, own, place, expected) for query, key in pairs]
        loss = torch.stack(losses).mean()
    if choice.rounds > 1:
        loss = loss + later_rounds_loss(model, tokens, places, asked, states, exclude_seen, partial(_ask, model, tokens))
    return loss + _beside(model, some, tokens, before, states, places, asked)


def _ask(model: OnePassModel, tokens: Tensor, told: Tensor, right: Tensor) -> Tensor:
    """The softmax over all items: told, states [P, S, d]; right: the numbers of their answers among `tokens`, int64 [P]."""
    return torch.stack([full_cross_entropy(query, key, right) for query, key in _pairs(model, told, tokens)]).mean()


def _pairs(model: OnePassModel, told: Tensor, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Queries [P, F] and keys [n, F] of every softmax over items: one for each slot, or one for all of them. told: states
    [P, S, w]; tokens: slots [n, S, w]."""
    queries, keys = model.dot_queries(told), model.keys(tokens)
    if model.shape.config.loss == "slots":
        return [(queries[:, slot], keys[:, slot]) for slot in range(keys.shape[1])]
    return [(model.weighed(queries), keys.flatten(1))]


def _beside(
    model: OnePassModel, some: Items, tokens: Tensor, before: Tensor, states: Tensor, places: Tensor, asked: Tensor
) -> Tensor:
    """What the identifier asks beside the next item: zero where it asks nothing. some: the items [n] of the step."""
    choice, loss = model.shape.config, tokens.new_zeros(())
    if isinstance(model.identifier, ContinuousSet) and choice.reconstruction:
        met = places[asked].unique()  # as the paper does, on the items of the batch
        loss = loss + choice.reconstruction * model.identifier.reconstruction(some[met], tokens[met])
    if isinstance(model.identifier, Dual):
        if choice.item_alignment:
            met = places[asked].unique()
            loss = loss + choice.item_alignment * item_alignment(tokens[met], some.codes[met])
        if choice.user_alignment:
            ends = (
                asked.sum(dim=1) - 1
            )  # the last state that has an answer: histories of one item have only the start behind it
            loss = loss + choice.user_alignment * user_alignment(model, some, tokens, before, states, ends)
    return loss


def _validation(model: OnePassModel, snapshot: Snapshot, counts: np.ndarray, questions: Targets, exclude_seen: bool) -> float:
    layout = TokenLayout.from_scratch(model.shape.sizes)
    rows, _ = OnePassRanker(model, layout, snapshot, counts).rank(questions.histories, 10, exclude_seen)
    return float(ndcg_at(hit_positions(rows, questions.items), 10).mean())


def _weigh_semantic(model: OnePassModel, weight: float) -> None:
    """Give the first slot 1 - weight, and each of the others `weight`: their terms are summed, not averaged (SETRec)."""
    model.weights.fill_(weight)
    model.weights[0] = 1 - weight


def _weigh_states(model: OnePassModel, decay: float) -> None:
    """Give the state after the last item 1, and each state before it `decay` times what the one after it has."""
    model.mixture.copy_(decay ** torch.arange(len(model.mixture)))


def _choose(weigh: Callable[[float], None], score: Callable[[], float], name: str) -> float:
    """Leave the weight with the best validation score, the first of equals; that score."""
    found = []
    for weight in WEIGHTS:
        weigh(float(weight))
        found.append(score())
    best = int(np.argmax(found))
    weigh(float(WEIGHTS[best]))
    log.info("%s, chosen on validation: %.1f", name, WEIGHTS[best])
    return found[best]
