"""Memory and time of reading long interaction tables: what each stage before the training of `genrec fit` takes.

    OMP_NUM_THREADS=1 python benchmarks/history_memory.py --events 5000000 20000000 --out runs/history_memory

A table of so many events over 50,000 items is drawn (seed 0: 20 events a user on average, popular items more often) and written
piece by piece, as a log is: by time, the users mixed. A fresh process then reads it and goes on stage by stage to the first
epoch's batches; this one looks 100 times a second at what it holds. Prints for each stage the CPU seconds and the peak of its
anonymous memory (what the system cannot drop, as it can pages of files; Linux only), and for the whole its bytes an event above
the memory after the imports. `--split` and `--architecture` choose what `fit` would have in its recipe.
"""

import argparse
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ITEMS, PIECE, MEAN_HISTORY = 50_000, 1 << 20, 20
LOOK = 0.01  # seconds between two looks at the memory
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", nargs="+", type=int, default=[5_000_000, 20_000_000])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--split", default="leave-one-out")
    parser.add_argument("--architecture", default="decoder", choices=["decoder", "encoder-decoder"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for events in arguments.events:
        folder = arguments.out / f"{events}-{arguments.seed}"
        if not (folder / "interactions.parquet").exists():
            write_tables(folder, events, arguments.seed)
        measure(folder, events, arguments)


def write_tables(folder: Path, events: int, seed: int) -> None:
    """items.parquet and interactions.parquet, never more than a piece of them in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    names = np.array([f"B{number:07d}" for number in range(ITEMS)], object)
    pq.write_table(pa.table({"item_id": names, "title": [f"thing {n % 997} of kind {n % 89}" for n in range(ITEMS)]}),
                   folder / "items.parquet")  # fmt: skip
    chance = np.cumsum(1 / (10.0 + np.arange(ITEMS)))
    users = max(1, events // MEAN_HISTORY)
    partial = folder / "interactions.partial"
    schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())])
    with pq.ParquetWriter(partial, schema) as writer:
        for start in range(0, events, PIECE):
            size = min(PIECE, events - start)
            who = random.integers(0, users, size)
            what = np.searchsorted(chance, random.random(size) * chance[-1])
            when = 1_600_000_000 + start + random.integers(0, 5000, size)
            user_ids = pa.array(np.char.add("user", who.astype(str)))
            writer.write_table(pa.table([user_ids, pa.array(names[what]), pa.array(when)], schema=schema))
    partial.rename(folder / "interactions.parquet")


def measure(folder: Path, events: int, arguments: argparse.Namespace) -> None:
    """Print one table."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=work, args=(folder, arguments.split, arguments.architecture, arguments.seed, theirs))
    child.start()
    theirs.close()
    print(f"\n{events:,} events, {arguments.split}, {arguments.architecture}, seed {arguments.seed}\n")
    print("| stage | CPU seconds | peak, MiB | bytes an event |\n| --- | --- | --- | --- |")
    before = highest = peak = 0
    began, stage = 0.0, ""
    while True:
        if not ours.poll(LOOK):
            peak = max(peak, anonymous(child.pid))
            continue
        try:
            following, now = ours.recv()
        except EOFError:
            break
        if stage:
            print(f"| {stage} | {now - began:.1f} | {peak / MIB:,.0f} | {(peak - before) / events:.0f} |", flush=True)
            highest = max(highest, peak)
        else:
            before, started = peak, now
        if following.startswith("done"):
            print(f"| all | {now - started:.1f} | {highest / MIB:,.0f} | {(highest - before) / events:.0f} |\n")
            print(f"{before / MIB:,.0f} MiB after the imports; {following}", flush=True)
        stage, began, peak = following, now, anonymous(child.pid)
    child.join()


def anonymous(process: int | None) -> int:
    """Bytes of anonymous memory of a process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def work(folder: Path, split_name: str, architecture: str, seed: int, pipe: Connection) -> None:
    """What `genrec fit` does before its first step, but for the codes; says where it is."""
    from genrec.embedding.collaborative import cooccurrence
    from genrec.evaluation.leaks import check_leaks
    from genrec.recipe import load_recipe
    from genrec.tables import read_tables, split_histories
    from genrec.training.examples import HistoryWindows, LengthBatches
    from genrec.training.targets import HistoryTargets, TargetBatches

    def at(stage: str) -> None:
        pipe.send((stage, time.process_time()))

    recipe = load_recipe(overrides={"data.split": split_name})
    config = recipe.training
    at("read and hash")
    tables = read_tables(folder / "items.parquet", folder / "interactions.parquet", recipe)
    at("histories")
    histories = tables.interactions.histories(tables.catalogue)
    at("split")
    split = split_histories(histories, recipe)
    del histories
    at("leak checks")
    check_leaks(split, tables.hashes["interactions"], {})
    at("counts")
    counts = np.bincount(split.train.items, minlength=len(tables.catalogue))
    at("examples of an epoch")
    if architecture == "decoder":
        windows = HistoryWindows(split.train, config.max_history, config.windows_per_user)
        drawn = read(windows, LengthBatches(windows.lengths, 4, config.batch_tokens, seed))
    else:
        targets = HistoryTargets(split.train, config.max_history)
        drawn = read(targets, TargetBatches(targets, config.targets_per_user, 4, config.batch_tokens, seed))
    at("co-occurrence")
    pairs = cooccurrence(split.train, len(tables.catalogue))
    at(f"done: {len(split.train):,} users, {counts.sum():,} training events, {len(split.test):,} test questions, "
              f"{drawn:,} examples, {pairs.nnz:,} pairs, hash {tables.hashes['interactions'][:16]}")  # fmt: skip
    pipe.close()
    os._exit(0)  # without taking hundreds of megabytes apart


def read(examples, batches) -> int:
    """Cut out every 50th batch of an epoch, as a training does with all of them. Returns the examples of the epoch."""
    found = 0
    for number, batch in enumerate(batches):
        found += len(batch)
        if number % 50 == 0:
            for example in batch:
                examples[example]
    return found


if __name__ == "__main__":
    main()
