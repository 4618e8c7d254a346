"""Gaps between groups of items (brands, sellers, categories): who is shown, who deserves it, and who is found.

In: lists, the group of each item, the answers of the questions. Out: shares and quality per group, and how far they are apart.
Each place of a list is one unit of exposure, as in FairRec (arXiv 2002.10764). Exposure beside what is relevant:
Singh & Joachims (arXiv 1802.07281). Groups of users are slices; how far apart they are served: `slices.largest_gaps`.

Legend: `M` questions, `k` places, `N` items, `G` groups.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.errors import DataError

FEWEST = 30  # questions: the quality of a smaller group is too unsure to speak of a gap


@dataclass(frozen=True)
class Group:
    """exposure, catalogue, relevance: its share of filled places, of items, of answers (None: not asked for). questions: whose
    answer is of this group. quality: their mean (None: not asked for, or no such question).
    """

    name: str
    exposure: float
    catalogue: float
    relevance: float | None
    questions: int
    quality: float | None


@dataclass(frozen=True)
class GroupGaps:
    """groups: by name. from_catalogue, from_relevance: half the sum of differences between the shares of exposure and of items,
    or of answers: the part of all places that is in the wrong group, 0 to 1. largest_gap: best minus worst quality among
    groups with at least `FEWEST` questions (None: fewer than two such groups, or quality not asked for).
    """

    groups: tuple[Group, ...]
    from_catalogue: float
    from_relevance: float | None
    largest_gap: float | None


def group_gaps(
    rows: np.ndarray, groups: np.ndarray, targets: np.ndarray | None = None, quality: np.ndarray | None = None
) -> GroupGaps | None:
    """How groups of items fare in lists [M, k]; None where no list shows an item of a known group.

    groups: text [N], "" where unknown: such items count nowhere. targets: the answers [M], for relevance. quality: a metric of
    each question [M], for quality by group of the answer. Raises `DataError` for quality without targets or of other length,
    and as `check_rows` does.
    """
    if quality is not None and (targets is None or len(quality) != len(targets)):
        raise DataError("Quality by group needs the answer of each question: give targets and quality of the same questions.")
    names, number = known_groups(groups)
    places = exposure(rows, len(groups))
    if not places[number >= 0].any():
        return None
    shown = _share(np.bincount(number[number >= 0], places[number >= 0], len(names)))
    catalogue = _share(_counts(number, len(names)))
    wanted = None if targets is None else _counts(number[targets], len(names))
    relevance = None if wanted is None or not wanted.sum() else _share(wanted)
    mean = None
    if quality is not None and targets is not None and wanted is not None:
        known = number[targets] >= 0
        total = np.bincount(number[targets][known], quality[known], len(names))
        mean = np.divide(total, wanted, out=np.full(len(names), np.nan), where=wanted > 0)
    large = [] if mean is None or wanted is None else mean[wanted >= FEWEST]
    return GroupGaps(
        tuple(
            Group(
                name,
                float(shown[i]),
                float(catalogue[i]),
                None if relevance is None else float(relevance[i]),
                0 if wanted is None else int(wanted[i]),
                None if mean is None or np.isnan(mean[i]) else float(mean[i]),
            )
            for i, name in enumerate(names)
        ),
        _apart(shown, catalogue),
        None if relevance is None else _apart(shown, relevance),
        float(np.ptp(large)) if len(large) > 1 else None,
    )


def exposure(rows: np.ndarray, items: int) -> np.ndarray:
    """In how many places each of `items` items stands: int64 [N]. Raises `DataError` as `check_rows` does."""
    check_rows(rows, items)
    return np.bincount(rows[rows >= 0], minlength=items)


def check_rows(rows: np.ndarray, items: int) -> None:
    """Raise `DataError` where no place is filled or a row is beyond a catalogue of `items` items."""
    highest = int(rows.max(initial=-1))
    if highest < 0:
        raise DataError(f"Lists must hold at least one item, got {len(rows)} lists without any. Check the ranker.")
    if highest >= items:
        raise DataError(
            f"Lists must name rows of the catalogue, 0 to {items - 1}, got row {highest}. "
            "Give counts, vectors and groups of the catalogue that was ranked."
        )


def known_groups(labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The labels in use, sorted, and the number of each item's: int64 [N], -1 where the label is "" or None."""
    encoded = pc.fill_null(pa.array(labels, pa.string()), "").dictionary_encode()
    found = encoded.dictionary.to_pylist()
    names = sorted(name for name in found if name)
    places = {name: place for place, name in enumerate(names)}
    return names, np.array([places.get(name, -1) for name in found], np.int64)[encoded.indices.to_numpy()]


def _counts(number: np.ndarray, groups: int) -> np.ndarray:
    return np.bincount(number[number >= 0], minlength=groups)


def _share(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum()


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).sum() / 2)
