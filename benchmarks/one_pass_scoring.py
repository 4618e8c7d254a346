"""Scoring whole catalogues: users per second and memory of the exact search, and recall and speed of the approximate one.

In: nothing; vectors and codes are drawn at random (seed 0), items in clouds so that cells have something to find. Out: a
Markdown row per catalogue size and way to score: users per second, recall, peak memory so far, GiB. The graph is RPG's search
along neighbours with the settings of its paper for Beauty; it is not built beyond 100,000 items unless asked. The cells keep a
second copy of the vectors and are not built beyond 2 million.

    python benchmarks/one_pass_scoring.py --items 10000 100000 1000000 [--users 64] [--repeat 3]
    python benchmarks/one_pass_scoring.py --items 10000000
"""

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from genrec.decoding.allowed import Allowed
from genrec.decoding.approximate import CellSearch, recall
from genrec.decoding.graph import ItemGraph, graph_recall, picked_dots
from genrec.decoding.scoring import best_rows, dots, sums

WIDTH, CODES, SIZE, CLOUDS, K = 128, 16, 256, 1000, 10
PROBES = 16
NEIGHBOURS, BEAM, ROUNDS = 100, 10, 3
CELLS_UP_TO = 2_000_000
PIECE = 1_000_000  # items drawn at once


def seconds(work: Callable[[], object], repeat: int) -> float:
    """The best of some runs, after one that does not count."""
    work()
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def draw(items: int, centres: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Vectors of length 1 in clouds, float32 [items, WIDTH], made a piece at a time."""
    keys = np.empty((items, WIDTH), np.float32)
    for start in range(0, items, PIECE):
        piece = keys[start : start + PIECE]
        piece[:] = centres[random.integers(0, CLOUDS, len(piece))]
        piece += 0.7 * random.standard_normal(piece.shape, np.float32)
        piece /= np.linalg.norm(piece, axis=1, keepdims=True)
    return keys


def draw_tokens(items: int, random: np.random.Generator) -> np.ndarray:
    """Where each code of an item stands in the codes of all levels, int32 [items, CODES], made a piece at a time."""
    tokens = np.empty((items, CODES), np.int32)
    for start in range(0, items, PIECE):
        piece = tokens[start : start + PIECE]
        piece[:] = random.integers(0, SIZE, piece.shape) + SIZE * np.arange(CODES)
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--graph-up-to", type=int, default=100_000, help="items: building it for more takes long; 0 for none")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    centres = random.standard_normal((CLOUDS, WIDTH), np.float32)
    print(f"{arguments.users} users at once, k {K}, {torch.get_num_threads()} threads, best of {arguments.repeat}")
    for items in arguments.items:
        keys = draw(items, centres, random)
        asked = centres[random.integers(0, CLOUDS, arguments.users)] + 0.7 * random.standard_normal((arguments.users, WIDTH))
        order = torch.arange(items)
        queries = torch.from_numpy(asked.astype(np.float32))
        log_probs = torch.randn(arguments.users, CODES * SIZE).log_softmax(-1)
        tokens = torch.from_numpy(draw_tokens(items, random))
        by_product, by_sum = dots(queries, torch.from_numpy(keys)), sums(log_probs, tokens)
        counted, everything = torch.ones(items, dtype=torch.bool), Allowed()
        ways: dict[str, Callable[[], object]] = {
            f"products of width {WIDTH}": partial(best_rows, by_product, items, order, len(queries), K, everything, counted),
            f"sums over {CODES} codes": partial(best_rows, by_sum, items, order, len(queries), K, everything),
        }
        shares: dict[str, float] = {}
        if items <= CELLS_UP_TO:
            cells = CellSearch.build(keys, max(1, int(np.sqrt(items))))
            probes = min(PROBES, cells.index.nlist)
            name = f"{cells.index.nlist} cells, {probes} looked at"
            ways[name], shares[name] = partial(cells.best, asked, K, probes), recall(cells, asked, keys, K, probes)
        else:
            print(
                f"{items:,} items: no cells, which would keep a second copy of the vectors; no graph, which is built from them"
            )
        if items <= min(arguments.graph_up_to, CELLS_UP_TO):
            graph, pick = ItemGraph.from_cells(cells, keys, NEIGHBOURS, probes), picked_dots(queries, torch.from_numpy(keys))
            name = f"graph, {NEIGHBOURS} neighbours, {ROUNDS} rounds of {BEAM}"
            ways[name] = partial(graph.best, pick, len(queries), K, BEAM, ROUNDS)
            shares[name] = graph_recall(graph, pick, by_product, len(queries), K, BEAM, ROUNDS)
        for name, work in ways.items():
            rate, found = arguments.users / seconds(work, arguments.repeat), shares.get(name, 1.0)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"| {items:,} | {name} | {rate:,.0f} | {found:.3f} | {peak:.1f} |", flush=True)


if __name__ == "__main__":
    main()
