"""RQ-VAE's own promises, beside the contract."""

import numpy as np
import pytest
import torch
from contract import clustered_vectors

from genrec.data.interactions import Histories
from genrec.errors import DataError, SettingError
from genrec.tokenizers.autoencoder import contrast
from genrec.tokenizers.rq_vae import RQVAE, RQVAEConfig

SMALL = {"levels": 3, "codebook_size": 16, "hidden": (32,), "latent": 8, "steps": 400}


@pytest.fixture(scope="module")
def fitted() -> RQVAE:
    return RQVAE(RQVAEConfig(**SMALL)).fit(clustered_vectors())


def test_codes_are_the_nearest_to_what_the_levels_before_left_over(fitted: RQVAE) -> None:
    vectors = clustered_vectors()
    codes, left = fitted.encode(vectors), fitted.latent(vectors)
    sizes = [np.linalg.norm(left, axis=1).mean()]
    for level, book in enumerate(fitted.codebooks):
        far = ((left[:, None] - book[None]) ** 2).sum(axis=2)
        np.testing.assert_array_equal(codes[:, level], far.argmin(axis=1))
        left = left - book[codes[:, level]]
        sizes.append(np.linalg.norm(left, axis=1).mean())
    assert sizes == sorted(sizes, reverse=True), "each level leaves less over"


def test_most_codes_are_in_use(fitted: RQVAE) -> None:
    codes = fitted.encode(clustered_vectors())
    assert len(np.unique(codes[:, 0])) >= 0.6 * 16
    assert all(len(np.unique(codes[:, level])) >= 0.8 * 16 for level in (1, 2))


def test_pairs_teach_the_codes_what_people_do_in_one_stage() -> None:
    random = np.random.default_rng(0)
    vectors = clustered_vectors()
    vectors[:, 0] = random.normal(size=300)  # a small part of what the items are, and all of what people look at
    taste = vectors[:, 0] > 0
    pairs = random.integers(0, 300, (6000, 2))
    pairs = pairs[taste[pairs[:, 0]] == taste[pairs[:, 1]]]
    together = taste[:, None] == taste[None]
    alike = {}
    for weight in (0.0, 1.0):
        made = RQVAE(RQVAEConfig(**SMALL, pair_weight=weight)).fit(vectors, Histories.from_lists(list(pairs)))
        codes = made.encode(vectors)
        same = (codes[:, None, 0] == codes[None, :, 0]) & ~np.eye(300, dtype=bool)
        alike[weight] = same[together].mean() / same[~together].mean()
    assert alike[0.0] < 1.1
    assert alike[1.0] > 1.2
    swap = np.arange(300)
    vectors[1] = vectors[0]
    swap[[0, 1]] = 1, 0
    quick = RQVAEConfig(**SMALL | {"steps": 20}, pair_weight=1.0)
    first = RQVAE(quick).fit(vectors, Histories.from_lists([[0, 5], [1, 9]]))
    assert first.fingerprint == RQVAE(quick).fit(vectors[swap], Histories.from_lists([[0, 9], [1, 5]])).fingerprint, (
        "twins are one"
    )
    with pytest.raises(DataError, match="histories must hold rows"):
        RQVAE(quick).fit(vectors, Histories.from_lists([[0, 300]]))
    with pytest.raises(SettingError, match="learns from histories"):
        RQVAE(RQVAEConfig(**SMALL, pair_weight=1.0)).fit(vectors)
    with pytest.raises(DataError, match="no pair of different items"):
        RQVAE(RQVAEConfig(**SMALL, pair_weight=1.0)).fit(vectors, Histories.from_lists([[3, 3]]))


def test_the_contrast_is_small_for_pairs_that_agree_and_forgives_shared_items() -> None:
    a = torch.eye(4)
    pairs = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]])
    assert contrast(a, a, pairs) < 0.01 < contrast(a, a.roll(1, 0), pairs)
    shared = torch.tensor([[0, 1], [0, 1], [4, 5], [6, 7]])
    twins = a.clone()
    twins[1] = twins[0]
    assert contrast(twins, twins, shared) < 0.01, "the same pair twice is no negative of itself"
    assert contrast(a.requires_grad_(), a, pairs).requires_grad


def test_a_codebook_larger_than_the_catalogue_is_refused() -> None:
    with pytest.raises(SettingError, match="codebook_size must be at most the number of items, 5"):
        RQVAE(RQVAEConfig(**SMALL)).fit(clustered_vectors(items=5))
