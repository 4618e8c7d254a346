"""Pieces of histories: an item is a set of features; features that often stand together become one token, also across items.

    pieces = ActionPieces(vocabulary=4000).fit(table.codes, table.sizes, train)   # train: histories of rows of the codes
    tokens = pieces.encode(table.codes[history])                                  # always the same
    tokens = pieces.encode(table.codes[history], np.random.default_rng(0))        # one of many spellings of the same history
    pieces.features(tokens)                                                       # [(level, code), ...], all of them

The same item is written differently in different company. Merges are learned as in byte-pair encoding, but the parts of an item
have no order: a pair within a set of n tokens counts 2 / n, one across neighbouring sets of n and m tokens counts 1 / (n m),
which is how often the two would stand side by side if every set were shuffled. A merge across two items makes a slot between
them that holds the new token. Shuffling at training time and ranking with several shuffles at test time is set permutation
regularisation. Source: ActionPiece (arXiv 2502.13581).

Legend: `N` items, `L` levels, `T` items of a history, `E` rankings, `U` users, `k` items of a ranking.
"""

import heapq
import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from tqdm.auto import tqdm

from genrec.data.interactions import Histories
from genrec.errors import DataError, SettingError, check_integer

Pair = tuple[int, int]  # of tokens, the smaller first


class ActionPieces:
    """vocabulary: tokens at most, among them one per code of every level. `merges` are the pairs in the order learned: number i
    is token `sum(sizes) + i`.
    """

    def __init__(self, vocabulary: int) -> None:
        check_integer("vocabulary", vocabulary, 2)
        self.vocabulary = vocabulary
        self.sizes: tuple[int, ...] = ()
        self.merges: list[Pair] = []
        self.ranks: dict[Pair, int] = {}

    def fit(self, codes: np.ndarray, sizes: Sequence[int], train: Histories) -> Self:
        """Learn the merges from training histories of rows of `codes` [N, L], which must tell all items apart."""
        codes, sizes = np.asarray(codes), tuple(int(size) for size in sizes)
        if sum(sizes) >= self.vocabulary:
            raise SettingError(f"vocabulary must be above the number of codes, {sum(sizes)}, got {self.vocabulary}.")
        if len(np.unique(codes, axis=0)) < len(codes):
            raise DataError(
                "Some items have the same codes, so no spelling can tell them apart. Use a collision policy that makes them "
                "unique, such as 'suffix', or one more level with a hash of the item, 'hash-64'."
            )
        self.sizes, self.merges = sizes, []
        learner = _Learner([self._tokens(codes[history]) for history in train.to_lists()], len(sizes))
        for token in tqdm(range(sum(sizes), self.vocabulary), desc="ActionPiece merges", leave=False):
            pair = learner.heaviest()
            if pair is None:
                break
            learner.merge(pair, token)
            self.merges.append(pair)
        self.ranks = {pair: place for place, pair in enumerate(self.merges)}
        return self

    def encode(self, codes: np.ndarray, random: np.random.Generator | None = None) -> list[int]:
        """Tokens of the history whose items have these codes [T, L]. random: shuffles each item's features first, then merges
        neighbours only; without it, the earliest learned merges come first, wherever they apply.
        """
        if not self.sizes:
            raise SettingError("ActionPieces must be fitted first: call fit(codes, sizes, train).")
        items = self._tokens(codes)
        if random is not None:
            return _merged_neighbours(
                [token for item in items for token in random.permutation(item).tolist()], self.ranks, sum(self.sizes)
            )
        nodes = _nodes(items)
        while pairs := [pair for pair in _weights(nodes, len(self.sizes)) if pair in self.ranks]:
            pair = min(pairs, key=self.ranks.__getitem__)
            nodes = _apply(nodes, pair, sum(self.sizes) + self.ranks[pair])
        return [token for tokens, _ in nodes for token in tokens]

    def features(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """The (level, code) pairs that tokens stand for, in the order of the tokens."""
        starts, codes = np.cumsum([0, *self.sizes]), sum(self.sizes)
        found, left = [], list(reversed(tokens))
        while left:
            token = left.pop()
            if not 0 <= token < codes + len(self.merges):
                raise DataError(f"Tokens are whole numbers below {codes + len(self.merges)}, got {token}.")
            if token >= codes:
                left.extend(reversed(self.merges[token - codes]))
            else:
                level = int(np.searchsorted(starts, token, side="right")) - 1
                found.append((level, int(token - starts[level])))
        return found

    def save(self, path: Path) -> None:
        """Write a JSON file."""
        Path(path).write_text(json.dumps({"sizes": self.sizes, "merges": self.merges}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        pieces = cls(max(2, sum(found["sizes"]) + len(found["merges"])))
        pieces.sizes, pieces.merges = tuple(found["sizes"]), [(one, other) for one, other in found["merges"]]
        pieces.ranks = {pair: place for place, pair in enumerate(pieces.merges)}
        return pieces

    def _tokens(self, codes: np.ndarray) -> list[list[int]]:
        """One set of tokens per item of [T, L] codes."""
        codes, sizes = np.asarray(codes), np.array(self.sizes)
        if codes.ndim != 2 or codes.shape[1] != len(sizes) or (codes < 0).any() or (codes >= sizes).any():
            raise DataError(f"codes must be [T, {len(sizes)}] with values below {self.sizes}, got shape {list(codes.shape)}.")
        return (codes + np.cumsum([0, *self.sizes[:-1]])).tolist()


def ensemble(rankings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One ranking of several, of users with differently shuffled histories: rows int64 [E, U, k], -1 where there is none.

    An item scores the sum of 1 / log2(rank + 1) over the rankings that have it. Returns rows [U, k] and scores [U, k], equal
    scores by row.
    """
    rankings = np.asarray(rankings)
    _, users, k = rankings.shape
    rows, scores = np.full((users, k), -1, np.int64), np.full((users, k), -np.inf)
    gains = [1.0 / math.log2(place + 2) for place in range(k)]
    for user in range(users):
        found: dict[int, list[float]] = {}
        for ranking in rankings[:, user].tolist():
            for row, gain in zip(ranking, gains, strict=True):
                if row >= 0:
                    found.setdefault(row, []).append(gain)
        best = sorted(((-math.fsum(parts), row) for row, parts in found.items()))[:k]
        rows[user, : len(best)] = [row for _, row in best]
        scores[user, : len(best)] = [-score for score, _ in best]
    return rows, scores


# A history while it is merged: nodes of (tokens, is it a slot between items), in order of time.
Node = tuple[list[int], bool]


def _nodes(items: Sequence[list[int]]) -> list[Node]:
    return [(list(item), False) for item in items]


class _Learner:
    """Histories, what every pair weighs in them, and which histories have it or had it once."""

    def __init__(self, histories: Sequence[Sequence[list[int]]], levels: int) -> None:
        self.histories, self.levels = [_nodes(items) for items in histories], levels
        self.weights: Counter[Pair] = Counter()
        self.holders: dict[Pair, set[int]] = {}
        for number, nodes in enumerate(self.histories):
            self._add(number, _weights(nodes, levels))
        self.heap = [(-weight, pair) for pair, weight in self.weights.items()]
        heapq.heapify(self.heap)

    def heaviest(self) -> Pair | None:
        """The pair that weighs most, the smaller tokens among equals; None when no pair is left."""
        while self.heap:
            weight, pair = heapq.heappop(self.heap)
            if weight and self.weights[pair] == -weight:
                return pair
        return None

    def merge(self, pair: Pair, token: int) -> None:
        changed: set[Pair] = set()
        for number in sorted(self.holders.pop(pair)):
            before = self.histories[number]
            after = self.histories[number] = _apply(before, pair, token)
            before, after = _where_they_differ(before, after)
            lost, won = _weights(before, self.levels), _weights(after, self.levels)
            self.weights.subtract(lost)
            self._add(number, won)
            changed |= lost.keys() | won.keys()
        for other in changed:
            heapq.heappush(self.heap, (-self.weights[other], other))

    def _add(self, number: int, weights: dict[Pair, int]) -> None:
        self.weights.update(weights)
        for pair in weights:
            self.holders.setdefault(pair, set()).add(number)


def _where_they_differ(before: list[Node], after: list[Node]) -> tuple[list[Node], list[Node]]:
    """Both without the nodes that they begin and end with alike, but for one on each side."""
    shorter = min(len(before), len(after))
    head = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    tail = next((i for i in range(shorter - head) if before[-1 - i] != after[-1 - i]), shorter - head)
    start, cut = max(head - 1, 0), max(tail - 1, 0)
    return before[start : len(before) - cut], after[start : len(after) - cut]


def _weights(nodes: Sequence[Node], levels: int) -> dict[Pair, int]:
    """What each pair weighs in one history, times the square of the least common multiple of 1 .. L: whole, so exact."""
    unit = math.lcm(*range(1, levels + 1)) ** 2
    found: Counter[Pair] = Counter()
    for tokens, _ in nodes:
        for one, other in itertools.combinations(tokens, 2):
            found[min(one, other), max(one, other)] += 2 * unit // len(tokens)
    for (left, _), (right, _) in itertools.pairwise(nodes):
        for one, other in itertools.product(left, right):
            found[min(one, other), max(one, other)] += unit // (len(left) * len(right))
    return found


def _apply(nodes: Sequence[Node], pair: Pair, token: int) -> list[Node]:
    """The history with every such pair merged: within items first, then from left to right between neighbours.

    Two items give one token each to a new slot between them; a slot takes its neighbour's token in. What is empty goes.
    """
    done: list[Node] = []
    for tokens, slot in nodes:
        done.append(([*_without(tokens, pair), token], slot) if _holds(tokens, pair) else (list(tokens), slot))
    place = 0
    while place + 1 < len(done):
        (left, left_slot), (right, right_slot) = done[place], done[place + 1]
        taken = next(((a, b) for a, b in (pair, pair[::-1]) if a in left and b in right), None)
        if taken is None:
            place += 1
            continue
        left, right = _without(left, taken[:1]), _without(right, taken[1:])
        # A slot holds one token, so it is empty by now; the new token stays in the middle.
        middle = [([token], True)]
        around = [([(left, left_slot)] if left else []), ([(right, right_slot)] if right else [])]
        done[place : place + 2] = around[0] + middle + around[1]
        place += len(around[0])
    return done


def _holds(tokens: list[int], pair: Pair) -> bool:
    return all(token in tokens for token in pair) and (pair[0] != pair[1] or tokens.count(pair[0]) > 1)


def _without(tokens: list[int], gone: Sequence[int]) -> list[int]:
    left = list(tokens)
    for token in gone:
        left.remove(token)
    return left


def _merged_neighbours(tokens: list[int], rank: dict[Pair, int], first: int) -> list[int]:
    """Ordinary byte-pair encoding: the earliest learned merge of two neighbours, until there is none."""
    while True:
        pairs = [
            (rank.get((min(a, b), max(a, b)), len(rank)), place) for place, (a, b) in enumerate(itertools.pairwise(tokens))
        ]
        best, place = min(pairs, default=(len(rank), 0))
        if best == len(rank):
            return tokens
        tokens = [*tokens[:place], first + best, *tokens[place + 2 :]]
