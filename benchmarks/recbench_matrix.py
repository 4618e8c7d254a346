"""Representation x task: what the same small models make of items as ids, texts, semantic vectors and semantic ids.

    python benchmarks/recbench_matrix.py --items items.parquet --interactions interactions.parquet --rating-column rating
    python benchmarks/recbench_matrix.py --items items.parquet --interactions interactions.parquet --encoder tfidf-svd

After RecBench (arXiv 2503.05493), with small models in place of language models. Two tasks on the same users and the same
leave-one-out split: click-through (would the user take this item? Labels are ratings with --rating-column, else each event
stands beside an item drawn by popularity), and next item (rank the whole catalogue, seen items masked). Per task one model and
one setting for all four representations; only the item module differs. Vectors and codes are made from the training part
alone. Grouped AUC (GAUC) needs users with both labels among their test impressions: rated events, with one each, have none.

Prints one Markdown table. Weights are the learned ones. Inference is the median of three runs, on one candidate per user for
clicks and on the whole catalogue for the next item, so the two columns are not to be compared. Seed 0, the last epoch, nothing
chosen on test questions.
"""

import argparse
import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from genrec.columns import INTERACTION_COLUMNS
from genrec.data.interactions import Histories
from genrec.data.readers import load_catalogue, load_interactions, read_table
from genrec.data.splits import Split, leave_one_out
from genrec.evaluation.ctr import CtrTask, implicit_popularity_negatives, liked_events, rated_task
from genrec.evaluation.ctr_model import CtrConfig, CtrResult, measure_ctr, train_ctr
from genrec.evaluation.evaluate import MASKED, Result, evaluate
from genrec.evaluation.next_item_model import NextItemConfig, NextItemModel
from genrec.evaluation.representations import Representation, all_representations
from genrec.recipe import load_recipe
from genrec.tokenize import make_codes, make_vectors

SEED, TIMINGS = 0, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", required=True, type=Path)
    parser.add_argument("--interactions", required=True, type=Path)
    parser.add_argument("--rating-column", help="column of ratings, 4 and more against 3 and less; default: implicit events")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--max-users", type=int, default=0, help="users drawn at random; 0 for all")
    arguments = parser.parse_args()
    catalogue = load_catalogue(arguments.items)
    if arguments.rating_column:
        columns = [*INTERACTION_COLUMNS, arguments.rating_column]
        histories, liked = liked_events(catalogue, read_table(arguments.interactions, only=columns), arguments.rating_column)
    else:
        histories = load_interactions(arguments.interactions).histories(catalogue)
        liked = np.ones(len(histories.items), bool)
    histories, liked = drawn(histories, liked, arguments.max_users)
    split = leave_one_out(histories)
    if arguments.rating_column:
        task = rated_task(histories, liked, leave_one_out)
    else:
        task = implicit_popularity_negatives(histories, len(catalogue), leave_one_out, SEED)

    texts: list[np.ndarray] = []

    def keep(encode: Callable[[], np.ndarray]) -> np.ndarray:
        texts.append(encode())
        return texts[0]

    recipe = load_recipe(None, {"text.encoder": arguments.encoder, "seed": SEED})
    _, vectors = make_vectors(catalogue, split.train, recipe, keep)
    _, codes = make_codes(catalogue, vectors, split.train, recipe)
    rows = [measured(form, task, split, arguments.epochs) for form in all_representations(texts[0], vectors, codes)]
    print(
        f"{len(histories)} users, {len(catalogue)} items, {len(histories.items)} events; encoder {arguments.encoder}; codes "
        f"{codes.sizes}; clicks: {task.name}, {len(task.train)} to learn from, {len(task.test)} to test on, "
        f"{task.test.labels.mean():.3f} of them clicked; questions and candidates {fingerprint(task, split)}; "
        f"{arguments.epochs} epochs\n"
    )
    print(table(rows))


def drawn(histories: Histories, liked: np.ndarray, most: int) -> tuple[Histories, np.ndarray]:
    """`most` users at random with all their events, or all users for 0, in the order of their ids: (histories, liked [E])."""
    events = replace(histories, items=np.arange(len(histories.items)))
    by_id = np.argsort(histories.user_ids.astype(str), kind="stable")
    if 0 < most < len(by_id):
        by_id = by_id[np.sort(np.random.default_rng(SEED).choice(len(by_id), most, replace=False))]
    return histories.select(by_id), liked[events.select(by_id).items]


def measured(form: Representation, task: CtrTask, split: Split, epochs: int) -> tuple[str, list[str]]:
    """One row: (name, cells)."""
    print(f"{form.name} ...", flush=True)
    clicks = CtrConfig(epochs=epochs, seed=SEED)
    begun = time.perf_counter()
    model = train_ctr(task.train, form, clicks)
    learned = time.perf_counter() - begun
    tested = [measure_ctr(model, task.test, clicks) for _ in range(TIMINGS)]
    begun = time.perf_counter()
    ranker = NextItemModel(form, NextItemConfig(epochs=epochs, seed=SEED)).fit(split.train)
    learned_next = time.perf_counter() - begun
    ranked = [evaluate(ranker, split.test, (10,), (True,), progress=False) for _ in range(TIMINGS)]
    return form.name, [*click_cells(tested, learned), *next_cells(ranked, ranker.weights, learned_next)]


def click_cells(tested: list[CtrResult], seconds: float) -> list[str]:
    """Quality, then cost, of the click model."""
    first, milliseconds = tested[0], np.median([one.inference_ms for one in tested])
    return [
        f"{first.auc:.4f}", "-" if np.isnan(first.gauc) else f"{first.gauc:.4f}", f"{first.log_loss:.4f}",
        f"{first.weights:,}", f"{seconds:.1f}", f"{milliseconds:.0f}",
    ]  # fmt: skip


def next_cells(ranked: list[Result], weights: int, seconds: float) -> list[str]:
    """Quality, then cost, of the sequence model."""
    ndcg = ranked[0].metrics[MASKED]["ndcg@10"]
    milliseconds = np.median([1e6 * one.seconds[MASKED] / one.questions for one in ranked])
    return [
        f"{ndcg.mean:.4f}", f"{ndcg.low:.4f} to {ndcg.high:.4f}", f"{weights:,}", f"{seconds:.1f}", f"{milliseconds:.0f}",
    ]  # fmt: skip


def fingerprint(task: CtrTask, split: Split) -> str:
    """What every row of the table was asked, as 12 hex digits."""
    digest = hashlib.sha256()
    for array in (task.test.items, task.test.labels, task.test.stops, split.test.items, split.test.histories.items):
        digest.update(np.ascontiguousarray(array, "<i8").tobytes())
    for names in (task.test.user_ids, split.test.histories.user_ids):
        digest.update("\0".join(names.tolist()).encode())
    return digest.hexdigest()[:12]


def table(rows: list[tuple[str, list[str]]]) -> str:
    """Markdown, a row per representation: clicks first, then the next item."""
    cost = ["weights", "train s", "ms per 1,000 users"]
    heads = ["representation", *(f"CTR {head}" for head in ("AUC", "GAUC", "logloss", *cost))]
    heads += [f"next {head}" for head in ("NDCG@10 masked", "95 %", *cost)]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join([name, *cells]) + " |" for name, cells in rows)])


if __name__ == "__main__":
    main()
