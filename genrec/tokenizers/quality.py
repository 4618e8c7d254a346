"""How good codes are, without training a recommender: numbers that say what a model could ever learn from them.

In: codes, item vectors, training histories, categories. Out: numbers, each defined below. The report that shows them, with
thresholds and advice, is in report.py. Source of the embedding hit rate and of Gini as a predictor: FORGE (arXiv 2509.20904).

Legend: `N` items, `L` levels, `D` vector width, `S` sampled items or pairs.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from genrec.data.interactions import Histories
from genrec.data.splits import Targets

SAMPLE = 2_000  # items whose neighbours are looked at, and users asked: an error of about one point
COMPARISONS, LEAST, LONGEST = 40_000_000, 200, 50  # users times items, users at least, items of a history


def tuple_counts(codes: np.ndarray) -> np.ndarray:
    """How many items each code tuple in use has: int64 [tuples]."""
    return np.unique(codes, axis=0, return_counts=True)[1]


def collision_rate(codes: np.ndarray) -> float:
    """Share of items that are not the first of their tuple: (N - tuples) / N (LC-Rec's)."""
    return 1.0 - len(tuple_counts(codes)) / len(codes)


def utilisation(codes: np.ndarray, sizes: Sequence[int]) -> list[float]:
    """Per level, the share of its codes that some item has."""
    return [len(np.unique(codes[:, level])) / size for level, size in enumerate(sizes)]


def entropy(codes: np.ndarray, sizes: Sequence[int]) -> list[float]:
    """Per level, how evenly its codes are used: entropy over that of even use, from 0 to 1."""
    found = []
    for level, size in enumerate(sizes):
        share = np.bincount(codes[:, level], minlength=size) / len(codes)
        share = share[share > 0]
        found.append(float(-(share * np.log(share)).sum() / np.log(size)) if size > 1 else 1.0)
    return found


def gini(counts: np.ndarray, possible: float | None = None) -> float:
    """How unevenly items are spread: 0 where all tuples have alike many, near 1 where one has all.

    counts: items per tuple in use. possible: number of tuples that could be; those not in use count as empty (FORGE's paper),
    else only those in use (FORGE's code). The two differ widely: say which.
    """
    counts = np.sort(np.asarray(counts, np.float64))
    used, total = len(counts), counts.sum()
    n = used if possible is None else possible
    if n < used:
        raise ValueError(f"possible must be at least the number of tuples in use, {used}, got {possible}.")
    # (N + 1) / N - 2 sum c_i (N - i + 1) / (N sum c_i) over tuples in ascending order. Empty ones come first and add nothing,
    # so tuples in use are numbers 1 .. used from the upper end, and N may be far larger than an array could be.
    from_above = np.arange(used, 0, -1)
    return float((n + 1) / n - 2.0 * (counts * from_above).sum() / (n * total))


def fewer(questions: Targets, items: int, seed: int) -> Targets:
    """Questions whose hit rates can be measured in minutes, each history item against the whole catalogue: `SAMPLE` of them,
    fewer where the catalogue is huge.
    """
    return questions.sample(int(np.clip(COMPARISONS / items, LEAST, SAMPLE)), seed)


def embedding_hit_rate(
    vectors: np.ndarray, histories: Histories, targets: np.ndarray, k: int = 20, neighbours: int = 100
) -> float:
    """Share of users whose target is among the `k` items nearest to what they have in their history (no codes, no model).

    For each of the latest `LONGEST` history items its `neighbours` nearest by cosine, merged by the best score, history left
    out, cut at k (FORGE); ties count in part. vectors: [N, D]; targets: [U]. Give decoded vectors instead of the items' own to
    see what the codes keep of it.
    """
    unit = unit_rows(vectors)
    hits = 0.0
    for user in range(len(histories)):
        history = np.unique(histories[user])
        if not len(history):
            continue
        scores = unit[np.unique(histories[user][-LONGEST:])] @ unit.T
        scores[:, history] = -np.inf
        if neighbours < scores.shape[1]:
            edge = -np.partition(-scores, neighbours - 1, axis=1)[:, neighbours - 1 : neighbours]
            scores[scores < edge] = -np.inf
        best = scores.max(axis=0)
        own = best[targets[user]]
        hits += _within(best, own, k) if own > -np.inf else 0.0
    return hits / max(1, len(histories))


def code_hit_rate(codes: np.ndarray, histories: Histories, targets: np.ndarray, ordered: bool, k: int = 20) -> float:
    """Share of users whose target is among the `k` items with most codes in common with one of the latest items of their
    history: what a recommender could know from the codes alone. Ties count in part; the history itself is left out.
    """
    hits = 0.0
    for user in range(len(histories)):
        history = np.unique(histories[user])
        if not len(history) or targets[user] in history:
            continue
        alike = np.zeros(len(codes), np.int64)
        for item in np.unique(histories[user][-LONGEST:]):
            np.maximum(alike, shared_levels(codes, codes[item], ordered), out=alike)
        alike[history] = -1
        own = alike[targets[user]]
        hits += _within(alike, own, k) if own else 0.0
    return hits / max(1, len(histories))


def _within(scores: np.ndarray, own: float, k: int) -> float:
    """The chance that one of score `own` is among the best `k`, where ties are broken at random."""
    above, at = int((scores > own).sum()), int((scores == own).sum())
    return min(1.0, max(0.0, (k - above) / at))


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def shared_levels(a: np.ndarray, b: np.ndarray, ordered: bool) -> np.ndarray:
    """How alike codes are [.., L] and [.., L]: levels shared from the first on (ordered), or anywhere: int64 [..]."""
    same = a == b
    return np.cumprod(same, axis=-1).sum(axis=-1) if ordered else same.sum(axis=-1)


def neighbours(vectors: np.ndarray, seed: int = 0, k: int = 10) -> np.ndarray:
    """Pairs of an item and one of its `k` nearest by cosine, for a sample of items: int64 [S, 2]."""
    unit = unit_rows(vectors)
    k = min(k, len(vectors) - 1)
    pairs = [np.zeros((0, 2), np.int64)]
    for row in _sampled(len(vectors), SAMPLE, seed) if k > 0 else []:
        near = unit @ unit[row]
        near[row] = -np.inf
        nearest = np.argpartition(-near, k - 1)[:k]
        pairs.append(np.column_stack([np.full(k, row), nearest]))
    return np.concatenate(pairs)


def neighbourhood_recall(codes: np.ndarray, vectors: np.ndarray, ordered: bool, k: int = 10, seed: int = 0) -> float:
    """Share of an item's `k` nearest by cosine that are among the `k` with most codes in common (ties count in part)."""
    k = min(k, len(codes) - 1)
    if k < 1:
        return 1.0
    found = []
    for pairs in neighbours(vectors, seed, k).reshape(-1, k, 2):
        row, nearest = pairs[0, 0], pairs[:, 1]
        alike = shared_levels(codes, codes[row], ordered).astype(np.float64)
        alike[row] = -1
        edge = np.sort(alike)[::-1][k - 1]
        above, at = alike > edge, alike == edge
        room = (k - above.sum()) / max(1, at.sum())  # of those at the edge so many get in, by chance
        found.append((above[nearest].sum() + room * at[nearest].sum()) / k)
    return float(np.mean(found))


def rank_correlation(codes: np.ndarray, closeness: np.ndarray, pairs: np.ndarray, ordered: bool) -> float:
    """Spearman's correlation of codes in common with a closeness [S], over pairs of items [S, 2]; 0 where one never varies."""
    alike = shared_levels(codes[pairs[:, 0]], codes[pairs[:, 1]], ordered)
    if len(alike) < 2 or alike.min() == alike.max() or closeness.min() == closeness.max():
        return 0.0
    return float(spearmanr(alike, closeness).statistic)


def reconstruction_error(vectors: np.ndarray, decoded: np.ndarray) -> float:
    """What the codes lose, as a share of the variance: 0 nothing, 1 as bad as the mean of all items."""
    spread = ((vectors - vectors.mean(axis=0)) ** 2).sum(dtype=np.float64)
    return float(((vectors - decoded) ** 2).sum(dtype=np.float64) / spread) if spread > 0 else 0.0


def prefix_purity(codes: np.ndarray, labels: np.ndarray, length: int = 1) -> float:
    """Share of items whose label is the commonest one among the items with the same first `length` codes."""
    _, group = np.unique(codes[:, :length], axis=0, return_inverse=True)
    _, label = np.unique(labels.astype(str), return_inverse=True)
    table = np.zeros((group.max() + 1, label.max() + 1), np.int64)
    np.add.at(table, (group.reshape(-1), label), 1)
    return float(table.max(axis=1).sum() / len(codes))


def behaviour_correlation(codes: np.ndarray, histories: Histories, ordered: bool, most: int, seed: int = 0) -> float:
    """Spearman's correlation of codes in common with how often two items follow each other, over `most` pairs that do at least
    once and as many drawn at random.
    """
    random = np.random.default_rng(seed)
    met, counts = np.unique(histories.following_pairs(), axis=0, return_counts=True)
    met, counts = met[met[:, 0] != met[:, 1]], counts[met[:, 0] != met[:, 1]]
    chosen = random.permutation(len(met))[:most]
    by_chance = random.integers(0, len(codes), (len(chosen), 2))
    by_chance = by_chance[by_chance[:, 0] != by_chance[:, 1]]
    pairs = np.concatenate([met[chosen], by_chance])
    closeness = np.concatenate([counts[chosen], np.zeros(len(by_chance))])
    return rank_correlation(codes, closeness, pairs, ordered)


def behaviour_lift(codes: np.ndarray, histories: Histories, length: int = 1, seed: int = 0) -> float:
    """How much likelier items that follow each other share their first `length` codes than items drawn at random."""
    pairs = histories.following_pairs()
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    if not len(pairs):
        return 1.0
    random = np.random.default_rng(seed).integers(0, len(codes), (max(10_000, len(pairs)), 2))
    random = random[random[:, 0] != random[:, 1]]

    def share(of: np.ndarray) -> float:
        return float((codes[of[:, 0], :length] == codes[of[:, 1], :length]).all(axis=1).mean())

    return share(pairs) / max(share(random), 1 / len(random))


def _sampled(count: int, most: int, seed: int) -> np.ndarray:
    return np.arange(count) if count <= most else np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
