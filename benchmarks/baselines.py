"""All baselines on a data set, tuned on validation: Recall and NDCG on test, seen items masked and unmasked, seconds.

    python benchmarks/baselines.py --items items.parquet --interactions interactions.parquet
    python benchmarks/baselines.py ... --names popularity ease als --encoder minilm --seed 1

Leave-one-out. Settings are chosen by NDCG@10 on validation, masked where the users hardly repeat items; test is scored once.
--encoder: what text-neighbours compares, "tfidf" (words) or the vectors of an encoder by its name in a recipe. EASE takes some
minutes on one core for ten thousand items. als and bpr need the extra `baselines`. Prints Markdown tables.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from genrec.data.splits import exclude_seen_by_default
from genrec.embedding.encoders import make_encoder
from genrec.embedding.text import default_template, render
from genrec.evaluation.base import Tunable
from genrec.evaluation.baselines import BASELINES, NEED_TEXTS, check_baselines
from genrec.evaluation.evaluate import evaluate, report_table
from genrec.recipe import Recipe
from genrec.tables import read_tables, split_histories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", required=True, type=Path)
    parser.add_argument("--interactions", required=True, type=Path)
    parser.add_argument("--names", nargs="+", choices=BASELINES, default=list(BASELINES))
    parser.add_argument("--encoder", default="tfidf")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    recipe = Recipe(seed=arguments.seed)
    tables = read_tables(arguments.items, arguments.interactions, recipe)
    split = split_histories(tables.interactions.histories(tables.catalogue), recipe)
    check_baselines(arguments.names, split.train, len(tables.catalogue))
    masked = exclude_seen_by_default(split.repeat_share)
    results, costs = [], []
    for name in arguments.names:
        fitted_on: Any = len(tables.catalogue)
        if name in NEED_TEXTS:
            fitted_on = render(tables.catalogue, default_template(tables.catalogue))
            if name == "text-neighbours" and arguments.encoder != "tfidf":
                fitted_on = np.asarray(make_encoder(arguments.encoder, arguments.seed).fit(fitted_on).encode(fitted_on))
        baseline = BASELINES[name](arguments.seed)
        begun = time.perf_counter()
        baseline.fit(split.train, fitted_on)
        fitted = time.perf_counter()
        if isinstance(baseline, Tunable):
            baseline.tune(split.validation, masked)
        tuned = time.perf_counter()
        results.append(evaluate(baseline, split.test))
        costs.append((name, fitted - begun, tuned - fitted, getattr(baseline, "config", "")))
        print(name, "done", flush=True)
    hashes = ", ".join(f"{table} {value[:16]}" for table, value in tables.hashes.items())
    print(f"\nSeed {arguments.seed}, {hashes}, tuned {'masked' if masked else 'unmasked'}\n")
    print(report_table(results))
    print("\n| baseline | seconds to fit | to tune | chosen |\n| --- | --- | --- | --- |")
    for name, fit, tune, config in costs:
        print(f"| {name} | {fit:.1f} | {tune:.1f} | `{config}` |" if config else f"| {name} | {fit:.1f} | | |")


if __name__ == "__main__":
    main()
