"""Packed layers give what plain ones give, for every family, and only where they may."""

import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import FAMILIES, brute_force, make_model, make_ranker

from genrec import Recommender
from genrec.bundle import read_bundle
from genrec.models import packed
from genrec.models.packed import PackedLinear, pack_linears

x86 = pytest.mark.skipif(platform.machine() != "x86_64" or not torch.backends.mkldnn.is_available(), reason="needs oneDNN")


@x86
@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_model_ranks_as_the_plain_one(family: str) -> None:
    make_model.cache_clear()
    codes = np.random.default_rng(0).integers(0, 6, (40, 3))
    ranker = make_ranker((6, 6, 6), codes, family=family)
    history = np.arange(5)
    expected = brute_force(ranker, history)
    assert pack_linears(ranker.model) == (0 if family == "gpt2" else 2 * 7 if family != "t5" else 2 * 6 + 2 * 10), family
    np.testing.assert_allclose(brute_force(ranker, history), expected, atol=1e-4)
    make_model.cache_clear()


@x86
def test_a_bundle_is_loaded_packed_on_the_cpu_with_its_output_layer_plain(bundle: Path) -> None:
    model = read_bundle(bundle).load_model("cpu")
    layers = [type(module) for module in model.modules()]
    assert layers.count(PackedLinear) > 0
    assert type(model.get_output_embeddings()) is torch.nn.Linear
    assert next(model.parameters()).dtype == torch.float32


def test_other_types_stay_as_they_are() -> None:
    make_model.cache_clear()
    assert pack_linears(make_model("qwen3", 20, 0).bfloat16()) == 0
    make_model.cache_clear()


def test_where_it_cannot_be_done_the_answers_are_the_same_and_the_log_says_so(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = Recommender.load(bundle).recommend([[]], k=5)[0]

    def missing(linear: torch.nn.Linear) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(packed, "PackedLinear", missing)
    monkeypatch.setattr(packed.platform, "machine", lambda: "x86_64")
    recommender = Recommender.load(bundle, "cpu")
    assert [item.item_id for item in recommender.recommend([[]], k=5)[0]] == [item.item_id for item in expected]
    if torch.backends.mkldnn.is_available():
        assert "cannot pack linear layers here (no such operator)" in caplog.text
