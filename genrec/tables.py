"""The two tables of a run, read, checked, hashed and split as the recipe says. Every verb that learns begins here."""

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from genrec.columns import INTERACTION_COLUMNS, ITEM_ID
from genrec.data.catalogue import Catalogue
from genrec.data.dialogues import Dialogues, read_dialogues
from genrec.data.hashing import table_hash
from genrec.data.interactions import EventNumbers, Histories, Interactions
from genrec.data.readers import load_catalogue, load_interactions
from genrec.data.splits import (
    GLOBAL_TIME,
    LEAVE_ONE_OUT,
    USER_HOLDOUT,
    WARM,
    Split,
    global_time,
    leave_one_out,
    user_holdout,
)
from genrec.embedding.text import plain_text
from genrec.errors import DataError
from genrec.recipe import DataConfig, Recipe


@dataclass(frozen=True, eq=False)
class Tables:
    """The two tables, read and checked, with the hashes that name them in every result; and the recipe's dialogues, if any."""

    catalogue: Catalogue
    interactions: Interactions
    hashes: dict[str, str]
    dialogues: Dialogues | None = None


def read_tables(items: Any, interactions: Any, recipe: Recipe) -> Tables:
    """Read and check both tables under the recipe's column names."""
    catalogue = load_catalogue(items, recipe.data.items_columns)
    if len(catalogue) < 2:
        raise DataError("A recommender needs at least 2 items to choose from, got a catalogue of 1.")
    extra = list(dict.fromkeys(recipe.tasks.columns.values()))
    events = load_interactions(interactions, recipe.data.interactions_columns, extra)
    usual = [name for name in events.table.column_names if name in INTERACTION_COLUMNS]
    hashes = {"items": table_hash(catalogue.table), "interactions": table_hash(events.table.select(usual))}
    if extra:
        hashes["task_columns"] = table_hash(events.table.select(extra))
    dialogues = None
    if recipe.tasks.dialogues is not None:
        dialogues, hashes["dialogues"] = read_dialogues(recipe.tasks.dialogues, catalogue)
    return Tables(catalogue, events, hashes | hash_of_vectors(recipe), dialogues)


def hash_of_vectors(recipe: Recipe) -> dict[str, str]:
    """The hash of the user's own item vectors, where the recipe names a file of them. Raises `DataError` when it is not
    there."""
    if not recipe.text.item_vectors:
        return {}
    try:
        with open(recipe.text.item_vectors, "rb") as file:
            return {"item_vectors": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise DataError(f"text.item_vectors {recipe.text.item_vectors!r} cannot be read: {error}") from None


NEEDS = {
    LEAVE_ONE_OUT: "Leave-one-out needs users with 3 events or more. Bring longer histories, or try data.split: global-time.",
    GLOBAL_TIME: "A window asks about events that are not a user's first. Bring longer histories, or larger shares.",
    USER_HOLDOUT: "A user holdout asks held-out users with 2 events or more. Bring more users, or larger shares.",
}


def cut_histories(histories: Histories, data: DataConfig) -> Split:
    """Training, validation and test as the recipe's section `data` says, whatever is left of them."""
    if data.split == LEAVE_ONE_OUT:
        return leave_one_out(histories)
    if data.split == GLOBAL_TIME:
        return global_time(histories, data.validation_share, data.test_share)
    return user_holdout(histories, data.validation_share, data.test_share, data.split_seed)


def training_texts(tables: Tables, recipe: Recipe) -> dict[str, list[str]]:
    """What the columns that the recipe's tasks name say of each training event, "" where nothing: place in a prompt -> texts,
    in the order of the training histories. No other event is looked at.
    """
    if not recipe.tasks.columns:
        return {}
    known = tables.catalogue.rows(tables.interactions.table.column(ITEM_ID)) >= 0
    table = tables.interactions.table.filter(pa.array(known))
    events = cut_histories(Interactions(table).histories(EventNumbers()), recipe.data).train.items
    return {
        place: [plain_text(value) for value in table.column(column).take(pa.array(events)).to_pylist()]
        for place, column in recipe.tasks.columns.items()
    }


def split_histories(histories: Histories, recipe: Recipe) -> Split:
    """Cut as the recipe says. Raises `DataError` when nothing is left to validate or test on."""
    data, split = recipe.data, cut_histories(histories, recipe.data)
    chosen = split.about(data.questions)
    for part in ("validation", "test"):
        found, left = len(getattr(split, part)), len(getattr(chosen, part))
        if not found:
            raise DataError(
                f"The {split.name} split leaves no {part} questions: {len(histories)} users with at most "
                f"{int(histories.lengths.max(initial=0))} events each. {NEEDS[split.name]}"
            )
        if not left:
            raise DataError(
                f"None of the {found} {part} questions of the {split.name} split is {data.questions}: their targets all have "
                f"{'no ' if data.questions == WARM else ''}training events. Ask all of them with data.questions: all."
            )
    return chosen
