"""FSQ: codes are numbers on a grid, and what RecGPT's sheet asks of them."""

import numpy as np
import pytest
import torch
from contract import clustered_vectors

from genrec.errors import DataError, SettingError
from genrec.tokenizers.fsq import FSQ, FSQConfig, grid_places, quantise, to_index, to_values

GRID = (8, 8, 8, 6, 5)


def test_every_code_comes_back_from_the_numbers_it_stands_for() -> None:
    codes = np.arange(15_360)
    values = to_values(codes, GRID)
    places = np.round(values * (np.array(GRID) // 2) + np.array(GRID) // 2).astype(int)
    np.testing.assert_array_equal(to_index(places, GRID), codes)
    assert values.min() >= -1
    assert values.max() <= 1
    assert len(np.unique(values, axis=0)) == 15_360
    with pytest.raises(DataError, match="from 0 to 15359"):
        to_values(np.array([15_360]), GRID)


def test_training_and_encoding_round_alike_and_reach_every_level() -> None:
    z = torch.linspace(-8, 8, 4001).unsqueeze(1).repeat(1, 5)
    values = quantise(z, GRID).numpy()
    places = grid_places(z.double().numpy(), GRID)
    np.testing.assert_allclose(values, to_values(to_index(places, GRID), GRID), atol=1e-6)
    for number, levels in enumerate(GRID):
        assert sorted(set(places[:, number].tolist())) == list(range(levels))


def test_gradients_pass_the_rounding_as_if_it_were_not_there() -> None:
    z = torch.randn(50, 5, requires_grad=True)
    quantise(z, GRID).sum().backward()
    rounded = z.grad.clone()
    z.grad = None
    grid = torch.tensor(GRID, dtype=torch.float32)
    half, offset = (grid - 1) * (1 - 1e-3) / 2, torch.where(grid % 2 == 0, 0.5, 0.0)
    ((torch.tanh(z + torch.atanh(offset / half)) * half - offset) / (grid // 2)).sum().backward()
    torch.testing.assert_close(rounded, z.grad, atol=1e-4, rtol=1e-3)


def test_one_vocabulary_for_all_slices_whatever_the_catalogue() -> None:
    tokenizer = FSQ(FSQConfig(steps=1)).fit(clustered_vectors())
    assert tokenizer.sizes == (15_360,) * 4
    assert tokenizer.shared_vocabulary
    codes = tokenizer.encode(clustered_vectors(5))
    assert codes.max() < 15_360


@pytest.mark.parametrize(
    "settings", [{"grid": ()}, {"grid": (1, 4)}, {"grid": (256, 256, 2)}, {"slices": 0}, {"learning_rate": 0}]
)
def test_impossible_settings_are_refused(settings: dict) -> None:
    with pytest.raises(SettingError):
        FSQConfig(**settings)
