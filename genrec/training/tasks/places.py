"""Places of a prompt: what a template's {history}, {title}, {query} ... stand for, as token ids.

In: the training part of the histories, the codes, and texts of items and of training events. Out: a `Place` for each name: its
token ids for an example, and how many they are for all examples at once, so that batches can be planned before any is written.

An example is a stretch of one training history and an item, mostly the one that follows it. Nothing but training events is in
reach here.

Legend: `E` training events, `M` examples, `N` items, `L` levels, `W` tokens of one place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from genrec.data.interactions import Histories
from genrec.models.tokens import TokenLayout
from genrec.models.words import Texts, Words

MANY, FEW = 3, 2  # categories and brands that a preference names


@dataclass(frozen=True, eq=False)
class Examples:
    """items: catalogue rows, int64 [M], -1 where the example is about none. starts, stops: the stretch of the flat training
    events that is told, int64 [M] each. event: training event that the example is about, int64 [M], -1 where it is none.
    taken: whether the item was, bool [M]. shown: catalogue row of an item that was shown before, turns: number of a turn of a
    dialogue, int64 [M] each, -1 where there is none.
    """

    items: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    events: np.ndarray
    taken: np.ndarray
    shown: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    turns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        for name in ("shown", "turns"):  # most tasks have neither
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.full(len(self.items), -1, np.int64))

    def __len__(self) -> int:
        return len(self.items)

    def select(self, numbers: np.ndarray) -> "Examples":
        """Some of the examples (int64 [n])."""
        return Examples(*(column[numbers] for column in self.columns))

    @property
    def columns(self) -> list[np.ndarray]:
        """All of them, in their order."""
        return [getattr(self, column.name) for column in fields(self)]


@dataclass(frozen=True)
class Place:
    """write: token ids of one example, int64 [W]. lengths: at most so many tokens, of all examples, int64 [M]; an example of 0
    has nothing to say here.
    """

    write: Callable[[Examples, int], np.ndarray]
    lengths: Callable[[Examples], np.ndarray]


def make_places(
    histories: Histories,
    codes: np.ndarray,
    layout: TokenLayout,
    words: Words,
    item_texts: Mapping[str, list[str]],
    event_texts: Mapping[str, list[str]],
) -> dict[str, Place]:
    """The places that these data can fill, by name.

    histories: the training part. codes: [N, L]. item_texts: lists of N texts under "title", "description", "category",
    "brand", as far as there are any. event_texts: lists of E texts under "query", "rating", "review", "behaviour".
    """
    tokens, events = layout.to_tokens(codes), histories.items
    places = {
        "history": Place(
            lambda some, n: tokens[events[some.starts[n] : some.stops[n]]].reshape(-1),
            lambda some: layout.levels * (some.stops - some.starts),
        ),
        "item": Place(
            lambda some, n: tokens[some.items[n]], lambda some: np.where(some.items < 0, 0, layout.levels)
        ),
        "taken": verdict(words),
    }  # fmt: skip
    of_items = {name: words.texts(texts) for name, texts in item_texts.items()}
    of_events = {name: words.texts(texts) for name, texts in event_texts.items()}
    if "brand" in of_items or "category" in of_items:
        places["preference"] = preference(events, of_items, words)
        brands, categories = (item_texts.get(name, [""] * len(codes)) for name in ("brand", "category"))
        if "query" not in of_events:
            of_items["query"] = words.texts([f"{brand} {category}" for brand, category in zip(brands, categories, strict=True)])
    for name, texts in of_items.items():
        places[name] = text_of(texts, "items")
    for name, texts in of_events.items():
        places[name] = text_of(texts, "events")
    if "title" in of_items:
        places["titles"] = titles(events, of_items["title"], words)
    if "behaviour" in of_events:
        places["steps"] = steps(events, tokens, of_events["behaviour"])
    return places


def text_of(texts: Texts, number: str) -> Place:
    """The text of an example's item (`number` "items"), of its event ("events") or of its turn ("turns")."""

    def lengths(some: Examples) -> np.ndarray:
        numbers = getattr(some, number)
        return np.where(numbers < 0, 0, texts.lengths[np.maximum(numbers, 0)] if len(texts) else 0)

    return Place(lambda some, n: texts[getattr(some, number)[n]], lengths)


def titles(events: np.ndarray, texts: Texts, words: Words) -> Place:
    """The titles of the items of the stretch, oldest first, with semicolons between them."""
    between = words.literal(";")
    lengths = texts.lengths[events]
    before = np.concatenate([[0], np.cumsum(np.where(lengths > 0, lengths + len(between), 0))])

    def write(some: Examples, n: int) -> np.ndarray:
        told = [texts[item] for item in events[some.starts[n] : some.stops[n]]]
        return joined([title for title in told if len(title)], between)

    return Place(write, lambda some: before[some.stops] - before[some.starts])


def steps(events: np.ndarray, tokens: np.ndarray, behaviours: Texts) -> Place:
    """What was done to each item of the stretch, and the item's codes, oldest first."""
    before = np.concatenate([[0], np.cumsum(behaviours.lengths + tokens.shape[1])])

    def write(some: Examples, n: int) -> np.ndarray:
        told = [part for event in range(some.starts[n], some.stops[n]) for part in (behaviours[event], tokens[events[event]])]
        return np.concatenate([np.zeros(0, np.int64), *told])

    return Place(write, lambda some: before[some.stops] - before[some.starts])


def preference(events: np.ndarray, texts: Mapping[str, Texts], words: Words) -> Place:
    """What prevails in the stretch: its most frequent categories, that of its last item, its most frequent brands."""
    categories, brands = texts.get("category"), texts.get("brand")
    often, lately, by, comma = map(words.literal, (" Mostly:", " Lately:", " Brands:", ","))
    anything = np.any([kind.lengths[events] > 0 for kind in (categories, brands) if kind is not None], axis=0)

    def write(some: Examples, n: int) -> np.ndarray:
        items = events[some.starts[n] : some.stops[n]]
        parts: list[np.ndarray] = []
        if categories is not None:
            parts += _list(often, prevailing(items, categories, MANY), comma)
            parts += _list(lately, prevailing(items[-1:], categories, 1), comma)
        if brands is not None:
            parts += _list(by, prevailing(items, brands, FEW), comma)
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def lengths(some: Examples) -> np.ndarray:
        most = 0
        for kind, least, count in ((categories, len(often) + len(lately), MANY + 1), (brands, len(by), FEW)):
            if kind is not None and len(kind.tokens):
                most += least + count * (int(kind.lengths.max()) + len(comma))
        known = np.concatenate([[0], np.cumsum(anything)])
        return np.where(known[some.stops] > known[some.starts], most, 0)

    return Place(write, lengths)


def verdict(words: Words) -> Place:
    """ "yes" where the item was taken, else "no"."""
    no, yes = words.literal(" no"), words.literal(" yes")
    return Place(lambda some, n: yes if some.taken[n] else no, lambda some: np.where(some.taken, len(yes), len(no)))


def prevailing(items: np.ndarray, texts: Texts, most: int) -> list[np.ndarray]:
    """The most frequent of the items' texts, at most so many; of equally frequent ones that which was met last comes first."""
    counts: dict[bytes, int] = {}
    for item in items[::-1]:
        spelled = texts[item].tobytes()
        if spelled:
            counts[spelled] = counts.get(spelled, 0) + 1
    best = sorted(counts, key=counts.__getitem__, reverse=True)[:most]  # stable: the latest first
    return [np.frombuffer(spelled, np.int32) for spelled in best]


def _list(head: np.ndarray, told: list[np.ndarray], comma: np.ndarray) -> list[np.ndarray]:
    """`head` and what it announces; nothing where there is nothing to announce."""
    return [head, joined(told, comma)] if told else []


def joined(parts: list[np.ndarray], between: np.ndarray) -> np.ndarray:
    """All parts in one array, `between` between them."""
    spaced = [piece for part in parts for piece in (between, part)][1:]
    return np.concatenate([np.zeros(0, np.int64), *spaced])
