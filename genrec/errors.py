"""Errors that a user of genrec can cause, under one base class.

Every message says what is wrong, what is allowed, what came, and how to fix it. Each class also derives from the
built-in exception that callers would expect, so that `except ValueError` keeps working.
"""

import difflib
from collections.abc import Iterable
from numbers import Integral


class GenrecError(Exception):
    """Base class: catch this to catch everything genrec raises on purpose."""


class DataError(GenrecError, ValueError):
    """A table, a file or a row in it cannot be used."""


class SettingError(GenrecError, ValueError):
    """A setting or an argument has a value that is not allowed."""


class UnknownItemError(GenrecError, KeyError):
    """An item id is not in the catalogue."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class BundleError(GenrecError, RuntimeError):
    """A bundle on disk is missing, incomplete, edited, or belongs to something else."""


class MissingDependencyError(GenrecError, ImportError):
    """An optional package is needed and not installed."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """A hint that names the allowed word closest to `word`, or an empty string when none is close."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raise `SettingError` unless `value` is one of `allowed`."""
    allowed = list(allowed)
    if value not in allowed:
        raise SettingError(f"{name} must be one of {allowed}, got {value!r}.{nearest(str(value), allowed)}")


def check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise `SettingError` unless `value` is an integer from `low` to `high` (no upper bound when None)."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)  # NumPy's too
    if not is_integer or value < low or (high is not None and value > high):  # type: ignore[operator]
        bounds = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise SettingError(f"{name} must be an integer {bounds}, got {value!r}.")
