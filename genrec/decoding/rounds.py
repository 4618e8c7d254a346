"""Answers of several rounds: what was found so far changes what is looked for next (Ada-Retrieval, arXiv 2401.06633).

In: a one-pass model with `one_pass.rounds` above 1, queries, and what their histories and the catalogue look like to it. Out:
the answers. Each round but the last gives at most `round_items` items; the next reads the history in the light of all that was
found, and gives others. Each search is exact, under the rules of the query. So a short answer is the beginning of a longer one.

The score of an item is that of its round, log P(item | history, what was found before), but at most the lowest of the round
before: rounds stand one behind the other.

Legend: `B` queries, `T` items of the longest history, `S` slots per item, `R` catalogue rows, `d` width.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from genrec.decoding.answers import Answer, Search, go_on_under_caps
from genrec.decoding.diversity import Selection
from genrec.decoding.scoring import best_rows, dots
from genrec.decoding.snapshot import Query, Snapshot
from genrec.models.one_pass.model import OnePassModel


def answer_in_rounds(
    model: OnePassModel,
    queries: list[Query],
    snapshot: Snapshot,
    histories: tuple[Tensor, Tensor],
    items: Tensor,
    live: Tensor,
    slots_of: Callable[[np.ndarray], Tensor],
) -> list[Answer]:
    """Each query's best min(k, allowed) rows and their scores, round after round.

    histories: slots of the items that are read, [B, T, S, d], and how many there are of each, int64 [B]. items: what a query is
    multiplied with, [R, S * d]. live: bool [R], rows that can be found. slots_of: catalogue rows [n] -> their slots [n, S, d].
    """
    config, (tokens, ends) = model.shape.config, histories
    selections = [Selection(query.rules.caps) for query in queries]
    going = np.arange(len(queries))
    states = model.states(tokens)[torch.arange(len(ends), device=ends.device), ends]
    earlier = states[:, None]
    for before in range(config.rounds):
        last = before + 1 == config.rounds
        most = (before + 1) * config.round_items
        asked = queries if last else [replace(query, k=min(query.k, most)) for query in queries]
        wanted = tokens.new_zeros(len(queries), items.shape[1])
        wanted[going] = model.weighed(model.dot_queries(states))
        go_on_under_caps(asked, _search(asked, selections, wanted, items, live, snapshot), selections, going.tolist())
        # Who has all that was asked for, or whose catalogue is at its end, is done.
        more = np.array([len(selections[n].rows) == most < queries[n].k for n in going], bool)
        if last or not more.any():
            break
        going, earlier = going[more], earlier[torch.from_numpy(more).to(earlier.device)]
        found = slots_of(np.concatenate([selections[n].rows for n in going]))
        found = found.view(len(going), before + 1, config.round_items, *found.shape[1:])
        states = model.later_state(tokens[going], ends[going], found, earlier)
        earlier = torch.cat([earlier, states[:, None]], dim=1)
    return [selection.result() for selection in selections]


def _search(
    asked: list[Query], selections: list[Selection], wanted: Tensor, items: Tensor, live: Tensor, snapshot: Snapshot
) -> Search:
    """The search of one round. wanted: what each query asks of an item, [B, S * d]."""

    def search(numbers: list[int], kept_out: list[np.ndarray]) -> list[Answer]:
        # With caps, some of what is found does not fit: asking for more saves asking again.
        k = max(asked[n].k * (4 if asked[n].rules.caps else 1) for n in numbers)
        allowed = snapshot.allowed([asked[n].rules.bitmap for n in numbers], kept_out)
        score, in_order = dots(wanted[numbers], items), snapshot.index.rows_in_order.long()
        rows, scores = best_rows(score, len(live), in_order, len(numbers), k, allowed, live)
        lowest = scores.new_tensor([[min(selections[n].scores, default=0.0)] for n in numbers])
        return list(zip(rows.cpu().numpy(), torch.minimum(scores, lowest).cpu().numpy(), strict=True))

    return search
