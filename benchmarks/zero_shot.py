"""Zero-shot across shops: a model fitted on all shops but one recommends in that one, whose items it knows by title alone.

    python benchmarks/zero_shot.py --data DATA --shops beauty office games
    python benchmarks/zero_shot.py --data DATA --shops beauty health office --left-out office --users 4000 --epochs 5 --trained

DATA holds a folder per shop with items.parquet and interactions.parquet. Each shop is left out in turn, or those of --left-out
alone. The recipe is training/recipes/zero_shot.yaml; the epoch is chosen on the shops of the fit, so of the shop that is left
out nothing is seen but its items' texts. It is asked whole, leave-one-out; the baselines are fitted and tuned on its own
training part, which the model does without.

--users: at most so many users of each shop of the fit, and only the items they met: a quick look. --trained: also fit the same
recipe on the shop itself. --set text.encoder=tfidf-svd and the like change the recipe.

Prints a Markdown table: NDCG@10 and Recall@10 of all questions, and of those whose answer is not in the history, where a
repeat-last rule has nothing to give.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.adapt import adapt
from genrec.bundle import BUNDLE
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.data.shops import join_shops
from genrec.data.splits import Targets
from genrec.evaluation.evaluate import Result, evaluate, repeated_targets
from genrec.fit import evaluate_baselines, fit
from genrec.manifest import read_manifest
from genrec.recipe import EvaluationConfig, Recipe, from_text, load_recipe, settings
from genrec.recommender import Recommender
from genrec.tables import Tables, read_tables, split_histories

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "zero_shot.yaml"
FOLDERS = {
    "beauty": "amazon2014_beauty", "clothing": "amazon2014_clothing", "health": "amazon2014_health",
    "office": "amazon2014_office", "games": "amazon2018_games",
}  # fmt: skip
HEADER = [
    "left out", "seed", "ranker", "seen items", "ndcg@10", "recall@10", "questions", "first time: ndcg@10", "recall@10",
    "questions",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shops", nargs="+", choices=FOLDERS, default=list(FOLDERS))
    parser.add_argument("--left-out", nargs="+", choices=FOLDERS)
    parser.add_argument("--users", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--trained", action="store_true")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    if len(arguments.shops) < 2 or not set(arguments.left_out or []) <= set(arguments.shops):
        parser.error("--shops takes at least two, and --left-out some of them.")
    changes = dict(pair.partition("=")[::2] for pair in arguments.set)
    kinds = {name: kind for name, kind, *_ in settings()}
    changes = {name: from_text(kinds[name], value) for name, value in changes.items()}
    changes |= {"training.epochs": arguments.epochs} if arguments.epochs else {}
    shops = {
        name: read_tables(
            *(arguments.data / FOLDERS[name] / f"{table}.parquet" for table in ("items", "interactions")), Recipe()
        )
        for name in arguments.shops
    }
    for name, tables in shops.items():
        hashes = ", ".join(f"{table} {value[:16]}" for table, value in tables.hashes.items())
        print(f"{name}: {len(tables.catalogue)} items, {len(tables.interactions)} events, {hashes}")
    print("\n| " + " | ".join(HEADER) + " |\n|" + " --- |" * len(HEADER), flush=True)
    notes = []
    for left_out in arguments.left_out or arguments.shops:
        for seed in arguments.seeds:
            recipe = load_recipe(RECIPE, changes | {"seed": seed})
            others = {name: some_users(shops[name], arguments.users, seed) for name in shops if name != left_out}
            notes.append(measure(left_out, shops[left_out], others, recipe, arguments.trained))
    print("\n" + "\n".join(notes))


def measure(name: str, shop: Tables, others: dict[str, tuple[Catalogue, Interactions]], recipe: Recipe, trained: bool) -> str:
    """Print the rows of one shop that is left out; what else there is to say."""
    split = split_histories(shop.interactions.histories(shop.catalogue), recipe)
    alone = replace(recipe, evaluation=EvaluationConfig([], max_questions=1))  # measured below
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        there = fit(*join_shops(others), Path(folder) / "others", alone)
        fitted = time.perf_counter()
        here = adapt(there, shop.catalogue.table, Path(folder) / "zero-shot")
        adapted = time.perf_counter()
        known = read_manifest(here, BUNDLE)["adapted_from"]["known_texts"]
        ranker = Recommender.load(here).ranker
        show(name, recipe.seed, "zero-shot", evaluate(ranker, split.test), split.test)
        if ranker.fusion:
            ranker.fusion = None
            show(name, recipe.seed, "zero-shot, without votes", evaluate(ranker, split.test), split.test)
        if trained:
            own = fit(shop.catalogue.table, shop.interactions.table, Path(folder) / "own", alone)
            show(name, recipe.seed, "fitted here", evaluate(Recommender.load(own).ranker, split.test), split.test)
    for result in evaluate_baselines(shop.catalogue, split, recipe, split.test):
        show(name, recipe.seed, result.name, result, split.test)
    items = sum(len(catalogue) for catalogue, _ in others.values())
    users = sum(len(pc.unique(events.table.column("user_id"))) for _, events in others.values())
    return (
        f"{name}, seed {recipe.seed}: fitted on {' + '.join(others)} ({items} items, {users} users) "
        f"in {fitted - started:.0f} s, adapted in {adapted - fitted:.0f} s; {known} of {len(shop.catalogue)} items "
        "have a title that the fit knew."
    )


def some_users(shop: Tables, most: int, seed: int) -> tuple[Catalogue, Interactions]:
    """A shop of at most `most` users (0: all), drawn, and of the items that they met."""
    events = shop.interactions.table
    users = np.sort(pc.unique(events.column("user_id")).to_numpy(zero_copy_only=False).astype(str))
    if not most or most >= len(users):
        return shop.catalogue, shop.interactions
    drawn = np.random.default_rng(seed).choice(users, most, replace=False)
    events = events.filter(pc.is_in(events.column("user_id"), pa.array(drawn, pa.string())))
    items = shop.catalogue.table
    items = items.filter(pc.is_in(items.column("item_id"), pc.unique(events.column("item_id"))))
    return Catalogue.from_table(items), Interactions.from_table(events)


def show(left_out: str, seed: int, ranker: str, result: Result, questions: Targets) -> None:
    """One row per protocol."""
    first_time = ~repeated_targets(questions)
    for protocol in result.positions:
        ndcg, recall = (result.per_question(protocol, metric, 10) for metric in ("ndcg", "recall"))
        cells = [
            left_out, seed, ranker, protocol, f"{ndcg.mean():.4f}", f"{recall.mean():.4f}", len(ndcg),
            f"{ndcg[first_time].mean():.4f}", f"{recall[first_time].mean():.4f}", int(first_time.sum()),
        ]  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
