"""Beam search over the catalogue, for any Hugging Face decoder or T5.

In: a model, histories as tokens, an index. Out: the best items and their scores, `log P(codes | history)` under the model's
full softmax: the mask comes after the log-softmax and nothing is renormalised.

With a beam at least as wide as the number of allowed prefixes of every length, the result equals scoring the whole catalogue.
Otherwise it is the usual beam approximation, and min(k, allowed) items come back either way: a prefix with no allowed item
below is never kept, and every kept prefix has one. So a filter cannot starve the beam, and one that keeps no more items than
the beam is wide is answered exactly.

Equal scores go by code order, in the list and at the edge of a beam; items that share all codes by the index's tie order.

Legend: `B` users, `T` history tokens, `L` levels, `W` beams, `C` children, `V` vocabulary.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from genrec.decoding.allowed import Allowed
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.overlay import Overlay
from genrec.decoding.steps import Head, Steps, start
from genrec.errors import SettingError
from genrec.models.tokens import TokenLayout

Index = CatalogueIndex | Overlay


@torch.inference_mode()
def beam_search(
    model: PreTrainedModel,
    head: Head,
    tokens: Tensor,
    mask: Tensor,
    index: Index,
    layout: TokenLayout,
    k: int,
    beam_width: int | Sequence[int] | Sequence[Sequence[int]],
    allowed: Allowed | None = None,
    static: bool | None = None,
    soft: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The `k` best items of each user.

    tokens, mask: [B, T], padded on the left (`write_histories`). beam_width: prefixes kept per step, or one number per level,
    or one per level for each user; a user's answer is that of its own width, whatever the others have.
    static: shapes depend on the arguments' shapes alone and nothing is read back from the device, as a CUDA graph needs
    (default: on every device but the CPU, where fitting shapes are faster). soft: [B, S, H], of a user adapter.
    Returns (catalogue rows int64 [B, k], -1 where nothing is left; scores float32 [B, k], -inf there), best first.
    """
    allowed = allowed or Allowed()
    widths, narrower = _widths(beam_width, index.levels, tokens.device)
    if not len(index):
        return tokens.new_full((len(tokens), k), -1), torch.full((len(tokens), k), -torch.inf, device=tokens.device)
    steps = start(model, tokens, mask, soft)
    found = search(steps, steps.hidden, head, index, layout, widths, narrower, allowed, static)
    return _best(found.scores, index.rows_at(found.positions), k)


@dataclass(frozen=True, eq=False)
class Found:
    """What a search ends with, in code order. scores: float32 [B, M], -inf where no allowed item is. positions: of the index's
    code order, int64 [B, M]. codes: the last one of each, int64 [B, M]. parents: the beam that it continues, int64 [M]."""

    scores: Tensor
    positions: Tensor
    codes: Tensor
    parents: Tensor


def search(
    steps: Steps,
    hidden: Tensor,
    head: Head,
    index: Index,
    layout: TokenLayout,
    widths: Sequence[int],
    narrower: Tensor | None,
    allowed: Allowed,
    static: bool | None = None,
) -> Found:
    """The search itself, from wherever `steps` are: hidden [B, 1, H] is what stands before the first code. widths: beams per
    level [L]; narrower: as in `_beams`, [B, L]. The last codes are not yet written into `steps`. The index is not empty."""
    static = hidden.device.type != "cpu" if static is None else static
    nodes = torch.zeros(len(hidden), 1, dtype=torch.int64, device=hidden.device)
    scores = torch.zeros(len(hidden), 1, device=hidden.device)
    first = layout.base
    for level, size in enumerate(layout.sizes):
        log_probs = head.log_probs(hidden, first, size)
        children, codes, below = index.expand(nodes, level, static, None if allowed.everything else allowed.before)
        grown = scores.unsqueeze(-1) + log_probs.gather(-1, codes)
        grown = grown.masked_fill(below == 0, -torch.inf).flatten(1)
        if level == index.levels - 1:
            parents = torch.arange(grown.shape[1], device=grown.device) // children.shape[-1]
            return Found(grown, children.flatten(1), codes.flatten(1), parents)
        scores, chosen = _beams(grown, widths[level], None if narrower is None else narrower[:, level, None], static)
        parents = chosen // children.shape[-1]
        nodes, codes = children.flatten(1).gather(1, chosen), codes.flatten(1).gather(1, chosen)
        hidden = steps.advance(first + codes, parents)
        first += size
    raise AssertionError("an index has at least one level")


def _beams(scores: Tensor, width: int, narrower: Tensor | None, static: bool) -> tuple[Tensor, Tensor]:
    """The `width` best of candidates [B, M], in the order in which they stand, the earlier ones among equals at the edge.

    Candidates stand in code order where their parents do, so beams are in code order at every level, and so is what is equal in
    the end. narrower: int64 [B, 1], each user's own width; beams beyond it are dead. Returns (scores [B, W], places [B, W]).
    """
    kept = min(width, scores.shape[1])
    best, places = scores.topk(min(kept + 1, scores.shape[1]), dim=1)
    own = torch.full_like(places[:, :1], kept) if narrower is None else narrower.clamp(max=kept)
    edge = best.gather(1, own - 1)
    if best.shape[1] > kept or narrower is not None:
        tied = (best.gather(1, own.clamp(max=best.shape[1] - 1)) == edge) & (own < best.shape[1]) & (edge > -torch.inf)
        if static or bool(tied.any()):
            above, equal = scores > edge, scores == edge
            wanted = above | (equal & (equal.cumsum(1) <= own - above.sum(1, keepdim=True)))
            slot = torch.where(wanted, wanted.cumsum(1) - 1, kept)
            place = torch.arange(scores.shape[1], device=scores.device).expand_as(slot)
            places = slot.new_zeros(len(slot), kept + 1).scatter_(1, slot, place)[:, :kept]
            beyond = torch.arange(kept, device=scores.device) >= own
            return scores.gather(1, places).masked_fill(beyond, -torch.inf), places
    beyond = torch.arange(kept, device=scores.device) >= own
    places, order = places[:, :kept].sort(dim=1)
    return best[:, :kept].masked_fill(beyond, -torch.inf).gather(1, order), places


def _best(scores: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` best of candidates [B, M], the earlier one first among equals; filled up with (-1, -inf)."""
    found = min(k, scores.shape[1])
    best, place = scores.sort(dim=1, descending=True, stable=True)
    best, place = best[:, :found], place[:, :found]
    rows = torch.where(best > -torch.inf, rows.gather(1, place), -1)
    missing = (0, k - found)
    return pad(rows, missing, value=-1), pad(best, missing, value=-torch.inf)


def _widths(
    beam_width: int | Sequence[int] | Sequence[Sequence[int]], levels: int, device: torch.device
) -> tuple[list[int], Tensor | None]:
    """The widest beam of each level, and every user's own, int64 [B, L], where they differ."""
    several = [] if isinstance(beam_width, int) else list(beam_width)
    if not several or isinstance(several[0], int):
        return list(widths_per_level(beam_width, levels)), None
    each = [widths_per_level(width, levels) for width in several]
    widest = [max(column) for column in zip(*each, strict=True)]
    differ = any(list(own) != widest for own in each)
    return widest, torch.tensor(each, device=device) if differ else None


def widths_per_level(beam_width: Any, levels: int) -> tuple[int, ...]:
    """One beam width per level, from one whole number or a list of them (NumPy's too). Raises `SettingError` unless there are
    `levels` of them, none below 1.
    """
    several = isinstance(beam_width, Iterable) and not isinstance(beam_width, str)
    widths = list(beam_width) if several else [beam_width] * levels
    if len(widths) != levels or not all(isinstance(w, Integral) and not isinstance(w, bool) and int(w) >= 1 for w in widths):
        raise SettingError(
            f"beam_width must be a whole number of at least 1, or a list of {levels}, one per level, got {beam_width!r}."
        )
    return tuple(map(int, widths))
