"""What each choice of a language model is worth: words before codes, alignment tasks, LoRA, an encoder-decoder, preferences.

    python benchmarks/language_model_quality.py "next item" base "base, mix" LoRA --recipe training/recipes/office.yaml \\
        --items items.parquet --interactions interactions.parquet --out runs/language_models --seeds 0 1 2

All rows have the codes, the histories and the settings of training of one shipped recipe; what differs is in ROWS:

- "next item": the recipe, a decoder from scratch that learns what comes next. "random rows", "vector rows": where its codes
  begin. "taught ...": it also learns what the bundle of --teacher recommends (genrec fit on the same tables, such as with
  fused.yaml). "T5": an encoder-decoder of as many weights. "DiscRec": that T5 with DiscRec's branches, which are more weights.
- "base ...": a decoder of the same layers, trained here on the catalogue's texts (seed 0, BASE) to know its words, then on
  histories, all weights, and without dropout, which a pretrained model has none of; with "text rows" codes begin at the words
  of their items; with "mix" it also learns LC-Rec's tasks (MIX). "LoRA ...": of this base, adapters (with dropout) and new rows
  alone are trained.
- "... DPO", "... GRPO": a training on its own lists behind it.

Each row is fitted once per seed and asked the test questions. Seeds are the network's: codes and base are made once. What is
fitted or measured is not done again, and a fit that was killed goes on, so the same command may be run with more rows or seeds.
`--set training.epochs=1` changes a setting in all rows; each recipe, with its data and settings, needs an --out of its own.

Prints the data's hashes, Recall and NDCG masked and unmasked with intervals, NDCG@10 (masked) with paired tests against
--reference, Holm-corrected, seeds pooled, and what each fit cost: weights, epochs, seconds of training (a busy machine's are
longer).
"""

import argparse
import hashlib
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import genrec
from genrec.bundle import read_bundle
from genrec.data.catalogue import Catalogue
from genrec.data.splits import Targets
from genrec.embedding.text import default_template, render
from genrec.evaluation.compare import compare, comparison_table
from genrec.evaluation.evaluate import Result, evaluate, markdown_table, report_table
from genrec.evaluation.saved import NUMBERS, Evaluation, read_evaluation
from genrec.fit import evaluate_baselines, fit
from genrec.manifest import MANIFEST
from genrec.models.config import ModelConfig
from genrec.networks import seeded, train_on
from genrec.recipe import Recipe, load_recipe
from genrec.recommender import Recommender
from genrec.tables import read_tables, split_histories
from genrec.tokenize import tokenize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

RECIPES = Path(__file__).parents[1] / "training" / "recipes"
FLOOR = "cooccurrence-tfidf"
BASE_FOLDER, TEACHER = "the base", "the teacher"  # in their places stand the base that is made here, and --teacher
# Examples for each window of plain history. By the weights of lc_rec.yaml most of what an epoch reads are the long prompts of
# search and preference, more than a CPU has time for.
MIX = {
    "tasks.prompted_next_item": 0.25,
    "tasks.text_to_codes": 0.5,
    "tasks.codes_to_text": 0.5,
    "tasks.codes_to_title": 0.25,
    "tasks.titles_to_codes": 0.1,
    "tasks.search": 0.05,
    "tasks.preference": 0.05,
}
WHOLE: dict[str, Any] = {"model.pretrained": BASE_FOLDER, "model.lora_rank": 0}
LORA: dict[str, Any] = {"model.pretrained": BASE_FOLDER, "model.lora_rank": 16}
# As many weights as 4 layers of a decoder with width 128 and feed-forward 512, those of beauty.yaml and office.yaml.
T5: dict[str, Any] = {"model.architecture": "encoder-decoder", "model.layers": 2, "model.feed_forward": 640}
ROWS: dict[str, dict[str, Any]] = {
    "next item": {},
    "random rows": {"model.new_rows": "mean"},
    "vector rows": {"model.new_rows": "vectors"},
    "taught, random rows": {"model.new_rows": "mean", "training.teacher": TEACHER},
    "taught, vector rows": {"model.new_rows": "vectors", "training.teacher": TEACHER},
    "next item, DPO": {"post_training.method": "dpo"},
    "next item, GRPO": {"post_training.method": "grpo"},
    "T5": T5,
    "DiscRec": T5 | {"model.discrec": True},
    "base": WHOLE,
    "base, text rows": WHOLE | {"model.new_rows": "text"},
    "base, mix": WHOLE | MIX,
    "base, text rows, mix": WHOLE | MIX | {"model.new_rows": "text"},
    "LoRA": LORA,
    "LoRA, text rows": LORA | {"model.new_rows": "text"},
    "LoRA, mix": LORA | MIX,
    "LoRA, text rows, mix": LORA | MIX | {"model.new_rows": "text"},
    "DoRA": LORA | {"model.dora": True},
    "LoRA 64": LORA | {"model.lora_rank": 64},
}
# The base: words, tokens of a stretch of text, tokens of a step, passes over the texts, learning rate, positions for prompts.
BASE = {"words": 4096, "stretch": 128, "batch": 4096, "epochs": 20, "learning_rate": 2e-3, "positions": 4096}


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", required=True, type=Path)
    parser.add_argument("--interactions", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--recipe", type=Path, default=RECIPES / "beauty.yaml", help="of a decoder from scratch")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of all rows")
    parser.add_argument("--teacher", type=Path, help="bundle that the taught rows learn from")
    parser.add_argument("--reference", help="the row that the others are tested against (the first)")
    parser.add_argument("--max-questions", type=int, help="test questions drawn, instead of all")
    parser.add_argument("rows", nargs="+", choices=list(ROWS), metavar="ROW", help=", ".join(map(repr, ROWS)))
    arguments = parser.parse_args(given)
    if arguments.teacher is None and any(ROWS[row].get("training.teacher") for row in arguments.rows):
        parser.error("A taught row needs --teacher, a bundle of the same tables.")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = {name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in arguments.set)}
    recipe = load_recipe(arguments.recipe, settings | {"evaluation.baselines": [FLOOR]})
    tables = read_tables(arguments.items, arguments.interactions, recipe)
    split = split_histories(tables.interactions.histories(tables.catalogue, recipe.data.unknown_items), recipe)
    questions = split.test.sample(arguments.max_questions, 0) if arguments.max_questions else split.test
    print(", ".join(f"{name} {found[:16]}" for name, found in tables.hashes.items()),
          f"{arguments.recipe.name} {settings}, seeds {arguments.seeds}, {len(questions)} questions", flush=True)  # fmt: skip
    said = arguments.out / "about.json"
    about = json.dumps({"recipe": recipe.to_dict(), "data": tables.hashes}, indent=2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not said.exists():
        said.write_text(about, encoding="utf-8")
    elif said.read_text(encoding="utf-8") != about:
        parser.error(f"{arguments.out} holds fits of another recipe, of other settings or data ({said} says which).")
    results, costs = evaluate_baselines(tables.catalogue, split, recipe, questions), []
    for row in arguments.rows:
        for seed in arguments.seeds:
            folder = fitted(row, seed, tables.catalogue, recipe, arguments)
            found, cost = measured(row, seed, folder, questions)
            results.append(found)
            costs.append(cost)
            print(report_table([found]), flush=True)
    print(comparison_table(compare(results, reference=arguments.reference or arguments.rows[0])))
    print("\n" + markdown_table(["row", "seed", "weights", "epochs, the best", "seconds of training"], costs))


def fitted(row: str, seed: int, catalogue: Catalogue, recipe: Recipe, arguments: argparse.Namespace) -> Path:
    """The bundle of a row, where it is not there yet made with the codes and the base of all."""
    tables = {"items": arguments.items, "interactions": arguments.interactions}
    out, codes = arguments.out / f"{row.replace(', ', '-').replace(' ', '_')}-{seed}", arguments.out / "codes"
    taught = ROWS[row].get("training.teacher") == TEACHER
    if (out / MANIFEST).exists():
        if (
            taught
            and read_bundle(out).manifest.get("made_with", {}).get("training.teacher") != read_bundle(arguments.teacher).hash
        ):
            raise SystemExit(f"{out} was taught by another bundle than {arguments.teacher}. Give another --out.")
        return out
    if not (codes / MANIFEST).exists():
        tokenize(**tables, out=codes, recipe=plain(recipe))
    changes = dict(ROWS[row])
    if changes.get("model.pretrained") == BASE_FOLDER:
        changes["model.pretrained"] = str(base(catalogue, recipe, arguments.out / "base"))
    if taught:
        changes["training.teacher"] = str(arguments.teacher)
    asked = {"seed": seed, "evaluation.baselines": [], "evaluation.max_questions": 1}
    given = {name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in arguments.set)}
    fit(**tables, out=out, recipe=load_recipe(arguments.recipe, given | asked | changes), codes=codes)
    return out


def plain(recipe: Recipe) -> Recipe:
    """The recipe with what codes are made of alone."""
    return replace(Recipe(), seed=recipe.seed, data=recipe.data, text=recipe.text, tokenizer=recipe.tokenizer)


def base(catalogue: Catalogue, recipe: Recipe, folder: Path) -> Path:
    """A decoder of the recipe's layers that has learned the catalogue's texts, and its words; from seed 0."""
    if (folder / "config.json").exists():
        return folder
    template = default_template(catalogue) if recipe.text.template == "auto" else recipe.text.template
    texts = render(catalogue, template)
    spelling = Tokenizer(models.BPE())
    spelling.pre_tokenizer, spelling.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner = trainers.BpeTrainer(vocab_size=BASE["words"], special_tokens=["<|end|>"], initial_alphabet=alphabet,
                                  show_progress=False)  # fmt: skip
    spelling.train_from_iterator(texts, learner)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelling, eos_token="<|end|>", pad_token="<|end|>")
    order = np.random.default_rng(0).permutation(len(texts))
    spelled = tokenizer([texts[item] for item in order])["input_ids"]
    tokens = np.concatenate([[0], *([*text, 0] for text in spelled)]).astype(np.int64)  # 0 ends a text and begins the next
    stretch = min(BASE["stretch"], len(tokens))
    rows = tokens[: len(tokens) // stretch * stretch].reshape(-1, stretch)
    partial = folder.with_name("base.partial")
    tokenizer.save_pretrained(partial)
    seeded(0, lambda: language_model(recipe.model, len(tokenizer), rows).save_pretrained(partial))
    partial.rename(folder)
    return folder


def language_model(shape: ModelConfig, words: int, rows: np.ndarray, epochs: int = int(BASE["epochs"])) -> Qwen3ForCausalLM:
    """A Qwen3 of the shape of the recipe's decoder, trained on stretches of text [n, stretch], so many times."""
    model = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=words, hidden_size=shape.hidden_size, intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.heads,
        head_dim=shape.head_width, max_position_embeddings=int(BASE["positions"]), tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=0, pad_token_id=0,
    ))  # fmt: skip
    batch = max(1, int(BASE["batch"]) // rows.shape[1])
    losses: list[float] = []

    def loss(some: torch.Tensor) -> torch.Tensor:
        found = model(input_ids=some, labels=some).loss
        losses.append(found.detach())
        return found

    steps = max(1, epochs * len(rows) // batch)
    train_on(rows, model, loss, steps=steps, batch_size=batch, learning_rate=BASE["learning_rate"], weight_decay=0.05,
             desc="Training the base")  # fmt: skip
    last = float(torch.stack(losses[-max(1, len(losses) // 20) :]).mean())
    weights = sum(weight.numel() for weight in model.parameters())
    print(f"Base: {weights:,} weights, {rows.size:,} tokens of text, {words} words, {steps} steps, last losses {last:.2f}",
          flush=True)  # fmt: skip
    return model.to("cpu")


def measured(row: str, seed: int, folder: Path, questions: Targets) -> tuple[Result, list[str]]:
    """The result of a bundle, and a line on what the fit cost. Asked once by the same code: places of the answers are kept
    beside the fits."""
    bundle = read_bundle(folder)
    metrics, kept = bundle.metrics, folder.parent / "measured" / f"{folder.name}-{len(questions)}"
    about = {"bundle": bundle.hash, "code": code_hash()}
    if (kept / NUMBERS).exists() and (found := read_evaluation(kept)).about == about:
        result = found.results[0]
    else:
        ranker = Recommender.load(folder).ranker
        ranker.name = row
        result = evaluate(ranker, questions)
        partial = kept.with_name(f"{kept.name}.partial")
        Evaluation([result], bundle.catalogue.item_ids[questions.items], about).save(partial)
        shutil.rmtree(kept, ignore_errors=True)
        partial.rename(kept)
    learned = metrics["validation"]
    print(json.dumps({"row": row, "seed": seed, "best validation NDCG@10": learned["best_ndcg@10"]}))
    cost = [row, str(seed), f"{metrics['weights']:,}", f"{len(learned['epochs'])}, {learned['epoch']:.0f}",
            "-" if (seconds := metrics["training_seconds"]) is None else f"{seconds:,.0f}"]  # fmt: skip
    return result, cost


def code_hash() -> str:
    """SHA-256 of the code that asks: what another one found is not taken for its answers."""
    digest = hashlib.sha256()
    for path in sorted(Path(genrec.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
