"""What every item tokenizer promises. A family gets all of these tests by one entry in `FAMILIES` of test_contract.py."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genrec.errors import BundleError, DataError, SettingError
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.collisions import POLICIES, append, assign

ITEMS, WIDTH = 300, 12


def clustered_vectors(seed: int = 0, items: int = ITEMS) -> np.ndarray:
    """Vectors around 10 centres: something for a tokenizer to find."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(10, WIDTH)) * 4
    return (centres[random.integers(0, 10, items)] + random.normal(size=(items, WIDTH))).astype(np.float32)


class TokenizerContract:
    """Subclass with a fixture `make` that gives a function making a fresh, unfitted tokenizer."""

    @pytest.fixture
    def fitted(self, make: Callable[[], ItemTokenizer]) -> ItemTokenizer:
        return make().fit(clustered_vectors())

    def test_codes_have_one_column_per_level_and_stay_in_range(self, fitted: ItemTokenizer) -> None:
        codes = fitted.encode(clustered_vectors())
        assert codes.shape == (ITEMS, len(fitted.sizes))
        assert codes.dtype == np.int32
        assert (codes >= 0).all()
        assert (codes < np.array(fitted.sizes)).all()

    def test_decoding_codes_comes_back_near_the_vector(self, fitted: ItemTokenizer) -> None:
        vectors = clustered_vectors()
        decoded = fitted.decode(fitted.encode(vectors))
        assert decoded.shape == vectors.shape
        assert decoded.dtype == np.float32
        spread = ((vectors - vectors.mean(0)) ** 2).sum()
        assert ((vectors - decoded) ** 2).sum() < 0.3 * spread

    def test_saving_and_loading_changes_nothing(self, fitted: ItemTokenizer, tmp_path: Path) -> None:
        fitted.save(tmp_path)
        loaded = type(fitted).load(tmp_path)
        assert loaded.fingerprint == fitted.fingerprint
        assert loaded.sizes == fitted.sizes
        np.testing.assert_array_equal(loaded.encode(clustered_vectors(1)), fitted.encode(clustered_vectors(1)))

    def test_a_changed_file_is_refused(self, fitted: ItemTokenizer, tmp_path: Path) -> None:
        fitted.save(tmp_path)
        type(fitted).from_settings(fitted.settings()).fit(clustered_vectors(5)).save(tmp_path / "other")
        (tmp_path / "codebooks.safetensors").write_bytes((tmp_path / "other" / "codebooks.safetensors").read_bytes())
        with pytest.raises(BundleError, match="changed after it was saved"):
            type(fitted).load(tmp_path)

    def test_the_same_vectors_give_the_same_codes_every_time(self, make: Callable[[], ItemTokenizer]) -> None:
        first, second = make().fit(clustered_vectors()), make().fit(clustered_vectors())
        assert first.fingerprint == second.fingerprint
        np.testing.assert_array_equal(first.encode(clustered_vectors()), second.encode(clustered_vectors()))

    def test_a_second_fit_forgets_the_first(self, make: Callable[[], ItemTokenizer]) -> None:
        refitted = make().fit(clustered_vectors(7)).fit(clustered_vectors())
        assert refitted.fingerprint == make().fit(clustered_vectors()).fingerprint

    def test_unseen_items_get_codes_and_alone_the_same_as_in_company(self, fitted: ItemTokenizer) -> None:
        unseen = clustered_vectors(3, 50)
        together = fitted.encode(unseen)
        alone = np.concatenate([fitted.encode(unseen[i : i + 1]) for i in range(len(unseen))])
        np.testing.assert_array_equal(together, alone)

    def test_encoding_before_fitting_is_an_error(self, make: Callable[[], ItemTokenizer]) -> None:
        with pytest.raises(SettingError, match="must be fitted first"):
            make().encode(clustered_vectors())

    @pytest.mark.parametrize(
        "bad", [np.zeros((3, WIDTH + 1)), np.zeros(WIDTH), np.zeros((0, WIDTH)), np.full((2, WIDTH), np.nan)]
    )
    def test_vectors_of_the_wrong_kind_are_refused(self, fitted: ItemTokenizer, bad: np.ndarray) -> None:
        with pytest.raises(DataError, match="Item vectors must"):
            fitted.encode(bad)

    def test_codes_out_of_range_are_refused(self, fitted: ItemTokenizer) -> None:
        with pytest.raises(DataError, match="codes must be"):
            fitted.decode(np.full((1, len(fitted.sizes)), 10**6))

    @pytest.mark.parametrize("policy", POLICIES)
    def test_codes_do_not_depend_on_the_order_of_the_rows(self, fitted: ItemTokenizer, policy: str) -> None:
        vectors = np.repeat(clustered_vectors(), 2, axis=0)  # every item has a twin, so every policy has work to do
        ids = [f"item{i:04d}" for i in range(len(vectors))]
        table = assign(ids, fitted.encode(vectors), fitted, policy)
        shuffle = np.random.default_rng(0).permutation(len(ids))
        shuffled = assign([ids[i] for i in shuffle], fitted.encode(vectors[shuffle]), fitted, policy)
        np.testing.assert_array_equal(shuffled.codes, table.codes[shuffle])

    def test_the_suffix_policy_makes_every_item_unique(self, fitted: ItemTokenizer) -> None:
        vectors = np.repeat(clustered_vectors(), 3, axis=0)
        table = assign([str(i) for i in range(len(vectors))], fitted.encode(vectors), fitted, "suffix")
        assert len(np.unique(table.codes, axis=0)) == len(table)
        assert table.levels == len(fitted.sizes) + 1

    @pytest.mark.parametrize("policy", POLICIES)
    def test_appending_never_moves_a_code(self, fitted: ItemTokenizer, policy: str) -> None:
        vectors = clustered_vectors()
        before = assign([f"old{i}" for i in range(ITEMS)], fitted.encode(vectors), fitted, policy)
        new = np.concatenate([vectors[:20], vectors[:20], clustered_vectors(9, 30)])
        after = append(before, [f"new{i}" for i in range(len(new))], fitted.encode(new), fitted)
        np.testing.assert_array_equal(after.codes[:ITEMS], before.codes)
        assert (after.generation, after.parent) == (before.generation + 1, before.hash)
        if policy == "suffix":
            assert len(np.unique(after.codes, axis=0)) == len(after)
