"""Score the whole catalogue, a piece at a time: the exact best k of millions of items without a matrix of users by items.

In: what the model asks of an item, as a function that scores a run of catalogue rows, and what each user may get. Out: the best
rows and their scores. Two ways to score: `dots`, a product with a vector per item; `sums`, one gathered number per code; and of
either a mixture over several states of a user, `mixed`.

Equal scores go by code order, items that share all codes by the index's tie order, as in `beam_search`. The pieces are runs of
catalogue rows, not of the code order: gathering rows from all over the memory takes longer than scoring them.

Legend: `B` users, `P` positions of the code order, `R` catalogue rows, `L` codes per item, `V` codes of all levels, `n` rows of
a piece, `E` excluded positions per user, `F` width, `M` states per user.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from genrec.decoding.allowed import Allowed

Score = Callable[[int, int], Tensor]  # catalogue rows from `start` to before `stop` -> scores float32 [B, n]
CELLS = 2**22  # scores held at once: 16 MB


def dots(queries: Tensor, keys: Tensor) -> Score:
    """Score an item by the product of its vector with the user's. queries: [B, F]; keys: [R, F]."""
    return lambda start, stop: queries @ keys[start:stop].T


def sums(log_probs: Tensor, tokens: Tensor) -> Score:
    """Score an item by the sum over its codes. log_probs: [B, V], levels one after the other; tokens: int [R, L], where each
    code of an item stands in them.
    """
    by_code = log_probs.T.contiguous()
    return lambda start, stop: embedding_bag(tokens[start:stop], by_code, mode="sum").T.contiguous()


def pieces(rows: int, users: int, cells: int = CELLS) -> Iterator[tuple[int, int]]:
    """Runs of rows, from `start` to before `stop`, so that `users` times a run is at most `cells` (or it is one row)."""
    size = max(1, cells // max(1, users))
    return ((start, min(start + size, rows)) for start in range(0, rows, size))


def mixed(score: Score, log_weights: Tensor, rows: int, counted: Tensor | None = None, cells: int = CELLS) -> Score:
    """Score an item by the logarithm of the weighed mean of its probabilities in several states of the user.

    score: of all states, those of a user one after the other, [B * M, n]. log_weights: [B, M], the weights of a user sum to 1.
    counted: bool [R], rows over which each state's scores are made log-probabilities (None: they are such).
    """
    users, states = log_weights.shape
    if counted is not None:
        total = torch.full_like(log_weights, -torch.inf)
        for start, stop in pieces(rows, users * states, cells):
            here = score(start, stop).masked_fill(~counted[start:stop], -torch.inf)
            total = torch.logaddexp(total, here.logsumexp(dim=1).view(users, states))
        log_weights = log_weights - total
    return lambda start, stop: (score(start, stop).view(users, states, -1) + log_weights.unsqueeze(-1)).logsumexp(dim=1)


def best_rows(
    score: Score,
    rows: int,
    rows_in_order: Tensor,
    users: int,
    k: int,
    allowed: Allowed,
    counted: Tensor | None = None,
    cells: int = CELLS,
) -> tuple[Tensor, Tensor]:
    """The `k` best allowed items of each user, rows int64 [B, k] (-1: nothing left) and scores float32 [B, k] (-inf there).

    rows: `R`. rows_in_order: int64 [P], the catalogue row of each position; `allowed` speaks of positions. counted: bool [R],
    rows over which scores are made log-probabilities, whoever may get them (None: scores are what they are). At most `cells`
    scores are in memory at once (those of one row at least).
    """
    device = rows_in_order.device
    positions = torch.full((rows,), -1, dtype=torch.int64, device=device)
    positions[rows_in_order] = torch.arange(len(rows_in_order), device=device)
    kept_out = _excluded_rows(allowed, rows_in_order)
    best = torch.full((users, k), -torch.inf, device=device)
    found = torch.full((users, k), -1, dtype=torch.int64, device=device)
    total = torch.full((users, 1), -torch.inf, device=device)
    for start, stop in pieces(rows, users, cells):
        scores = score(start, stop)
        if counted is not None:
            here = scores if counted[start:stop].all() else scores.masked_fill(~counted[start:stop], -torch.inf)
            total = torch.logaddexp(total, here.logsumexp(dim=1, keepdim=True))
        place = positions[start:stop]
        may = allowed.holds(place.clamp(min=0), users)
        if may is not None or (place < 0).any():
            scores = scores.masked_fill(place < 0 if may is None else ~may | (place < 0), -torch.inf)
        if kept_out is not None:
            user, column = torch.nonzero((kept_out >= start) & (kept_out < stop), as_tuple=True)
            scores[user, kept_out[user, column] - start] = -torch.inf
        both = torch.cat([best, scores], dim=1)
        chosen = _best(both, positions[found], place)
        best = both.gather(1, chosen)
        found = torch.where(chosen < k, found.gather(1, chosen.clamp(max=k - 1)), chosen - k + start)
    found = torch.where(best > -torch.inf, found, -1)
    return found, best if counted is None else best - total


def _excluded_rows(allowed: Allowed, rows_in_order: Tensor) -> Tensor | None:
    """Catalogue rows that each user may not get: int64 [B, E], -1 for none."""
    if allowed.excluded is None or not len(rows_in_order):
        return None
    last = len(rows_in_order) - 1
    return torch.where(allowed.excluded > last, -1, rows_in_order[allowed.excluded.clamp(max=last)])


def _best(scores: Tensor, before: Tensor, place: Tensor) -> Tensor:
    """Columns of the `k` highest scores [B, k + n], best first, equal ones in code order: int64 [B, k].

    before: int64 [B, k], where the first `k` columns stand in the code order; place: int64 [n], where the others do.
    """
    k = before.shape[1]

    def order(columns: Tensor) -> Tensor:
        return torch.where(columns < k, before.gather(1, columns.clamp(max=k - 1)), place[(columns - k).clamp(min=0)])

    values, columns = scores.topk(k + 1, dim=1)
    # At the edge `topk` takes any of those that are equal. Where one too many is, the first in code order are the right ones.
    tied = (values[:, k] == values[:, k - 1]) & (values[:, k] > -torch.inf)
    columns = columns[:, :k].contiguous()
    for row in torch.nonzero(tied)[:, 0]:
        edge = values[row, k]
        above, equal = torch.nonzero(scores[row] > edge)[:, 0], torch.nonzero(scores[row] == edge)[:, 0]
        whose = torch.where(equal < k, before[row, equal.clamp(max=k - 1)], place[(equal - k).clamp(min=0)])
        columns[row] = torch.cat([above, equal[whose.argsort()[: k - len(above)]]])
    columns = columns.gather(1, order(columns).argsort(dim=1))
    return columns.gather(1, scores.gather(1, columns).sort(dim=1, descending=True, stable=True).indices)
