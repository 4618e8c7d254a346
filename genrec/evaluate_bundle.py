"""Evaluate a bundle on an event table: `genrec evaluate`.

In: a bundle folder and the events to split as its fit did. Out: one `Result` for the model and one per baseline, all on the
same questions. Baselines are fitted on the training part of these events only.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from genrec.data.hashing import table_hash
from genrec.data.readers import load_interactions
from genrec.decoding.unconstrained import illegal_rate
from genrec.errors import check_choice
from genrec.evaluation.baselines import check_baselines
from genrec.evaluation.evaluate import Result, evaluate
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
) -> list[Result]:
    """Results of the model, then of the baselines. columns: genrec's name -> yours (None: as in the fit).
    unconstrained: also decode once without the catalogue and report how many of the best 10 sequences were illegal.

    Says so when the events are not the ones of the fit: then the model may have trained on what it is asked.
    """
    check_choice("part", part, ["validation", "test"])
    recommender = Recommender.load(folder)
    bundle = recommender.bundle
    recipe: Recipe = build(Recipe, bundle.manifest["recipe"], "")
    events = load_interactions(interactions, recipe.data.interactions_columns if columns is None else columns)
    fitted, now = bundle.manifest["data"]["interactions"], table_hash(events.table)
    if fitted != now:
        log.warning(
            "These interactions (hash %s) are not the ones of the fit (hash %s): questions may be among its training data.",
            now[:12], fitted[:12],
        )  # fmt: skip
    split = split_histories(events.histories(bundle.catalogue, recipe.data.unknown_items), recipe)
    questions = split.validation if part == "validation" else split.test
    if max_questions:
        questions = questions.sample(max_questions, recipe.seed)
    if baselines:
        check_baselines(recipe.evaluation.baselines, split.train, len(bundle.catalogue))  # before the work, not after
    ranker = recommender.ranker
    ranker.beam_width = beam_width or ranker.beam_width
    result = evaluate(ranker, questions)
    if unconstrained:
        result = replace(result, illegal_rate=illegal_rate(ranker, questions.histories, progress=True).rate)
    return [
        result,
        *(evaluate_baselines(bundle.catalogue, split, recipe, questions) if baselines else []),
    ]
