"""Time and memory of the catalogue index, from 10^5 to 10^7 items, and how soon additions are visible.

    python benchmarks/catalogue_index.py                     # one core, some minutes; 10^7 items take about 2 GB
    python benchmarks/catalogue_index.py --items 100000 1000000

Random codes, 4 levels of 256. Level: the children of 512 random prefixes with the number of allowed items below each, as one
step of a search with a filter asks for. Additions: 1,000 items with their vectors given, from the call of `add` to a snapshot
that holds them; and the first search on it next to one before. Making vectors from text is not in it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from genrec.codes import CodeTable
from genrec.data.catalogue import Catalogue
from genrec.decoding.allowed import Allowed, Bitmap
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.live import LiveCatalogue

SIZES = (256, 256, 256, 256)
BEAMS, ADDED = 512, 1000


class CodesFromVectors:
    """Stands in for an item tokenizer, whose time depends on its family: a vector is its codes."""

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        return np.asarray(vectors, np.int32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"one thread, device {arguments.device}, seed {arguments.seed}, medians of {arguments.repeats}")
    print("\n| items | build s | with tie order s | bytes an item | load ms | level 0 / 1 / 2 / 3 ms | with a filter ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for items in arguments.items:
        print(index_row(items, arguments), flush=True)
    print("\n| items | 1,000 additions visible after ms | search before ms | first search after ms | merge s |")
    print("| --- | --- | --- | --- | --- |")
    for items in arguments.items:
        if items <= 1_000_000:
            print(additions_row(items, arguments), flush=True)


def index_row(items: int, arguments: argparse.Namespace) -> str:
    random = np.random.default_rng(arguments.seed)
    codes = random.integers(0, SIZES, (items, 4), dtype=np.int32)
    build = seconds(lambda: CatalogueIndex.build(codes, SIZES), 3)
    ranks = random.permutation(items)
    with_ranks = seconds(lambda: CatalogueIndex.build(codes, SIZES, ranks), 3)
    index = CatalogueIndex.build(codes, SIZES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.safetensors"
        index.save(path, "x")
        load = seconds(lambda: CatalogueIndex.load(path, "x"), arguments.repeats)
    index = index.to(arguments.device)
    allowed = Allowed.of(items, [Bitmap.from_mask(random.random(items) < 0.5, arguments.device)])
    plain, filtered = [], []
    for level in range(4):
        prefixes = 1 if level == 0 else len(index.code[level - 1])
        nodes = torch.from_numpy(random.integers(0, prefixes, (1, 1 if level == 0 else BEAMS))).to(arguments.device)
        plain.append(seconds(lambda n=nodes, at=level: index.expand(n, at), 10 * arguments.repeats))
        filtered.append(seconds(lambda n=nodes, at=level: index.expand(n, at, before=allowed.before), 10 * arguments.repeats))
    both = [" / ".join(f"{1000 * t:.2f}" for t in times) for times in (plain, filtered)]
    return (
        f"| {items:,} | {build:.2f} | {with_ranks:.2f} | {index.bytes_per_item:.1f} | {1000 * load:.1f} "
        f"| {both[0]} | {both[1]} |"
    )


def additions_row(items: int, arguments: argparse.Namespace) -> str:
    random = np.random.default_rng(arguments.seed)
    taken = np.unique(random.integers(0, SIZES, (items + items // 10 + ADDED, 4), dtype=np.int32), axis=0)
    taken = random.permutation(taken)[: items + ADDED * arguments.repeats]
    known, coming = taken[:items], taken[items:]
    names = np.char.add("item ", np.arange(len(taken)).astype(str))
    titles = np.char.add("A thing called ", names)
    catalogue = Catalogue(pa.table({"item_id": names[:items], "title": titles[:items], "price": random.random(items)}))
    table = CodeTable(catalogue.item_ids, known, SIZES, "shared", "benchmark")
    visible, searches = [], []
    live = LiveCatalogue(catalogue, table, np.arange(items), lambda: (None, CodesFromVectors()), merge_after=10**9)  # type: ignore[arg-type, return-value]
    before = seconds(lambda: walk_through(live), arguments.repeats)
    for turn in range(arguments.repeats):
        part = slice(turn * ADDED, (turn + 1) * ADDED)
        new = pa.table({"item_id": names[items:][part], "title": titles[items:][part], "price": random.random(ADDED)})
        started = time.perf_counter()
        live.add(new, coming[part])
        visible.append(time.perf_counter() - started)
        started = time.perf_counter()
        walk_through(live)
        searches.append(time.perf_counter() - started)
        rows = live.current.rows(new.column("item_id"))
        found = live.current.snapshot.index.positions(torch.from_numpy(rows), torch.from_numpy(coming[part].astype(np.int64)))
        assert (found >= 0).all(), "all can be found"
    merge = seconds(live.merge, 1)
    return (
        f"| {items:,} | {1000 * statistics.median(visible):.0f} | {1000 * before:.2f} "
        f"| {1000 * statistics.median(searches):.2f} | {merge:.2f} |"
    )


def walk_through(live: LiveCatalogue) -> None:
    """What a search asks of the index: four levels of 50 beams."""
    index = live.current.snapshot.index
    nodes = torch.zeros(1, 1, dtype=torch.int64)
    for level in range(4):
        ids, _, exists = index.expand(nodes, level)
        nodes = ids[exists][:: max(1, int(exists.sum()) // 50)][:50].unsqueeze(0)


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Median of `rounds` after one to warm up."""
    if rounds > 1:
        call()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
