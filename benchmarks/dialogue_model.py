"""A small language model that talks and recommends in one generation, on OpenDialKG's movie turns (see opendialkg.py).

    python benchmarks/dialogue_model.py --data DATA/crs_opendialkg --out runs/dialogue_model

A decoder from scratch with words of its own: byte pairs and a language model learned from the texts of the catalogue and the
training dialogues (`base`), then `genrec fit` on the mix: items that a training dialogue names, one after the other, as
histories; its turns as dialogues. Training dialogues alone (`dialog_split`) are read by any of it. Finished parts of --out are not
made again, so a run that was stopped goes on.

Measured on the questions of opendialkg.py, all movies ranked: the model asked for codes alone ("... Assistant recommends:",
beam of 64), and genrec's dialogue ranker with and without the model's log P as one more vote. On valid this is cross-fitted:
weights learned on one half of its dialogues, questions of the other. Then the model speaks on test turns: whether each item
spoken is one of the catalogue and not said before, how many are spoken, tokens a second of CPU time. Seed 0.
"""

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from language_model_quality import language_model
from transformers import PreTrainedTokenizerFast

from genrec.chat.link import Linker
from genrec.chat.mentions import Mentions
from genrec.chat.vocabulary import Vocabulary
from genrec.fit import fit
from genrec.manifest import MANIFEST
from genrec.models.config import ModelConfig
from genrec.networks import seeded
from genrec.recipe import load_recipe
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--passes", type=int, default=4, help="of the base over its texts (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="of the mix (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    items, table = (pq.read_table(arguments.data / name) for name in ("items.parquet", "dialogue_turns.parquet"))
    frame = table.to_pandas()
    frame = frame[frame["rec_item_ids"].map(len) > 0]
    folder = train(items, frame[frame["dialog_split"] == "train"], arguments.out, arguments.passes, arguments.epochs)
    print(folder)


if __name__ == "__main__":
    main()
