"""H2Rec's alignments (arXiv 2512.10388): of the two sides of an item, and of the two states of a user.

In: slots and states of the identifier "dual", the side of the codes first. Out: losses. The paper's equations were not at hand;
these are contrastive losses that do what it says, by cosine, in both directions.

Legend: `n` items, `B` windows, `T` items of the longest, `L` codes per item, `d` width.
"""

import torch
from torch import Tensor

from genrec.models.one_pass.identifiers import Dual, Items
from genrec.models.one_pass.model import OnePassModel
from genrec.networks import info_nce

TEMPERATURE = 0.1


def item_alignment(tokens: Tensor, codes: Tensor) -> Tensor:
    """Each item's id side tells its code side from those of the other items. tokens: [n, 2, d]; codes: [n, L].

    Items with the very same codes have the same code side, so they are no negatives.
    """
    return info_nce(tokens[:, 1], tokens[:, 0], TEMPERATURE, same_codes(codes))


def same_codes(codes: Tensor) -> Tensor:
    """Which items share all codes: bool [n, n]. codes: [n, L]."""
    tuples = torch.unique(codes, dim=0, return_inverse=True)[1]
    return tuples[:, None] == tuples[None]


def user_alignment(model: OnePassModel, some: Items, tokens: Tensor, before: Tensor, states: Tensor, ends: Tensor) -> Tensor:
    """The last state of each history by ids, and that by codes of which a random share is hidden, tell each other.

    some: items [n] with their slots tokens [n, 2, d]; before: int64 [B, T], which of them each history holds; states: [B,
    1 + T, 2, d], nothing hidden; ends: int64 [B], the place of each last state.
    """
    assert isinstance(model.identifier, Dual)
    assert model.codes is not None
    hidden = torch.rand(some.codes.shape, device=tokens.device) < model.shape.config.mask_share
    masked = tokens.clone()
    masked[:, 0] = model.identifier.semantic(some.codes, model.codes, hidden)
    user = torch.arange(len(before), device=tokens.device)
    by_codes = model.states(masked[before])[user, ends, 0]
    # Histories that read the same items are not each other's negatives: empty ones above all.
    read = before.masked_fill(torch.arange(before.shape[1], device=tokens.device) >= ends[:, None], -1)
    return info_nce(states[user, ends, 1], by_codes, TEMPERATURE, same_codes(read))
