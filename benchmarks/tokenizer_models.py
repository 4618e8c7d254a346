"""What the same small decoder learns from the codes of each item tokenizer: NDCG@10 on the test set.

    python benchmarks/tokenizer_quality.py --items items.parquet --interactions interactions.parquet --keep runs/codes
    python benchmarks/tokenizer_models.py  --items items.parquet --interactions interactions.parquet --codes runs/codes \\
        --out runs/models --seeds 1 --more-seeds rq_kmeans opq

Every decoder has the same width, depth, epochs and search, chosen for nobody; tokens per item and weights follow from the codes
and are printed. Seeds are the decoder's: the codes stay. A run that was stopped goes on; finished ones are only printed.
"""

import argparse
import logging
from pathlib import Path

import numpy as np

from genrec.bundle import Bundle, read_bundle
from genrec.errors import BundleError
from genrec.fit import fit
from genrec.recipe import load_recipe

DECODER = {
    "model.hidden_size": 64,
    "model.layers": 2,
    "model.heads": 2,
    "model.feed_forward": 256,
    "model.dropout": 0.1,
    "training.batch_tokens": 2048,
    "training.learning_rate": 2e-3,
    "training.patience": 3,
    "training.validation_users": 1000,
    "decoding.beam_width": 20,
    "evaluation.baselines": [],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", required=True, type=Path)
    parser.add_argument("--interactions", required=True, type=Path)
    parser.add_argument("--codes", required=True, type=Path, help="folder of folders of codes")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--questions", type=int, default=5000, help="test questions, drawn at random; 0 for all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--names", nargs="*", metavar="RECIPE", help="only these")
    parser.add_argument("--distillation", type=float, default=0.0, help="weight of training.distillation")
    parser.add_argument("--more-seeds", nargs="*", default=[], metavar="RECIPE", help="train these with three seeds")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = sorted(
        folder.name
        for folder in arguments.codes.iterdir()
        if folder.is_dir() and folder.name in (arguments.names or [folder.name])
    )
    made: dict[str, list[Bundle]] = {}
    for seed in range(3):
        for name in names:
            if seed < (3 if name in arguments.more_seeds else arguments.seeds):
                made.setdefault(name, []).append(trained(name, seed, arguments))
    print(table(made))


def trained(name: str, seed: int, arguments: argparse.Namespace) -> Bundle:
    """The decoder of one recipe and seed, from its folder where it was trained before."""
    distilled = f"-distilled-{arguments.distillation}" if arguments.distillation else ""
    out = arguments.out / f"{name}-{seed}-{arguments.epochs}-epochs{distilled}"
    try:
        return read_bundle(out)
    except BundleError:
        pass
    settings = {
        "seed": seed,
        "training.distillation": arguments.distillation,
        "training.epochs": arguments.epochs,
        "evaluation.max_questions": arguments.questions,
    }
    fit(arguments.items, arguments.interactions, out, load_recipe(None, DECODER | settings), codes=arguments.codes / name)
    return read_bundle(out)


def table(made: dict[str, list[Bundle]]) -> str:
    """Markdown, best first. `sd` is over seeds, the interval a bootstrap over users of the first seed."""
    rows = []
    for name, bundles in made.items():
        results = [bundle.metrics["test"][0] for bundle in bundles]
        masked = [result["metrics"]["masked"] for result in results]
        ndcg, recall = ([one[metric]["mean"] for one in masked] for metric in ("ndcg@10", "recall@10"))
        first = masked[0]["ndcg@10"]
        rows.append((
            float(np.mean(ndcg)),
            [
                name, str(len(bundles)), str(bundles[0].codes.levels), f"{bundles[0].metrics['weights'] / 1e6:.2f}M",
                f"{np.mean(ndcg):.4f}" + (f" (sd {np.std(ndcg, ddof=1):.4f})" if len(ndcg) > 1 else ""),
                f"{first['low']:.4f} to {first['high']:.4f}", f"{np.mean(recall):.4f}",
                f"{np.mean([b.metrics['validation']['best_ndcg@10'] for b in bundles]):.4f}",
                "/".join(f"{b.metrics['validation']['epoch']:g}" for b in bundles),
                f"{np.mean([b.metrics['seconds'] for b in bundles]):.0f}",
            ],
        ))  # fmt: skip
    heads = ["recipe", "seeds", "tokens", "weights", "ndcg@10", "95 %, first seed", "recall@10", "validation", "epoch", "s"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for _, row in sorted(rows, key=lambda found: -found[0])]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
