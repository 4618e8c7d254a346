"""The quality table of all shipped recipes of item tokenizers on a data set, with seconds and memory.

    python benchmarks/tokenizer_quality.py --items items.parquet --interactions interactions.parquet --keep runs/codes
    python benchmarks/tokenizer_quality.py ... --recipes tokenizers/rq_kmeans.yaml tokenizers/forge.yaml --encoder tfidf-svd

Each recipe runs in a process of its own, so that its peak memory is its own; texts are encoded once. Prints a Markdown table.
With --keep the codes of each recipe are written to a folder, for `tokenizer_models.py`.
"""

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from genrec.data.hashing import table_hash
from genrec.data.readers import load_catalogue
from genrec.published import PublishedCodes
from genrec.recipe import load_recipe
from genrec.tables import read_tables, split_histories
from genrec.tokenize import make_codes, make_vectors, quality_of
from genrec.tokenizers.report import comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", required=True, type=Path)
    parser.add_argument("--interactions", required=True, type=Path)
    parser.add_argument("--recipes", nargs="+", type=Path, default=sorted(Path("tokenizers").glob("*.yaml")))
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--keep", type=Path, help="write each recipe's codes to a folder in here")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    data = table_hash(load_catalogue(arguments.items).table)[:12]
    texts = Path("runs") / "benchmark_texts" / f"{data}_{arguments.encoder.replace(':', '_').replace('/', '_')}.npy"
    rows, numbers = [], {}
    for path in arguments.recipes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found, extra = pool.apply(run, (path, arguments, texts))
        rows.append((path.stem, found, extra))
        numbers[path.stem] = found.to_dict() | extra
        print(path.stem, extra, flush=True)
    print(f"\n{numbers[path.stem]['items']} items, encoder {arguments.encoder}, data {data}\n")
    print(comparison(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


def run(recipe_path: Path, arguments: argparse.Namespace, texts: Path) -> tuple[Any, dict[str, Any]]:
    """Codes of one recipe: (quality, seconds and memory of the tokenizer)."""
    recipe = load_recipe(recipe_path, {"text.encoder": arguments.encoder})
    tables = read_tables(arguments.items, arguments.interactions, recipe)
    split = split_histories(tables.interactions.histories(tables.catalogue, recipe.data.unknown_items), recipe)

    def once(encode: Any) -> np.ndarray:
        if not texts.exists():
            texts.parent.mkdir(parents=True, exist_ok=True)
            np.save(texts, encode(), allow_pickle=False)
        return np.load(texts, allow_pickle=False)

    begun = time.perf_counter()
    embedder, vectors = make_vectors(tables.catalogue, split.train, recipe, once)
    embedded = time.perf_counter()
    tokenizer, table = make_codes(tables.catalogue, vectors, split.train, recipe)
    done = time.perf_counter()
    one = vectors[:1]
    tokenizer.encode(one)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        tokenizer.encode(one)
        times.append(time.perf_counter() - start)
    made = PublishedCodes(table, tables.catalogue, vectors, tokenizer, embedder, {})
    found = quality_of(made, split)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if arguments.keep:
        made.write(arguments.keep / recipe_path.stem, {"data": tables.hashes, "recipe": recipe.to_dict()})
    return found, {
        "vectors s": round(embedded - begun, 1),
        "tokenizer s": round(done - embedded, 1),
        "one item ms": round(1000 * float(np.median(times)), 2),
        "peak GiB": round(peak, 2),
    }


if __name__ == "__main__":
    main()
