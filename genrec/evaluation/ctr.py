"""A click-through task from the data at hand: would this user, with this history, take this item?

In: every user's events in order. Out: `CtrTask`, impressions (history, candidate item, label) to train, validate and test on,
cut as the package cuts everything else. Two sources of labels:

- rated events: an event rated high is a 1, one rated low a 0; the history is what the user liked before.
- implicit events: every event is a 1, and beside it stands a 0, an item drawn by its training events. What the user passed over
  is not known, so the task carries it in its name: `implicit_popularity_negatives`.

    histories, liked = liked_events(catalogue, read_table("events.parquet"), "rating")
    task = rated_task(histories, liked, leave_one_out)
    task = implicit_popularity_negatives(histories, len(catalogue), leave_one_out, seed=0)

Legend: `E` events, `M` impressions, `B` impressions of a batch, `T` items of the longest history, `N` items.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.catalogue import Catalogue, require_columns
from genrec.data.interactions import EventNumbers, Histories, Interactions
from genrec.data.splits import Split, exclude_seen_by_default
from genrec.errors import DataError, SettingError, check_integer

LIKE, DISLIKE = 4.0, 3.0
ROUNDS = 20  # of drawing again what the user had already, before it is done one by one


@dataclass(frozen=True, eq=False)
class Impressions:
    """histories: what users liked, in full. users: whose impression each is, int64 [M]; stops: how many first events of that
    history came before, int64 [M]; items: candidates, int64 [M], catalogue rows; labels: 0 or 1, int64 [M].
    """

    histories: Histories
    users: np.ndarray
    stops: np.ndarray
    items: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.items)

    @property
    def user_ids(self) -> np.ndarray:
        """Whose impression each is: object [M]."""
        return self.histories.user_ids[self.users]

    def padded(self, chosen: np.ndarray, longest: int) -> np.ndarray:
        """The latest `longest` items before each of the chosen impressions, oldest first, then -1: int64 [B, T]."""
        stops = self.stops[chosen]
        lengths = np.minimum(stops, longest)
        steps = np.arange(max(1, int(lengths.max(initial=1))))
        there = steps < lengths[:, None]
        events = (self.histories.indptr[self.users[chosen]] + stops - lengths)[:, None] + steps
        found = np.full(there.shape, -1, np.int64)
        found[there] = self.histories.items[events[there]]
        return found


@dataclass(frozen=True, eq=False)
class CtrTask:
    """name: of the task, with the source of its labels. split: the name of the split."""

    name: str
    split: str
    train: Impressions
    validation: Impressions
    test: Impressions


def liked_events(
    catalogue: Catalogue, table: pa.Table, rating_column: str, like: float = LIKE, dislike: float = DISLIKE
) -> tuple[Histories, np.ndarray]:
    """All events rated at least `like` or at most `dislike`, and which are the former: (histories with E events, bool [E]).
    Users come in the order of their ids.

    table: interactions with genrec's column names and a numeric column `rating_column`. Events rated between the two, or not at
    all, are left out. Raises `DataError` for a column that is not there or holds no numbers, `SettingError` for `dislike` not
    below `like`.
    """
    if not dislike < like:
        raise SettingError(f"dislike must be below like, got dislike {dislike} and like {like}.")
    require_columns(table, [rating_column], "interactions")
    try:
        ratings = pc.fill_null(table.column(rating_column).cast(pa.float64()), float("nan")).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"Column {rating_column!r} must hold ratings as numbers, got others: {error}. Convert them.") from None
    clear = (ratings >= like) | (ratings <= dislike)
    if not clear.any():
        raise DataError(
            f"Column {rating_column!r} must hold ratings of at least {like:g} or at most {dislike:g}, got none among "
            f"{len(ratings)}. Choose other bounds."
        )
    interactions, ratings = Interactions.from_table(table.filter(pa.array(clear))), ratings[clear]
    # The order inside users is that of `histories`; with numbers of events in place of items it says which event stands where.
    numbers, histories = interactions.histories(EventNumbers()), interactions.histories(catalogue)
    by_id = np.argsort(histories.user_ids.astype(str), kind="stable")
    return histories.select(by_id), ratings[numbers.select(by_id).items] >= like


def rated_task(
    histories: Histories, liked: np.ndarray, split: Callable[[Histories], Split], name: str = "rated_events"
) -> CtrTask:
    """Every event is an impression, labelled by `liked` [E]; the history is what its user liked before. An event before which
    nothing was liked is none. split: `leave_one_out`, or a cut in time. Raises `DataError` for parts with one label only.
    """
    if len(liked) != len(histories.items):
        raise DataError(f"liked must say of each of {len(histories.items)} events whether it was, got {len(liked)} values.")
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    before = np.concatenate([[0], np.cumsum(liked)])  # liked events before each event, of all users together
    likes = Histories(histories.user_ids, before[histories.indptr], histories.items[liked], histories.times[liked])
    stops = before[:-1] - likes.indptr[owner]
    name_of_split, parts = _parts(histories, split)

    def impressions(events: np.ndarray) -> Impressions:
        events = events[stops[events] > 0]
        return Impressions(likes, owner[events], stops[events], histories.items[events], liked[events].astype(np.int64))

    return _checked(CtrTask(name, name_of_split, *map(impressions, parts)))


def implicit_popularity_negatives(
    histories: Histories, items: int, split: Callable[[Histories], Split], seed: int = 0
) -> CtrTask:
    """Every event but a user's first is a 1, and beside it stands a 0: an item drawn by its number of training events.

    It is none that the user had up to then, so that it cannot be told by that; where users repeat items (see
    `exclude_seen_by_default`), only not the event's own. An event for which no such item is left is no impression. items: `N`.
    Users count in the order of their ids, so that draws do not depend on the order of rows.
    """
    check_integer("seed", seed, 0, 2**31 - 1)
    histories = histories.select(np.argsort(histories.user_ids.astype(str), kind="stable"))
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    places = np.arange(len(histories.items)) - histories.indptr[owner]
    name_of_split, parts = _parts(histories, split)
    counts = np.bincount(histories.items[parts[0]], minlength=items)
    repeats = not exclude_seen_by_default(split(histories).repeat_share)
    random = np.random.default_rng(seed)

    def impressions(events: np.ndarray) -> Impressions:
        events = events[places[events] > 0]
        drawn = draw_unmet(histories, events, counts, repeats, random)
        events, drawn = events[drawn >= 0], drawn[drawn >= 0]
        both = np.tile(events, 2)
        labels = np.repeat([1, 0], len(events))
        return Impressions(histories, owner[both], places[both], np.concatenate([histories.items[events], drawn]), labels)

    return _checked(CtrTask("implicit_popularity_negatives", name_of_split, *map(impressions, parts)))


def _parts(histories: Histories, split: Callable[[Histories], Split]) -> tuple[str, list[np.ndarray]]:
    """The name of the split, and the events of training, validation and test: int64 arrays of numbers 0 .. E - 1."""
    cut = split(replace(histories, items=np.arange(len(histories.items))))
    return cut.name, [cut.train.items, cut.validation.items, cut.test.items]


def draw_unmet(
    histories: Histories, events: np.ndarray, counts: np.ndarray, repeats: bool, random: np.random.Generator
) -> np.ndarray:
    """One item per event, drawn by `counts` [N] from those that its user had not met then: int64, -1 where none is left."""
    width = len(counts)
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    met, first = np.unique(owner * width + histories.items, return_index=True)  # (user, item) and the event where it began
    total = np.cumsum(counts)
    drawn = np.full(len(events), -1, np.int64)
    waiting = np.arange(len(events)) if total[-1] else np.zeros(0, np.int64)
    for _ in range(ROUNDS):
        asking = events[waiting]
        tried = np.searchsorted(total, random.integers(0, total[-1], len(waiting)), side="right") if len(waiting) else waiting
        if repeats:
            had = tried == histories.items[asking]
        else:
            key = owner[asking] * width + tried
            place = np.minimum(np.searchsorted(met, key), len(met) - 1)
            had = (met[place] == key) & (first[place] <= asking)
        drawn[waiting[~had]] = tried[~had]
        waiting = waiting[had]
    for place in waiting:  # users who had nearly everything
        event = events[place]
        left = counts.astype(np.float64)
        begin = event if repeats else histories.indptr[owner[event]]
        left[histories.items[begin : event + 1]] = 0
        if left.any():
            drawn[place] = random.choice(width, p=left / left.sum())
    return drawn


def _checked(task: CtrTask) -> CtrTask:
    for part in ("train", "validation", "test"):
        labels = getattr(task, part).labels
        if len(np.unique(labels)) < 2:
            raise DataError(
                f"The {part} part of the task {task.name!r} must have impressions with both labels, got {len(labels)} with "
                f"{len(np.unique(labels))}. Bring more users or longer histories, or other bounds for the ratings."
            )
    return task
