"""Continuous set tokens (SETRec)."""

from pathlib import Path

import numpy as np
import pytest
from contract import clustered_vectors

from genrec.errors import DataError, SettingError
from genrec.tokenizers.set_tokens import SetTokens, SetTokensConfig

CONFIG = SetTokensConfig(tokens=3, width=8, hidden=(32,), steps=300)


def collaborative_vectors(items: int = 300) -> np.ndarray:
    vectors = np.random.default_rng(1).normal(size=(items, 6)).astype(np.float32)
    vectors[::5] = 0
    return vectors


@pytest.fixture(scope="module")
def fitted() -> SetTokens:
    return SetTokens(CONFIG).fit(clustered_vectors(), collaborative_vectors())


def test_an_item_has_one_collaborative_and_several_semantic_tokens(fitted: SetTokens) -> None:
    tokens = fitted.encode(clustered_vectors(), collaborative_vectors())
    assert tokens.shape == (300, 4, 8)
    assert tokens.dtype == np.float32
    text = clustered_vectors()
    lost = ((fitted.decode(tokens) - text) ** 2).sum() / ((text - text.mean(0)) ** 2).sum()
    assert lost < 0.1


def test_the_collaborative_token_keeps_all_distances_and_is_zero_for_an_item_nobody_has_met(fitted: SetTokens) -> None:
    vectors = collaborative_vectors()
    first = fitted.encode(clustered_vectors(), vectors)[:, 0]
    np.testing.assert_allclose(first @ first.T, vectors @ vectors.T, atol=1e-4)
    assert not first[::5].any()
    assert not fitted.encode(clustered_vectors(items=3))[:, 0].any()


def test_order_company_and_saving_change_nothing(fitted: SetTokens, tmp_path: Path) -> None:
    text, met = clustered_vectors(), collaborative_vectors()
    shuffle = np.random.default_rng(2).permutation(300)
    again = SetTokens(CONFIG).fit(text[shuffle], met[shuffle])
    fitted.save(tmp_path)
    for other in (again, SetTokens.load(tmp_path)):
        np.testing.assert_array_equal(other.encode(text, met), fitted.encode(text, met))
    np.testing.assert_array_equal(fitted.encode(text[:1], met[:1])[0], fitted.encode(text, met)[0])


def test_what_cannot_be_is_refused(fitted: SetTokens) -> None:
    with pytest.raises(SettingError, match="must be fitted first"):
        SetTokens(CONFIG).encode(clustered_vectors())
    with pytest.raises(DataError, match="as many collaborative vectors as text vectors, 300, got 2"):
        SetTokens(CONFIG).fit(clustered_vectors(), collaborative_vectors(2))
    with pytest.raises(DataError, match="Item vectors must have the width"):
        fitted.encode(clustered_vectors(), np.zeros((300, 7)))
    with pytest.raises(DataError, match=r"tokens must be \[n, 4, 8\]"):
        fitted.decode(np.zeros((3, 4, 7)))
    with pytest.raises(SettingError):
        SetTokensConfig(tokens=0)
