"""Turns of real dialogues: a table of what was said, and which items were recommended then.

In: a table with the columns `context` (the messages before a turn, oldest first, or one text), `response` (the turn itself) and
`item_ids` (what it recommends of the catalogue; an empty list where it only talks); a dialogue ranker reads `dialogue_id` too.
Out: `Dialogues`.

The table is read as it is: genrec cannot know which of its turns somebody will be tested on. Give it training dialogues only,
and split by dialogue: the turns of one repeat its messages.

Legend: `M` turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from genrec.data.catalogue import Catalogue, is_text
from genrec.data.hashing import table_hash
from genrec.data.readers import read_table
from genrec.errors import DataError, nearest

CONTEXT, RESPONSE, ITEM_IDS, DIALOGUE_ID = "context", "response", "item_ids", "dialogue_id"


@dataclass(frozen=True, eq=False)
class Dialogues:
    """contexts: the messages before each turn, oldest first. responses: what was said then. items: catalogue rows that it
    recommends, int64, none where it only talks. dialogues: which dialogue it is of, empty where nobody asked. [M] each."""

    contexts: Sequence[Sequence[str]]
    responses: Sequence[str]
    items: Sequence[np.ndarray]
    dialogues: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.contexts)


def read_dialogues(source: Any, catalogue: Catalogue, ids: bool = False) -> tuple[Dialogues, str]:
    """The table as `Dialogues`, and its hash. ids: also which dialogue each turn is of. Raises `DataError` for a column that is
    missing or of another type, and for items that the catalogue does not have."""
    table = read_table(source)
    columns = {CONTEXT: "text or lists of text", RESPONSE: "text", ITEM_IDS: "lists of item ids"}
    for name, wanted in (columns | ({DIALOGUE_ID: "a text or number for each turn"} if ids else {})).items():
        if name not in table.column_names:
            raise DataError(
                f"The dialogues table must have a column {name!r} with {wanted}, got {table.column_names}."
                f"{nearest(name, table.column_names)}"
            )
        kind = table.column(name).type
        if name == DIALOGUE_ID:
            if table.column(name).null_count:
                raise DataError(f"Column {name!r} of the dialogues table must hold {wanted}, got an empty one.")
            continue
        if not (_is_list(kind) if name == ITEM_IDS else is_text(kind) or (name == CONTEXT and _is_list(kind))):
            raise DataError(f"Column {name!r} of the dialogues table must hold {wanted}, got {kind}.")
    contexts = [[said] if isinstance(said, str) else list(said or []) for said in table.column(CONTEXT).to_pylist()]
    silent = next((row for row, said in enumerate(contexts) if None in said), None)
    if silent is not None:
        raise DataError(f"Column {CONTEXT!r} of the dialogues table must hold texts, got an empty message in row {silent}.")
    named = [list(map(str, some or [])) for some in table.column(ITEM_IDS).to_pylist()]
    rows = catalogue.rows([one for some in named for one in some])
    unknown = [one for one, row in zip((one for some in named for one in some), rows, strict=True) if row < 0]
    if unknown:
        raise DataError(
            f"Column {ITEM_IDS!r} of the dialogues table names {len(unknown)} items that the catalogue does not have (e.g. "
            f"{unknown[0]!r}). Add them to the items table, or leave them out of the lists."
        )
    items = np.split(rows, np.cumsum([len(some) for some in named])[:-1]) if named else []
    responses = [said or "" for said in table.column(RESPONSE).to_pylist()]
    dialogues = [str(one) for one in table.column(DIALOGUE_ID).to_pylist()] if ids else []
    return Dialogues(contexts, responses, items, dialogues), table_hash(table.select([*columns, *([DIALOGUE_ID] * ids)]))


def _is_list(kind: pa.DataType) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and (
        is_text(kind.value_type) or pa.types.is_null(kind.value_type)
    )
