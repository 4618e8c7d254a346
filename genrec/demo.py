"""`genrec demo`: the whole way on a synthetic shop, in a few minutes on a laptop.

In: nothing. Out: a bundle, one user's history and recommendations as titles, a small table of results, what to do next.
"""

from pathlib import Path

import pyarrow as pa

from genrec.columns import ITEM_ID, USER_ID
from genrec.data.synthetic import make_shop, write_shop
from genrec.fit import fit
from genrec.recipe import load_recipe
from genrec.recommender import Recommender

USERS, ITEMS, SEED = 3000, 600, 0
SETTINGS = {
    "text.encoder": "tfidf-svd",  # no download, no extra package
    "text.collaborative_weight": 2.0,
    "tokenizer.rq_kmeans.levels": 2,
    "tokenizer.rq_kmeans.codebook_size": 64,
    "model.hidden_size": 64,
    "model.layers": 2,
    "model.heads": 2,
    "model.feed_forward": 256,
    "model.dropout": 0.1,
    "training.epochs": 20,
    "training.batch_tokens": 1024,
    "training.learning_rate": 3e-3,
    "training.validation_users": 500,
}


def run_demo(out: Path) -> None:
    """Fit the shop into `out` (anew each time) and print what came of it."""
    tables = out / "tables"
    write_shop(tables, users=USERS, items=ITEMS, seed=SEED)
    bundle = out / "shop"
    fit(tables / "items.csv", tables / "interactions.csv", bundle, load_recipe(overrides=SETTINGS), overwrite=True)
    recommender = Recommender.load(bundle)
    _, interactions = make_shop(users=USERS, items=ITEMS, seed=SEED)
    user = interactions.table.column(USER_ID)[0].as_py()
    history = interactions.table.filter(pa.compute.equal(interactions.table.column(USER_ID), user)).column(ITEM_ID).to_pylist()
    catalogue = recommender.bundle.catalogue
    print(f"\nUser {user} had, oldest first:")
    for item in catalogue.fields(catalogue.rows(history)):
        print(f"        {item['title']}")
    print("\nNext, by score (log-probability of the item's codes):")
    [recommendations] = recommender.recommend([history], k=5)
    for best in recommendations:
        print(f"  {best.score:6.2f}  {best.fields['title']}")
    card = (bundle / "README.md").read_text(encoding="utf-8")
    print("\nModel against the baselines, test set:\n")
    print("\n".join(line for line in card.split("## Measured")[1].split("## Recipe")[0].splitlines() if line.startswith("|")))
    print(
        f"\nThe bundle lies in {bundle} and the two tables it came from in {tables}. Next:\n"
        f"  genrec recommend {bundle} --history {','.join(history[-2:])}\n"
        "  genrec validate --items YOUR_ITEMS.csv --interactions YOUR_EVENTS.csv\n"
        "  genrec fit --items YOUR_ITEMS.csv --interactions YOUR_EVENTS.csv --out runs/mine"
    )
