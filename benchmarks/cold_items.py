"""Whether items without any training event compete: composed items on a synthetic shop, with and without what makes them known.

In: nothing. Some items lose all their events before the fit; then the users who took one of them are asked. Out: a Markdown row
per setting: NDCG@10 of the usual test questions, the mean place of the right item among the cold ones, and how often it is
among the best ten of all.

    python benchmarks/cold_items.py [--seed 0]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from genrec.bundle import read_bundle
from genrec.data.synthetic import make_shop
from genrec.fit import fit
from genrec.recipe import load_recipe
from genrec.recommender import Recommender

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "one_pass.yaml"
USERS, ITEMS, COLD, LATEST = 800, 200, 20, 20
SMALL = {
    "text.encoder": "tfidf-svd", "tokenizer.opq.parts": 4, "tokenizer.opq.bits": 3, "model.hidden_size": 32, "model.layers": 1,
    "model.feed_forward": 64, "training.epochs": 8, "training.learning_rate": 1e-2, "training.batch_tokens": 512,
    "training.validation_users": 60, "evaluation.baselines": ["popularity"],
}  # fmt: skip
SETTINGS = {
    "as the defaults are": {"one_pass.id_dropout": 0.0},
    "`id_dropout: 0.1`": {"one_pass.id_dropout": 0.1},
    "`id_dropout: 0.3`": {"one_pass.id_dropout": 0.3},
    "`id_dropout: 0.3`, `cold_id: shared`": {"one_pass.id_dropout": 0.3, "one_pass.cold_id": "shared"},
    "`parts: [codes]`": {"one_pass.id_dropout": 0.0, "one_pass.parts": ["codes"]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    catalogue, interactions = make_shop(users=USERS, items=ITEMS, seed=1 + seed)
    cold = np.random.default_rng(seed).choice(catalogue.item_ids, COLD, replace=False).tolist()
    named = np.array(interactions.table.column("item_id").to_pylist(), object)
    known = interactions.table.filter(pa.array(~np.isin(named, cold)))
    histories, taken = [], []
    for rows in interactions.histories(catalogue).to_lists():
        history = catalogue.item_ids[rows].tolist()
        first = next((place for place, item in enumerate(history) if item in cold), 0)
        if first:
            histories.append(history[max(0, first - LATEST) : first])
            taken.append(history[first])
    print(f"{len(taken)} users, {COLD} cold items of {ITEMS}, seed {seed}")
    for name, changes in SETTINGS.items():
        recipe = load_recipe(RECIPE, SMALL | {"seed": seed} | changes)
        with tempfile.TemporaryDirectory() as folder:
            recommender = Recommender.load(fit(catalogue.table, known, Path(folder) / "shop", recipe))
            usual = read_bundle(Path(folder) / "shop").metrics["test"][0]["metrics"]["masked"]["ndcg@10"]["mean"]
            among = recommender.recommend(histories, k=COLD, only_item_ids=cold)
            best = recommender.recommend(histories, k=10)
        places = [[item.item_id for item in items].index(right) + 1 for items, right in zip(among, taken, strict=True)]
        hits = [right in {item.item_id for item in items} for items, right in zip(best, taken, strict=True)]
        print(f"| {name} | {usual:.3f} | {np.mean(places):.1f} | {100 * np.mean(hits):.0f} % |", flush=True)


if __name__ == "__main__":
    main()
