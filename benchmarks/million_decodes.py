"""One million decodes over random models, catalogues, filters and overlays: is anything illegal or filtered ever returned?

    python benchmarks/million_decodes.py                  # about a quarter of an hour on one core
    python benchmarks/million_decodes.py --decodes 20000 --seed 7

A decode is one history answered. What may be returned is worked out anew with numpy from the rules alone, never from the
index. Three things are counted: items that are not allowed, items named twice, and lists shorter than min(k, allowed).
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from worlds import FAMILIES, MAX_HISTORY, make_model, make_ranker

from genrec.data.interactions import Histories
from genrec.decoding.diversity import Cap, Groups
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.overlay import Overlay
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Rules, Snapshot

BATCHES_PER_WORLD = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decodes", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    totals = dict.fromkeys(["worlds", "decodes", "items", "not allowed", "twice", "short lists", "above a cap"], 0)
    kinds = {"index": 0, "overlay": 0, "removed rows": 0, "only": 0, "excluded": 0, "seen": 0, "caps": 0}
    families = dict.fromkeys(FAMILIES, 0)
    started = time.time()
    with tqdm(total=arguments.decodes, unit=" decodes", mininterval=5) as bar:
        while totals["decodes"] < arguments.decodes:
            ranker, family = random_world(random)
            totals["worlds"] += 1
            for _ in range(BATCHES_PER_WORLD):
                done = one_batch(random, ranker, totals, kinds)
                families[family] += done
                bar.update(done)
    print(f"seed {arguments.seed}, {time.time() - started:.0f} s")
    for counts in (totals, kinds, families):
        print("; ".join(f"{name} {count:,}" for name, count in counts.items()))
    if totals["not allowed"] or totals["twice"] or totals["short lists"] or totals["above a cap"]:
        sys.exit("Something was returned that must not be.")


def random_world(random: np.random.Generator) -> tuple[BeamRanker, str]:
    """A model, and a catalogue as an index or an overlay, with removed rows or without."""
    make_model.cache_clear()  # every world has its own model
    levels = int(random.integers(1, 9))
    sizes = tuple(int(size) for size in random.integers(1, 60 if levels < 5 else 12, levels))
    items = int(np.exp(random.uniform(0, np.log(3000))))
    codes = random.integers(0, sizes, (items, levels)).astype(np.int32)
    live = None if random.random() < 0.5 else random.random(items) < random.uniform(0.05, 1)
    later = random.random(items) < random.uniform(0, 0.5)
    rows = np.arange(items)
    if random.random() < 0.5 or later.all() or not later.any():
        index: CatalogueIndex | Overlay = CatalogueIndex.build(codes, sizes)
    else:
        parts = [CatalogueIndex.build(codes[part], sizes, rows=rows[part]) for part in (~later, later)]
        index = Overlay.join(*parts)
    family = str(random.choice(FAMILIES))
    return make_ranker(sizes, codes, int(random.integers(1000)), family, Snapshot(index, codes, live)), family


def one_batch(random: np.random.Generator, ranker: BeamRanker, totals: dict, kinds: dict) -> int:
    snapshot = ranker.snapshot
    items = len(snapshot.codes)
    users = int(random.integers(1, 256))
    histories = [random.integers(0, items, random.integers(0, MAX_HISTORY + 4)) for _ in range(users)]
    seen, k = bool(random.random() < 0.5), int(random.integers(1, 11))
    width = k if random.random() < 0.5 else int(random.integers(k, 33))
    mask = np.ones(items, bool) if snapshot.live is None else snapshot.live.copy()
    only = excluded = None
    if random.random() < 0.5:
        only = np.flatnonzero(random.random(items) < random.choice([0.001, 0.02, 0.5, 0.95]))
        mask &= np.isin(np.arange(items), only)
    if random.random() < 0.5:
        excluded = random.integers(0, items, random.integers(0, 600))
        mask[excluded] = False
    caps, brands, most = [], random.integers(0, 5, items), int(random.integers(1, 4))
    if random.random() < 0.1:
        caps = [Cap(Groups(np.arange(items + 1), brands), most)]
    rules = Rules.of(snapshot, only, excluded, caps)
    found, _ = ranker.rank(Histories.from_lists(histories), k, seen, rules, beam_width=width)
    for history, rows in zip(histories, found, strict=True):
        rows = rows[rows >= 0]
        mine = mask
        if seen:
            mine = mask.copy()
            mine[history] = False
        totals["items"] += len(rows)
        totals["not allowed"] += int((~mine[rows]).sum())
        totals["twice"] += len(rows) - len(np.unique(rows))
        if caps:
            counts = np.minimum(np.bincount(brands[mine], minlength=5), most)
            totals["above a cap"] += int((np.bincount(brands[rows], minlength=5) > most).sum())
            totals["short lists"] += len(rows) != min(k, int(counts.sum()))
        else:
            totals["short lists"] += len(rows) != min(k, int(mine.sum()))
    kinds["overlay" if isinstance(snapshot.index, Overlay) else "index"] += users
    for name, used in {"removed rows": snapshot.live is not None, "only": only is not None, "excluded": excluded is not None,
                       "seen": seen, "caps": bool(caps)}.items():  # fmt: skip
        kinds[name] += users * used
    totals["decodes"] += users
    return users


if __name__ == "__main__":
    main()
