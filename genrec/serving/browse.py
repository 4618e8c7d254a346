"""What a person needs to choose by: items found by words of their titles, and the columns that rules can be about.

In: a version of the catalogue. Out: rows, best match first; columns with their kinds and values. The web page asks for both.
"""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter
from pydantic import BaseModel, Field

from genrec.chat.dialogue import Conversation
from genrec.chat.vocabulary import Column, Vocabulary
from genrec.columns import ITEM_ID
from genrec.decoding.live import CatalogueVersion
from genrec.embedding.text import title_column
from genrec.serving.shared import Server

MOST_WORDS = 20  # of a search; more find nothing more
MOST_SHOWN = 1_000  # values of a column, the most frequent ones


class ValueOut(BaseModel):
    value: str
    items: int | None = Field(description="How many items have it; unknown for numbers that are written as text.")


class ColumnOut(BaseModel):
    name: str
    kind: Literal["values", "number", "date"]
    many: bool = Field(description='Whether an item may have several values: then a rule is written `"x" in column`.')
    low: float | None = Field(description="The lowest number; null where it holds no numbers.")
    high: float | None
    values: list[ValueOut] = Field(description=f"Of text: the {MOST_SHOWN} most frequent values at most.")
    different: int = Field(description="How many different values there are.")


class ColumnsOut(BaseModel):
    title: str = Field(description="The column that names an item to people.")
    columns: list[ColumnOut]


def add_browsing(router: APIRouter, server: Server, enter: Any) -> None:
    """Add the route. enter: lets a key in."""

    @router.get("/v1/catalog/columns", dependencies=[enter])
    def columns(model: str | None = None) -> ColumnsOut:
        """The columns that rules can be about, found by their types as in a conversation, with their values."""
        served = server.models.get(model)
        vocabulary = Conversation(served.recommender, vectors=False).vocabulary(served.live.current)
        return columns_out(vocabulary)


def columns_out(vocabulary: Vocabulary) -> ColumnsOut:
    return ColumnsOut(title=vocabulary.title, columns=[_column(column) for column in vocabulary.columns.values()])


def _column(column: Column) -> ColumnOut:
    if column.kind == "number" and column.numbers is None:
        return ColumnOut(
            name=column.name, kind="number", many=False, low=column.low, high=column.high, values=[], different=0
        )  # fmt: skip
    if column.numbers is not None:  # `where` compares text with text: such a rule lists the spellings
        spelled = sorted(column.numbers, key=lambda text: column.numbers[text])  # type: ignore[index]
        values = [ValueOut(value=text, items=None) for text in spelled[:MOST_SHOWN]]
        return ColumnOut(
            name=column.name, kind="values", many=False, low=column.low, high=column.high, values=values, different=len(spelled)
        )  # fmt: skip
    frequent = sorted(column.counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_SHOWN]
    return ColumnOut(
        name=column.name, kind=column.kind, many=column.many, low=None, high=None,
        values=[ValueOut(value=value, items=items) for value, items in frequent], different=len(column.counts),
    )  # fmt: skip


def search_rows(version: CatalogueVersion, query: str, limit: int) -> np.ndarray:
    """Rows of the items that can be found and whose title has every word of `query` in it, ignoring case, or whose id is
    `query`: int64 [at most limit]. The id first, then titles in which the first word stands early, then short titles."""
    words = pc.utf8_lower(pa.scalar(query)).as_py().split()[:MOST_WORDS]  # as the titles are
    if not words:
        return np.zeros(0, np.int64)
    texts = pc.fill_null(pc.cast(version.table.column(title_column(version.table.schema)), pa.string()), "")
    lower = pc.utf8_lower(texts)
    places = [pc.find_substring(lower, word).to_numpy() for word in words]
    same = pc.equal(version.table.column(ITEM_ID), query.strip()).to_numpy()
    rows = np.flatnonzero((np.all([place >= 0 for place in places], axis=0) | same) & version.live)
    lengths = pc.utf8_length(texts).to_numpy()
    order = np.lexsort((rows, lengths[rows], places[0][rows], ~same[rows]))
    return rows[order][:limit]
