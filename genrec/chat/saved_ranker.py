"""A dialogue ranker made from a table of dialogues, and kept in a folder.

In: a catalogue and a table of dialogues (`genrec.data.dialogues`, with the column `dialogue_id`). Out: a `DialogueRanker`; a
folder with all that it learned as JSON and safetensors, nothing that runs. Each file's hash and the catalogue's are in its
manifest: a changed file and another catalogue are refused.

    catalogue = Recommender.load("runs/shop").bundle.catalogue
    save_ranker(fit_ranker(catalogue, "dialogues.parquet"), "runs/ranker")
    ranker = load_ranker("runs/ranker", catalogue)
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression

from genrec.chat.dialogue_ranker import DialogueRanker, Turns, of_words, of_words_around_names
from genrec.data.catalogue import Catalogue
from genrec.data.dialogues import read_dialogues
from genrec.data.hashing import table_hash
from genrec.errors import BundleError, DataError, SettingError, check_integer
from genrec.manifest import Kind, check_files, read_manifest, write_json, write_manifest

RANKER = Kind("dialogue ranker", 1, "genrec.chat.saved_ranker.save_ranker(ranker, folder)")
LISTS, ARRAYS = "ranker.json", "ranker.safetensors"
COUNTED = ("with_items", "with_values", "taken", "item_words", "turn_words")  # sparse matrices


def fit_ranker(catalogue: Catalogue, dialogues: Any, share: float = 0.2, seed: int = 0) -> DialogueRanker:
    """Learn from a table of dialogues (a path, an Arrow table or a DataFrame).

    share: of the dialogues, on which the weights are learned; on the others all is counted. seed: draws them. Turns that
    recommend nothing teach nothing. Raises `DataError` for a table that is none and for one that is too small, `SettingError`.
    """
    if not 0 < share < 1:
        raise SettingError(f"share must be above 0 and below 1, got {share}.")
    check_integer("seed", seed, 0)
    told, digest = read_dialogues(dialogues, catalogue, ids=True)
    useful = np.array([turn for turn, rows in enumerate(told.items) if len(rows)], np.int64)
    names = np.array(told.dialogues)[useful]
    drawn = np.random.default_rng(seed).permutation(np.unique(names))
    if len(drawn) < 2:
        raise DataError(f"A dialogue ranker needs at least 2 dialogues that recommend items, got {len(drawn)}.")
    held = np.isin(names, drawn[: min(max(1, round(share * len(drawn))), len(drawn) - 1)])
    train, validation = (
        Turns([list(told.contexts[turn]) for turn in some], [np.unique(told.items[turn]) for turn in some], names[chosen])
        for chosen, some in ((~held, useful[~held]), (held, useful[held]))
    )
    about = {"dialogues": digest, "share": share, "seed": seed, "turns": [len(train), len(validation)]}
    return DialogueRanker(catalogue.table, about=about).fit(train, validation)


def save_ranker(ranker: DialogueRanker, folder: Path | str) -> None:
    """Write a fitted ranker into a new or empty folder. Raises `SettingError` for one with votes: they are functions."""
    folder = Path(folder)
    if not hasattr(ranker, "weights"):
        raise SettingError("This dialogue ranker has learned nothing yet. Fit it before it is saved.")
    if ranker.votes:
        raise SettingError(f"A dialogue ranker with votes cannot be saved, got {sorted(ranker.votes)}. Fit it without them.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingError(f"{folder} exists and is not an empty folder. Name another one, or remove it.")
    arrays = {
        "popularity": ranker.popularity, "words.idf": ranker.words.idf_, "around.idf": ranker.around.idf_,
        "repeats.coef": ranker.repeats.coef_, "repeats.intercept": ranker.repeats.intercept_,
        "weights.named": ranker.weights["named"], "weights.not named": ranker.weights["not named"],
    }  # fmt: skip
    for name in COUNTED:
        arrays |= {f"{name}.{part}": getattr(getattr(ranker, name), part) for part in ("data", "indices", "indptr")}
    lists = {
        "names": ranker.names, "texts": ranker.texts,
        "words": ranker.words.get_feature_names_out().tolist(), "around": ranker.around.get_feature_names_out().tolist(),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / ARRAYS)
    write_json(folder / LISTS, lists)
    write_manifest(folder, RANKER, {**ranker.about, "items": table_hash(ranker.table)})


def load_ranker(folder: Path | str, catalogue: Catalogue) -> DialogueRanker:
    """Read what `save_ranker` wrote. Raises `BundleError` for a folder that is not whole, and for another catalogue than that
    of the fit."""
    folder = Path(folder)
    manifest = read_manifest(folder, RANKER)
    check_files(folder, manifest)
    check_catalogue(manifest["items"], catalogue)
    lists, arrays = json.loads((folder / LISTS).read_text(encoding="utf-8")), load_file(folder / ARRAYS)
    about: dict[str, Any] = {name: manifest[name] for name in ("dialogues", "share", "seed", "turns") if name in manifest}
    ranker = DialogueRanker(catalogue.table, lists["texts"], about=about)
    ranker.popularity = arrays["popularity"]
    ranker.weights = {case: arrays[f"weights.{case}"] for case in ("named", "not named")}
    ranker.words, ranker.around = of_words(lists["words"]), of_words_around_names(lists["around"])
    ranker.words.idf_, ranker.around.idf_ = arrays["words.idf"], arrays["around.idf"]
    ranker.repeats = LogisticRegression()
    ranker.repeats.classes_ = np.array([False, True])
    ranker.repeats.coef_, ranker.repeats.intercept_ = arrays["repeats.coef"], arrays["repeats.intercept"]
    for name in COUNTED:
        parts = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
        width = len(lists["words"]) if name.endswith("words") else len(catalogue)
        setattr(ranker, name, sp.csr_matrix(parts, (len(parts[2]) - 1, width)))
    ranker.signals([[""]])
    if ranker.names != lists["names"]:
        raise BundleError(f"The dialogue ranker in {folder} has signals that this genrec does not make. Fit it again.")
    return ranker


def check_catalogue(fitted: str, catalogue: Catalogue) -> None:
    """Raise `BundleError` for a catalogue whose table has another hash than the one that a ranker was fitted on."""
    here = table_hash(catalogue.table)
    if here != fitted:
        raise BundleError(
            f"The dialogue ranker was fitted on catalogue {fitted[:12]}, this one is {here[:12]}. Fit it on the catalogue of "
            "this bundle (`Recommender.load(...).bundle.catalogue`)."
        )
