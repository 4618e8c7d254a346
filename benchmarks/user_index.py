"""What a user index or a user adapter adds: one recipe fitted with and without it, on the same tables, split and seed.

    python benchmarks/user_index.py --items items.parquet --interactions interactions.parquet --out runs/index \\
        --recipe training/recipes/office.yaml --set training.max_history=5 --index 32,32 --adapter mean attention

Prints the data's hashes, the validation score and the epoch of each fit, then Recall and NDCG of all test questions with a
paired test of each against none. The index costs tokens and, in a decoder, half of what an epoch teaches, so give all
fits epochs enough to stop by themselves.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from genrec.bundle import read_bundle
from genrec.data.splits import exclude_seen_by_default
from genrec.evaluation.compare import compare, comparison_table
from genrec.evaluation.evaluate import evaluate, report_table
from genrec.fit import fit
from genrec.manifest import MANIFEST
from genrec.models.config import POOLINGS
from genrec.recipe import Recipe, build, load_recipe
from genrec.recommender import Recommender
from genrec.tables import read_tables, split_histories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", required=True, type=Path)
    parser.add_argument("--interactions", required=True, type=Path)
    parser.add_argument("--recipe", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path, help="folder of the bundles; a finished one is not fitted again")
    parser.add_argument("--index", default="32,32", help="codes per level of the index")
    parser.add_argument("--adapter", nargs="*", default=[], choices=POOLINGS, help="adapters to fit beside it")
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE", help="of all fits")
    arguments = parser.parse_args()
    settings = {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in arguments.set)}
    levels = [int(size) for size in arguments.index.split(",")]
    results = []
    ways: list[tuple[str, str, dict[str, Any]]] = [("without", "without", {})]
    ways.append((f"index {levels}", "indexed", {"model.user_index": levels}))
    ways += [(f"adapter, {pooling}", f"adapted-{pooling}", {"model.user_adapter": pooling}) for pooling in arguments.adapter]
    for name, place, more in ways:
        folder = arguments.out / place
        if not (folder / MANIFEST).exists():
            recipe = load_recipe(
                arguments.recipe, {"evaluation.baselines": [], "evaluation.max_questions": 1} | settings | more
            )
            fit(arguments.items, arguments.interactions, folder, recipe)
        bundle = read_bundle(folder)
        found = bundle.metrics["validation"]
        score = f"NDCG@10 {found['best_ndcg@10']:.4f} at epoch {found['epoch']:g} of {len(found['epochs'])}"
        print(f"{name}: data {bundle.manifest['data']}; validation {score}", flush=True)
        recipe = build(Recipe, bundle.manifest["recipe"], "")
        tables = read_tables(bundle.catalogue.table, arguments.interactions, recipe)
        split = split_histories(tables.interactions.histories(bundle.catalogue, recipe.data.unknown_items), recipe)
        ranker, masked = Recommender(bundle).ranker, exclude_seen_by_default(split.repeat_share)
        ranker.name = name
        results.append(evaluate(ranker, split.test, exclude_seen=(masked,)))
    print(report_table(results))
    print(comparison_table(compare(results, protocol=next(iter(results[0].metrics)), reference="without")))


if __name__ == "__main__":
    main()
