"""What the rounds after the first are asked while a one-pass model learns (Ada-Retrieval, arXiv 2401.06633).

In: a training step's windows, as `step_loss` of `one_pass.py` reads them. Out: the loss of the later rounds. What was found
before differs from position to position, and the history is read anew in its light; so a step draws one position of each window
for them. A round is asked only where none before it found the answer: nowhere else does serving ask it.

Legend: `B` windows, `T` items of the longest, `S` slots per item, `n` items of the softmax, `d` width, `F` items found.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from genrec.models.one_pass.model import OnePassModel

Ask = Callable[[Tensor, Tensor], Tensor]  # states [P, S, d], the right item of each [P] -> their loss


def later_rounds_loss(
    model: OnePassModel, tokens: Tensor, places: Tensor, asked: Tensor, states: Tensor, masked: bool, ask: Ask
) -> Tensor:
    """The weighed losses of all rounds but the first.

    tokens: slots of the items of the softmax, [n, S, d]. places: int64 [B, T], the items of each window, by number among those;
    asked: bool [B, T], where there is one. states: after 0, 1, ... T - 1 items, [B, T, S, d]. masked: whether items of the
    history are not looked for.
    """
    config, window = model.shape.config, torch.arange(len(places), device=places.device)
    after = (torch.rand(len(places), device=places.device) * asked.sum(dim=1)).long()  # items before the question
    right, before = places[window, after], places[:, :-1]
    history, known = tokens[before], torch.arange(before.shape[1], device=places.device) < after[:, None]
    closed = torch.zeros(len(places), len(tokens), dtype=torch.bool, device=places.device)
    if masked:
        user, column = torch.nonzero(known, as_tuple=True)
        closed[user, before[user, column]] = True
    earlier, found, missed = (
        states[window, after][:, None],
        places.new_zeros(len(places), 0),
        asked.any(dim=1),
    )
    loss = tokens.new_zeros(())
    for number in range(1, config.rounds):
        with torch.no_grad():
            scores = model.weighed(model.dot_queries(earlier[:, -1])) @ model.keys(tokens).flatten(1).T
            best = scores.masked_fill(closed, -torch.inf).topk(config.round_items, dim=1).indices
        closed.scatter_(1, best, True)
        missed = missed & (best != right[:, None]).all(dim=1)
        found = torch.cat([found, best], dim=1)
        shown = tokens[found].unflatten(1, (number, config.round_items))
        state = model.later_state(history, after, shown, earlier)
        earlier = torch.cat([earlier, state[:, None]], dim=1)
        if missed.any():
            loss = loss + config.round_weight**number * ask(state[missed], right[missed])
    return loss
