"""Answers per second and their times over real HTTP, on loopback: genrec's engines beside `generate` behind the same server.

    python benchmarks/serving.py runs/shop                          # torch and generate; vllm too where it is installed
    python benchmarks/serving.py runs/shop --engines torch --clients 16 --beams 50 --seconds 20

Closed loop: every client sends its next request when it has the last answer, one history of 20 items each, top 10; the load
comes from a process of its own. `generate` is Hugging Face's beam search with a trie of dicts, behind the same FastAPI app and
queue, searching what waits in batches as the others do. `vllm-beam` is stock vLLM's own online beam search of the same width,
which knows no catalogue: its illegal sequences are counted. `vllm-beam-tuned`: the same with cache blocks of 32 tokens, the
least that vLLM takes; with its own default on a CPU, 128, a short history never fills a block and every beam reads it again.
Bare: the decoder alone, with one history per client at once.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from genrec.recommender import Recommender, Request
from genrec.serving.engine import TorchEngine


class GenerateRanker:
    """What `TorchEngine` asks of a ranker, answered by `generate`."""

    def __init__(self, recommender: Recommender) -> None:
        from decoding import build_trie

        self.ranker = recommender.ranker
        tokens = self.ranker.layout.to_tokens(self.ranker.snapshot.codes)
        self.trie = build_trie(tokens)
        self.row_of = {tuple(item): row for row, item in enumerate(tokens.tolist())}

    def answer(self, queries: list, snapshot: object) -> list[tuple[np.ndarray, np.ndarray]]:
        from genrec.models.tokens import write_histories

        layout, model, levels = self.ranker.layout, self.ranker.model, self.ranker.layout.levels
        histories = [query.history[-self.ranker.max_history :] for query in queries]
        tokens, mask = write_histories(histories, self.ranker.snapshot.codes, layout)
        length, k = tokens.shape[1], queries[0].k

        def allowed(_: int, sequence: torch.Tensor) -> list[int]:
            node = self.trie
            for token in sequence[length:].tolist():
                node = node.get(token, {})
            return list(node) or [layout.pad]

        output = model.generate(
            input_ids=torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask).long(), num_beams=max(queries[0].widths),
            num_return_sequences=k, max_new_tokens=levels, min_new_tokens=levels, do_sample=False, length_penalty=0.0,
            prefix_allowed_tokens_fn=allowed, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        spelled = output.sequences[:, length:].reshape(len(queries), k, levels).tolist()
        scores = output.sequences_scores.reshape(len(queries), k).numpy()
        rows = [np.array([self.row_of[tuple(item)] for item in items]) for items in spelled]
        return list(zip(rows, scores, strict=True))


def serve(engine: str, bundle: Path, port: int, store: str) -> None:
    """In a process of its own."""
    import uvicorn

    from genrec.serving import server as module
    from genrec.serving.server import ServerSettings, build_app

    torch.set_num_threads(1)
    settings = ServerSettings({"shop": bundle}, store, port=port, engine="vllm" if engine == "vllm" else "torch", timeout=600)
    if engine == "generate":
        module.TorchEngine = lambda ranker, *rest: TorchEngine(  # type: ignore[assignment]
            GenerateRanker(Recommender.load(bundle)), *rest
        )
    uvicorn.run(build_app(settings), host="127.0.0.1", port=port, access_log=False, log_level="warning")


def vllm_own(bundle: Path, folder: Path, port: int, tuned: bool) -> subprocess.Popen:
    """Stock vLLM's OpenAI server on the bundle's weights, without genrec. tuned: blocks of 32 tokens."""
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundle / name, folder)
    config = json.loads((bundle / "config.json").read_text())
    longest = config["max_position_embeddings"]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", str(longest)]
    command += ["--block-size", "32"] if tuned else []
    command += ["--max-logprobs", str(config["vocab_size"]), "--served-model-name", "m"]
    return subprocess.Popen(command, env=os.environ | {"VLLM_PLUGINS": "", "VLLM_CPU_KVCACHE_SPACE": "2"},
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip


def load(
    url: str, bodies: list[dict], clients: int, seconds: float, wrong: Callable[[dict], int]
) -> tuple[list[float], float, int]:
    """Seconds of every answer, of the whole run, and what was `wrong` with the answers."""
    times: list[float] = []
    short = 0
    stop = time.perf_counter() + seconds

    def client(number: int) -> None:
        nonlocal short
        with httpx.Client(timeout=600) as http:
            turn = number
            while time.perf_counter() < stop:
                begun = time.perf_counter()
                response = http.post(url, json=bodies[turn % len(bodies)])
                response.raise_for_status()
                times.append(time.perf_counter() - begun)
                short += wrong(response.json())
                turn += clients

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, time.perf_counter() - begun, short


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engines", nargs="+", default=["torch", "vllm", "vllm-beam", "vllm-beam-tuned", "generate"])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--beams", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recommender = Recommender.load(arguments.bundle)
    ids = recommender.bundle.catalogue.item_ids
    random = np.random.default_rng(arguments.seed)
    histories = [random.choice(ids, 20).tolist() for _ in range(256)]
    about = f"{len(ids)} items, codes {recommender.catalogue.sizes}, bundle {recommender.bundle.hash}, seed {arguments.seed}"
    print(f"{about}, {arguments.rounds} rounds of {arguments.seconds:g} s per cell\n")
    cells: dict[tuple[str, int, int], list[tuple[list[float], float, int]]] = {}
    for turn in range(arguments.rounds):
        for beam in arguments.beams:
            for clients in arguments.clients:
                cells.setdefault(("bare decoder", clients, beam), []).append(
                    ([], bare(recommender, histories[:clients], beam), 0)
                )
        for engine in arguments.engines:
            print(f"round {turn + 1}: {engine}", file=sys.stderr)
            for clients, beam, cell in measure(engine, arguments, recommender, histories):
                print(f"  {clients} clients, beam {beam}: {cell[1]:.1f} answers/s", file=sys.stderr)
                cells.setdefault((engine, clients, beam), []).append(cell)
    print("| engine | clients | beam width | answers/s | p50 ms | p95 ms | p99 ms | short lists or illegal sequences |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (engine, clients, beam), found in cells.items():
        rate = statistics.median(rate for _, rate, _ in found)
        times = [seconds for some, _, _ in found for seconds in some]
        spread = [f"{1000 * float(np.quantile(times, q)):.0f}" if times else "" for q in (0.5, 0.95, 0.99)]
        wrong = sum(wrong for _, _, wrong in found)
        print(f"| {engine} | {clients} | {beam} | {rate:.1f} | {' | '.join(spread)} | {wrong if times else ''} |")


def measure(
    engine: str, arguments: argparse.Namespace, recommender: Recommender, histories: list[list[str]]
) -> Iterator[tuple[int, int, tuple[list[float], float, int]]]:
    """Start an engine; per number of clients and beam: seconds of every answer, answers a second, and what was wrong."""
    if engine.startswith("vllm") and subprocess.run([sys.executable, "-c", "import vllm"], capture_output=True).returncode:
        print(f"{engine} is not installed", file=sys.stderr)
        return
    own = engine.startswith("vllm-beam")
    with tempfile.TemporaryDirectory() as folder:
        port = 8765
        url = f"http://127.0.0.1:{port}"
        process: Any
        if own:
            process = vllm_own(arguments.bundle, Path(folder), port, tuned=engine == "vllm-beam-tuned")
            route = f"{url}/v1/completions"
            wait(f"{url}/health")
        else:
            store, route = f"sqlite:///{folder}/store.db", f"{url}/v1/recommendations"
            process = multiprocessing.get_context("spawn").Process(target=serve, args=(engine, arguments.bundle, port, store))
            process.start()
            wait(f"{url}/readyz")
        wrong = partial(illegal, legal_of(recommender)) if own else not_full
        for beam in arguments.beams:
            bodies = [{"histories": [history], "k": 10, "beam_width": beam, "fields": []} for history in histories]
            if own:
                bodies = own_bodies(recommender, histories, beam)
            load(route, bodies, 2, 1.0, wrong)
            for clients in arguments.clients:
                times, took, bad = load(route, bodies, clients, arguments.seconds, wrong)
                yield clients, beam, (times, len(times) / took, bad)
        process.terminate()
        process.wait() if isinstance(process, subprocess.Popen) else process.join()


def not_full(answer: dict) -> int:
    return len(answer["answers"][0]["items"]) != 10


def illegal(legal: set[tuple[int, ...]], answer: dict) -> int:
    """Sequences of a completion that spell no item."""
    return sum(tuple(choice["token_ids"]) not in legal for choice in answer["choices"])


def legal_of(recommender: Recommender) -> set[tuple[int, ...]]:
    return {tuple(item) for item in recommender.ranker.layout.to_tokens(recommender.ranker.snapshot.codes).tolist()}


def own_bodies(recommender: Recommender, histories: list[list[str]], beam: int) -> list[dict]:
    """The same histories for vLLM's own beam search: as many sequences as the beam is wide, of any tokens."""
    ranker, version = recommender.ranker, recommender.catalogue.current
    bodies = []
    for history in histories:
        codes = ranker.snapshot.codes[version.rows(history)[-ranker.max_history :]]
        prompt = [ranker.layout.start, *ranker.layout.to_tokens(codes).reshape(-1).tolist()]
        bodies.append({"model": "m", "prompt": prompt, "use_beam_search": True, "n": beam, "temperature": 0,
                       "max_tokens": ranker.layout.levels, "ignore_eos": True, "return_token_ids": True})  # fmt: skip
    return bodies


def bare(recommender: Recommender, histories: list[list[str]], beam: int) -> float:
    """Histories a second."""
    prepared = recommender.prepare(histories, Request(k=10, beam_width=beam))
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        recommender.ranker.answer(prepared.queries, prepared.version.snapshot)
        times.append(time.perf_counter() - begun)
    return len(histories) / statistics.median(times[1:])


def wait(url: str) -> None:
    for _ in range(1200):
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.25)
    sys.exit("The server did not start.")


if __name__ == "__main__":
    main()
