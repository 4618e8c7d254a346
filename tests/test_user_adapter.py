"""The user adapter: soft tokens of what came before the window, worth their places where tastes lie there alone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_user_index import SHORT, recall, shop_of_hidden_tastes

from genrec.fit import fit
from genrec.recipe import load_recipe


@pytest.fixture(scope="module")
def shop() -> tuple[pa.Table, pa.Table]:
    return shop_of_hidden_tastes()


@pytest.mark.parametrize(
    "shape",
    [
        {"model.architecture": "encoder-decoder", "training.targets_per_user": 0},
        {"model.layers": 2, "model.heads": 4, "training.epochs": 20, "training.patience": 20},
    ],
    ids=["t5", "decoder"],
)
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_x(shop, tmp_path, shape, pooling):
    out = fit(*shop, tmp_path / "shop", load_recipe(overrides=SHORT | {"model.user_adapter": pooling} | shape))
    import json
    m = json.loads((out / "metrics.json").read_text())
    print("RES", pooling, recall(out), [(round(e["eval_ndcg@10"],3)) for e in m["validation"]["epochs"]], m["training_seconds"])
