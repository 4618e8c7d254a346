"""What a code means, in words: the items that stand for it and the words that its items have more often than others.

In: codes of one level, the items' titles and vectors. Out: one `Meaning` per code, largest first.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WORD = re.compile(r"[^\W\d_]{3,}")
TITLES, WORDS, LENGTH = 3, 6, 80


@dataclass(frozen=True)
class Meaning:
    """code; items: how many have it; titles: of the items nearest to their middle; words: most typical first."""

    code: int
    items: int
    titles: list[str]
    words: list[str]


def meanings(codes: np.ndarray, titles: Sequence[str], vectors: np.ndarray, most: int = 24) -> list[Meaning]:
    """Of the `most` commonest codes [N]. Words are ranked by how much likelier they are among the code's items (in nats,
    weighted by their share there), so that a word every item has says nothing.
    """
    words = [{word.lower() for word in WORD.findall(title)} for title in titles]
    everywhere = Counter(word for of_item in words for word in of_item)
    found = []
    numbers, counts = np.unique(codes, return_counts=True)
    for place in np.lexsort((numbers, -counts))[:most]:
        rows = np.flatnonzero(codes == numbers[place])
        middle = vectors[rows].mean(axis=0)
        near = rows[np.argsort(((vectors[rows] - middle) ** 2).sum(axis=1), kind="stable")]
        here = Counter(word for row in rows for word in words[row])
        typical = {
            word: count / len(rows) * np.log(count / len(rows) / (everywhere[word] / len(titles)))
            for word, count in here.items()
            if count > 1 or len(rows) == 1
        }
        best = sorted((word for word in typical if typical[word] > 0), key=lambda word: (-typical[word], word))
        found.append(Meaning(int(numbers[place]), len(rows), [titles[row][:LENGTH] for row in near[:TITLES]], best[:WORDS]))
    return found
