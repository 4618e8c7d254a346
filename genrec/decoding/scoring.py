"""Score the whole catalogue, a piece at a time: the exact best k of millions of items without a matrix of users by items.

In: what the model asks of an item, as a function that scores a run of catalogue rows, and what each user may get. Out: the best
rows and their scores. Two ways to score: `dots`, a product with a vector per item; `sums`, one gathered number per code.

Equal scores go by code order, items that share all codes by the index's tie order, as in `beam_search`.

Legend: `B` users, `P` positions of the code order, `R` catalogue rows, `L` codes per item, `V` codes of all levels, `n` items
of a piece, `F` width.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from genrec.decoding.allowed import Allowed

Score = Callable[[Tensor], Tensor]  # catalogue rows int64 [n] -> scores float32 [B, n]
CELLS = 2**22  # scores held at once: 16 MB


def dots(queries: Tensor, keys: Tensor) -> Score:
    """Score an item by the product of its vector with the user's. queries: [B, F]; keys: [R, F]."""
    return lambda rows: queries @ keys[rows].T


def sums(log_probs: Tensor, tokens: Tensor) -> Score:
    """Score an item by the sum over its codes. log_probs: [B, V], levels one after the other; tokens: int64 [R, L], where each
    code of an item stands in them.
    """
    by_code = log_probs.T.contiguous()
    return lambda rows: embedding_bag(tokens[rows], by_code, mode="sum").T


def best_rows(
    score: Score, rows_in_order: Tensor, users: int, k: int, allowed: Allowed, cells: int = CELLS
) -> tuple[Tensor, Tensor]:
    """The `k` best allowed items of each user, rows int64 [B, k] (-1: nothing left) and scores float32 [B, k] (-inf there).

    rows_in_order: int64 [P], the catalogue row of each position; `allowed` speaks of positions. At most `cells` scores are in
    memory at once (one item's at least).
    """
    device = rows_in_order.device
    kept = torch.full((users, k), -torch.inf, device=device)
    places = torch.full((users, k), -1, dtype=torch.int64, device=device)
    size = max(1, cells // max(1, users))
    for start in range(0, len(rows_in_order), size):
        stop = min(start + size, len(rows_in_order))
        scores = score(rows_in_order[start:stop])
        mask = allowed.mask(start, stop, users)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        both = torch.cat([kept, scores], dim=1)
        chosen = _best(both, k)
        kept = both.gather(1, chosen)
        # What was kept comes first and stood earlier in the order, so places in `both` are in order too.
        before = places.gather(1, chosen.clamp(max=k - 1))
        places = torch.where(chosen < k, before, chosen - k + start)
    rows = torch.where(kept > -torch.inf, rows_in_order[places.clamp(min=0)] if len(rows_in_order) else places, -1)
    return rows, kept


def _best(scores: Tensor, k: int) -> Tensor:
    """Columns of the `k` highest scores [B, at least k], best first, equal ones in order of their columns: int64 [B, k]."""
    values, columns = scores.topk(k, dim=1)
    lowest = values[:, -1:]
    # At the edge `topk` takes any of those that are equal. Where there are more than fit, the first of them are the right ones.
    tied = (scores == lowest).sum(dim=1) > (values == lowest).sum(dim=1)
    tied &= lowest[:, 0] > -torch.inf
    for row in torch.nonzero(tied)[:, 0].tolist():
        above = torch.nonzero(scores[row] > lowest[row])[:, 0]
        equal = torch.nonzero(scores[row] == lowest[row])[:, 0]
        columns[row] = torch.cat([above, equal[: k - len(above)]])
    columns = columns.sort(dim=1).values
    order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True).indices
    return columns.gather(1, order)


def log_total(score: Score, rows: Tensor, users: int, cells: int = CELLS) -> Tensor:
    """log of the sum of exp(score) over `rows` int64 [n], for each user: float32 [B], -inf over no rows."""
    total = torch.full((users,), -torch.inf, device=rows.device)
    size = max(1, cells // max(1, users))
    for start in range(0, len(rows), size):
        total = torch.logaddexp(total, score(rows[start : start + size]).logsumexp(dim=1))
    return total
