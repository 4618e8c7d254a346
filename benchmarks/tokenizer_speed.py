"""RQ-KMeans beside the PyPI package `semantic-id` (its RQKMeans) on the same vectors: time, reconstruction, collisions.

    pip install semantic-id==0.2.5
    OMP_NUM_THREADS=2 python benchmarks/tokenizer_speed.py --items 100000 --width 384
    python benchmarks/tokenizer_speed.py --items 1000000 --width 384 --only genrec

Vectors are drawn around centres of centres, so that there are levels to find. The two take turns, each in a process of its own;
medians over the rounds.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from typing import Any

import numpy as np

LEVELS, CODES = 3, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["genrec", "semantic-id"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else ["genrec", "semantic-id"]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name].append(pool.apply(run, (name, arguments.items, arguments.width, arguments.seed)))
            print(name, found[name][-1], flush=True)
    print(
        f"\n{arguments.items} x {arguments.width}, {LEVELS} levels of {CODES}, seed {arguments.seed}, {arguments.rounds} "
        "rounds\n"
    )
    columns = list(found[names[0]][0])
    print("| package | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 1))
    for name in names:
        print(f"| {name} | " + " | ".join(f"{statistics.median(r[c] for r in found[name]):.4g}" for c in columns) + " |")


def vectors_of(items: int, width: int, seed: int) -> np.ndarray:
    """[N, D] float32, in clusters of clusters, rows of length about 1."""
    random = np.random.default_rng(seed)
    coarse = random.normal(size=(64, width)).astype(np.float32)
    fine = coarse[random.integers(0, 64, 4096)] + 0.6 * random.normal(size=(4096, width)).astype(np.float32)
    found = np.empty((items, width), np.float32)
    for start in range(0, items, 100_000):
        part = found[start : start + 100_000]
        part[:] = fine[random.integers(0, 4096, len(part))] + 0.5 * random.standard_normal(part.shape, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def run(name: str, items: int, width: int, seed: int) -> dict[str, float]:
    vectors = vectors_of(items, width, seed)
    begun = time.perf_counter()
    if name == "genrec":
        codes, decoded, fitted = with_genrec(vectors)
    else:
        codes, decoded, fitted = with_semantic_id(vectors)
    done = time.perf_counter()
    spread = float(((vectors - vectors.mean(axis=0)) ** 2).sum(dtype=np.float64))
    lost = float(
        sum(((vectors[i : i + 65536] - decoded[i : i + 65536]) ** 2).sum(dtype=np.float64) for i in range(0, items, 65536))
    )
    return {
        "fit s": round(fitted - begun, 2),
        "fit and encode s": round(done - begun, 2),
        "lost": round(lost / spread, 4),
        "collisions": round(1 - len(np.unique(codes, axis=0)) / items, 4),
        "peak GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def with_genrec(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    from genrec.tokenizers.rq_kmeans import RQKMeans, RQKMeansConfig

    tokenizer = RQKMeans(RQKMeansConfig(LEVELS, CODES)).fit(vectors)
    fitted = time.perf_counter()
    codes = tokenizer.encode(vectors)
    return codes, tokenizer.decode(codes), fitted


def with_semantic_id(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    from semantic_id import RQKMeans

    engine: Any = RQKMeans(n_levels=LEVELS, n_clusters=CODES, random_state=0)
    engine.fit(vectors)
    fitted = time.perf_counter()
    codes = np.asarray(engine.encode(vectors))
    return codes, np.asarray(engine.decode(codes)), fitted


if __name__ == "__main__":
    main()
