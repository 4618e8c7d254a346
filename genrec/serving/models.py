"""Served models: a bundle, its engine and its catalogue's changes since the fit, under one name; swapped while it runs.

In: names and bundle folders. Out: `ServedModel`s. Changes to a catalogue are written to the store before they happen and are
done again at the start, so a server that was killed comes back with the catalogue it had acknowledged.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from genrec.chat.speaker import Speaker
from genrec.decoding.changes import Change
from genrec.decoding.live import CatalogueVersion, LiveCatalogue
from genrec.errors import GenrecError, SettingError, nearest
from genrec.recommender import Recommender
from genrec.serving.engine import ClosedError, Engine
from genrec.serving.store import ConflictError, Store

log = logging.getLogger(__name__)

ATTEMPTS = 5


class UnknownModelError(GenrecError):
    """No model of that name is served."""


class ServedModel:
    """One bundle that answers. Close it when nobody needs it: what it was asked is answered first."""

    def __init__(
        self, name: str, recommender: Recommender, store: Store, engine: Engine, speaker: Speaker | None = None
    ) -> None:
        """speaker: speaks in the chat, where the bundle's own model does."""
        self.name, self.recommender, self.store, self.engine, self.speaker = name, recommender, store, engine, speaker
        self.live = recommender.catalogue
        self.base = recommender.bundle.codes.hash
        self.turn, self._closed = threading.RLock(), False
        bundle = recommender.bundle
        self.architecture, self.weights = bundle.architecture, bundle.metrics["weights"]
        try:
            self.catch_up()
        except BaseException:
            engine.close()
            raise
        self.live.journal = self._write

    def change(self, make: Callable[[LiveCatalogue], CatalogueVersion]) -> CatalogueVersion:
        """Make a change to the catalogue, on top of those that other servers wrote to the store.

        Raises `ConflictError` where another server was faster `ATTEMPTS` times in a row, `ClosedError` after `close`.
        """
        with self.turn:
            if self._closed:
                raise ClosedError(f"Model {self.name} was swapped for another bundle.")
            for _ in range(ATTEMPTS - 1):
                self.catch_up()
                with contextlib.suppress(ConflictError):
                    return make(self.live)
            self.catch_up()
            return make(self.live)

    def catch_up(self) -> int:
        """Do the changes that others wrote to the store. Returns how many."""
        with self.turn:
            done = 0
            for number, change in self.store.changes(self.name, self.base, after=self.live.current.number):
                self.engine.changed(number, change)
                self.live.replay(change)
                done += 1
            return done

    def _write(self, change: Change) -> None:
        number = self.live.current.number + 1
        self.store.add_change(self.name, self.base, number, change)
        self.engine.changed(number, change)

    def table(self, items: list[dict]) -> pa.Table:
        """Items as a table with the types of the catalogue's columns."""
        schema = self.live.current.table.schema
        names = list(dict.fromkeys(name for item in items for name in item))
        try:
            kinds = [
                pa.field(name, schema.field(name).type) if name in schema.names else pa.field(name, pa.string())
                for name in names
            ]
            return pa.Table.from_pylist(items, schema=pa.schema(kinds))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
            raise SettingError(f"The items do not fit the catalogue's columns: {error}. It has {_kinds(schema)}.") from None

    def stop(self) -> None:
        """Take no more changes."""
        with self.turn:
            self._closed = True

    def close(self) -> None:
        """Answer what was asked, then end the engine."""
        self.stop()
        self.engine.close()


def _kinds(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


class Models:
    """The models of a server by name."""

    def __init__(self, load: Callable[[str, Path], ServedModel], folders: dict[str, Path]) -> None:
        if not folders:
            raise SettingError("A server needs at least one bundle.")
        self._load, self._folders = load, folders
        self._served = {name: load(name, folder) for name, folder in folders.items()}
        self._loading = threading.Lock()

    def __iter__(self):  # noqa: ANN204
        return iter(list(self._served.values()))

    def get(self, name: str | None) -> ServedModel:
        """The model of that name; the only one where None."""
        if name is None:
            if len(self._served) > 1:
                raise UnknownModelError(f"Say which model: {', '.join(self._served)}.")
            return next(iter(self._served.values()))
        if name not in self._served:
            raise UnknownModelError(
                f"There is no model {name!r}.{nearest(name, self._served)} There are {', '.join(self._served)}."
            )
        return self._served[name]

    def reload(self, name: str) -> ServedModel:
        """Load the model's folder again and put it in its place. Requests meanwhile are answered by the one or the other."""
        with self._loading:
            old = self.get(name)
            new = self._load(name, self._folders[name])
            with old.turn:  # changes through the old one end here; what they were is read before anybody asks the new one
                new.catch_up()
                self._served[name] = new
                old.stop()
        old.close()
        log.info("Model %s reloaded: bundle %s after %s", name, new.recommender.bundle.hash, old.recommender.bundle.hash)
        return new

    def close(self) -> None:
        for model in self:
            model.close()
