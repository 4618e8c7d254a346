"""Recommending inside human dialogues: OpenDialKG's movie turns (Moon et al., ACL 2019; as processed by iEvaLM, EMNLP 2023).

    python benchmarks/opendialkg.py --data DATA/crs_opendialkg --out runs/opendialkg
    python benchmarks/opendialkg.py --data DATA/crs_opendialkg --out runs/opendialkg --split split     # leaks; see below

In: items.parquet and dialogue_turns.parquet. A question is one movie that an assistant's turn recommends; what is known are the
messages before that turn; the answer is a ranking of all movies. A turn with several movies asks several questions of the same
ranking, and a recall is the mean over questions, as UniCRS and iEvaLM count. Out, as Markdown: Recall@1/10/50 for all
questions, for movies that the messages already name, and for the others, with 95 % intervals over dialogues; paired tests of
genrec's ranker against the best baseline of each column (permutation test over dialogues, Holm over the table).

Everything is fitted on training dialogues and every setting chosen on validation dialogues, by Recall@10 over all questions:

- popularity: how often a movie was recommended;
- co-occurrence: movies and values (people, genres) named in the messages, by genrec's linker and by the data's own
  `context_entities`, call for what was recommended where they were named: confidence of an association rule, smoothed;
- tf-idf: words of the messages against words of the movie's title and metadata, plus the nearest training turns' movies;
- text neighbours: the same two with vectors of all-MiniLM-L6-v2 in place of words.

The column `dialog_split` splits by dialogue. `--split split` is the published split, by turn: half of its test dialogues have
training turns, so its numbers are good for nothing but comparing with papers. Nothing is drawn but the resamples: seed 0.
"""

import argparse
import hashlib
import itertools
import json
import logging
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from genrec.chat.dialogue_ranker import DialogueRanker, Turns, confidence, indicator, nearest
from genrec.chat.words import key
from genrec.data.hashing import table_hash
from genrec.embedding.encoders import make_encoder
from genrec.evaluation.evaluate import markdown_table
from genrec.evaluation.statistics import bootstrap, holm, paired_bootstrap, permutation_test

CUTS = (1, 10, 50)
OURS = "genrec"
NEIGHBOURS = 100  # nearest training turns whose movies count
LONGEST = 1_000  # characters of a context that is encoded, its latest
Baseline = tuple[list[dict], Callable[..., np.ndarray]]


class Part:
    """Turns of one part of the split, and the questions they ask."""

    def __init__(self, frame: pd.DataFrame, rows: dict[str, int], by_turn: bool) -> None:
        self.frame = frame
        self.contexts = [list(messages) for messages in frame["context"]]
        recommended = [[rows[one] for one in ids] for ids in frame["rec_item_ids"]]
        # Where turns of a dialogue are in several parts, each turn has to count as a dialogue for the ranker to take them.
        names = frame.index.to_numpy() if by_turn else frame["dialog_id"].to_numpy()
        self.turns = Turns(self.contexts, [np.unique(some) for some in recommended], names)
        self.turn = np.repeat(np.arange(len(frame)), [len(some) for some in recommended])
        self.target = np.array(list(itertools.chain.from_iterable(recommended)))
        self.named = np.array(list(itertools.chain.from_iterable(frame["rec_in_context"])), bool)
        self.dialogue = frame["dialog_id"].to_numpy()[self.turn]

    def positions(self, scores: np.ndarray) -> np.ndarray:
        """Place of each question's movie from 0, the catalogue's order among equals: int64 [questions]. scores: [M, N]."""
        own = scores[self.turn, self.target][:, None]
        all_scores = scores[self.turn]
        before = np.arange(scores.shape[1]) < self.target[:, None]
        return ((all_scores > own) | ((all_scores == own) & before)).sum(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="results as JSON, and encoded texts, which take minutes")
    parser.add_argument("--split", choices=["dialog_split", "split"], default="dialog_split")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    items, table = (pq.read_table(arguments.data / name) for name in ("items.parquet", "dialogue_turns.parquet"))
    frame = table.to_pandas()
    frame = frame[frame["rec_item_ids"].map(len) > 0]
    rows = {item_id: row for row, item_id in enumerate(items.column("item_id").to_pylist())}
    parts = {name: Part(frame[frame[arguments.split] == name], rows, arguments.split == "split")
             for name in ("train", "valid", "test")}  # fmt: skip
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(f"{arguments.split}, commit {commit}, items {table_hash(items)[:12]}, turns {table_hash(table)[:12]}")
    for name, part in parts.items():
        print(f"{name}: {len(part.turns)} turns, {len(part.target)} questions, {part.named.sum()} of them already named")

    found: dict[str, np.ndarray] = {}
    chosen: dict[str, dict] = {}
    begin = time.process_time()
    ranker = DialogueRanker(items).fit(parts["train"].turns, parts["valid"].turns)
    found[OURS] = parts["test"].positions(ranker.scores(parts["test"].contexts))
    weights = {case: dict(zip(ranker.names, some.round(3).tolist(), strict=True)) for case, some in ranker.weights.items()}
    logging.info("genrec: %.0f s of CPU", time.process_time() - begin)
    for name, (grid, score) in baselines(ranker, items, parts, arguments.out).items():
        begin = time.process_time()
        on_valid = [float((parts["valid"].positions(score("valid", **one)) < 10).mean()) for one in grid]
        best = int(np.argmax(on_valid))
        found[name] = parts["test"].positions(score("test", **grid[best]))
        chosen[name] = grid[best] | {"valid_recall@10": round(on_valid[best], 4)}
        logging.info("%s: %s, %.0f s of CPU", name, chosen[name], time.process_time() - begin)

    results = report(found, parts["test"])
    about = {"commit": commit, "split": arguments.split, "chosen": chosen, "weights": weights}
    (arguments.out / f"{arguments.split}.json").write_text(json.dumps(about | results, indent=1), encoding="utf-8")
    print(json.dumps({"chosen": chosen, "weights": weights}, indent=1))


def baselines(ranker: DialogueRanker, items: pa.Table, parts: dict[str, Part], out: Path) -> dict[str, Baseline]:
    """Each baseline: the settings to choose from, and what scores the movies for a part of the split under one of them."""
    train = parts["train"]
    taken = indicator(train.turns.targets, items.num_rows)
    popular = np.asarray(taken.sum(axis=0)).ravel().astype(np.float32)
    little = 1e-6 * popular  # decides among movies that nothing else tells apart
    texts = ranker.texts
    assert texts is not None

    def popularity(part: str) -> np.ndarray:
        return np.tile(popular, (len(parts[part].contexts), 1))

    @cache
    def named(part: str, given: bool) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        return _named(ranker, parts[part], given)

    def cooccurrence(part: str, given: bool, smoothing: float, values: float) -> np.ndarray:
        movies, others = (confidence(some, taken, smoothing) for some in named("train", given))
        asked = named(part, given)
        return (asked[0] @ movies + values * (asked[1] @ others)).toarray() + little

    @cache
    def words_of(part: str, words: int) -> tuple[np.ndarray, np.ndarray]:
        known, asked = (["\n".join(messages) for messages in parts[one].contexts] for one in ("train", part))
        vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32, ngram_range=(1, words)).fit([*texts, *known])
        vectors = vectorizer.transform(asked)
        near = nearest(vectors @ vectorizer.transform(known).T, NEIGHBOURS) @ taken
        return (vectors @ vectorizer.transform(texts).T).toarray(), _relative(near.toarray())

    def tfidf(part: str, words: int, turns: float) -> np.ndarray:
        own, others = words_of(part, words)
        return own + turns * others + little

    @cache
    def vectors_of(part: str, power: int) -> tuple[np.ndarray, np.ndarray]:
        known, asked = (
            encoded([" \n ".join(messages)[-LONGEST:] for messages in parts[one].contexts], out) for one in ("train", part)
        )
        near = np.maximum(asked @ known.T, 0) ** power
        return asked @ encoded(_described(items), out).T, _relative((taken.T @ near.T).T)

    def neighbours(part: str, power: int, turns: float) -> np.ndarray:
        own, others = vectors_of(part, power)
        return own + turns * others + little

    weights = (0.0, 0.03, 0.1, 0.3, 1.0)
    return {
        "popularity": ([{}], popularity),
        "co-occurrence": (
            [{"given": given, "smoothing": smoothing, "values": values}
             for given in (False, True) for smoothing in (0.0, 2.0) for values in (0.0, 0.5, 1.0, 2.0)],
            cooccurrence,
        ),
        "tf-idf": ([{"words": words, "turns": weight} for words in (1, 2) for weight in weights], tfidf),
        "text neighbours": ([{"power": power, "turns": weight} for power in (8, 20) for weight in weights], neighbours),
    }  # fmt: skip


def _named(ranker: DialogueRanker, part: Part, given: bool) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Movies and values named in the messages: [M, N], [M, V]. given: those that the data's own annotation names too."""
    movies, values = ranker.named(part.contexts, "all"), ranker.named_values(part.contexts, latest=False)
    if not given:
        return movies, values
    told = [[key(one) for one in entities] for entities in part.frame["context_entities"]]
    by_title, by_value = ranker.mentions.rows, {key(value): number for value, number in ranker.values.items()}
    more = indicator(
        [np.array([row for one in some for row in by_title.get(one, [])], np.int64) for some in told], movies.shape[1]
    )
    also = indicator([np.array([by_value[one] for one in some if one in by_value], np.int64) for some in told], values.shape[1])
    return movies.maximum(more).tocsr(), values.maximum(also).tocsr()


def _described(items: pa.Table) -> list[str]:
    """What of a movie is encoded."""
    texts = []
    for row in items.to_pylist():
        lists = {name: " ".join(row[name] or []) for name in ("categories", "director", "actors", "writers", "language")}
        texts.append(
            f"{row['title']}. {lists['categories']}. {row['year'] or ''}. {lists['director']}. {lists['actors']}. "
            f"{lists['writers']}. {lists['language']}"
        )
    return texts


def encoded(texts: list[str], out: Path) -> np.ndarray:
    """Vectors of all-MiniLM-L6-v2, from a file where they were made before: float32 [texts, D]."""
    path = out / f"minilm-{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        np.save(path, make_encoder("minilm").encode(texts))
    return np.load(path)


def report(found: dict[str, np.ndarray], test: Part) -> dict:
    """Print the tables and give their numbers back. found: places of the questions' movies, by model."""
    slices = {"all": np.ones(len(test.target), bool), "already named": test.named, "not yet named": ~test.named}
    results: dict = {"recall": {}, "tests": []}
    lines, tests = [], []
    for name, chosen in slices.items():
        hits = {(model, k): (places[chosen] < k).astype(float) for model, places in found.items() for k in CUTS}
        estimates = bootstrap(hits, seed=0, users=test.dialogue[chosen])
        results["recall"][name] = {f"{model}@{k}": vars(one) for (model, k), one in estimates.items()}
        for model in found:
            cells = [estimates[model, k] for k in CUTS]
            lines.append([f"{name} ({chosen.sum()})", model, *(f"{e.mean:.3f} ({e.low:.3f} to {e.high:.3f})" for e in cells)])
        for k in CUTS:
            best = max((model for model in found if model != OURS), key=lambda model: estimates[model, k].mean)
            difference = paired_bootstrap(hits[OURS, k], hits[best, k], test.dialogue[chosen])
            p = permutation_test(hits[OURS, k], hits[best, k], test.dialogue[chosen])
            tests.append((name, k, best, difference, p))
    corrected = holm([p for *_, p in tests])
    rows = []
    for (name, k, best, difference, _), p in zip(tests, corrected, strict=True):
        rows.append(
            [name, f"{k}", best, f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})", f"{p:.4f}"]
        )
        results["tests"].append({"questions": name, "k": k, "best": best, "p": float(p)} | vars(difference))
    print(markdown_table(["questions", "ranker", *(f"Recall@{k}" for k in CUTS)], lines))
    print(markdown_table(["questions", "k", "best baseline", "genrec - it", "p (Holm)"], rows))
    return results


def _relative(scores: np.ndarray) -> np.ndarray:
    return scores / np.maximum(scores.max(axis=1, keepdims=True), 1e-12)


if __name__ == "__main__":
    main()
