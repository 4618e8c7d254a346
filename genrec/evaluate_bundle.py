"""Evaluate a bundle on an event table: `genrec evaluate`.

In: a bundle folder and the events to split as its fit did. Out: a `Report` on the model and the baselines, all asked the same
questions. Baselines are fitted on the training part of these events only. Diversity of lists is that of the vectors which the
items' codes stand for.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genrec import __version__
from genrec.data.hashing import table_hash
from genrec.data.readers import load_interactions
from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.unconstrained import illegal_rate
from genrec.embedding.text import CATEGORIES, PROVIDERS, labels, title_column
from genrec.errors import SettingError, check_choice
from genrec.evaluation.baselines import check_baselines
from genrec.evaluation.code_level import tokenizer_codes
from genrec.evaluation.evaluate import MASKED, UNMASKED, evaluate
from genrec.evaluation.leaks import check_leaks, report_leaks
from genrec.evaluation.lists import ListContext
from genrec.evaluation.probes import probe_model
from genrec.evaluation.report import Report, full_report
from genrec.evaluation.saved import Evaluation
from genrec.fit import evaluate_baselines
from genrec.recipe import Recipe, build
from genrec.recommender import Recommender
from genrec.tables import split_histories

log = logging.getLogger(__name__)


def evaluate_bundle(
    folder: Path | str,
    interactions: Any,
    columns: dict[str, str] | None = None,
    part: Literal["validation", "test"] = "test",
    beam_width: int | None = None,
    max_questions: int = 0,
    baselines: bool = True,
    unconstrained: bool = False,
    questions_about: Literal["all", "warm", "cold"] | None = None,
    strict: bool = False,
    probes: bool = False,
    width: int | None = None,
) -> Report:
    """Measure the model, then the baselines. columns: genrec's name -> yours (None: as in the fit).
    unconstrained: also decode once without the catalogue and report how many of the best 10 sequences were illegal.
    questions_about: targets with ("warm") or without ("cold") training events, or all (None: as in the fit). strict: raise
    `DataError` for a leak instead of logging it. probes: also ask what a linear model can read from the model's user vectors.
    width: of a one-pass model fitted with `one_pass.widths` (None: as the bundle is served).

    Leaks are looked for first (evaluation/leaks.py), among them events that are not the ones of the fit: then the model may
    have trained on what it is asked.
    """
    check_choice("part", part, ["validation", "test"])
    recommender = Recommender.load(folder, width=width)
    bundle = recommender.bundle
    recipe: Recipe = build(Recipe, bundle.manifest["recipe"], "")
    events = load_interactions(interactions, recipe.data.interactions_columns if columns is None else columns)
    if questions_about is not None:
        recipe = replace(recipe, data=replace(recipe.data, questions=questions_about))
    split = split_histories(events.histories(bundle.catalogue, recipe.data.unknown_items), recipe)
    adapted = bundle.manifest.get("adapted_from")
    if adapted:
        log.info(
            "Zero-shot: the model was fitted elsewhere (interactions %s); %d of these %d items have a text that an item had "
            "there", str(adapted["fitted_on"]["interactions"])[:12], adapted["known_texts"], len(bundle.catalogue),
        )  # fmt: skip
    learned_from = {"model": bundle.manifest["data"]["interactions"], "codes": bundle.manifest.get("codes_learned_from")}
    data = table_hash(events.table)
    leaks = check_leaks(split, data, learned_from)
    report_leaks(leaks, strict)
    asked = split.validation if part == "validation" else split.test
    questions = asked.sample(max_questions, recipe.seed) if max_questions else asked
    if baselines:
        check_baselines(recipe.evaluation.baselines, split.train, len(bundle.catalogue))  # before the work, not after
    ranker = recommender.ranker
    if isinstance(ranker, BeamRanker):
        ranker.beam_width = beam_width or ranker.beam_width
    elif beam_width or unconstrained:
        raise SettingError(
            "beam_width and the illegal rate are of the beam search, and this bundle scores every item. Leave them out."
        )
    result = evaluate(ranker, questions)
    if unconstrained and isinstance(ranker, BeamRanker):
        result = replace(result, illegal_rate=illegal_rate(ranker, questions.histories, progress=True).rate)
    others = evaluate_baselines(bundle.catalogue, split, recipe, questions) if baselines else []
    about = {
        "genrec": __version__, "bundle": bundle.hash, "items": bundle.manifest["data"]["items"], "interactions": data,
        "split": recipe.data.split, "part": part, "questions about": recipe.data.questions, "seed": recipe.seed,
        "beam width": str(ranker.beam_width) if isinstance(ranker, BeamRanker) else "none, every item is scored",
    }  # fmt: skip
    if isinstance(ranker, OnePassRanker):
        about["width"] = str(ranker.width)
    table = bundle.catalogue.table
    codes = tokenizer_codes(bundle.codes)
    vectors, categories = bundle.load_encoders()[1].decode(codes), labels(table, CATEGORIES)
    counts = np.bincount(split.train.items, minlength=len(table))  # of this shop, wherever the model was fitted
    context = ListContext(counts, vectors, categories, labels(table, PROVIDERS))
    report = full_report(
        Evaluation([result, *others], bundle.catalogue.item_ids[questions.items], about),
        questions,
        context,
        [str(title or "") for title in table.column(title_column(table.schema)).to_pylist()],
        codes,
        leaks,
        MASKED if bundle.serving.exclude_seen else UNMASKED,
        recipe.seed,
    )
    if not probes:
        return report
    known = np.full(len(table), "", object) if categories is None else categories
    return replace(report, probes=probe_model(ranker, asked, known, vectors, counts, max_questions, recipe.seed))
