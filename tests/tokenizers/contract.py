"""What every item tokenizer promises. A family gets all of these tests by one entry in `FAMILIES` of test_contract.py."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genrec.data.interactions import Histories
from genrec.errors import BundleError, DataError, SettingError
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.collisions import POLICIES, append, assign

ITEMS, WIDTH = 300, 12
FEW = 60  # for policies that need room beside every item
FITTED: dict[Callable[[], ItemTokenizer], ItemTokenizer] = {}


def clustered_vectors(seed: int = 0, items: int = ITEMS) -> np.ndarray:
    """Vectors around 10 centres: something for a tokenizer to find."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(10, WIDTH)) * 4
    return (centres[random.integers(0, 10, items)] + random.normal(size=(items, WIDTH))).astype(np.float32)


def fit(tokenizer: ItemTokenizer, vectors: np.ndarray, order: np.ndarray | None = None) -> ItemTokenizer:
    """Fitted on the vectors and, where it wants them, on the same histories always. order: where the rows have come from."""
    random = np.random.default_rng(0)
    lists = [random.integers(0, len(vectors), random.integers(2, 6)) for _ in range(60)]
    if order is not None:
        lists = [np.argsort(order)[items] for items in reversed(lists)]
    return tokenizer.fit(vectors, Histories.from_lists(lists))


class TokenizerContract:
    """Subclass with a fixture `make` that gives a function making a fresh, unfitted tokenizer."""

    @pytest.fixture
    def fitted(self, make: Callable[[], ItemTokenizer]) -> ItemTokenizer:
        """Fitted once per family: the tests only read it."""
        if make not in FITTED:
            FITTED[make] = fit(make(), clustered_vectors())
        return FITTED[make]

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
        fit(type(fitted).from_settings(fitted.settings()), clustered_vectors(5)).save(tmp_path / "other")
        (tmp_path / "codebooks.safetensors").write_bytes((tmp_path / "other" / "codebooks.safetensors").read_bytes())
        with pytest.raises(BundleError, match="changed after it was saved"):
            type(fitted).load(tmp_path)

    def test_the_same_vectors_give_the_same_codes_every_time(self, make: Callable[[], ItemTokenizer]) -> None:
        first, second = fit(make(), clustered_vectors()), fit(make(), clustered_vectors())
        assert first.fingerprint == second.fingerprint
        np.testing.assert_array_equal(first.encode(clustered_vectors()), second.encode(clustered_vectors()))

    def test_the_order_of_the_rows_changes_nothing(self, make: Callable[[], ItemTokenizer]) -> None:
        vectors = clustered_vectors()
        order = np.random.default_rng(1).permutation(len(vectors))
        assert fit(make(), vectors).fingerprint == fit(make(), vectors[order], order).fingerprint

    def test_a_second_fit_forgets_the_first(self, make: Callable[[], ItemTokenizer]) -> None:
        refitted = fit(fit(make(), clustered_vectors(7)), clustered_vectors())
        assert refitted.fingerprint == fit(make(), clustered_vectors()).fingerprint

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
        vectors = np.repeat(clustered_vectors(items=FEW), 2, axis=0)  # every item has a twin, so every policy has work to do
        ids = [f"item{i:04d}" for i in range(len(vectors))]
        counts = np.arange(len(ids)) % 7
        table = assign(ids, fitted.encode(vectors), fitted, policy, vectors, counts)
        shuffle = np.random.default_rng(0).permutation(len(ids))
        vectors, counts = vectors[shuffle], counts[shuffle]
        shuffled = assign([ids[i] for i in shuffle], fitted.encode(vectors), fitted, policy, vectors, counts)
        np.testing.assert_array_equal(shuffled.codes, table.codes[shuffle])

    @pytest.mark.parametrize(
        "vectors",
        [
            np.ones((40, WIDTH)),
            clustered_vectors(items=3),
            clustered_vectors(items=1),
            clustered_vectors()[:, :1],
            np.zeros((40, 2)),
        ],
        ids=["all equal", "three items", "one item", "one number each", "zeros"],
    )
    def test_vectors_with_little_in_them_give_codes_or_a_clear_error(
        self, make: Callable[[], ItemTokenizer], vectors: np.ndarray
    ) -> None:
        tokenizer = make()
        refused = contextlib.suppress(SettingError) if len(vectors) < 40 else contextlib.nullcontext()  # fewer items than codes
        with refused:
            fit(tokenizer, vectors)
        if not tokenizer.is_fitted:
            with pytest.raises(SettingError, match=r"must .* got"):
                fit(tokenizer, vectors)
            return
        codes = tokenizer.encode(vectors)
        assert ((codes >= 0) & (codes < np.array(tokenizer.sizes))).all()
        _, same = np.unique(vectors, axis=0, return_inverse=True)
        for group in range(same.max() + 1):
            assert len(np.unique(codes[same.reshape(-1) == group], axis=0)) == 1, "equal items have equal codes"
        assert np.isfinite(tokenizer.decode(codes)).all()

    def test_the_suffix_policy_makes_every_item_unique(self, fitted: ItemTokenizer) -> None:
        vectors = np.repeat(clustered_vectors(), 3, axis=0)
        table = assign([str(i) for i in range(len(vectors))], fitted.encode(vectors), fitted, "suffix")
        assert len(np.unique(table.codes, axis=0)) == len(table)
        assert table.levels == len(fitted.sizes) + 1

    @pytest.mark.parametrize("policy", POLICIES)
    def test_appending_never_moves_a_code(self, fitted: ItemTokenizer, policy: str) -> None:
        vectors = clustered_vectors(items=FEW)
        before = assign([f"old{i}" for i in range(FEW)], fitted.encode(vectors), fitted, policy, vectors, np.ones(FEW))
        new = clustered_vectors(9, 6)
        if policy != "id":  # which keeps room for a tenth of the catalogue
            new = np.concatenate([vectors[:5], vectors[:5], new])
        after = append(before, [f"new{i}" for i in range(len(new))], fitted.encode(new), fitted, new)
        np.testing.assert_array_equal(after.codes[:FEW], before.codes)
        assert (after.generation, after.parent) == (before.generation + 1, before.hash)
        most = {"suffix": 1, "popular-suffix": 1, "id": 1, "sinkhorn": 1, "knn-5": 5, "random-5": 5}.get(policy, len(after))
        for table in (before, after):
            assert np.unique(table.codes, axis=0, return_counts=True)[1].max() <= most

    def test_policies_that_move_the_last_code_leave_the_others_and_take_the_nearest_free_one(
        self, fitted: ItemTokenizer
    ) -> None:
        vectors = np.repeat(clustered_vectors(items=FEW), 2, axis=0)
        codes, ids = fitted.encode(vectors), [f"{i:04d}" for i in range(len(vectors))]
        for policy in ("knn-1", "random-2", "sinkhorn"):
            table = assign(ids, codes, fitted, policy, vectors)
            np.testing.assert_array_equal(table.codes[:, :-1], codes[:, :-1])
            assert np.unique(table.codes, axis=0, return_counts=True)[1].max() <= (2 if policy == "random-2" else 1)
        table = assign(ids, codes, fitted, "knn-1", vectors)
        far = fitted.last_distances(vectors, codes)
        for row, (moved, own) in enumerate(zip(table.codes[:, -1], codes[:, -1], strict=True)):
            if moved != own:  # whatever is nearer belongs to somebody
                nearer = np.flatnonzero(far[row] < far[row, moved])
                same = (table.codes[:, :-1] == table.codes[row, :-1]).all(axis=1)
                assert set(nearer.tolist()) <= set(table.codes[same, -1].tolist())
