"""What lists are like beyond hits: how much of the catalogue they show, how new, varied, popular, calibrated and fair they are.

    context = ListContext(counts, vectors=vectors, categories=categories)
    measure_lists(result.rows["masked"], questions.histories, context, questions.items)

In: lists of catalogue rows, best first, -1 for an empty place; the history of each; what is known about the items. Out: numbers
about all lists together. No place counts more than another. What cannot be known is None, never a guess.

Sources: coverage and Gini, Ge, Delgado-Battenfeld & Jannach 2010 (10.1145/1864708.1864761). Self-information, arXiv 0808.2670.
Diversity within a list, Ziegler et al. 2005 (10.1145/1060745.1060754). Average recommendation popularity and popularity beside
the history's, arXiv 1901.07555 and 1907.13286. Calibration, Steck 2018 (10.1145/3240323.3240372). Exposure, arXiv 1802.07281
and 2002.10764 (FairRec).

Legend: `M` lists, `k` places, `N` items, `D` vector width, `C` categories, `B` lists held at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import rel_entr
from scipy.stats import rankdata

from genrec.data.interactions import Histories
from genrec.errors import DataError
from genrec.evaluation.fairness import GroupGaps, check_rows, exposure, group_gaps, known_groups
from genrec.tokenizers.quality import gini, unit_rows

ALPHA = 0.01  # share of the history's distribution that is mixed into the list's, so that the divergence is finite (Steck)
CELLS = 2**22  # numbers of one array held at once


@dataclass(frozen=True, eq=False)
class ListContext:
    """What is known about the items.

    counts: training events of each, int or float [N]. vectors: float [N, D]. categories and providers (brand, seller): text
    [N], "" where unknown. allowed: bool [N], items that could be recommended at all.
    """

    counts: np.ndarray
    vectors: np.ndarray | None = None
    categories: np.ndarray | None = None
    providers: np.ndarray | None = None
    allowed: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("vectors", "categories", "providers", "allowed"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.counts):
                raise DataError(f"{name} must have one row per item, {len(self.counts)} like counts, got {len(value)}.")


@dataclass(frozen=True)
class ListQuality:
    """Each number is defined in the function of its name; None: not known."""

    coverage: float
    coverage_of_allowed: float | None
    gini_of_exposure: float
    novelty: float
    intra_list_diversity: float | None
    average_popularity: float
    popularity_bias: float | None
    calibration: float | None
    category_gaps: GroupGaps | None
    provider_gaps: GroupGaps | None


def measure_lists(
    rows: np.ndarray,
    histories: Histories,
    context: ListContext,
    targets: np.ndarray | None = None,
    quality: np.ndarray | None = None,
) -> ListQuality:
    """All numbers of these lists [M, k], given after these histories.

    targets [M] and quality [M] (a metric per question) add relevance and quality to the gaps between categories and providers.
    Raises `DataError` where no place is filled, a row is beyond the catalogue, or rows and histories differ in number.
    """
    counts, allowed = context.counts, context.allowed
    return ListQuality(
        coverage(rows, len(counts)),
        None if allowed is None else coverage_of_allowed(rows, allowed),
        gini_of_exposure(rows, len(counts)),
        novelty(rows, counts),
        None if context.vectors is None else intra_list_diversity(rows, context.vectors),
        average_popularity(rows, counts),
        popularity_bias(rows, histories, counts),
        None if context.categories is None else calibration(rows, histories, context.categories),
        None if context.categories is None else group_gaps(rows, context.categories, targets, quality),
        None if context.providers is None else group_gaps(rows, context.providers, targets, quality),
    )


def coverage(rows: np.ndarray, items: int) -> float:
    """Share of the catalogue of `items` items that stands in at least one list."""
    return float((exposure(rows, items) > 0).mean())


def coverage_of_allowed(rows: np.ndarray, allowed: np.ndarray) -> float | None:
    """Share of the allowed items (bool [N]) that stand in at least one list; None where nothing is allowed."""
    return float((exposure(rows, len(allowed)) > 0)[allowed].mean()) if allowed.any() else None


def gini_of_exposure(rows: np.ndarray, items: int) -> float:
    """How unevenly places go to the items of the catalogue: 0 where all get alike many, near 1 where one gets all."""
    shown = exposure(rows, items)
    return gini(shown[shown > 0], possible=items)


def novelty(rows: np.ndarray, counts: np.ndarray) -> float:
    """Mean over filled places of -log2((count + 1) / (all counts + N)), in bits: how little training knows the item."""
    shown = exposure(rows, len(counts))
    known = counts.astype(np.float64) + 1
    bits = np.log2(known.sum()) - np.log2(known)
    return float(shown @ bits / shown.sum())


def average_popularity(rows: np.ndarray, counts: np.ndarray) -> float:
    """Mean over filled places of the item's training events (ARP where all lists are full)."""
    shown = exposure(rows, len(counts))
    return float(shown @ counts.astype(np.float64) / shown.sum())


def popularity_bias(rows: np.ndarray, histories: Histories, counts: np.ndarray) -> float | None:
    """Mean popularity percentile of a list minus that of its history, over lists and histories that are not empty, else None.

    The percentile of an item is the share of the catalogue with fewer training events, half of those with as many included.
    Above 0: people get more popular things than they take. Between -1 and 1.
    """
    percentile = (rankdata(counts, "average") - 0.5) / len(counts)
    gaps = []
    for lists, owner, taken in _pairs(rows, histories, rows.shape[1]):
        filled = (lists >= 0).sum(axis=1)
        had = np.bincount(owner, minlength=len(lists))
        shown = np.where(lists >= 0, percentile[lists], 0).sum(axis=1)
        both = (filled > 0) & (had > 0)
        known = np.bincount(owner, percentile[taken], len(lists))
        gaps.append(shown[both] / filled[both] - known[both] / had[both])
    return _mean(gaps)


def intra_list_diversity(rows: np.ndarray, vectors: np.ndarray) -> float | None:
    """1 - mean cosine of all pairs of a list, mean over lists with at least two items, else None. Between 0 and 2.

    vectors: [N, D]; a zero vector is at cosine 0 to everything.
    """
    check_rows(rows, len(vectors))
    found = []
    size = max(1, CELLS // max(1, rows.shape[1] * vectors.shape[1]))
    for start in range(0, len(rows), size):
        lists = rows[start : start + size]
        lists = lists[(lists >= 0).sum(axis=1) > 1]
        unit = np.zeros((*lists.shape, vectors.shape[1]))
        unit[lists >= 0] = unit_rows(vectors[lists[lists >= 0]].astype(np.float64))
        # The squared length of the sum holds each pair twice and each item once with itself.
        twice = (unit.sum(axis=1) ** 2).sum(axis=1) - (unit**2).sum(axis=(1, 2))
        items = (lists >= 0).sum(axis=1)
        found.append(1 - twice / (items * (items - 1)))
    return _mean(found)


def calibration(rows: np.ndarray, histories: Histories, categories: np.ndarray, alpha: float = ALPHA) -> float | None:
    """Kullback-Leibler divergence from the categories of a history to those of its list, in nats: 0 where the shares agree.

    KL(p || (1 - alpha) q + alpha p), at most -log(alpha), with p the shares of the history and q of the list. Items of unknown
    category count on neither side. Mean over questions with a known category on both, else None.
    """
    names, number = known_groups(categories)
    width = max(1, len(names))
    found = []
    for lists, owner, taken in _pairs(rows, histories, width):
        place = np.repeat(np.arange(len(lists)), lists.shape[1])[lists.reshape(-1) >= 0]
        p, q = (_shares(who, number[items], (len(lists), width)) for who, items in ((owner, taken), (place, lists[lists >= 0])))
        both = p.any(axis=1) & q.any(axis=1)
        found.append(rel_entr(p[both], (1 - alpha) * q[both] + alpha * p[both]).sum(axis=1))
    return _mean(found)


def _pairs(rows: np.ndarray, histories: Histories, width: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Lists [B, k] with the events of their histories: whose each is (from 0 in the batch), and its item."""
    if len(rows) != len(histories):
        raise DataError(f"There must be one history per list, got {len(rows)} lists and {len(histories)} histories.")
    size = max(1, CELLS // max(64, width))  # 64: histories take room too
    for start in range(0, len(rows), size):
        bounds = histories.indptr[start : start + size + 1]
        yield (
            rows[start : start + size],
            np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)),
            histories.items[bounds[0] : bounds[-1]],
        )


def _shares(owner: np.ndarray, number: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Share of each number (-1: unknown) among those of one owner: float64, rows that add up to 1, or 0 without any."""
    owner, number = owner[number >= 0], number[number >= 0]
    table = np.bincount(owner * shape[1] + number, minlength=shape[0] * shape[1]).reshape(shape)
    return table / np.maximum(table.sum(axis=1, keepdims=True), 1)


def _mean(parts: list[np.ndarray]) -> float | None:
    values = np.concatenate([np.zeros(0), *parts])
    return float(values.mean()) if len(values) else None
