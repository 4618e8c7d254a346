"""Beam search over the catalogue, for any Hugging Face decoder.

In: a model, histories as tokens, an index. Out: the best items and their scores, `log P(codes | history)` under the model's
full softmax: the mask comes after the log-softmax and nothing is renormalised.

The history runs through the model once per user. Its keys and values are never copied per beam: the beams of a user are
queries side by side in one sequence, and the attention mask lets each see the history and its own ancestors only. So there
is no cache to reorder, and a batch of users is one call per level.

With a beam at least as wide as the number of prefixes of every length, the result equals scoring the whole catalogue.
Otherwise it is the usual beam approximation, and min(k, allowed items) items come back either way: a prefix with no
allowed item below is never kept, and every kept prefix has one.

Legend: `B` users, `T` history tokens, `L` levels, `W` beams, `C` children, `V` vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from genrec.decoding.index import Allowed, CatalogueIndex
from genrec.models.tokens import TokenLayout


@dataclass(frozen=True, eq=False)
class Beams:
    """nodes: [B, W], prefix ids of the current level; scores: [B, W], -inf where a user has fewer beams;
    ancestors: [B, W, S], which of the `S` suffix tokens in the cache each beam may attend to (itself included)."""

    nodes: Tensor
    scores: Tensor
    ancestors: Tensor


@torch.inference_mode()
def beam_search(
    model: PreTrainedModel,
    tokens: Tensor,
    mask: Tensor,
    index: CatalogueIndex,
    layout: TokenLayout,
    k: int,
    beam_width: int,
    allowed: Allowed | None = None,
) -> tuple[Tensor, Tensor]:
    """The `k` best items of each user.

    tokens, mask: [B, T], padded on the left (`write_histories`). Returns (catalogue rows int64 [B, k], -1 where nothing is
    left; scores float32 [B, k], -inf there), best first; equal scores in code order, items that share codes in tie order.
    """
    allowed = allowed or Allowed()
    users = len(tokens)
    lengths = mask.sum(1)
    cache = DynamicCache(config=model.config)
    output = model(
        input_ids=tokens,
        attention_mask=mask.long(),
        position_ids=(mask.long().cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    beams = Beams(
        tokens.new_zeros(users, 1),
        torch.zeros(users, 1, device=tokens.device),
        torch.zeros(users, 1, 0, dtype=torch.bool, device=tokens.device),
    )
    beams, codes = _extend(beams, output.logits, 0, index, layout, beam_width, allowed)
    for level in range(1, index.levels):
        width = codes.shape[1]
        history = mask[:, None, None, :].expand(-1, 1, width, -1)
        visible = torch.cat([history, beams.ancestors.unsqueeze(1)], dim=-1)
        output = model(
            input_ids=layout.base + sum(layout.sizes[: level - 1]) + codes,
            attention_mask=_additive(visible, model.dtype),
            position_ids=(lengths + level - 1).unsqueeze(1).expand(-1, width),
            past_key_values=cache,
            use_cache=True,
        )
        beams, codes = _extend(beams, output.logits, level, index, layout, beam_width, allowed)
    return _items(beams, index, allowed, k)


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean attention mask as the additive one that every attention implementation takes."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, torch.finfo(dtype).min)


def _extend(
    beams: Beams, logits: Tensor, level: int, index: CatalogueIndex, layout: TokenLayout, width: int, allowed: Allowed
) -> tuple[Beams, Tensor]:
    """Grow every beam by one code and keep the best `width`. logits: [B, W, V]. Returns the beams and their codes [B, W]."""
    logits = logits.float()
    first = layout.base + sum(layout.sizes[:level])
    log_probs = logits[..., first : first + layout.sizes[level]] - logits.logsumexp(-1, keepdim=True)
    children, alive = index.expand(beams.nodes, level)
    if not allowed.everything:
        alive = alive & (allowed.count(index.start[level][children], index.stop[level][children]) > 0)
    codes = index.code[level][children]
    scores = beams.scores.unsqueeze(-1) + log_probs.gather(-1, codes)
    scores = scores.masked_fill(~alive, -torch.inf).flatten(1)
    best, chosen = scores.topk(min(width, scores.shape[1]), dim=1)
    parents = chosen // children.shape[-1]
    # Each kept beam becomes one more suffix token of its user: it sees what its parent saw, and itself.
    seen = beams.ancestors.gather(1, parents.unsqueeze(-1).expand(-1, -1, beams.ancestors.shape[-1]))
    itself = torch.eye(chosen.shape[1], dtype=torch.bool, device=chosen.device).expand(len(chosen), -1, -1)
    grown = Beams(children.flatten(1).gather(1, chosen), best, torch.cat([seen, itself], dim=-1))
    return grown, codes.flatten(1).gather(1, chosen)


def _items(beams: Beams, index: CatalogueIndex, allowed: Allowed, k: int) -> tuple[Tensor, Tensor]:
    """Complete beams to items: best score first, then code order; all allowed items of a shared tuple, in tie order."""
    start, stop = index.start[-1][beams.nodes], index.stop[-1][beams.nodes]
    alive = beams.scores > -torch.inf
    by_code = torch.where(alive, start, len(index)).argsort(dim=1)
    order = by_code.gather(1, beams.scores.gather(1, by_code).argsort(dim=1, descending=True, stable=True))
    start, stop, alive, scores = (t.gather(1, order) for t in (start, stop, alive, beams.scores))
    places = start.unsqueeze(-1) + torch.arange(int((stop - start).max()), device=start.device)
    valid = (places < stop.unsqueeze(-1)) & alive.unsqueeze(-1)
    places = places.clamp(max=len(index) - 1)
    if not allowed.everything:
        valid = valid & (allowed.count(places, places + 1) > 0)
    flat = valid.flatten(1)
    first = flat.long().argsort(dim=1, descending=True, stable=True)[:, :k]
    valid = flat.gather(1, first)
    rows = torch.where(valid, index.items[places.flatten(1).gather(1, first)], -1)
    item_scores = scores.unsqueeze(-1).expand_as(places).flatten(1).gather(1, first).masked_fill(~valid, -torch.inf)
    missing = k - rows.shape[1]
    if missing > 0:
        rows = torch.nn.functional.pad(rows, (0, missing), value=-1)
        item_scores = torch.nn.functional.pad(item_scores, (0, missing), value=-torch.inf)
    return rows, item_scores
