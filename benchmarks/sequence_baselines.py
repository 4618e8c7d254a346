"""SASRec with the full softmax and BSARec on a data set, leave-one-out, full ranking: the trained baselines by item ids alone.

    python benchmarks/sequence_baselines.py --items items.parquet --interactions interactions.parquet --seeds 0 1 2
    python benchmarks/sequence_baselines.py ... --model bsarec --seeds 0 --epochs 10

Prints a Markdown table: one row per model, seed and protocol. The epoch is chosen by NDCG@10 on validation users, never on
test; `validation` is that NDCG@10, `seconds` the time to train. --epochs also sets the length of the learning-rate schedule.
"""

import argparse
import time
from dataclasses import replace

import numpy as np

from genrec.data.splits import exclude_seen_by_default
from genrec.evaluation.baselines.sequence_ranker import BSAREC, SASREC, SequenceRanker
from genrec.evaluation.evaluate import evaluate
from genrec.recipe import Recipe
from genrec.tables import read_tables, split_histories

MODELS = {"sasrec": SASREC, "bsarec": BSAREC}
HEADER = [
    "model", "seed", "seen items", "recall@5", "recall@10", "ndcg@5", "ndcg@10", "validation", "epoch", "epochs", "weights",
    "seconds",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", required=True)
    parser.add_argument("--interactions", required=True)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, help="at most so many, instead of the model's own number")
    arguments = parser.parse_args()
    tables = read_tables(arguments.items, arguments.interactions, Recipe())
    split = split_histories(tables.interactions.histories(tables.catalogue, "raise"), Recipe())
    print(f"{len(tables.catalogue)} items, {len(split.train)} users, {len(split.test)} test questions, data", end=" ")
    print(", ".join(f"{name} {found[:16]}" for name, found in tables.hashes.items()), flush=True)
    print("| " + " | ".join(HEADER) + " |\n|" + " --- |" * len(HEADER), flush=True)
    for model in arguments.model:
        for seed in arguments.seeds:
            config = replace(MODELS[model], seed=seed, epochs=arguments.epochs or MODELS[model].epochs)
            started = time.perf_counter()
            ranker = SequenceRanker(config).fit(
                split.train, len(tables.catalogue), split.validation, exclude_seen_by_default(split.repeat_share)
            )
            seconds = time.perf_counter() - started
            for protocol, metrics in evaluate(ranker, split.test).metrics.items():
                cells = [
                    model, seed, protocol, *(f"{metrics[name].mean:.4f}" for name in HEADER[3:7]), f"{max(ranker.scores):.4f}",
                    int(np.argmax(ranker.scores)) + 1, len(ranker.scores), f"{ranker.weights / 1e6:.2f}M", f"{seconds:.0f}",
                ]  # fmt: skip
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
