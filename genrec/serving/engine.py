"""Engines: many requests at once in, answers out, one search for all that wait.

In: the queries of a request and the version of the catalogue they were made for. Out: a future of rows and scores. An engine
answers exactly as the ranker's `answer` would, one request after the other; it only decides when and with whom. `TorchEngine`
searches in a thread of this process.

    engine = TorchEngine(recommender.ranker)
    found = engine.submit(prepared.queries, prepared.version).result()
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from genrec.decoding.answers import QueryRanker
from genrec.decoding.changes import Change
from genrec.decoding.explain import weigh_all
from genrec.decoding.live import CatalogueVersion
from genrec.decoding.snapshot import Query, Snapshot
from genrec.errors import GenrecError, check_integer

log = logging.getLogger(__name__)

Found = list[tuple[np.ndarray, np.ndarray]]
Weights = list[list[np.ndarray]]


class BusyError(GenrecError):
    """More is waiting than the engine takes. retry_after: seconds until there is room, as far as the recent past tells."""

    def __init__(self, waiting: int, most: int, retry_after: float) -> None:
        super().__init__(f"The engine has {waiting} histories waiting and takes {most}. Try again in {retry_after:.1f} s.")
        self.retry_after = retry_after


class ClosedError(GenrecError):
    """The engine takes nothing more."""


class Engine(Protocol):
    """What the server needs of an engine."""

    def submit(self, queries: Sequence[Query], version: CatalogueVersion) -> Future[Found]:
        """Rows and scores of each query, best first. Raises `BusyError` when too much waits, `ClosedError` after `close`.

        A future that was cancelled before its turn costs nothing.
        """
        ...

    def weigh(self, queries: Sequence[Query], found: Found, version: CatalogueVersion) -> Future[Weights]:
        """What an explanation is made of, for every row found (see `genrec.decoding.explain.weigh`). Raises as `submit`."""
        ...

    def changed(self, number: int, change: Change) -> None:
        """`change` is about to make version `number`, which must be known when this returns. Told in that order."""
        ...

    @property
    def ready(self) -> bool:
        """Whether a request that comes now would be taken, but for too many that wait."""
        ...

    @property
    def waiting(self) -> int:
        """Histories that wait or are being answered."""
        ...

    def close(self) -> None:
        """Answer what waits, take nothing more, and return when all is done."""
        ...


@dataclass(eq=False)
class _Job:
    """Queries with their snapshot, or other work."""

    size: int
    future: Future[Any]
    queries: Sequence[Query] = ()
    snapshot: Snapshot | None = None
    work: Callable[[], Any] | None = None
    came: float = field(default_factory=time.perf_counter)


class TorchEngine:
    """Searches in one thread. Whatever came while it searched is searched together next, up to `batch` histories at once."""

    def __init__(
        self,
        ranker: QueryRanker,
        batch: int = 64,
        most_waiting: int = 1024,
        observe: Callable[[str, float], None] = lambda name, value: None,
    ) -> None:
        """observe: told ("queue_seconds" | "search_seconds" | "batch_size", value) for every batch."""
        check_integer("batch", batch, 1)
        check_integer("most_waiting", most_waiting, 1)
        self.ranker, self.batch, self.most_waiting, self.observe = ranker, batch, most_waiting, observe
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._waiting, self._closed = 0, False
        self._seconds_each = 0.01  # per history, a moving average: what `retry_after` is made of
        self._thread = threading.Thread(target=self._run, name="genrec-engine", daemon=True)
        self._thread.start()

    def submit(self, queries: Sequence[Query], version: CatalogueVersion) -> Future[Found]:
        return self._put(_Job(len(queries), Future(), queries, version.snapshot))

    def weigh(self, queries: Sequence[Query], found: Found, version: CatalogueVersion) -> Future[Weights]:
        return self.call(lambda: weigh_all(self.ranker, version.snapshot, queries, found))

    def changed(self, number: int, change: Change) -> None:
        """A version brings its own snapshot: there is nothing to do."""

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Run `work`, which uses the model, between searches. Raises as `submit`."""
        return self._put(_Job(1, Future(), work=work))

    @property
    def ready(self) -> bool:
        return not self._closed

    @property
    def waiting(self) -> int:
        return self._waiting

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _put(self, job: _Job) -> Future[Any]:
        with self._changed:
            if self._closed:
                raise ClosedError("The engine is closed.")
            # One request alone may be larger than the queue: it is taken when nothing else waits.
            if self._waiting and self._waiting + job.size > self.most_waiting:
                raise BusyError(self._waiting, self.most_waiting, self._waiting * self._seconds_each)
            self._jobs.append(job)
            self._waiting += job.size
            self._changed.notify_all()
        return job.future

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if not self._jobs:
                    return
                jobs = self._take()
            wanted = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)
            with self._changed:
                self._waiting -= sum(job.size for job in jobs)

    def _take(self) -> list[_Job]:
        """The job that waits longest and others that can be searched with it, in order of arrival."""
        first = self._jobs.popleft()
        jobs, size = [first], first.size
        if first.work is not None:
            return jobs
        left: deque[_Job] = deque()
        for job in self._jobs:
            if job.snapshot is first.snapshot and size + job.size <= self.batch:
                jobs.append(job)
                size += job.size
            else:
                left.append(job)
        self._jobs = left
        return jobs

    def _answer(self, jobs: list[_Job]) -> None:
        started = time.perf_counter()
        for job in jobs:
            self.observe("queue_seconds", started - job.came)
        try:
            results = self._results(jobs)
        except Exception as error:
            if len(jobs) == 1:
                if not isinstance(error, GenrecError):
                    log.exception("A search failed")
                jobs[0].future.set_exception(error)
                return
            for job in jobs:  # one that cannot be answered must not take the others with it
                self._answer([job])
            return
        seconds, size = time.perf_counter() - started, sum(job.size for job in jobs)
        self._seconds_each += 0.1 * (seconds / max(1, size) - self._seconds_each)
        self.observe("search_seconds", seconds)
        self.observe("batch_size", size)
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)

    def _results(self, jobs: list[_Job]) -> list[Any]:
        if jobs[0].work is not None:
            return [jobs[0].work()]
        found = iter(self.ranker.answer([query for job in jobs for query in job.queries], jobs[0].snapshot))
        return [[next(found) for _ in job.queries] for job in jobs]
