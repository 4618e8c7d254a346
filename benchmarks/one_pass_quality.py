"""One-pass models beside the training-free floor and SASRec, with and without fusion, and what each choice is worth.

    python benchmarks/one_pass_quality.py composed sasrec --items items.parquet --interactions events.parquet --out runs/race
    python benchmarks/one_pass_quality.py composed --seeds 0 1 2 ...
    python benchmarks/one_pass_quality.py composed ids codes vectors "loss codes" "history 20" ...

Every row but sasrec is training/recipes/fused.yaml with the changes named in ROWS. Each is fitted once per seed and measured
twice on the test questions, by the model alone and with the votes, whose weights were chosen on validation. Seeds are the
network's: codes are made once. A fit that was stopped begins anew, finished ones are only measured.

Prints the data's hashes, Recall and NDCG masked and unmasked, and NDCG@10 (masked) with paired tests against the floor, Holm-
corrected, seeds pooled.
"""

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path

from genrec.data.splits import exclude_seen_by_default
from genrec.evaluation.baselines import TRAINED
from genrec.evaluation.compare import compare, comparison_table
from genrec.evaluation.evaluate import Result, evaluate, report_table
from genrec.fit import evaluate_baselines, fit
from genrec.manifest import MANIFEST
from genrec.recipe import Recipe, load_recipe
from genrec.recommender import Recommender
from genrec.tables import read_tables, split_histories
from genrec.tokenize import tokenize

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "fused.yaml"
ROWS: dict[str, dict] = {
    "composed": {},
    "ids": {"one_pass.parts": ["id"], "one_pass.id_dropout": 0.0},
    "codes": {"one_pass.parts": ["codes"], "one_pass.id_dropout": 0.0},
    "vectors": {"one_pass.parts": ["vectors"], "one_pass.id_dropout": 0.0},
    "codes and vectors": {"one_pass.parts": ["codes", "vectors"], "one_pass.id_dropout": 0.0},
    "loss codes": {"one_pass.loss": "codes", "one_pass.sampled": 0},
    "no id dropout": {"one_pass.id_dropout": 0.0},
    "history 20": {"training.max_history": 20},
    "temperature .05": {"one_pass.temperature": 0.05},
    "temperature .1": {"one_pass.temperature": 0.1},
    "width 64": {"model.hidden_size": 64, "model.feed_forward": 256},
    "layers 1": {"model.layers": 1},
    "dropout .2": {"model.dropout": 0.2},
    "all items": {"one_pass.sampled": 0},
}
SASREC, FLOOR = "sasrec", "cooccurrence-tfidf"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", required=True, type=Path)
    parser.add_argument("--interactions", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, help="at most so many, instead of the recipe's")
    parser.add_argument("rows", nargs="+", choices=[*ROWS, SASREC], metavar="ROW", help=", ".join([*ROWS, SASREC]))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = replace(Recipe(), evaluation=replace(Recipe().evaluation, baselines=[FLOOR]))
    tables = read_tables(arguments.items, arguments.interactions, recipe)
    split = split_histories(tables.interactions.histories(tables.catalogue), recipe)
    print(", ".join(f"{name} {found[:16]}" for name, found in tables.hashes.items()), f"seeds {arguments.seeds}", flush=True)
    results = evaluate_baselines(tables.catalogue, split, recipe, split.test)
    for row in arguments.rows:
        for seed in arguments.seeds:
            if row == SASREC:
                masked = exclude_seen_by_default(split.repeat_share)
                ranker = TRAINED[SASREC](seed).fit(split.train, len(tables.catalogue), split.validation, masked)
                results.append(evaluate(ranker, split.test))
            else:
                results += measured(row, seed, split, arguments)
            print(report_table(results[-2:]), flush=True)
    print(comparison_table(compare(results, reference=FLOOR)))


def measured(row: str, seed: int, split, arguments: argparse.Namespace) -> list[Result]:
    """The model alone, and with its votes."""
    tables = {"items": arguments.items, "interactions": arguments.interactions}
    out = arguments.out / f"{row.replace(' ', '_')}-{seed}"
    epochs = {} if arguments.epochs is None else {"training.epochs": arguments.epochs}
    recipe = load_recipe(RECIPE, {"seed": seed, "evaluation.baselines": [], "evaluation.max_questions": 1} | epochs | ROWS[row])
    codes = arguments.out / "codes"
    if not (codes / MANIFEST).exists():
        tokenize(**tables, out=codes, recipe=load_recipe(RECIPE))
    if not (out / MANIFEST).exists():
        fit(**tables, out=out, recipe=recipe, codes=codes)
    recommender = Recommender.load(out)
    ranker, metrics = recommender.ranker, recommender.bundle.metrics
    print(
        json.dumps(
            {"row": row, "seed": seed, **{name: metrics[name] for name in ("validation", "fusion", "seconds", "weights")}}
        )
    )
    fusion, ranker.name = ranker.fusion, row
    ranker.fusion = None
    alone = evaluate(ranker, split.test)
    ranker.fusion, ranker.name = fusion, f"{row} + votes"
    return [alone, evaluate(ranker, split.test)]


if __name__ == "__main__":
    main()
