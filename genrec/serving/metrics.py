"""What the server counts, in Prometheus' terms. One set per app, so that two in one process do not mix.

Labels name routes, stages and models: never users, items or keys.
"""

from collections.abc import Callable

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Metrics:
    """stage: prepare (ids, rules), queue (waiting for a turn), search, finish (items, explanations)."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        self.requests = Counter("genrec_requests", "Requests answered", ["route", "status"], registry=registry)
        self.latency = Histogram("genrec_request_seconds", "Time to answer", ["route"], registry=registry, buckets=_SECONDS)
        self.stages = Histogram(
            "genrec_stage_seconds", "Time per stage", ["model", "stage"], registry=registry, buckets=_SECONDS
        )
        self.batch = Histogram("genrec_batch_size", "Histories per search", ["model"], registry=registry, buckets=_COUNTS)
        self.waiting = Gauge("genrec_waiting", "Histories waiting or being answered", ["model"], registry=registry)
        self.beam = Histogram("genrec_beam_width", "Widest beam asked for", ["model"], registry=registry, buckets=_COUNTS)
        self.allowed = Histogram(
            "genrec_allowed_items", "Items that the rules of a request leave", ["model"], registry=registry,
            buckets=(0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000),
        )  # fmt: skip
        self.returned = Counter("genrec_returned_items", "Items returned", ["model"], registry=registry)
        self.short = Counter("genrec_short_lists", "Lists shorter than k", ["model"], registry=registry)
        self.unique = Gauge("genrec_unique_items", "Different items returned since the start", ["model"], registry=registry)
        self.version = Gauge("genrec_catalogue_version", "Number of the current version", ["model"], registry=registry)
        self.items = Gauge("genrec_catalogue_items", "Items that can be found", ["model"], registry=registry)
        self.rules = Counter("genrec_rules", "where rules, by whether one was kept", ["model", "cache"], registry=registry)
        self.ready = Gauge("genrec_engine_ready", "1 where the engine takes requests", ["model"], registry=registry)
        self.events = Counter("genrec_events", "Events written", ["model"], registry=registry)
        self._seen: dict[str, np.ndarray] = {}

    def observe(self, model: str, name: str, value: float) -> None:
        """What an engine tells: "queue_seconds", "search_seconds" or "batch_size"."""
        if name == "batch_size":
            self.batch.labels(model).observe(value)
        else:
            self.stages.labels(model, name.removesuffix("_seconds")).observe(value)

    def watch(self, model: str, waiting: Callable[[], float], ready: Callable[[], float], version: Callable[[], float],
              items: Callable[[], float]) -> None:  # fmt: skip
        """What is looked up whenever somebody asks, however they ask."""
        for gauge, look in ((self.waiting, waiting), (self.ready, ready), (self.version, version), (self.items, items)):
            gauge.labels(model).set_function(look)

    def count_rule(self, model: str, hit: bool) -> None:
        """A `where` rule whose items were kept from before, or not."""
        self.rules.labels(model, "hit" if hit else "miss").inc()

    def count_items(self, model: str, rows: np.ndarray) -> None:
        """rows: catalogue rows that were returned."""
        self.returned.labels(model).inc(len(rows))
        seen = self._seen.get(model, np.zeros(0, bool))
        if len(rows) and rows.max() >= len(seen):
            seen = np.concatenate([seen, np.zeros(max(int(rows.max()) + 1, 2 * len(seen)) - len(seen), bool)])
        self.unique.labels(model).inc(len(np.unique(rows[~seen[rows]])))
        seen[rows] = True
        self._seen[model] = seen

    def text(self) -> bytes:
        return generate_latest(self.registry)
