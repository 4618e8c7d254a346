"""An evaluation on disk: what was measured, and the place of every target, so that it can be compared with another one later.

In: results on the same questions. Out: a folder with `evaluation.json` (numbers, for people and programs) and
`questions.parquet` (one row per question: user, target, and where each ranker put it). `genrec compare` reads such folders.

Legend: `M` questions.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genrec.errors import BundleError, DataError
from genrec.evaluation.evaluate import Result
from genrec.evaluation.statistics import Estimate

FORMAT = 1
NUMBERS, QUESTIONS = "evaluation.json", "questions.parquet"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """results: of the model first, then of the baselines. targets: item ids, object [M]. about: what else is known about the
    run (hashes of the data, split, part, seed), JSON-able.
    """

    results: Sequence[Result]
    targets: np.ndarray
    about: dict[str, Any]

    @property
    def questions(self) -> str:
        """SHA-256 of who was asked and what the answers are: 64 hex digits. Only results with the same one can be compared."""
        digest = hashlib.sha256()
        for text in (*self.results[0].users.tolist(), "", *self.targets.tolist()):
            digest.update(f"{len(text.encode())}:".encode() + text.encode())
        return digest.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single questions, JSON-able."""
        results = [result.to_dict() for result in self.results]
        return {"format": FORMAT, "about": self.about, "questions": self.questions, "results": results}

    def save(self, folder: Path, more: dict[str, Any] | None = None) -> None:
        """Write both files; `more` goes beside the numbers. Raises `DataError` for two results of one name: nobody could tell
        them apart later.
        """
        names = [result.name for result in self.results]
        if len(set(names)) != len(names):
            raise DataError(f"Results must have different names, got {names}.")
        columns = {"user_id": pa.array(self.results[0].users, pa.string()), "item_id": pa.array(self.targets, pa.string())}
        for result in self.results:
            for protocol, positions in result.positions.items():
                columns[f"{result.name}, {protocol}"] = pa.array(positions.astype(np.int32))
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), folder / QUESTIONS)
        (folder / NUMBERS).write_text(json.dumps(self.to_dict() | (more or {}), indent=2) + "\n", encoding="utf-8")


def read_evaluation(folder: Path) -> Evaluation:
    """What `Evaluation.save` wrote; the lists themselves (`Result.rows`) are not kept. Raises `BundleError`."""
    try:
        numbers = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
        table = pq.read_table(folder / QUESTIONS)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{folder} holds no evaluation that can be read ({error}). `genrec evaluate BUNDLE --out {folder}` makes one."
        ) from None
    if not isinstance(numbers, dict) or numbers.get("format") != FORMAT:
        raise BundleError(f"{folder / NUMBERS} is not of format {FORMAT}, which this genrec reads. Evaluate again.")
    users, targets = (np.array(table.column(name).to_pylist(), object) for name in ("user_id", "item_id"))
    results = []
    for found in numbers["results"]:
        places = {p: table.column(f"{found['name']}, {p}").to_numpy().astype(np.int64) for p in found["metrics"]}
        metrics = {p: {m: Estimate(**e) for m, e in values.items()} for p, values in found["metrics"].items()}
        results.append(Result(
            found["name"], tuple(found["ks"]), users, {}, places, metrics, found["repeated_targets"], found["seconds"],
            found["illegal_rate"],
        ))  # fmt: skip
    evaluation = Evaluation(results, targets, numbers["about"])
    if evaluation.questions != numbers["questions"]:
        raise BundleError(f"The files in {folder} are not of one evaluation. Copy the folder again.")
    return evaluation


def side_by_side(evaluations: Mapping[Path, Evaluation], pools: Mapping[str, Sequence[Path]] | None = None) -> list[Result]:
    """All results of evaluations of the same questions: each folder's model under the folder's name, baselines once.

    pools: name -> folders whose models are one model fitted with several seeds; they all get that name, see `compare`.
    Raises `DataError` where the questions differ, where two models would have the same name, or where one fit is pooled twice.
    """
    first = next(iter(evaluations.values()), None)
    if first is None:
        raise DataError("There is nothing to compare. Give folders that `genrec evaluate --out` wrote.")
    pool_of = {folder: name for name, folders in (pools or {}).items() for folder in folders}
    names = {folder: pool_of.get(folder, folder.resolve().name) for folder in evaluations}
    for folder, name in names.items():
        if folder not in pool_of and list(names.values()).count(name) > 1:
            raise DataError(f"Two of the folders are called {name!r}. Rename one: a model is listed under its folder's name.")
    models: list[Result] = []
    fits: dict[str, list[str]] = {}  # name -> bundles
    baselines: dict[str, Result] = {}
    for folder, evaluation in evaluations.items():
        if evaluation.questions != first.questions:
            raise DataError(
                f"{folder} asked other questions than {next(iter(evaluations))}. Evaluate on the same events, split and part."
            )
        models.append(replace(evaluation.results[0], name=names[folder]))
        fits.setdefault(names[folder], []).append(str(evaluation.about.get("bundle", folder)))
        for result in evaluation.results[1:]:
            baselines.setdefault(result.name, result)
    for name, bundles in fits.items():
        if len(set(bundles)) < len(bundles):
            raise DataError(f"{name!r} pools the same fit twice, which says nothing about seeds. Fit again with another seed.")
    return [*models, *(result for name, result in baselines.items() if name not in fits)]
