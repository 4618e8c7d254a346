"""The tasks: what each asks, in which words, and about which examples.

In: the training part of the histories. Out: `TASKS`. The families are those of LC-Rec (arXiv 2311.09049: next item, item to
text and back, asymmetric, search, preference), of UniMP (arXiv 2403.10667: rating, explanation, search, attributes) and of
RecBench (arXiv 2503.05493: yes or no); the sentences are our own. Several sentences a task, so that none of them is the task.

Legend: `E` training events, `M` examples, `N` items, `U` users.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from genrec.data.dialogues import Dialogues
from genrec.data.interactions import Histories
from genrec.data.splits import exclude_seen_by_default
from genrec.evaluation.ctr import draw_unmet
from genrec.training.tasks.places import Examples
from genrec.training.tasks.prompts import Template


@dataclass(frozen=True, eq=False)
class Given:
    """histories: the training part. items: `N`. max_history: items that a prompt tells at most. seed: of negatives. dialogues:
    turns of real ones, where there is a table."""

    histories: Histories
    items: int
    max_history: int
    seed: int
    dialogues: Dialogues | None = None


def every_item(given: Given) -> Examples:
    """One example for each item of the catalogue, met or not."""
    nothing = np.full(given.items, -1, np.int64)
    zeros = np.zeros(given.items, np.int64)
    return Examples(np.arange(given.items), zeros, zeros, nothing, np.ones(given.items, bool))


def every_next_item(given: Given) -> Examples:
    """One for each training event but a user's first: the item, after the latest `max_history` before it."""
    histories = given.histories
    users = np.repeat(np.arange(len(histories)), histories.lengths)
    place = np.arange(len(histories.items)) - histories.indptr[users]
    events = np.flatnonzero(place > 0)
    starts = events - np.minimum(place[events], given.max_history)
    return Examples(histories.items[events], starts, events, events, np.ones(len(events), bool))


def every_user(given: Given) -> Examples:
    """One for each user: the latest `max_history` training events, about no item."""
    histories = given.histories
    users = np.flatnonzero(histories.lengths)
    stops = histories.indptr[users + 1]
    starts = np.maximum(stops - given.max_history, histories.indptr[users])
    nothing = np.full(len(users), -1, np.int64)
    return Examples(nothing, starts, stops, nothing, np.ones(len(users), bool))


def unmet(given: Given, taken: Examples) -> np.ndarray:
    """For each example an item drawn by training events that its user had not had: int64 [M], -1 where there is none left."""
    histories = given.histories
    counts = np.bincount(histories.items, minlength=given.items)
    repeats = not exclude_seen_by_default(histories.repeat_share())
    return draw_unmet(histories, taken.events, counts, repeats, np.random.default_rng(given.seed))


def taken_or_not(given: Given) -> Examples:
    """Two for each training event but a user's first: its item, and one drawn by training events that the user had not had.

    What the user takes later is not known here, so a drawn item may be just that.
    """
    taken = every_next_item(given)
    drawn = unmet(given, taken)
    there = np.flatnonzero(drawn >= 0)
    both = taken.select(np.concatenate([np.arange(len(taken)), there]))
    is_taken = np.arange(len(both)) < len(taken)
    return Examples(np.concatenate([taken.items, drawn[there]]), both.starts, both.stops, both.events, is_taken)


@dataclass(frozen=True)
class Task:
    """name: as in the recipe. needs: what must be there, in words. examples: which it has. templates: its sentences; those with
    a place that the data cannot fill are left out.
    """

    name: str
    needs: str
    examples: Callable[[Given], Examples]
    templates: tuple[Template, ...]


def sentences(answer: str, *told: str) -> tuple[Template, ...]:
    return tuple(Template(sentence, answer) for sentence in told)


TITLE = "a column with titles in the items table"
FIELDS = "a brand or a category in the items table"

TASKS = (
    Task("prompted_next_item", "histories", every_next_item, sentences(
        "{item}",
        "A shopper has had these items, oldest first: {history}. The next one is",
        "Given the purchases {history}, name the item that comes next:",
        "History: {history}\nNext item:",
        "Someone took {history}, one after the other. What would they take now? Answer:",
        "Continue this list of items by one: {history}",
        "What should be recommended to a customer whose history is {history}? Recommend",
    )),
    Task("text_to_codes", TITLE, every_item, sentences(
        "{item}",
        "An item is called {title}. Its codes are",
        "Which item has the title {title}? It is",
        "Title: {title}\nItem:",
        "Find the item that is described like this: {description}\nItem:",
        "Description: {description}\nCodes:",
        "Title: {title}\nDescription: {description}\nItem:",
        "Write the codes of {title}, of which the shop says: {description}\nCodes:",
    )),
    Task("codes_to_text", TITLE, every_item, (
        *sentences(
            "{title}",
            "What is the item {item} called? It is called",
            "Give the title of {item}:",
            "Item: {item}\nTitle:",
        ),
        *sentences(
            "{description}",
            "What does the shop say of the item {item}? It says:",
            "Item: {item}\nDescription:",
        ),
        *sentences(
            "{title}\n{description}",
            "Give title and description of {item}:",
            "Tell me all about {item}:",
        ),
    )),
    Task("codes_to_title", TITLE, every_next_item, sentences(
        "{title}",
        "A shopper has had {history}. The title of the next item is",
        "After the items {history}, what is the next one called?",
        "History: {history}\nTitle of the next item:",
        "Put into words what someone with the purchases {history} takes next:",
    )),
    Task("titles_to_codes", TITLE, every_next_item, sentences(
        "{item}",
        "A shopper has had: {titles}. The codes of the next item are",
        "Bought so far: {titles}\nNext item:",
        "Someone took, oldest first, {titles}. Which item follows? Answer:",
        "Recommend one item to the owner of {titles}. Recommend",
    )),
    Task("search", FIELDS + ", or tasks.query_column", every_next_item, sentences(
        "{item}",
        "Query: {query}\nItem:",
        "Someone searches for {query}. Show",
        "Which item is it that fits the words {query}? It is",
        "A shopper who has had {history} searches for {query}. Show",
        "History: {history}\nQuery: {query}\nItem:",
        "Owner of {history}, now in need of {query}. Recommend",
        "Preference: {preference}\nQuery: {query}\nItem:",
        "History: {history}\nPreference: {preference}\nQuery: {query}\nItem:",
    )),
    Task("attribute", FIELDS, every_next_item, sentences(
        "{item}",
        "A shopper has had {history} and wants something by {brand}. Recommend",
        "History: {history}\nBrand: {brand}\nItem:",
        "A shopper has had {history} and looks at {category}. Recommend",
        "History: {history}\nCategory: {category}\nItem:",
        "After {history}, the next item is by {brand} and belongs to {category}. It is",
    )),
    Task("preference", FIELDS, every_user, sentences(
        "{preference}",
        "What does a shopper like who has had {history}?",
        "History: {history}\nPreference:",
        "Say in a few words what prevails among {history}:",
        "Describe the taste behind the purchases {history}.",
    )),
    Task("yes_no", "histories", taken_or_not, sentences(
        "{taken}",
        "A shopper has had {history}. Would they take {item}? Answer yes or no:",
        "History: {history}\nCandidate: {item}\nTaken:",
        "Is {item} what comes after {history}?",
        "Someone with the purchases {history} is shown {item}. Do they want it?",
    )),
    Task("rating", "tasks.rating_column", every_next_item, sentences(
        "{rating}",
        "A shopper who has had {history} rates {item}. The rating is",
        "History: {history}\nItem: {item}\nRating:",
        "How does the owner of {history} rate {item}?",
    )),
    Task("explanation", "tasks.review_column", every_next_item, sentences(
        "{review}",
        "A shopper who has had {history} takes {item} and says of it:",
        "History: {history}\nItem: {item}\nReview:",
        "Why does {item} suit, or not suit, the owner of {history}?",
    )),
    Task("behaviour", "tasks.behaviour_column", every_next_item, sentences(
        "{item}",
        "What a shopper did, oldest first: {steps}. Now: {behaviour}",
        "Log: {steps}\nNext: {behaviour}",
        "After {steps}, a shopper does this: {behaviour}. With which item? Answer:",
    )),
)  # fmt: skip
