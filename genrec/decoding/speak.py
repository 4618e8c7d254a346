"""Speaking: words and items in one generation. Items can only be items of the catalogue that the rules allow.

In: a language model that has learned to answer in words and codes (`tasks.recommendation_turn`), a prompt as tokens, a snapshot
of the catalogue, rules. Out: spans in their order, words as tokens or an item as its row with log P(codes | all before them).

Between items only words may be written: codes, and tokens that steer (`Words.control`), have no chance there. Codes are their
own marker: how likely an item comes now is the sum over all first codes, whichever of them the rules allow. Where that beats
the likeliest word, a span is opened: the search of `beam.py` goes on from here, over items that are allowed and not yet
said, and its best item is written. Then words go on behind its codes. Where nothing is left to allow, no span opens.

The model reads the prompt once; words and beams share its cache.

Legend: `T` prompt tokens, `V` vocabulary, `n` tokens of a span.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from genrec.decoding.allowed import Allowed
from genrec.decoding.beam import search
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Rules, Snapshot
from genrec.decoding.steps import start
from genrec.errors import SettingError, check_integer

BEAM_WIDTH = 10
COLDEST = 0.001  # what is colder writes the likeliest words too, and its numbers overflow


@dataclass(frozen=True)
class Limits:
    """words: tokens of all words together. items: of one answer; None: as many as are allowed, or as a request asks for.
    beam_width: of the search for an item; None: the bundle's, or `BEAM_WIDTH` where there is none. temperature: 0 writes the
    likeliest words, from `COLDEST` on they are drawn; items are never drawn."""

    words: int = 60
    items: int | None = None
    beam_width: int | None = None
    temperature: float = 0.0

    def __post_init__(self) -> None:
        check_integer("words", self.words, 1)
        if self.items is not None:
            check_integer("items", self.items, 0)
        if self.beam_width is not None:
            check_integer("beam_width", self.beam_width, 1)
        number = isinstance(self.temperature, Real) and not isinstance(self.temperature, bool)
        if not number or not (self.temperature == 0 or COLDEST <= self.temperature < float("inf")):
            raise SettingError(f"temperature must be 0 or a number from {COLDEST} on, got {self.temperature!r}.")


@dataclass(frozen=True)
class WordSpan:
    """tokens: of the model's text tokenizer, [n]."""

    tokens: tuple[int, ...]


@dataclass(frozen=True)
class ItemSpan:
    """row: of the catalogue. score: log P of its codes after all that stands before them."""

    row: int
    score: float


Span = WordSpan | ItemSpan


@torch.inference_mode()
def speak(
    ranker: BeamRanker,
    prompt: np.ndarray,
    snapshot: Snapshot,
    rules: Rules,
    writable: np.ndarray,
    end: int,
    limits: Limits,
    random: torch.Generator | None = None,
) -> list[Span]:
    """What the model says after `prompt` (token ids, int64 [T]), until `end` or a limit.

    ranker: its model and layout. rules: of `snapshot`, without caps. writable: which tokens are words, bool [V]. random: where
    words are drawn. Raises `SettingError` for caps, which a list that grows item by item cannot promise.
    """
    if rules.caps:
        raise SettingError("Limits per value (max_per, max_per_prefix) cannot be kept while speaking. Leave them out.")
    model, layout, head = ranker.model, ranker.layout, ranker.head
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    snapshot = snapshot.to(device)
    may = torch.from_numpy(writable | (np.arange(len(writable)) == end)).to(device)
    tokens = torch.from_numpy(np.asarray(prompt, np.int64)).to(device).unsqueeze(0)
    steps = start(model, tokens, torch.ones_like(tokens, dtype=torch.bool))
    hidden, first = steps.hidden, torch.zeros_like(tokens[:, :1])
    widths = [limits.beam_width or BEAM_WIDTH] * layout.levels
    most = len(snapshot.index) if limits.items is None else limits.items
    last = layout.base + sum(layout.sizes[:-1])
    spans: list[Span] = []
    words: list[int] = []
    said: list[int] = []
    written, allowed = 0, _allowed(snapshot, rules, said) if most else None
    while written < limits.words:
        log_probs = head.log_probs(hidden, 0, len(may))[0, 0]
        opens = log_probs[layout.base : layout.base + layout.sizes[0]].logsumexp(0)
        if allowed is None:
            opens = torch.full_like(opens, -torch.inf)
        chosen = _choose(torch.cat([log_probs.masked_fill(~may, -torch.inf), opens[None]]), limits.temperature, random)
        if chosen == end:
            break
        if allowed is None or chosen < len(may):
            words.append(chosen)
            written += 1
            hidden = steps.advance(first + chosen, first)
            continue
        found = search(steps, hidden, head, snapshot.index, layout, widths, None, allowed)
        best = int(found.scores[0].argmax())
        if words:
            spans.append(WordSpan(tuple(words)))
        words = []
        said.append(int(snapshot.index.rows_at(found.positions[:, best])[0]))
        spans.append(ItemSpan(said[-1], float(found.scores[0, best])))
        allowed = _allowed(snapshot, rules, said) if len(said) < most else None
        hidden = steps.advance(last + found.codes[:, best : best + 1], first + found.parents[best])
    if words:
        spans.append(WordSpan(tuple(words)))
    model.train(was_training)
    return spans


def items_of(spans: Sequence[Span]) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 [items] and scores float32 [items] of the items, in the order in which they were said."""
    items = [span for span in spans if isinstance(span, ItemSpan)]
    return np.array([item.row for item in items], np.int64), np.array([item.score for item in items], np.float32)


def anything(snapshot: Snapshot, rules: Rules) -> bool:
    """Whether the rules allow any item at all."""
    return _allowed(snapshot, rules, []) is not None


def _allowed(snapshot: Snapshot, rules: Rules, said: Sequence[int]) -> Allowed | None:
    """What may be said beside what was; None where there is nothing."""
    allowed = snapshot.allowed([rules.bitmap], [np.concatenate([rules.excluded, np.array(said, np.int64)])])
    behind = torch.full((1, 1), len(snapshot.index), device=snapshot.index.device)
    return allowed if int(allowed.before(behind)) > 0 else None


def _choose(log_probs: Tensor, temperature: float, random: torch.Generator | None) -> int:
    if not temperature:
        return int(log_probs.argmax())
    return int(torch.multinomial((log_probs / temperature).softmax(0), 1, generator=random))
