"""Rows of codes that begin at the mean vectors of their items."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from genrec.errors import SettingError
from genrec.models.centroids import SPREAD, begin_at_centroids
from genrec.models.config import ModelConfig
from genrec.models.decoder import build_decoder
from genrec.models.encoder_decoder import build_encoder_decoder
from genrec.models.tokens import TokenLayout
from genrec.recipe import load_recipe

SIZES = (4, 100)
ITEMS = 90  # so ten codes of the last level have no item


def begun(
    hidden: int = 32, architecture: str = "decoder", blank: int = 0, width: int = 24
) -> tuple[PreTrainedModel, TokenLayout, np.ndarray, np.ndarray, torch.Tensor]:
    """A model, its layout, codes and vectors, and its rows before; the vectors of the first `blank` items are zero."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, 4, ITEMS)
    vectors = 3 * random.normal(size=(4, width))[kinds] + random.normal(size=(ITEMS, width))
    vectors[:blank] = 0
    codes = np.column_stack([kinds, np.arange(ITEMS)])
    torch.manual_seed(0)
    shape = ModelConfig(architecture, hidden_size=hidden, layers=1, heads=2, feed_forward=32)  # type: ignore[arg-type]
    model, layout = (build_decoder if architecture == "decoder" else build_encoder_decoder)(shape, SIZES, 32)
    before = model.get_input_embeddings().weight.detach().clone()
    begin_at_centroids(model, layout, codes, vectors.astype(np.float32))
    return model, layout, codes, vectors, before


@pytest.mark.parametrize("architecture", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize("hidden", [32, 16])
def test_codes_lie_as_their_items_do(architecture: str, hidden: int) -> None:
    """Correlation of all pairs' cosines: items by their vectors, and their last codes by their rows."""
    model, layout, codes, vectors, before = begun(hidden, architecture)
    tokens = layout.to_tokens(codes)[:, 1]

    def cosines(some: np.ndarray) -> np.ndarray:
        unit = some / np.linalg.norm(some, axis=1, keepdims=True)
        return (unit @ unit.T)[np.triu_indices(ITEMS, 1)]

    wanted = cosines(vectors - vectors.mean(axis=0))
    rows = model.get_input_embeddings().weight.detach()
    assert np.corrcoef(wanted, cosines(rows[tokens].numpy()))[0, 1] > 0.9
    assert abs(np.corrcoef(wanted, cosines(before[tokens].numpy()))[0, 1]) < 0.2
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_code_is_the_mean_of_its_items() -> None:
    model, layout, codes, vectors, _ = begun(width=24)
    rows = model.get_input_embeddings().weight.detach().numpy()
    of_kinds = rows[layout.to_tokens(codes)[:, 0]]
    for kind in range(4):
        own = vectors[codes[:, 0] == kind].mean(axis=0) - vectors.mean(axis=0)
        others = [vectors[codes[:, 0] == other].mean(axis=0) - vectors.mean(axis=0) for other in range(4)]
        row = of_kinds[codes[:, 0] == kind][0]
        wanted = [own @ other / np.linalg.norm(own) / np.linalg.norm(other) for other in others]
        found = [row @ rows[layout.to_tokens(np.array([k, 0]))[0]] for k in range(4)]
        assert int(np.argmax(found)) == int(np.argmax(wanted)) == kind
        assert np.corrcoef(found, wanted)[0, 1] > 0.95


@pytest.mark.parametrize("hidden", [16, 32, 96])
@pytest.mark.parametrize("architecture", ["decoder", "encoder-decoder"])
def test_rows_are_as_wide_as_said_and_what_has_no_item_stays_as_it_was(architecture: str, hidden: int) -> None:
    model, layout, codes, _, before = begun(hidden, architecture, blank=5)
    rows = model.get_input_embeddings().weight.detach()
    told = layout.to_tokens(codes[5:])
    usual = float(before[list(layout.code_tokens)].std())
    for level in range(2):
        assert float(rows[np.unique(told[:, level])].std()) == pytest.approx(SPREAD * usual, rel=0.05)
    rest = np.setdiff1d(np.arange(len(rows)), told)
    assert len(rest) >= 15, "the codes of no item, those of items that nothing is known of, start and padding"
    assert torch.equal(rows[rest], before[rest])


def test_equal_items_begin_apart() -> None:
    torch.manual_seed(0)
    model, layout = build_decoder(ModelConfig(hidden_size=16, layers=1, heads=2, feed_forward=16), (2, 4), 32)
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    begin_at_centroids(model, layout, np.array([[0, 0], [0, 1], [1, 2], [1, 3]]), vectors)
    rows = model.get_input_embeddings().weight.detach()[layout.to_tokens(np.array([[0, 0], [0, 1], [1, 2]]))[:, 1]]
    assert 0 < torch.dist(rows[0], rows[1]) < torch.dist(rows[0], rows[2]) / 2


def test_without_any_vector_nothing_changes() -> None:
    model, *_, before = begun(blank=ITEMS)
    assert torch.equal(model.get_input_embeddings().weight, before)


@pytest.mark.parametrize("more", [{"model.pretrained": "a"}, {"model.architecture": "one-pass"}])
def test_it_is_of_language_models_from_scratch(more: dict) -> None:
    with pytest.raises(SettingError, match="of a language model from scratch"):
        load_recipe(overrides={"model.new_rows": "vectors"} | more)
