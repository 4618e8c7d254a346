"""Fit the shipped recipes on the public data sets and print what came of it as Markdown.

    python benchmarks/quality.py --data DATA --out runs/quality beauty office movielens_1m

DATA holds one folder per data set with items.parquet and interactions.parquet. A run that was stopped goes on; a finished one
is only printed. The table names seed, data hashes, time and memory; the commit is the one checked out.
"""

import argparse
import logging
import subprocess
from pathlib import Path

from genrec.bundle import read_bundle
from genrec.fit import fit
from genrec.manifest import MANIFEST
from genrec.recipe import load_recipe

ROOT = Path(__file__).parents[1]
FOLDERS = {"beauty": "amazon2014_beauty", "office": "amazon2014_office", "movielens_1m": "movielens_1m"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("names", nargs="+", choices=FOLDERS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    for name in arguments.names:
        folder, out = arguments.data / FOLDERS[name], arguments.out / name
        if not (out / MANIFEST).exists():
            recipe = load_recipe(ROOT / "training" / "recipes" / f"{name}.yaml")
            fit(folder / "items.parquet", folder / "interactions.parquet", out, recipe)
        print(report(name, out, commit.strip()))


def report(name: str, out: Path, commit: str) -> str:
    """One section of docs/results.md."""
    bundle = read_bundle(out)
    metrics, manifest = bundle.metrics, bundle.manifest
    card = (out / "README.md").read_text(encoding="utf-8")
    table = "\n".join(x for x in card.split("## Measured")[1].split("## Recipe")[0].splitlines() if x.startswith("|"))
    best = metrics["validation"]
    return f"""
### {name}

{table}

| | |
| --- | --- |
| recipe | `training/recipes/{name}.yaml` |
| commit | `{commit}` |
| seed | {manifest["seed"]} |
| items table | `{manifest["data"]["items"][:16]}` |
| interactions table | `{manifest["data"]["interactions"][:16]}` |
| code table | `{bundle.codes.hash[:16]}` |
| model | {metrics["weights"] / 1e6:.2f}M weights |
| validation NDCG@10 | {best["best_ndcg@10"]:.4f} at epoch {best["epoch"]:g} |
| whole fit | {metrics["seconds"] / 60:.0f} min, {metrics["peak_memory_bytes"] / 2**30:.1f} GiB at its peak |
"""


if __name__ == "__main__":
    main()
