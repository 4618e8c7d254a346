"""RQ-KMeans beside the PyPI package `semantic-id` (its RQKMeans) on the same vectors: time, reconstruction, collisions.

    pip install semantic-id==0.2.5
    OMP_NUM_THREADS=2 python benchmarks/tokenizer_speed.py --items 100000 --width 384
    python benchmarks/tokenizer_speed.py --items 1000000 --width 384 --only genrec
    python benchmarks/tokenizer_speed.py --catalogues beauty/items.parquet

Vectors are drawn around centres of centres, so that there are levels to find; or they are those of MiniLM for the texts of real
catalogues, and points between an item and one of its ten nearest where --items asks for more. The packages take turns, each in
a process of its own, each round with another seed; medians over the rounds.
"""

import argparse
import hashlib
import multiprocessing
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

LEVELS, CODES = 3, 256
KINDS = ["genrec", "genrec-balanced", "semantic-id"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, help="100,000, or as many as the catalogues have")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument(
        "--catalogues", nargs="+", type=Path, metavar="ITEMS", help="items tables: real vectors, not drawn ones"
    )
    arguments = parser.parse_args()
    path = real_vectors(arguments.catalogues) if arguments.catalogues else None
    arguments.items = arguments.items or (len(np.load(path, mmap_mode="r")) if path else 100_000)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.only}
    for seed in range(arguments.rounds):
        for name in found:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name].append(pool.apply(run, (name, path, arguments.items, arguments.width, seed)))
            print(name, found[name][-1], flush=True)
    print(f"\n{arguments.items} vectors, {path or 'drawn'}, {LEVELS} levels of {CODES}, {arguments.rounds} rounds\n")
    columns = list(found[arguments.only[0]][0])
    print("| package | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 1))
    for name, rounds in found.items():
        print(f"| {name} | " + " | ".join(f"{statistics.median(r[c] for r in rounds):.4g}" for c in columns) + " |")


def real_vectors(catalogues: list[Path]) -> Path:
    """A file of MiniLM vectors [N, 384], of length 1 and then less their mean, of each text of the catalogues once."""
    from genrec.data.readers import load_catalogue
    from genrec.embedding.encoders import make_encoder
    from genrec.embedding.text import default_template, render

    tables = [load_catalogue(path) for path in catalogues]
    texts = sorted({text for table in tables for text in render(table, default_template(table))})
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
    path = Path("runs") / "benchmark_texts" / f"{len(texts)}_{digest}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        vectors = make_encoder("minilm").encode(texts)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(path, vectors - vectors.mean(axis=0))
    return path


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


def between(vectors: np.ndarray, items: int) -> np.ndarray:
    """The vectors [N, D] and points between one of them and a near one, until there are [items, D]."""
    more = items - len(vectors)
    if more <= 0:
        return vectors[:items]
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    random = np.random.default_rng(0)
    one = random.integers(0, len(vectors), more)
    other = index.search(vectors, 11)[1][one, random.integers(1, 11, more)]
    share = random.random((more, 1), np.float32)
    return np.concatenate([vectors, share * vectors[one] + (1 - share) * vectors[other]])


def run(name: str, path: Path | None, items: int, width: int, seed: int) -> dict[str, float]:
    vectors = between(np.load(path), items) if path else vectors_of(items, width, 0)
    begun = time.perf_counter()
    if name == "semantic-id":
        codes, decoded, fitted = with_semantic_id(vectors, seed)
    else:
        codes, decoded, fitted = with_genrec(vectors, seed, balanced=name == "genrec-balanced")
    done = time.perf_counter()
    mean, spread, lost = vectors.mean(axis=0), 0.0, 0.0
    for i in range(0, items, 65536):
        spread += float(((vectors[i : i + 65536] - mean) ** 2).sum(dtype=np.float64))
        lost += float(((vectors[i : i + 65536] - decoded[i : i + 65536]) ** 2).sum(dtype=np.float64))
    return {
        "fit s": round(fitted - begun, 2),
        "fit and encode s": round(done - begun, 2),
        "lost": round(lost / spread, 4),
        "collisions": round(1 - len(np.unique(codes, axis=0)) / items, 4),
        "peak GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def with_genrec(vectors: np.ndarray, seed: int, balanced: bool) -> tuple[np.ndarray, np.ndarray, float]:
    from genrec.tokenizers.rq_kmeans import RQKMeans, RQKMeansConfig

    tokenizer = RQKMeans(RQKMeansConfig(LEVELS, CODES, balanced=balanced, seed=seed)).fit(vectors)
    fitted = time.perf_counter()
    codes = tokenizer.encode(vectors)
    return codes, tokenizer.decode(codes), fitted


def with_semantic_id(vectors: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    from semantic_id import RQKMeans

    engine: Any = RQKMeans(n_levels=LEVELS, n_clusters=CODES, random_state=seed)
    engine.fit(vectors)
    fitted = time.perf_counter()
    codes = np.asarray(engine.encode(vectors))
    return codes, np.asarray(engine.decode(codes)), fitted


if __name__ == "__main__":
    main()
