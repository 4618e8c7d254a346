"""One-pass models beside the training-free floor and SASRec, with and without fusion, and what each choice is worth.

    python benchmarks/one_pass_quality.py chosen sasrec --items items.parquet --interactions events.parquet --out runs/race
    python benchmarks/one_pass_quality.py chosen --seeds 0 1 2 ...
    python benchmarks/one_pass_quality.py composed ids codes vectors "loss codes" "history 20" ...
    python benchmarks/one_pass_quality.py rpg recgpt setrec h2rec mixture widths "all items" ada ...

"chosen" is the recipe fused.yaml: composed items with or without vectors, as validation says. Every other row is of one kind of
items and a shipped recipe with some changes: rpg, recgpt, setrec and h2rec their own, all others but sasrec fused.yaml; the
changes are in ROWS. Each is fitted once per seed and measured twice on the test questions, by the model alone and with the
votes, whose weights were chosen on validation (ada takes none: set it beside "all items"). Seeds are the network's: codes are
made once per recipe. Finished fits are only measured.

Prints the data's hashes, Recall and NDCG masked and unmasked, NDCG@10 (masked) with paired tests against the floor, Holm-
corrected, seeds pooled, and what each fit cost: weights, epochs, seconds of training (a busy machine's are longer).
"""

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

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

RECIPES = Path(__file__).parents[1] / "training" / "recipes"
WITH_VOTES = {"fusion.votes": ["cooccurrence", "texts"]}
FIXED = {"one_pass.try_without_vectors": False}  # the recipe tries two kinds of items; a row is of one, but for "chosen"
METHODS = ["rpg", "recgpt", "setrec", "h2rec"]  # recipes of their own
ROWS: dict[str, dict] = {
    "chosen": {"one_pass.try_without_vectors": True},
    "composed": {},
    "ids": {"one_pass.parts": ["id"], "one_pass.id_dropout": 0.0},
    "codes": {"one_pass.parts": ["codes"], "one_pass.id_dropout": 0.0},
    "codes and ids": {"one_pass.parts": ["codes", "id"]},
    "vectors": {"one_pass.parts": ["vectors"], "one_pass.id_dropout": 0.0},
    "codes and vectors": {"one_pass.parts": ["codes", "vectors"], "one_pass.id_dropout": 0.0},
    "loss codes": {"one_pass.loss": "codes", "one_pass.sampled": 0},
    "no filter": {"one_pass.filter_weight": 0.0},
    "no id dropout": {"one_pass.id_dropout": 0.0},
    "history 20": {"training.max_history": 20},
    "temperature .05": {"one_pass.temperature": 0.05},
    "temperature .1": {"one_pass.temperature": 0.1},
    "width 64": {"model.hidden_size": 64, "model.feed_forward": 256},
    "layers 1": {"model.layers": 1},
    "dropout .2": {"model.dropout": 0.2},
    "all items": {"one_pass.sampled": 0},
    "mixture": {"one_pass.mixture": 4},
    "widths": {"one_pass.widths": [16, 32, 64]},
    "ada": {"one_pass.rounds": 2, "one_pass.sampled": 0, "fusion.votes": []},
    **dict.fromkeys(METHODS, WITH_VOTES),
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
    costs = ["| row | seed | weights | epochs, the best | seconds of training |", "| --- | --- | --- | --- | --- |"]
    results = evaluate_baselines(tables.catalogue, split, recipe, split.test)
    for row in arguments.rows:
        for seed in arguments.seeds:
            if row == SASREC:
                masked = exclude_seen_by_default(split.repeat_share)
                ranker = TRAINED[SASREC](seed).fit(split.train, len(tables.catalogue), split.validation, masked)
                found = [evaluate(ranker, split.test)]
            else:
                found, cost = measured(row, seed, split, arguments)
                costs.append(cost)
            results += found
            print(report_table(found), flush=True)
    print(comparison_table(compare(results, reference=FLOOR)))
    print("\n".join(costs))


def kept(path: Path, encode: Callable[[], np.ndarray]) -> np.ndarray:
    """The texts as vectors: all recipes encode the same texts in the same way, and it takes longest."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, encode(), allow_pickle=False)
    return np.load(path, allow_pickle=False)


def measured(row: str, seed: int, split, arguments: argparse.Namespace) -> tuple[list[Result], str]:
    """The model alone, and with its votes where it has any; and a line on what the fit cost."""
    tables = {"items": arguments.items, "interactions": arguments.interactions}
    out, recipe_name = arguments.out / f"{row.replace(' ', '_')}-{seed}", row if row in METHODS else "fused"
    path, codes = RECIPES / f"{recipe_name}.yaml", arguments.out / f"codes-{recipe_name}"
    epochs = {} if arguments.epochs is None else {"training.epochs": arguments.epochs}
    recipe = load_recipe(
        path, {"seed": seed, "evaluation.baselines": [], "evaluation.max_questions": 1} | FIXED | epochs | ROWS[row]
    )
    if not (codes / MANIFEST).exists():
        tokenize(**tables, out=codes, recipe=load_recipe(path), once=partial(kept, arguments.out / "text_vectors.npy"))
    if not (out / MANIFEST).exists():
        fit(**tables, out=out, recipe=recipe, codes=codes)
    recommender = Recommender.load(out)
    ranker, metrics = recommender.ranker, recommender.bundle.metrics
    print(json.dumps({"row": row, "seed": seed, **{name: metrics[name] for name in ("validation", "fusion")}}))
    learned, seconds = metrics["validation"], metrics.get("training_seconds")  # fits of older versions do not say
    cost = (
        f"| {row} | {seed} | {metrics['weights']:,} | {len(learned['epochs'])}, {learned['epoch']:.0f} "
        f"| {'-' if seconds is None else f'{seconds:,.0f}'} |"
    )
    fusion, ranker.name = ranker.fusion, row
    ranker.fusion = None
    results = [evaluate(ranker, split.test)]
    if fusion:
        ranker.fusion, ranker.name = fusion, f"{row} + votes"
        results.append(evaluate(ranker, split.test))
    return results, cost


if __name__ == "__main__":
    main()
