"""The main job, in the order of the data: two tables in, a bundle out.

    from genrec.fit import fit
    fit("items.csv", "events.csv", "runs/shop")                       # paths, Arrow tables, DataFrames or HF datasets

Stages: read -> split -> item vectors -> codes -> language model -> evaluation -> bundle. What is slow is kept in `OUT/work`
until the bundle is complete, so a fit that was killed goes on where it was when the same command is run again.
"""

import json
import logging
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec.bundle import INDEX, MANIFEST, WORK, ServingSettings, Settings, read_manifest, tie_rank, write_bundle
from genrec.card import model_card
from genrec.codes import CodeTable
from genrec.data.catalogue import Catalogue
from genrec.data.hashing import table_hash
from genrec.data.interactions import Histories, Interactions
from genrec.data.readers import load_catalogue, load_interactions
from genrec.data.splits import Split, Targets, exclude_seen_by_default, global_time, leave_one_out
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Snapshot
from genrec.embedding.fused import EmbeddingConfig, ItemEmbedder
from genrec.embedding.text import default_template, render
from genrec.errors import BundleError, DataError
from genrec.evaluation.baselines import CooccurrenceTfidf, Popularity
from genrec.evaluation.evaluate import Result, evaluate, report_table
from genrec.models.decoder import build_decoder, merged, require_peft, save_text_tokenizer
from genrec.recipe import Recipe
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.collisions import assign
from genrec.tokenizers.rq_kmeans import RQKMeans
from genrec.training.trainer import train

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Tables:
    """The two tables, read and checked, with the hashes that name them in every result."""

    catalogue: Catalogue
    interactions: Interactions
    hashes: dict[str, str]


def fit(items: Any, interactions: Any, out: str | Path, recipe: Recipe | None = None, overwrite: bool = False) -> Path:
    """Make a recommender from two tables and write it to the folder `out`, which is returned.

    A folder with a finished bundle is refused unless `overwrite`; one with an unfinished fit of the same data and recipe is
    gone on with. Raises `DataError`, `SettingError`, `BundleError`, `MissingDependencyError`.
    """
    recipe, out = recipe or Recipe(), Path(out)
    started = time.perf_counter()
    if recipe.model.pretrained and recipe.model.lora_rank:
        require_peft()  # before an hour of other work, not after
    tables = read_tables(items, interactions, recipe)
    split = split_histories(tables.interactions.histories(tables.catalogue, recipe.data.unknown_items), recipe)
    work = _open_work(out, recipe, tables.hashes, overwrite)
    exclude_seen = recipe.decoding.exclude_seen
    if exclude_seen == "auto":
        exclude_seen = exclude_seen_by_default(split.repeat_share)
    log.info(
        "%d items, %d users, %d training events; %.2f %% of them repeat an item, so seen items are %s by default",
        len(tables.catalogue), len(split.train), len(split.train.items), 100 * split.repeat_share,
        "masked" if exclude_seen else "not masked",
    )  # fmt: skip

    embedder, tokenizer, codes = make_codes(tables.catalogue, split.train, recipe, work)
    counts = np.bincount(split.train.items, minlength=len(tables.catalogue))

    _seed_everything(recipe.seed)
    max_tokens = 1 + codes.levels * (recipe.training.max_history + 1)
    model, layout = build_decoder(recipe.model, codes.sizes, max_tokens)
    index = CatalogueIndex.build(codes.codes, codes.sizes, tie_rank(recipe.decoding.tie_rule, codes.item_ids, counts))
    snapshot = Snapshot(index, codes.codes)
    log.info("Training a %s of %.1fM weights on %d users", model.config.model_type, _weights(model) / 1e6, len(split.train))
    trained = train(model, layout, snapshot, split, recipe.training, work / "training", bool(exclude_seen), recipe.seed)
    log.info("Best validation NDCG@10 %.4f at epoch %g", trained.best, trained.epoch)

    model = merged(model)
    ranker = BeamRanker(model, layout, snapshot, recipe.decoding.beam_width, recipe.training.max_history)
    limit = recipe.evaluation.max_questions
    questions = split.test.sample(limit, recipe.seed) if limit else split.test
    results = [evaluate(ranker, questions), *evaluate_baselines(tables.catalogue, split, recipe, questions)]
    log.info("Test set, %d questions\n%s", len(questions), report_table(results))

    metrics = {
        "validation": {"best_ndcg@10": trained.best, "epoch": trained.epoch, "steps": trained.steps, "epochs": trained.history},
        "test": [result.to_dict() for result in results],
        "users": len(split.train),
        "training_events": len(split.train.items),
        "weights": _weights(model),
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": _peak_memory(),
    }
    model.save_pretrained(out)
    save_text_tokenizer(recipe.model, layout, out)
    (out / INDEX).parent.mkdir(exist_ok=True)
    index.save(out / INDEX, codes.hash)
    write_bundle(
        out,
        settings=Settings(
            layout.base, layout.sizes, layout.start, layout.pad, recipe.training.max_history, split.repeat_share,
            recipe.decoding.tie_rule,
            {"name": recipe.data.split, "validation_share": recipe.data.validation_share, "test_share": recipe.data.test_share},
        ),
        serving=ServingSettings(recipe.decoding.beam_width, recipe.decoding.k, bool(exclude_seen)),
        catalogue=tables.catalogue,
        codes=codes,
        train_counts=counts,
        tokenizer=tokenizer,
        embedder=embedder,
        metrics=metrics,
        about={"data": tables.hashes, "seed": recipe.seed, "recipe": recipe.to_dict()},
        card=model_card(out.name, recipe, results, tables.hashes, codes),
    )  # fmt: skip
    shutil.rmtree(work)
    log.info("Bundle written to %s", out)
    return out


def read_tables(items: Any, interactions: Any, recipe: Recipe) -> Tables:
    """Read and check both tables under the recipe's column names."""
    catalogue = load_catalogue(items, recipe.data.items_columns)
    if len(catalogue) < 2:
        raise DataError("A recommender needs at least 2 items to choose from, got a catalogue of 1.")
    events = load_interactions(interactions, recipe.data.interactions_columns)
    return Tables(catalogue, events, {"items": table_hash(catalogue.table), "interactions": table_hash(events.table)})


def split_histories(histories: Histories, recipe: Recipe) -> Split:
    """Cut as the recipe says. Raises `DataError` when nothing is left to validate or test on."""
    data = recipe.data
    split = leave_one_out(histories) if data.split == "leave-one-out" else global_time(
        histories, data.validation_share, data.test_share
    )  # fmt: skip
    for part, questions in {"validation": split.validation, "test": split.test}.items():
        if not len(questions):
            raise DataError(
                f"The {split.name} split leaves no {part} questions: {len(histories)} users with at most "
                f"{int(histories.lengths.max(initial=0))} events each. Leave-one-out needs users with 3 events or more. "
                "Bring longer histories, or try data.split: global-time."
            )
    return split


def make_codes(
    catalogue: Catalogue, train_histories: Histories, recipe: Recipe, work: Path
) -> tuple[ItemEmbedder, ItemTokenizer, CodeTable]:
    """Item vectors, the fitted item tokenizer, and the code table; vectors of the text encoder are kept in `work`."""
    text = recipe.text
    embedder = ItemEmbedder(
        EmbeddingConfig(text.encoder, text.template, text.collaborative_width, text.collaborative_weight, recipe.seed)
    )
    log.info("Item vectors: encoder %s, collaborative width %d", text.encoder, text.collaborative_width)
    vectors = embedder.fit(catalogue, train_histories, lambda encode: _cached(work / "text_vectors.npy", encode))
    tokenizer = RQKMeans(recipe.tokenizer.rq_kmeans(recipe.seed)).fit(vectors)
    plain = tokenizer.encode(vectors)
    codes = assign(catalogue.item_ids.tolist(), plain, tokenizer, recipe.tokenizer.collision_policy)
    distinct = len(np.unique(plain, axis=0))
    log.info("Codes %s: %d distinct tuples for %d items before the collision policy", codes.sizes, distinct, len(codes))
    return embedder, tokenizer, codes


def evaluate_baselines(catalogue: Catalogue, split: Split, recipe: Recipe, questions: Targets) -> list[Result]:
    """Measure the recipe's baselines on the same questions as the model."""
    results = []
    if "popularity" in recipe.evaluation.baselines:
        results.append(evaluate(Popularity().fit(split.train, len(catalogue)), questions))
    if "cooccurrence-tfidf" in recipe.evaluation.baselines:
        template = default_template(catalogue) if recipe.text.template == "auto" else recipe.text.template
        floor = CooccurrenceTfidf().fit(split.train, render(catalogue, template))
        if recipe.evaluation.tune_baselines:
            floor.tune(split.validation, exclude_seen_by_default(split.repeat_share))
        results.append(evaluate(floor, questions))
    return results


def _open_work(out: Path, recipe: Recipe, hashes: dict[str, str], overwrite: bool) -> Path:
    """The work folder of this fit: a fresh one, or the one an identical fit left behind."""
    identity = {"recipe": recipe.to_dict(), "data": hashes}
    work = out / WORK
    mark = work / "fit.json"
    if overwrite:
        shutil.rmtree(work, ignore_errors=True)
        _remove_bundle(out)
    if (out / MANIFEST).exists():
        raise BundleError(
            f"{out} holds a finished bundle already. Choose another folder, or pass overwrite=True (--overwrite)."
        )
    if out.exists() and not work.exists() and not overwrite and any(out.iterdir()):
        raise BundleError(f"{out} is not empty and not a fit of genrec's. Choose another folder, or pass --overwrite.")
    if mark.exists() and len(list(work.iterdir())) > 1:  # the mark alone: that fit failed before it had anything to keep
        before = json.loads(mark.read_text(encoding="utf-8"))
        if before != json.loads(json.dumps(identity)):
            changed = [key for key in identity if before.get(key) != json.loads(json.dumps(identity[key]))]
            raise BundleError(
                f"{out} holds an unfinished fit with another {' and '.join(changed)}. Run it with what it was started with "
                "to go on, choose another folder, or start anew with --overwrite."
            )
        log.info("Going on with the unfinished fit in %s", out)
    work.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps(identity), encoding="utf-8")
    return work


def _remove_bundle(out: Path) -> None:
    """Delete a bundle's own files, the manifest first, and nothing else that lies in the folder."""
    try:
        names = list(read_manifest(out)["files"])
    except BundleError:  # none there, or one that nobody can read
        names = []
    (out / MANIFEST).unlink(missing_ok=True)
    for name in names:
        (out / name).unlink(missing_ok=True)


def _cached(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array at `path`, made and kept there the first time."""
    if path.exists():
        return np.load(path, allow_pickle=False)
    array = make()
    partial = path.with_suffix(".partial.npy")
    np.save(partial, array, allow_pickle=False)
    partial.replace(path)
    return array


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # libraries below us still draw from it
    torch.manual_seed(seed)


def _weights(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
