"""Small one-pass recommenders of every kind, for tests."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.snapshot import Snapshot
from genrec.models.one_pass.config import OnePassConfig, Shape
from genrec.models.one_pass.model import OnePassModel
from genrec.models.tokens import TokenLayout

COUNT, HISTORY, SIZES = 20, 4, (4, 3)
# One-pass recommenders by the choices of their papers.
METHODS = {
    "composed": OnePassConfig(),
    "filtered": OnePassConfig(filter_weight=0.5, frequencies=2),
    "rpg": OnePassConfig(parts=("codes",), loss="codes"),
    "recgpt": OnePassConfig(identifier="codes", loss="codes"),
    "setrec": OnePassConfig(identifier="set", attention="blocked", loss="slots"),
    "h2rec": OnePassConfig(identifier="dual", attention="branches"),
}


def world(method: str, seed: int = 0, width: int | None = None, **others: Any) -> OnePassRanker:
    """Random codes (some shared), vectors and weights; items 15 to 19 were never met in training. others: settings that are
    not the method's."""
    config = replace(METHODS[method], **others)
    random = np.random.default_rng(seed)
    codes = random.integers(0, SIZES, (COUNT, len(SIZES)))
    vectors = random.standard_normal((COUNT, 10)).astype(np.float32) if "vectors" in config.parts else None
    counts = np.where(np.arange(COUNT) < 15, 1, 0)
    torch.manual_seed(seed)
    widths = (6, 4) if vectors is not None else (0, 0)
    model = OnePassModel(Shape(config, SIZES, COUNT, *widths, HISTORY, 16, 1, 2, 32, 0.1)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(10)
    live = Snapshot.of(codes, SIZES)
    snapshot = Snapshot(live.index, live.codes, None, vectors)
    return OnePassRanker(model, TokenLayout.from_scratch(SIZES), snapshot, counts, width=width)
