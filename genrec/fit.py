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
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec.bundle import (
    BUNDLE,
    FUSION,
    INDEX,
    ITEM_ENCODER,
    SCORER,
    USER_ADAPTER,
    USER_INDEX,
    Bundle,
    ServingSettings,
    Settings,
    read_bundle,
    tie_rank,
    write_bundle,
)
from genrec.card import model_card
from genrec.data.catalogue import Catalogue
from genrec.data.splits import Split, Targets, exclude_seen_by_default
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.scorer import over_rows, save_scorer
from genrec.decoding.snapshot import Snapshot
from genrec.errors import BundleError, SettingError
from genrec.evaluation.base import Tunable
from genrec.evaluation.baselines import BASELINES, NEED_TEXTS, TRAINED, check_baselines
from genrec.evaluation.evaluate import Result, evaluate, report_table
from genrec.evaluation.leaks import check_leaks, report_leaks
from genrec.learn import item_texts, learn_language_model, learn_one_pass, weights_of
from genrec.manifest import MANIFEST, WORK, read_manifest
from genrec.models.adapters import save_plain
from genrec.models.config import ONE_PASS
from genrec.models.decoder import save_text_tokenizer
from genrec.models.one_pass.model import OnePassModel
from genrec.models.pretrained import check_pretrained
from genrec.published import PublishedCodes, read_codes
from genrec.recipe import Recipe
from genrec.recommender import Recommender
from genrec.tables import Tables, read_tables, split_histories
from genrec.tasks import check_tasks
from genrec.tokenize import in_order_of, learned_from, make_codes, make_vectors, with_recipe_of
from genrec.training import processes
from genrec.training.fusion import choose_fusion
from genrec.training.reporters import check_reporters
from genrec.training.trainer import check_processes

log = logging.getLogger(__name__)


def fit(
    items: Any,
    interactions: Any,
    out: str | Path,
    recipe: Recipe | None = None,
    overwrite: bool = False,
    codes: str | Path | None = None,
) -> Path:
    """Make a recommender from two tables and write it to the folder `out`, which is returned. codes: a folder of published
    codes (`genrec tokenize`) to train on, instead of new ones.

    A folder with a finished bundle is refused unless `overwrite`; one with an unfinished fit of the same data and recipe is
    gone on with. Of several processes that torchrun started, each calls this with the same arguments; they train together, and
    the first does the rest. Raises `DataError`, `SettingError`, `BundleError`, `MissingDependencyError`.
    """
    recipe, out = recipe or Recipe(), Path(out)
    started = time.perf_counter()
    processes.join()
    check_processes(recipe.training)
    check_reporters(recipe.training.report_to)
    if recipe.model.architecture == ONE_PASS and processes.several():
        raise SettingError("A one-pass model trains in one process, for minutes. Start genrec fit without torchrun.")
    if recipe.post_training.method and processes.several():
        raise SettingError("post_training works in one process. Start genrec fit without torchrun, or leave it out.")
    if recipe.post_training.method and recipe.training.gradient_checkpointing:
        raise SettingError(
            "post_training keeps all activations: training.gradient_checkpointing would save memory in training alone, and "
            "what comes after it might not fit. Leave one of them out; training.accumulation_steps is for both."
        )
    check_pretrained(recipe.model)  # before an hour of other work, not after
    tables = read_tables(items, interactions, recipe)
    published = None if codes is None else read_codes(codes)
    if published:
        recipe, tables = with_recipe_of(recipe, published), in_order_of(tables, published)
    split = split_histories(tables.interactions.histories(tables.catalogue, recipe.data.unknown_items), recipe)
    codes_learned_from = None if published is None else learned_from(published)
    beside = _bundles_beside(recipe, tables)
    codes_beside = {f"codes of {name}": bundle.manifest.get("codes_learned_from") for name, bundle in beside.items()}
    leaks = check_leaks(split, tables.hashes["interactions"], {"codes": codes_learned_from} | codes_beside)
    report_leaks(leaks)
    check_baselines(recipe.evaluation.baselines, split.train, len(tables.catalogue))  # before the work, not after
    check_tasks(recipe, tables, split.train)
    scorer = _open_scorer(beside["fusion.scorer"], tables) if recipe.fusion.scorer else None
    made_with = {name: bundle.hash for name, bundle in beside.items()}
    if published is not None:
        made_with["codes"] = published.table.hash
    work = _open_work(out, recipe, tables.hashes | made_with, overwrite) if processes.is_first() else out / WORK
    exclude_seen = recipe.decoding.exclude_seen
    if exclude_seen == "auto":
        exclude_seen = exclude_seen_by_default(split.repeat_share)
    log.info(
        "%d items, %d users, %d training events; %.2f %% of them repeat an item, so seen items are %s by default",
        len(tables.catalogue), len(split.train), len(split.train.items), 100 * split.repeat_share,
        "masked" if exclude_seen else "not masked",
    )  # fmt: skip

    made = published or _make(tables, split, recipe, work)
    embedder, tokenizer, table, vectors = made.embedder, made.tokenizer, made.table, made.vectors
    counts = np.bincount(split.train.items, minlength=len(tables.catalogue))

    _seed_everything(recipe.seed)
    index = CatalogueIndex.build(table.codes, table.sizes, tie_rank(recipe.decoding.tie_rule, table.item_ids, counts))
    began, went_on = time.perf_counter(), any(path for name in ("checkpoint-*", "one_pass.pt") for path in work.rglob(name))
    one_pass = recipe.model.architecture == ONE_PASS
    learn = learn_one_pass if one_pass else partial(learn_language_model, teacher=beside.get("training.teacher"))
    ranker, trained = learn(
        recipe, tables, Snapshot(index, table.codes, None, vectors), split, counts, work, embedder, bool(exclude_seen)
    )
    training_seconds = None if went_on else time.perf_counter() - began  # of a fit that was killed nobody counted them
    log.info("Best validation NDCG@10 %.4f at epoch %g", trained.best, trained.epoch)
    if not processes.is_first():
        processes.wait()  # for the bundle
        return out
    fused: dict[str, Any] | None = None
    if recipe.fusion.votes:
        texts, most = item_texts(tables.catalogue, recipe), recipe.training.validation_users
        ranker.fusion, best = choose_fusion(ranker, split, texts, recipe.fusion, bool(exclude_seen), most, recipe.seed, scorer)
        fused = {"best_ndcg@10": best, **asdict(ranker.fusion.chosen)}
    model, layout = ranker.model, ranker.layout
    user_index, soft = (ranker.user_index, ranker.soft_maker) if isinstance(ranker, BeamRanker) else (None, None)
    vectors_read = isinstance(model, OnePassModel) and "vectors" in model.shape.config.parts

    limit = recipe.evaluation.max_questions
    questions = split.test.sample(limit, recipe.seed) if limit else split.test
    results = [evaluate(ranker, questions), *evaluate_baselines(tables.catalogue, split, recipe, questions)]
    log.info("Test set, %d questions\n%s", len(questions), report_table(results))

    metrics = {
        "validation": {"best_ndcg@10": trained.best, "epoch": trained.epoch, "steps": trained.steps, "epochs": trained.history},
        "post_training": trained.post,
        "fusion": fused,
        "test": [result.to_dict() for result in results],
        "leaks": [asdict(leak) for leak in leaks],
        "users": len(split.train),
        "training_events": len(split.train.items),
        "weights": weights_of(model) + (weights_of(soft) if soft else 0),
        "seconds": time.perf_counter() - started,
        "training_seconds": training_seconds,
        "peak_memory_bytes": _peak_memory(),
    }
    if isinstance(model, OnePassModel):
        model.save(out)
    else:
        save_plain(model, out)
        save_text_tokenizer(recipe.model, layout, out)
    (out / INDEX).parent.mkdir(exist_ok=True)
    index.save(out / INDEX, table.hash)
    if ranker.fusion:
        ranker.fusion.save(out / FUSION)
    if user_index:
        user_index.save(out / USER_INDEX)
    if soft:
        soft.save(out / (USER_ADAPTER if layout.soft else ITEM_ENCODER))
    if scorer:
        save_scorer(scorer, out / SCORER)
    write_bundle(
        out,
        settings=Settings(
            layout.base, layout.sizes, layout.start, layout.pad, recipe.training.max_history, split.repeat_share,
            recipe.decoding.tie_rule,
            _split_settings(recipe),
            layout.users,
            layout.index, layout.soft, layout.queries,
        ),
        serving=ServingSettings(recipe.decoding.beam_width, recipe.decoding.k, bool(exclude_seen)),
        catalogue=tables.catalogue,
        codes=table,
        train_counts=counts,
        tokenizer=tokenizer,
        embedder=embedder,
        metrics=metrics,
        about={
            "data": tables.hashes, "seed": recipe.seed, "recipe": recipe.to_dict(), "codes_learned_from": codes_learned_from,
            "made_with": made_with,
        },
        card=model_card(out.name, recipe, results, tables.hashes | made_with, table, layout),
        vectors=vectors if user_index or soft or vectors_read else None,
    )  # fmt: skip
    shutil.rmtree(work)
    log.info("Bundle written to %s", out)
    processes.wait()
    return out


def _make(tables: Tables, split: Split, recipe: Recipe, work: Path) -> PublishedCodes:
    """Item vectors and codes, made once: a fit that goes on has rows for these, and another machine might make others. Of
    several processes the first makes them, and the others read what it wrote."""
    folder = work / "codes"
    if processes.is_first() and not (folder / MANIFEST).exists():  # which is written last
        embedder, vectors = make_vectors(tables.catalogue, split.train, recipe, lambda encode: _cached(work, encode))
        tokenizer, table = make_codes(tables.catalogue, vectors, split.train, recipe)
        shutil.rmtree(folder, ignore_errors=True)
        made = PublishedCodes(table, tables.catalogue, vectors, tokenizer, embedder, {})
        made.write(folder, {"data": tables.hashes, "recipe": recipe.to_dict()})
    processes.wait()
    return read_codes(folder)


def _open_scorer(bundle: Bundle, tables: Tables) -> OnePassRanker:
    """The one-pass model that votes, over the rows of these tables. Raises `SettingError` for another model."""
    ranker = Recommender(bundle).ranker
    if not isinstance(ranker, OnePassRanker):
        raise SettingError(f"fusion.scorer must be the bundle of a one-pass model, {bundle.folder} holds another.")
    return over_rows(ranker, bundle.catalogue.rows(tables.catalogue.item_ids))


def _bundles_beside(recipe: Recipe, tables: Tables) -> dict[str, Bundle]:
    """The bundles that settings name, by setting. Raises `SettingError` for one that may know more than the training part, or
    has other items, and `BundleError`."""
    named = {"fusion.scorer": recipe.fusion.scorer, "training.teacher": recipe.training.teacher}
    beside = {setting: read_bundle(folder) for setting, folder in named.items() if folder}
    for setting, bundle in beside.items():
        of_bundle, ours = bundle.manifest["data"], tables.hashes
        same_split = bundle.settings.split == _split_settings(recipe)
        if any(of_bundle[name] != ours[name] for name in ("items", "interactions")) or not same_split:
            raise SettingError(
                f"The bundle {bundle.folder} of {setting} was fitted on other tables or another split, and may have trained on "
                "what is asked here. Fit it on the same tables with the same data section."
            )
    return beside


def _split_settings(recipe: Recipe) -> dict[str, Any]:
    return recipe.data.cut | {"questions": recipe.data.questions}


def evaluate_baselines(catalogue: Catalogue, split: Split, recipe: Recipe, questions: Targets) -> list[Result]:
    """Measure the recipe's baselines on the same questions as the model. Raises what fitting them raises."""
    results, masked = [], exclude_seen_by_default(split.repeat_share)
    for name in recipe.evaluation.baselines:
        if name in TRAINED:
            network = TRAINED[name](recipe.seed).fit(split.train, len(catalogue), split.validation, masked)
            results.append(evaluate(network, questions))
            continue
        needed = item_texts(catalogue, recipe) if name in NEED_TEXTS else len(catalogue)
        baseline = BASELINES[name](recipe.seed).fit(split.train, needed)
        if recipe.evaluation.tune_baselines and isinstance(baseline, Tunable):
            baseline.tune(split.validation, masked)
        results.append(evaluate(baseline, questions))
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
        names = list(read_manifest(out, BUNDLE)["files"])
    except BundleError:  # none there, or one that nobody can read
        names = []
    (out / MANIFEST).unlink(missing_ok=True)
    for name in names:
        (out / name).unlink(missing_ok=True)


def _cached(work: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Text vectors, made once and kept in `work`."""
    path = work / "text_vectors.npy"
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


def _peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
