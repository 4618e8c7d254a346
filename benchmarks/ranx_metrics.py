"""Hold genrec's metrics against ranx, question by question. Not a test: ranx compiles itself for a minute and brings numba.

pip install -c constraints.txt ranx==0.3.21
python benchmarks/ranx_metrics.py
"""

import argparse

import numpy as np
import ranx

from genrec.evaluation.metrics import METRICS, hit_positions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--items", type=int, default=30)
    parser.add_argument("--ks", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    rows = np.stack([random.permutation(arguments.items)[: max(arguments.ks)] for _ in range(arguments.questions)])
    rows[np.arange(rows.shape[1]) >= random.integers(0, rows.shape[1] + 1, len(rows))[:, None]] = -1
    targets = random.integers(0, arguments.items, len(rows))
    # Scores fall strictly, so ties are no question. Names sort as numbers do, since ranx sorts them. An item of no catalogue
    # stands in for an empty list.
    names = [f"q{i:09}" for i in range(len(rows))]
    lists = [{f"i{row}": -float(place) for place, row in enumerate(line) if row >= 0} or {"none": 0.0} for line in rows]
    answers = ranx.Qrels({name: {f"i{target}": 1} for name, target in zip(names, targets, strict=True)})
    run = ranx.Run(dict(zip(names, lists, strict=True)))
    positions = hit_positions(rows, targets)
    print("| metric | genrec | ranx | largest difference of a question |\n| --- | --- | --- | --- |")
    for k in arguments.ks:
        found = ranx.evaluate(answers, run, [f"{name}@{k}" for name in METRICS], return_mean=False)
        for name, metric in METRICS.items():
            ours, theirs = metric(positions, k), found[f"{name}@{k}"]
            print(f"| {name}@{k} | {ours.mean():.6f} | {theirs.mean():.6f} | {np.abs(ours - theirs).max():.1e} |")


if __name__ == "__main__":
    main()
