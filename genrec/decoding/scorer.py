"""A one-pass model and the items that it knows, frozen: what votes beside a language model (`fusion.py`).

In: the ranker of a one-pass bundle and the rows of another catalogue of the same items. Out: a folder, and a ranker again.
Items that come later are not known to it.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.snapshot import Snapshot
from genrec.models.one_pass.model import OnePassModel
from genrec.models.tokens import TokenLayout

ITEMS = "items.safetensors"


def over_rows(ranker: OnePassRanker, rows: np.ndarray) -> OnePassRanker:
    """The same model over a catalogue whose row r is row `rows[r]` of its own: int64 [N]. Its fusion, if any, is left out."""
    old = ranker.snapshot
    own = Snapshot.of(old.codes[rows], ranker.layout.sizes)
    vectors = None if old.vectors is None else old.vectors[rows]
    fitted = rows if old.fitted is None else old.fitted[rows]
    return OnePassRanker(
        ranker.model, ranker.layout, Snapshot(own.index, own.codes, None, vectors, fitted), ranker.train_counts, ranker.name
    )


def save_scorer(ranker: OnePassRanker, folder: Path) -> None:
    """Write the model and its items to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ranker.model.save(folder)
    snapshot = ranker.snapshot
    arrays = {"codes": snapshot.codes, "counts": ranker.train_counts, "vectors": snapshot.vectors, "fitted": snapshot.fitted}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}, folder / ITEMS)


def load_scorer(folder: Path, device: str | None = None) -> OnePassRanker:
    """What `save_scorer` wrote, on `device` (default: a GPU where there is one)."""
    model, items = OnePassModel.load(folder, device), load_file(folder / ITEMS)
    own = Snapshot.of(items["codes"], model.shape.sizes)
    snapshot = Snapshot(own.index, own.codes, None, items.get("vectors"), items.get("fitted"))
    return OnePassRanker(model, TokenLayout.from_scratch(model.shape.sizes), snapshot, items["counts"])
