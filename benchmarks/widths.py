"""What each width of a one-pass bundle is worth and what it costs: quality beside speed and memory.

In: a bundle fitted with `one_pass.widths`, and the events of its fit. Out: a Markdown row per width: NDCG@10 of the questions,
the model alone; users per second of scoring the catalogue and of a whole request; bytes of what is kept of the items.

    python benchmarks/widths.py runs/widths --interactions events.csv [--part validation] [--users 64] [--repeat 3]
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from one_pass_scoring import seconds

from genrec.decoding.allowed import Allowed
from genrec.decoding.one_pass import OnePassRanker, live_rows
from genrec.decoding.scoring import best_rows
from genrec.decoding.snapshot import Query
from genrec.evaluate_bundle import evaluate_bundle
from genrec.recommender import Recommender

K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--interactions", required=True)
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--max-questions", type=int, default=0, help="draw this many questions; 0 for all")
    parser.add_argument("--users", type=int, default=64, help="that are answered together")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    first = Recommender.load(arguments.bundle).ranker
    if not isinstance(first, OnePassRanker):
        parser.error(f"{arguments.bundle} holds no one-pass model")
    rows, random = len(first.snapshot.codes), np.random.default_rng(0)
    queries = [Query(random.integers(0, rows, first.max_history), K, (), True) for _ in range(arguments.users)]
    print(
        f"{rows:,} items, {arguments.users} users at once, k {K}, {torch.get_num_threads()} threads, best of {arguments.repeat}"
    )
    print("| width | NDCG@10 masked | unmasked | scoring, users/s | whole request, users/s | bytes of the items |")
    print("| --- | --- | --- | --- | --- | --- |")
    for width in first.model.shape.widths:
        report = evaluate_bundle(
            arguments.bundle, arguments.interactions, None, arguments.part,
            max_questions=arguments.max_questions, baselines=False, width=width,
        )  # fmt: skip
        metrics = report.evaluation.results[0].to_dict()["metrics"]
        quality = [metrics[protocol]["ndcg@10"]["mean"] for protocol in ("masked", "unmasked")]
        ranker = Recommender.load(arguments.bundle, width=width).ranker
        request = arguments.users / seconds(lambda ranker=ranker: ranker.answer(queries), arguments.repeat)
        scoring = arguments.users / seconds(scoring_of(ranker, queries), arguments.repeat)
        print(f"| {width} | {quality[0]:.4f} | {quality[1]:.4f} | {scoring:,.0f} | {request:,.0f} | {ranker.kept_bytes:,} |")


@torch.inference_mode()
def scoring_of(ranker: OnePassRanker, queries: list[Query]) -> Callable[[], object]:
    """The scoring alone: users and items are vectors already."""
    snapshot = ranker.snapshot.to(ranker.device)
    score_of, _ = ranker._score([query.history for query in queries], snapshot)
    order, live = snapshot.index.rows_in_order.long(), live_rows(snapshot)

    @torch.inference_mode()
    def work() -> object:
        return best_rows(score_of(range(len(queries)), live), len(live), order, len(queries), K, Allowed(), live)

    return work


if __name__ == "__main__":
    main()
