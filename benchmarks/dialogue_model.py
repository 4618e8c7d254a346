"""A small language model that talks and recommends in one generation, on OpenDialKG's movie turns (see opendialkg.py).

    python benchmarks/dialogue_model.py --data DATA/crs_opendialkg --out runs/dialogue_model

A decoder from scratch with words of its own: byte pairs and a language model learned from the texts of the catalogue and the
training dialogues (`base`), then `genrec fit` on the mix: items that a training dialogue names, one after the other, as
histories; its turns as dialogues. Training dialogues alone (`dialog_split`) are read by any of it. Finished parts of --out are
not made again, so a run that was stopped goes on. With --passes 1 --epochs 2 training took 338 s of CPU time; the defaults
are four times that.

Measured on the questions of opendialkg.py, all movies ranked: the model asked for codes alone ("... Assistant recommends:",
beam of 50), and genrec's dialogue ranker with and without the model's log P as one more vote. On valid this is cross-fitted:
weights learned on one half of its dialogues, questions of the other. Before that the model speaks on test turns: whether each
item spoken is one of the catalogue and not said before, how many are spoken, tokens a second of CPU time. Seed 0.
"""

import argparse
import logging
import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from language_model_quality import language_model
from opendialkg import CUTS, Part
from transformers import PreTrainedTokenizerFast

from genrec.chat.dialogue_ranker import DialogueRanker, learn_weights
from genrec.chat.link import Linker
from genrec.chat.mentions import Mentions
from genrec.chat.speaker import Speaker
from genrec.chat.spelling import parts_of
from genrec.chat.vocabulary import Vocabulary
from genrec.data.hashing import table_hash
from genrec.decoding.snapshot import Query
from genrec.evaluation.evaluate import markdown_table
from genrec.evaluation.statistics import bootstrap
from genrec.fit import fit
from genrec.manifest import MANIFEST
from genrec.models.config import ModelConfig
from genrec.networks import seeded
from genrec.recipe import load_recipe
from genrec.recommender import Recommender
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BEAM = 50
WORDS = 4096
SHAPE = {"hidden_size": 128, "layers": 3, "heads": 4, "feed_forward": 512}
SETTINGS = {
    "data.split": "user-holdout", "data.validation_share": 0.05, "data.test_share": 0.02,
    "text.encoder": "tfidf-svd",
    "tokenizer.rq_kmeans.levels": 3, "tokenizer.rq_kmeans.codebook_size": 64,
    "model.lora_rank": 0, "model.new_rows": "text",
    "tasks.next_item": 1.0, "tasks.recommendation_turn": 4.0, "tasks.text_to_codes": 0.5, "tasks.text_tokens": 48,
    "training.learning_rate": 2e-3, "training.batch_tokens": 4096, "training.max_history": 10,
    "training.validation_users": 100, "training.patience": 100,
    "decoding.beam_width": 50,
    "evaluation.baselines": [], "evaluation.max_questions": 50,
}  # fmt: skip


def train(items: pa.Table, turns: pd.DataFrame, out: Path, passes: int, epochs: int) -> Path:
    """The bundle, made of training dialogues."""
    if (out / "bundle" / MANIFEST).exists():
        return out / "bundle"
    began = time.process_time()
    dialogues = pa.table({
        "context": [list(messages) for messages in turns["context"]],
        "response": turns["response"].tolist(),
        "item_ids": [list(ids) for ids in turns["rec_item_ids"]],
    })  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(dialogues, out / "dialogues.parquet")
    texts = [*spoken(turns), *described(items)]
    settings = SETTINGS | {
        "model.pretrained": str(base(texts, out / "base", passes)), "tasks.dialogues": str(out / "dialogues.parquet"),
        "training.epochs": epochs,
    }  # fmt: skip
    fit(items, histories(items, turns), out / "bundle", load_recipe(overrides=settings))
    logging.info("Trained with %.0f s of CPU", time.process_time() - began)
    return out / "bundle"


def spoken(turns: pd.DataFrame) -> list[str]:
    """Each dialogue as far as it goes, as the prompts are written."""
    longest = {row.dialog_id: [*row.context, row.response] for row in turns.sort_values("turn_id").itertuples()}
    return [
        "".join(f"\n{('Assistant', 'User')[(len(said) - number) % 2]}: {text}" for number, text in enumerate(said, 1))
        for said in longest.values()
    ]


def described(items: pa.Table) -> list[str]:
    """Titles and values of the movies."""
    return [
        " ".join([str(row["title"]), *(" ".join(row[name] or []) for name in ("categories", "director", "actors"))])
        for row in items.to_pylist()
    ]


def histories(items: pa.Table, turns: pd.DataFrame) -> pa.Table:
    """The movies that each dialogue names or recommends, in their order, as one user's events."""
    mentions = Mentions(Linker(items, Vocabulary(items)))
    ids = items.column("item_id").to_pylist()
    found: dict[str, dict[str, None]] = {}
    for row in turns.sort_values("turn_id").itertuples():
        own = found.setdefault(str(row.dialog_id), {})
        for message in row.context:
            own |= {ids[one.rows[0]]: None for one in mentions.find(message) if len(one.rows) == 1}
        own |= dict.fromkeys(row.rec_item_ids)
    events = [(user, item, place) for user, own in found.items() for place, item in enumerate(own)]
    return pa.table(dict(zip(("user_id", "item_id", "timestamp"), map(list, zip(*events, strict=True)), strict=True)))


def base(texts: list[str], folder: Path, passes: int) -> Path:
    """A decoder that has read the texts so many times, and its words."""
    if (folder / "config.json").exists():
        return folder
    spelling = Tokenizer(models.BPE())
    spelling.pre_tokenizer, spelling.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner = trainers.BpeTrainer(vocab_size=WORDS, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False)
    spelling.train_from_iterator(texts, learner)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelling, eos_token="<|end|>", pad_token="<|end|>")
    order = np.random.default_rng(0).permutation(len(texts))
    spelled = tokenizer([texts[one] for one in order])["input_ids"]
    tokens = np.concatenate([[0], *([*text, 0] for text in spelled)]).astype(np.int64)
    rows = tokens[: len(tokens) // 128 * 128].reshape(-1, 128)
    tokenizer.save_pretrained(folder)
    shape = ModelConfig(**SHAPE)
    seeded(0, lambda: language_model(shape, len(tokenizer), rows, passes).save_pretrained(folder))
    return folder


class Asked:
    """A bundle's speaker over the turns of one part: prompts as it was taught, nothing excluded."""

    def __init__(self, recommender: Recommender, part: Part) -> None:
        self.speaker, self.version = Speaker(recommender), recommender.catalogue.current
        table = self.version.table
        self.mentions = Mentions(Linker(table, Vocabulary(table)))
        self.contexts = [[parts_of(message, self.mentions) for message in messages] for messages in part.contexts]
        self.query = Query(np.zeros(0, np.int64), BEAM, (BEAM,) * len(self.speaker.layout.sizes), False)

    def scores(self) -> np.ndarray:
        """log P of what the beam finds, and below it the same for all else: float32 [M, N]."""
        found = np.empty((len(self.contexts), self.version.table.num_rows), np.float32)
        for turn, context in enumerate(self.contexts):
            rows, scores = self.speaker.rank(context, [], self.query, self.version)
            found[turn] = scores.min() - 1
            found[turn, rows] = scores
        return found

    def spoken(self, most: int) -> None:
        """Let it speak on the first turns, and print what came."""
        kinds, items, tokens, valid, examples = Counter[str](), 0, 0, 0, []
        table, began = self.version.table, time.process_time()
        for context in self.contexts[:most]:
            speech = self.speaker.say(context, [], replace(self.query, k=5), self.version, self.mentions)
            rows = speech.rows.tolist()
            valid += len(set(rows)) == len(rows) and all(0 <= row < table.num_rows for row in rows)
            kinds["with items" if rows else "words alone"] += 1
            items += len(rows)
            tokens += len(rows) * self.speaker.layout.levels
            tokens += sum(len(self.speaker.words.literal(part)) for part in speech.parts if isinstance(part, str))
            if len(examples) < 5:
                said = [part if isinstance(part, str) else f"[{table['title'][part]}]" for part in speech.parts]
                examples.append(" ".join(said))
        seconds = time.process_time() - began
        turns = kinds.total()
        print(f"Spoken on {turns} test turns: {dict(kinds)}, {items} items, {valid} turns whose items are all of the catalogue "
              f"and said once ({valid / turns:.1%}), {tokens / seconds:.0f} tokens a second of CPU time, "
              f"{1000 * seconds / turns:.0f} ms a turn", flush=True)  # fmt: skip
        print(*(f"  {one}" for one in examples), sep="\n", flush=True)


def fused(items: pa.Table, parts: dict[str, Part], votes: dict[str, np.ndarray]) -> None:
    """The dialogue ranker with and without the model's vote. votes: of valid and test, [M, N]."""
    by_turn = {tuple(one): row for name in votes for one, row in zip(parts[name].contexts, votes[name], strict=True)}
    vote = {"dialogue model": lambda contexts: np.stack([by_turn[tuple(one)] for one in contexts])}
    ranker = DialogueRanker(items, votes=vote).fit(parts["train"].turns, parts["valid"].turns)
    signals, named, chances = (
        {name: make(parts[name].contexts) for name in votes}
        for make in (ranker.signals, lambda c: ranker.named(c, "all").toarray() > 0, ranker.chance_of_named)
    )
    ways = {"ranker": slice(0, -1), "ranker and model": slice(None)}
    valid = parts["valid"]
    folds = np.unique(valid.frame["dialog_id"], return_inverse=True)[1] % 2

    def scored(part: str, columns: slice, learned_on: np.ndarray, asked: np.ndarray) -> np.ndarray:
        for case, among in (("named", named["valid"]), ("not named", ~named["valid"])):
            targets = [valid.turns.targets[turn][among[turn, valid.turns.targets[turn]]] for turn in learned_on]
            ranker.weights[case] = learn_weights(signals["valid"][learned_on][..., columns], targets, among[learned_on])
        return ranker.mixed(signals[part][asked][..., columns], named[part][asked], chances[part][asked])

    on_valid, on_test = {}, {}
    for way, columns in ways.items():
        halves = np.empty(named["valid"].shape, np.float32)
        for fold in (0, 1):
            asked = np.flatnonzero(folds == fold)
            halves[asked] = scored("valid", columns, np.flatnonzero(folds != fold), asked)
        on_valid[way] = valid.positions(halves)
        every = np.arange(len(valid.turns))
        on_test[way] = parts["test"].positions(scored("test", columns, every, np.arange(len(parts["test"].turns))))
        weights = {case: round(float(some[-1]), 4) for case, some in ranker.weights.items()}
        print(f"{way}: weight of its last signal, {weights}", flush=True)
    print(table_of(on_valid, valid, "valid, cross-fitted"), table_of(on_test, parts["test"], "test"), sep="\n\n", flush=True)


def table_of(found: dict[str, np.ndarray], part: Part, name: str) -> str:
    """Recall of each ranker, with 95 % intervals over dialogues."""
    lines = []
    slices = {"all": np.ones(len(part.target), bool), "not yet named": ~part.named, "already named": part.named}
    for slice_name, chosen in slices.items():
        hits = {(model, k): (places[chosen] < k).astype(float) for model, places in found.items() for k in CUTS}
        estimates = bootstrap(hits, seed=0, users=part.dialogue[chosen])
        for model in found:
            cells = [estimates[model, k] for k in CUTS]
            lines.append(
                [f"{slice_name} ({chosen.sum()})", model, *(f"{e.mean:.3f} ({e.low:.3f} to {e.high:.3f})" for e in cells)]
            )
    return markdown_table([f"questions of {name}", "ranker", *(f"Recall@{k}" for k in CUTS)], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--passes", type=int, default=4, help="of the base over its texts (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="of the mix (default: %(default)s)")
    parser.add_argument("--speak", type=int, default=300, help="test turns to speak on (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    items, table = (pq.read_table(arguments.data / name) for name in ("items.parquet", "dialogue_turns.parquet"))
    frame = table.to_pandas()
    frame = frame[frame["rec_item_ids"].map(len) > 0]
    folder = train(items, frame[frame["dialog_split"] == "train"], arguments.out, arguments.passes, arguments.epochs)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    ).stdout.strip()
    recommender = Recommender.load(folder)
    ids = recommender.catalogue.current.table.column("item_id").to_pylist()
    rows = {item_id: row for row, item_id in enumerate(ids)}
    parts = {name: Part(frame[frame["dialog_split"] == name], rows, False) for name in ("train", "valid", "test")}
    print(f"commit {commit}, items {table_hash(items)[:12]}, turns {table_hash(table)[:12]}, bundle {recommender.bundle.hash}, "
          f"{recommender.bundle.metrics['weights']:,} weights, {arguments.passes} passes, {arguments.epochs} epochs",
          flush=True)  # fmt: skip
    began = time.process_time()
    asked = Asked(recommender, parts["test"])
    votes = {"test": asked.scores()}
    logging.info("Test turns ranked with %.0f s of CPU", time.process_time() - began)
    print(table_of({"the model alone": parts["test"].positions(votes["test"])}, parts["test"], "test"), flush=True)
    asked.spoken(arguments.speak)
    votes["valid"] = Asked(recommender, parts["valid"]).scores()
    fused(recommender.catalogue.current.table, parts, votes)


if __name__ == "__main__":
    main()
