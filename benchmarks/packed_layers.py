"""Decoding on a CPU with packed linear layers (genrec/models/packed.py) beside the same bundle with PyTorch's own.

    OMP_NUM_THREADS=1 python benchmarks/packed_layers.py runs/shop

One thread, histories of 20 items, top 10. The two take turns in one process; medians over the rounds, and their ratio.
"""

import argparse
import statistics
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from genrec.recommender import Prepared, Recommender, Request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    packed = Recommender.load(arguments.bundle, "cpu")
    with mock.patch("genrec.bundle.pack_linears"):
        plain = Recommender.load(arguments.bundle, "cpu")
    ids = packed.bundle.catalogue.item_ids
    random = np.random.default_rng(arguments.seed)
    print(f"bundle {packed.bundle.hash}, {len(ids)} items, {arguments.rounds} rounds, seed {arguments.seed}\n")
    print("| users at once | beam width | plain ms | packed ms | ratio |\n| --- | --- | --- | --- | --- |")
    for users in (1, 16, 64):
        for beam in (20, 50):
            histories = [random.choice(ids, 20).tolist() for _ in range(users)]
            prepared = packed.prepare(histories, Request(k=10, beam_width=beam))
            turns = [(seconds(plain, prepared), seconds(packed, prepared)) for _ in range(arguments.rounds + 1)][1:]
            a, b = (1000 * statistics.median(times) for times in zip(*turns, strict=True))
            print(f"| {users} | {beam} | {a:.1f} | {b:.1f} | {a / b:.2f} |", flush=True)


def seconds(recommender: Recommender, prepared: Prepared) -> float:
    begun = time.perf_counter()
    recommender.ranker.answer(prepared.queries, prepared.version.snapshot)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
