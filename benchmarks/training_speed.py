"""How many tokens and items a second training learns from, beside the loop that most scripts have: the Hugging Face Trainer
over shuffled examples that are padded.

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py --data DATA/amazon2014_beauty

Same model, same Trainer, same histories; the ways differ in what a batch is. They take turns, each round with other batches.
Medians over the rounds are printed: tokens that are no padding and items whose codes are in the loss, both for a second of CPU
time, which other processes of the machine do not change; and what share of a batch is padding. Above a table stands the padding
of an epoch of genrec's; `--rounds 0` prints that alone. All ways but genrec's have batches of as many rows as genrec's have
on average; a turn takes batches until they hold `--cells` tokens, padding included.

- decoder: windows of whole histories, loss on every code; by length (genrec), shuffled and padded to the longest of the batch,
  or to the longest there may be; and one row per (history, next item), padded so, with the loss on the next item alone.
- encoder-decoder: one row per (history, next item) in all ways; by length (genrec), or shuffled and padded in these two ways.

The codes are drawn at random: speed does not depend on which ones they are. The models are those of
training/recipes/beauty.yaml and tiger.yaml.
"""

import argparse
import logging
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from genrec.data.interactions import Histories
from genrec.models.decoder import build_decoder
from genrec.models.encoder_decoder import build_encoder_decoder
from genrec.models.tokens import TokenLayout
from genrec.recipe import Recipe, load_recipe
from genrec.tables import read_tables, split_histories
from genrec.training.examples import IGNORED, Collator, HistoryWindows, LengthBatches
from genrec.training.targets import HistoryTargets, TargetBatches, TargetCollator

RECIPES = Path(__file__).parents[1] / "training" / "recipes"
SIZES = (256, 256, 256, 12)
GENREC = "genrec"

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Way:
    """batches: one list of examples each, without end. collate: a list -> a batch."""

    dataset: Dataset
    batches: Iterator[list[int]]
    collate: Any


class Turn(Trainer):
    """Trains on batches that are drawn already."""

    def __init__(self, *, way: Way, drawn: list[list[int]], **kwargs: Any) -> None:
        super().__init__(train_dataset=way.dataset, data_collator=way.collate, **kwargs)  # type: ignore[arg-type]
        self.drawn = drawn
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_dataset, batch_sampler=self.drawn, collate_fn=self.data_collator)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with items.parquet and interactions.parquet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cells", type=int, default=24_000, help="tokens of a turn, padding included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", choices=["beauty", "tiger"], default=["beauty", "tiger"])
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for name in arguments.models:
        recipe = load_recipe(RECIPES / f"{name}.yaml")
        tables = read_tables(arguments.data / "items.parquet", arguments.data / "interactions.parquet", recipe)
        train = split_histories(tables.interactions.histories(tables.catalogue, recipe.data.unknown_items), recipe).train
        hashes = ", ".join(f"{table} {value[:16]}" for table, value in tables.hashes.items())
        print(f"\n{name}.yaml, {arguments.data.name} ({hashes}), seed {arguments.seed}, {arguments.rounds} rounds of "
              f"{arguments.cells} cells a way, one thread of {platform.machine()}, PyTorch {torch.__version__}\n")  # fmt: skip
        measure(recipe, train, len(tables.catalogue), arguments.rounds, arguments.cells, arguments.seed)


def measure(recipe: Recipe, train: Histories, items: int, rounds: int, cells: int, seed: int) -> None:
    """Print one table."""
    torch.manual_seed(seed)
    codes = np.random.default_rng(seed).integers(0, SIZES, (items, len(SIZES)))
    history = recipe.training.max_history
    if recipe.model.architecture == "decoder":
        model, layout = build_decoder(recipe.model, SIZES, 1 + len(SIZES) * (history + 1))
        ways = decoder_ways(recipe, train, codes, layout, seed)
    else:
        model, layout = build_encoder_decoder(recipe.model, SIZES)
        ways = encoder_decoder_ways(recipe, train, codes, layout, seed)
    turns: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1 if rounds else 0):
        for name, way in ways.items():
            found = one_turn(model, way, cells if number else 1, recipe)
            if number:  # the first one warms up
                turns[name].append(found)
    if not rounds:
        return
    medians = {name: [statistics.median(values) for values in zip(*found, strict=True)] for name, found in turns.items()}
    ours = medians[GENREC]
    print("| batches | tokens/s | items learned/s | padding | genrec: tokens/s | genrec: items/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (tokens, learned, padding) in medians.items():
        beside = f"{ours[0] / tokens:.2f} x | {ours[1] / learned:.2f} x"
        print(f"| {name} | {tokens:,.0f} | {learned:,.0f} | {padding:.1%} | {beside} |")


def one_turn(model: PreTrainedModel, way: Way, cells: int, recipe: Recipe) -> tuple[float, float, float]:
    """Tokens a second that are no padding, items a second whose codes are in the loss, share of padding."""
    drawn: list[list[int]] = []
    batches: list[Batch] = []
    while sum(batch["input_ids"].numel() for batch in batches) < cells:
        drawn.append(next(way.batches))
        batches.append(way.collate([way.dataset[number] for number in drawn[-1]]))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=len(drawn), learning_rate=recipe.training.learning_rate, max_grad_norm=1.0,
            weight_decay=recipe.training.weight_decay, save_strategy="no", logging_strategy="no", report_to="none",
            remove_unused_columns=False, disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
        )  # fmt: skip
        turn = Turn(model=model, args=arguments, way=way, drawn=drawn)
        started = time.process_time()
        turn.train()
        seconds = time.process_time() - started
    # What an encoder-decoder writes beside what it reads is never padded: every item has as many codes.
    written = sum(batch["labels"].numel() for batch in batches) if model.config.is_encoder_decoder else 0
    read = sum(int(batch["attention_mask"].sum()) for batch in batches)
    whole = sum(batch["attention_mask"].numel() for batch in batches)
    learned = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches) / len(SIZES)
    return (read + written) / seconds, learned / seconds, 1 - read / whole


def decoder_ways(recipe: Recipe, train: Histories, codes: np.ndarray, layout: TokenLayout, seed: int) -> dict[str, Way]:
    config = recipe.training
    windows = HistoryWindows(train, config.max_history, config.windows_per_user)
    ours = LengthBatches(windows.lengths, layout.levels, config.batch_tokens, seed)
    print_padding(1 + layout.levels * windows.lengths, ours)
    collator = Collator(codes, layout)
    rows, longest = round(len(windows) / len(ours)), 1 + layout.levels * (config.max_history + 1)
    targets = HistoryTargets(train, config.max_history)

    def answers_alone(examples: list[Any]) -> Batch:
        batch = padded(collator([np.append(history, item) for history, item, _ in examples]), longest, layout.pad)
        batch["labels"][:, : -layout.levels] = IGNORED
        return batch

    def to_longest(some: list[np.ndarray]) -> Batch:
        return padded(collator(some), longest, layout.pad)

    return {
        GENREC: Way(windows, forever(ours), collator),
        "shuffled, padded to the longest of the batch": Way(windows, shuffled(len(windows), rows, seed), collator),
        "shuffled, padded to the longest there may be": Way(windows, shuffled(len(windows), rows, seed), to_longest),
        "one row per (history, next item), padded so": Way(targets, shuffled(len(targets), rows, seed), answers_alone),
    }


def encoder_decoder_ways(recipe: Recipe, train: Histories, codes: np.ndarray, layout: TokenLayout, seed: int) -> dict[str, Way]:
    config = recipe.training
    targets = HistoryTargets(train, config.max_history)
    ours = TargetBatches(targets, config.targets_per_user, layout.levels, config.batch_tokens, seed)
    print_padding(1 + layout.levels * targets.lengths(np.arange(len(targets))), ours)
    collator = TargetCollator(codes, layout)
    rows, longest = round(len(ours.first) / len(ours)), 1 + layout.levels * config.max_history

    def to_longest(some: list[Any]) -> Batch:
        return padded(collator(some), longest, layout.pad)

    return {
        GENREC: Way(targets, forever(ours), collator),
        "shuffled, padded to the longest of the batch": Way(targets, shuffled(len(targets), rows, seed), collator),
        "shuffled, padded to the longest there may be": Way(targets, shuffled(len(targets), rows, seed), to_longest),
    }


def print_padding(tokens: np.ndarray, batches: LengthBatches | TargetBatches) -> None:
    """tokens: of each example."""
    drawn = list(batches)
    read, cells = sum(tokens[batch].sum() for batch in drawn), sum(tokens[batch].max() * len(batch) for batch in drawn)
    print(f"Padding of a whole epoch of genrec's {len(drawn)} batches: {1 - read / cells:.2%}\n")


def padded(batch: Batch, width: int, pad: int) -> Batch:
    """The batch with what is read padded on the left to `width` tokens; with labels beside the tokens, these too."""
    more = width - batch["input_ids"].shape[1]
    filler = {"input_ids": pad, "attention_mask": 0}
    if batch["labels"].shape == batch["input_ids"].shape:
        filler["labels"] = IGNORED
    return batch | {name: torch.nn.functional.pad(batch[name], (more, 0), value=value) for name, value in filler.items()}


def forever(batches: LengthBatches | TargetBatches) -> Iterator[list[int]]:
    for epoch in range(1_000_000):
        batches.set_epoch(epoch)
        yield from batches


def shuffled(count: int, rows: int, seed: int) -> Iterator[list[int]]:
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(count)
        for begin in range(0, count - rows + 1, rows):
            yield order[begin : begin + rows].tolist()


if __name__ == "__main__":
    main()
