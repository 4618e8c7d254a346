"""What is written behind a flag of the command line, as values.

In: text. Out: a name and a number, a list, a mapping. Raises `SettingError`, which says how the flag is written.
"""

from pathlib import Path

from genrec.columns import INTERACTION_COLUMNS, ITEM_ID
from genrec.errors import SettingError, nearest


def cap_of(text: str) -> tuple[str, int]:
    """COLUMN=N of `--max-per`."""
    column, _, most = text.rpartition("=")
    if not column or not most.isdecimal():
        raise SettingError(f"--max-per must be COLUMN=N, such as brand=2, got {text!r}.")
    return column, int(most)


def pool_of(text: str) -> tuple[str, list[Path]]:
    """NAME=FOLDER,FOLDER,... of `--pool`."""
    name, _, folders = text.partition("=")
    if not name or not ids_of(folders):
        raise SettingError(f"--pool must be NAME=FOLDER,FOLDER,..., such as shop=runs/seed0,runs/seed1, got {text!r}.")
    return name, [Path(folder) for folder in ids_of(folders)]


def ids_of(text: str) -> list[str]:
    """ID,ID,...: what stands between the commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def columns_of(pairs: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """`--columns` flags for the items table and for the interactions table."""
    mapping = {}
    for pair in pairs:
        name, equals, yours = pair.partition("=")
        if not (equals and name and yours):
            raise SettingError(f"--columns must be NAME=YOURS, such as user_id=reviewerID, got {pair!r}.")
        if name not in INTERACTION_COLUMNS:
            raise SettingError(
                f"--columns maps {', '.join(INTERACTION_COLUMNS)}; got {name!r}.{nearest(name, INTERACTION_COLUMNS)} "
                "Other columns keep their names; text.template says which are read."
            )
        mapping[name] = yours
    return {name: yours for name, yours in mapping.items() if name == ITEM_ID}, mapping


def bundles_of(texts: list[str]) -> dict[str, Path]:
    """BUNDLE or NAME=BUNDLE of `serve`: name -> folder; the folder's own name where none is given."""
    bundles: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.rpartition("=")
        name = name if equals else Path(folder).resolve().name
        if name in bundles:
            raise SettingError(f"Two bundles are called {name!r}. Write NAME=BUNDLE.")
        bundles[name] = Path(folder)
    return bundles


def filters_of(texts: list[str]) -> dict[str, str]:
    """NAME=RULE of `serve --filter`."""
    filters = {}
    for text in texts:
        name, equals, rule = text.partition("=")
        if not (name and equals and rule):
            raise SettingError(f"--filter must be NAME=RULE, such as 'cheap=price < 10', got {text!r}.")
        filters[name] = rule
    return filters
