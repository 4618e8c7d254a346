"""Store: events of users, conversations and changes of catalogues, kept so that what was acknowledged survives a crash.

In: events and changes, each with the name of the model they belong to. Out: a user's history, and every change in order. One
database by URL: a SQLite file by default (write-ahead log, synced at every commit), or PostgreSQL for several servers.

    store = Store("sqlite:///runs/serving.db")
    store.add_events("shop", [Event("u1", "B001")])
    store.histories("shop", ["u1"])          # [["B001"]]
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    TimeoutError,
)
from sqlalchemy.schema import CreateIndex, CreateTable

from genrec.decoding.changes import Change
from genrec.errors import GenrecError, SettingError

log = logging.getLogger(__name__)

INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}  # both know ON CONFLICT DO NOTHING
ATTEMPTS = 3
SESSION_DAYS = 30  # a conversation is kept so long after its last turn

_meta = MetaData()
_events = Table(
    "events", _meta,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("model", String, nullable=False),
    Column("user_id", String, nullable=False, index=True),
    Column("item_id", String, nullable=False),
    Column("timestamp", Float, nullable=False),
    Column("event_id", String),
    UniqueConstraint("model", "event_id"),
    sqlite_autoincrement=True,
)  # fmt: skip
_changes = Table(
    "changes", _meta,
    Column("model", String, primary_key=True),
    Column("base", String, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("change", LargeBinary, nullable=False),
    Column("time", Float, nullable=False),
)  # fmt: skip

# digest: names a point in a conversation, and cannot be guessed without having had it.
_sessions = Table(
    "sessions", _meta,
    Column("model", String, primary_key=True),
    Column("digest", String, primary_key=True),
    Column("user_id", String, index=True),
    Column("state", Text, nullable=False),
    Column("time", Float, nullable=False, index=True),
)  # fmt: skip


class StoreError(GenrecError):
    """The database cannot be reached or written."""


class ConflictError(StoreError):
    """Another server changed the same catalogue at the same time."""


@dataclass(frozen=True)
class Event:
    """timestamp: seconds since 1970 (None: now). event_id: names it, so that sending it twice counts once."""

    user_id: str
    item_id: str
    timestamp: float | None = None
    event_id: str | None = None


class Store:
    """One database. Every method is one transaction and may be called from any thread."""

    def __init__(self, url: str) -> None:
        try:
            self.engine = create_engine(url, pool_pre_ping=True, hide_parameters=True)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            reason = str(error).replace(url, "what came")  # it may hold a password
            raise SettingError(
                f"The store must be a database URL such as sqlite:///serving.db or postgresql+psycopg://host/name: {reason}"
            ) from None
        kind = self.engine.dialect.name
        if kind not in INSERT:
            raise SettingError(f"The store must be one of {', '.join(INSERT)}, got {kind}.")
        if kind == "sqlite" and self.engine.url.database in (None, "", ":memory:"):
            raise SettingError("The store must be a file or a server, such as sqlite:///serving.db: memory is not kept.")
        self._insert = INSERT[kind]
        if kind == "sqlite":
            event.listen(self.engine, "connect", _careful)
        for attempt in range(ATTEMPTS):
            try:
                with self.engine.begin() as connection:
                    for table in _meta.sorted_tables:  # not create_all, which asks first: another server may be quicker then
                        connection.execute(CreateTable(table, if_not_exists=True))
                        for index in sorted(table.indexes, key=lambda index: str(index.name)):
                            connection.execute(CreateIndex(index, if_not_exists=True))
                break
            except DBAPIError as error:
                if attempt + 1 == ATTEMPTS:  # else perhaps another server was making the same tables, which PostgreSQL minds
                    raise StoreError(f"The store {self.engine.url!r} cannot be opened: {error.orig}.") from None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self.engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except (DBAPIError, TimeoutError) as error:
            log.error("The store failed: %s", getattr(error, "orig", None) or error)  # here only: it may name hosts
            raise StoreError("The store cannot be reached or written. Nothing of this request was kept.") from None

    def add_events(self, model: str, events: Sequence[Event]) -> int:
        """Write events, all or none; those whose `event_id` is known already are left out. Returns how many were new."""
        now = time.time()
        rows = [{"model": model, **asdict(e), "timestamp": now if e.timestamp is None else e.timestamp} for e in events]
        if not rows:
            return 0
        # The database decides what is known: two servers may be sent the same event at once.
        unless_known = self._insert(_events).on_conflict_do_nothing(index_elements=["model", "event_id"])
        with self._transaction() as connection:
            return len(connection.execute(unless_known.returning(_events.c.number), rows).all())

    def histories(self, model: str, user_ids: Sequence[str], most: int = 10_000) -> list[list[str]]:
        """Each user's last `most` item ids, oldest first; an unknown user has none. Equal timestamps: order of arrival."""
        found: list[list[str]] = []
        with self._transaction() as connection:
            for user_id in user_ids:
                query = (
                    select(_events.c.item_id)
                    .where(_events.c.model == model, _events.c.user_id == user_id)
                    .order_by(_events.c.timestamp.desc(), _events.c.number.desc())
                    .limit(most)
                )
                found.append(list(connection.execute(query).scalars())[::-1])
        return found

    def save_session(self, model: str, digest: str, state: str, user_id: str | None = None) -> None:
        """Keep the state of a conversation, in the place of what was under `digest`; what is older than `SESSION_DAYS` goes."""
        now = time.time()
        row = {"model": model, "digest": digest, "user_id": user_id, "state": state, "time": now}
        put = self._insert(_sessions).on_conflict_do_update(
            index_elements=["model", "digest"], set_={"state": state, "user_id": user_id, "time": now}
        )
        with self._transaction() as connection:
            connection.execute(_sessions.delete().where(_sessions.c.time < now - SESSION_DAYS * 86_400))
            connection.execute(put, row)

    def session(self, model: str, digest: str) -> str | None:
        """The state kept under `digest`, None where there is none."""
        query = select(_sessions.c.state).where(_sessions.c.model == model, _sessions.c.digest == digest)
        with self._transaction() as connection:
            return connection.execute(query).scalar_one_or_none()

    def forget(self, model: str, user_id: str) -> int:
        """Delete everything about a user, conversations too. Returns how many events there were."""
        with self._transaction() as connection:
            connection.execute(_sessions.delete().where(_sessions.c.model == model, _sessions.c.user_id == user_id))
            gone = connection.execute(_events.delete().where(_events.c.model == model, _events.c.user_id == user_id))
            return int(gone.rowcount)

    def count_events(self, model: str) -> int:
        with self._transaction() as connection:
            return int(connection.execute(select(func.count()).where(_events.c.model == model)).scalar_one())

    def add_change(self, model: str, base: str, number: int, change: Change) -> None:
        """Write the change that makes version `number`. base: hash of the code table that the first version has.

        Raises `ConflictError` when that number is there already: somebody else changed the catalogue.
        """
        row = {"model": model, "number": number, "base": base, "change": change.encode(), "time": time.time()}
        try:
            with self._transaction() as connection:
                connection.execute(insert(_changes), row)
        except IntegrityError:
            raise ConflictError(
                f"Version {number} of the catalogue of {model!r} was made by another server. Try again."
            ) from None

    def changes(self, model: str, base: str, after: int = 0) -> Iterator[tuple[int, Change]]:
        """Changes made on top of the code table `base`, in order, with the numbers of the versions they make."""
        query = (
            select(_changes.c.number, _changes.c.change)
            .where(_changes.c.model == model, _changes.c.base == base, _changes.c.number > after)
            .order_by(_changes.c.number)
        )
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        for number, data in rows:
            yield number, Change.decode(data)

    def close(self) -> None:
        self.engine.dispose()


def _careful(connection: Any, _record: Any) -> None:
    """A write-ahead log, so that readers do not wait; every commit on disk before it is acknowledged."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
