"""Item text: one string per item from a template over the catalogue's columns.

In: a `Catalogue` and a template such as "{title}. Brand: {brand}". Out: N strings. The template is stored with the bundle, so
items that arrive later are written the same way.
"""

import re
import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from genrec.columns import ITEM_ID
from genrec.data.catalogue import Catalogue
from genrec.errors import SettingError, nearest

# Columns that describe an item in words, in the order a reader would want them. "auto" uses those that the catalogue has;
# a catalogue with none of these names gets all its text columns.
DESCRIPTIVE = ("title", "name", "brand", "categories", "category", "price", "year", "features", "description")

CATEGORIES, PROVIDERS = ("category", "categories", "main_category"), ("brand", "seller", "store", "artist", "author")


def default_template(catalogue: Catalogue) -> str:
    """What `template: auto` stands for with this catalogue. Raises `SettingError` when no column holds text."""
    columns = [name for name in DESCRIPTIVE if name in catalogue.field_names]
    if not any(_is_text(catalogue.table.schema.field(name).type) for name in columns):
        columns = [name for name in catalogue.field_names if _is_text(catalogue.table.schema.field(name).type)]
    if not columns:
        raise SettingError(
            "Item vectors come from text, and the items table has no text column besides the id; it has "
            f"{catalogue.table.column_names}. Add a title column, or name columns in text.template."
        )
    return " | ".join("{" + name + "}" for name in columns)


def title_column(schema: pa.Schema) -> str:
    """The column that names an item to people: title or name, else the first one with text, else the id."""
    texts = [field.name for field in schema if field.name != ITEM_ID and _is_text(field.type)]
    return next((name for name in ("title", "name", *texts) if name in schema.names), ITEM_ID)


def labels(table: pa.Table, names: Sequence[str]) -> np.ndarray | None:
    """One label per item from the first of these columns that is there, "" where unknown: object [N]; None where none is.

    Of a list the second entry is taken, where there is one, since the first is often the shop's own.
    """
    name = next((name for name in names if name in table.column_names), None)
    return None if name is None else np.array([_label(value) for value in table.column(name).to_pylist()], object)


def _label(value: Any) -> str:
    if isinstance(value, list):
        return str(value[min(1, len(value) - 1)]) if value else ""
    return str(value or "")


def render(catalogue: Catalogue, template: str) -> list[str]:
    """The text of every item: N strings. Lists are joined with commas, empty values leave nothing behind.

    Raises `SettingError` for a template that names a column the catalogue does not have.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise SettingError(f"text.template is not a template ({error}): {template!r}. Write columns as {{title}}.") from None
    names = [name for _, name, _, _ in parts if name is not None]
    if not names:
        raise SettingError(f"text.template must name at least one column, such as {{title}}, got {template!r}.")
    for name in names:
        if name not in catalogue.table.column_names or name == ITEM_ID:
            raise SettingError(
                f"text.template names the column {name!r}; allowed are {catalogue.field_names}."
                f"{nearest(name, catalogue.field_names)}"
            )
    columns = {name: [plain_text(value) for value in catalogue.table.column(name).to_pylist()] for name in set(names)}
    texts = []
    for row in range(len(catalogue)):
        # A separator whose column is empty goes with it: "A |  | C" would teach the encoder about pipes.
        pieces = [(literal, columns[name][row] if name else "") for literal, name, _, _ in parts]
        text = "".join((literal if value or name_free else "") + value for (literal, value), name_free in
                       zip(pieces, [name is None for _, name, _, _ in parts], strict=True))  # fmt: skip
        texts.append(re.sub(r"^[\s|,;:.-]+", "", re.sub(r"\s+", " ", text)).strip())
    return texts


def narrowed(template: str, columns: Sequence[str]) -> str:
    """`template` for a catalogue that has only these columns: the others go, with the words before them, as they go where they
    are empty. "" where none is left."""
    parts = list(string.Formatter().parse(template))
    if not any(name in columns for _, name, _, _ in parts):
        return ""
    kept = [(literal, name) for literal, name, _, _ in parts if name in (None, *columns)]
    return "".join(
        literal.replace("{", "{{").replace("}", "}}") + ("" if name is None else "{" + name + "}") for literal, name in kept
    )


def plain_text(value: object) -> str:
    """A value of a table in words: "" where there is none, numbers without needless digits, lists with commas."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if value != value else f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(plain_text, value)))
    return str(value).strip()


def _is_text(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
