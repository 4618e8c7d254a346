"""What only RQ-KMeans promises, and the collision policies in detail."""

import itertools

import numpy as np
import pytest
from contract import clustered_vectors

from genrec.errors import DataError, SettingError
from genrec.tokenizers.collisions import SPARE_SUFFIXES, append, assign
from genrec.tokenizers.rq_kmeans import RQKMeans, RQKMeansConfig


def residual_norms(tokenizer: RQKMeans, vectors: np.ndarray) -> list[float]:
    codes, left = tokenizer.encode(vectors), vectors
    norms = [float(np.linalg.norm(left, axis=1).mean())]
    for level, centroids in enumerate(tokenizer.centroids):
        left = left - centroids[codes[:, level]]
        norms.append(float(np.linalg.norm(left, axis=1).mean()))
    return norms


def test_every_level_leaves_less_over_than_the_one_before() -> None:
    norms = residual_norms(RQKMeans(RQKMeansConfig(levels=4, codebook_size=16)).fit(clustered_vectors()), clustered_vectors())
    assert all(later < earlier for earlier, later in itertools.pairwise(norms))


def test_decoding_is_the_sum_of_the_chosen_centroids() -> None:
    tokenizer = RQKMeans(RQKMeansConfig(levels=2, codebook_size=8)).fit(clustered_vectors())
    [code] = tokenizer.encode(clustered_vectors()[:1])
    expected = tokenizer.centroids[0][code[0]] + tokenizer.centroids[1][code[1]]
    np.testing.assert_allclose(tokenizer.decode(code[None])[0], expected, rtol=1e-6)


def test_every_code_of_the_first_level_is_in_use() -> None:
    tokenizer = RQKMeans(RQKMeansConfig(levels=3, codebook_size=32)).fit(clustered_vectors())
    assert len(np.unique(tokenizer.encode(clustered_vectors())[:, 0])) == 32


@pytest.mark.parametrize(
    ("items", "size"), [(2, 2), (5, 5), (9, 8), (100, 32), (600, 64), (2420, 128), (12101, 256), (10**7, 256)]
)
def test_the_automatic_codebook_grows_with_the_catalogue(items: int, size: int) -> None:
    assert RQKMeans().codebook_size(items) == size


def test_no_code_swallows_the_catalogue_where_nothing_is_clustered() -> None:
    # Centroids that begin near the middle are nearest to most of wide noise: begun at rows as they are, one takes five times
    # its share here.
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(4000, 256)) * random.uniform(0.8, 1.2, (4000, 1))).astype(np.float32)
    codes = RQKMeans(RQKMeansConfig(levels=1, codebook_size=64)).fit(vectors).encode(vectors)
    assert np.bincount(codes[:, 0]).max() < 4 * len(vectors) / 64


def test_a_second_start_finds_what_one_sphere_cannot() -> None:
    vectors = np.arange(256, dtype=np.float32)[:, None]  # on a line, a sphere has two points
    tokenizer = RQKMeans(RQKMeansConfig(levels=1, codebook_size=16)).fit(vectors)
    assert np.bincount(tokenizer.encode(vectors)[:, 0], minlength=16).max() < 32


def test_a_codebook_larger_than_the_catalogue_is_refused() -> None:
    with pytest.raises(SettingError, match="at most the number of items, 300, got 512"):
        RQKMeans(RQKMeansConfig(codebook_size=512)).fit(clustered_vectors())


def test_identical_items_are_no_problem() -> None:
    table = np.ones((20, 4), np.float32)
    tokenizer = RQKMeans(RQKMeansConfig(levels=2)).fit(table)
    codes = assign([str(i) for i in range(20)], tokenizer.encode(table), tokenizer)
    assert sorted(codes.codes[:, -1]) == list(range(20))


@pytest.mark.parametrize(
    "setting", [{"levels": 0}, {"levels": 9}, {"codebook_size": 1}, {"iterations": 0}, {"seed": -1}, {"levels": "3"}]
)
def test_impossible_settings_are_refused(setting: dict) -> None:
    with pytest.raises(SettingError, match=next(iter(setting))):
        RQKMeansConfig(**setting)


@pytest.fixture
def small() -> RQKMeans:
    return RQKMeans(RQKMeansConfig(levels=2, codebook_size=4)).fit(clustered_vectors())


def test_the_suffix_is_the_rank_of_the_id_among_its_twins(small: RQKMeans) -> None:
    codes = np.array([[0, 1], [2, 2], [0, 1], [0, 1]])
    table = assign(["c", "x", "a", "b"], codes, small, "suffix")
    assert table.codes[:, -1].tolist() == [2, 0, 0, 1]


def test_the_popular_suffix_counts_the_most_popular_first(small: RQKMeans) -> None:
    codes = np.array([[1, 1], [0, 0], [1, 1], [1, 1]])
    table = assign(["c", "x", "a", "b"], codes, small, "popular-suffix", counts=np.array([5, 0, 9, 5]))
    assert dict(zip(table.item_ids, table.codes[:, 2].tolist(), strict=True)) == {"a": 0, "b": 1, "c": 2, "x": 0}
    assert append(table, ["z"], np.array([[1, 1]]), small).codes[-1].tolist() == [1, 1, 3]
    with pytest.raises(SettingError, match="needs training interactions"):
        assign(["a"], codes[:1], small, "popular-suffix")


def test_shared_codes_stay_shared(small: RQKMeans) -> None:
    table = assign(["a", "b"], np.array([[1, 1], [1, 1]]), small, "shared")
    assert table.codes.tolist() == [[1, 1], [1, 1]]


def test_an_appended_twin_takes_the_next_free_suffix(small: RQKMeans) -> None:
    table = assign(["m", "n"], np.array([[1, 1], [1, 1]]), small)
    later = append(table, ["z", "a"], np.array([[1, 1], [1, 1]]), small)
    assert later.codes[:, -1].tolist() == [0, 1, 3, 2]


def test_a_full_suffix_level_names_the_item_and_the_cure(small: RQKMeans) -> None:
    table = assign(["m"], np.array([[1, 1]]), small)
    many = [f"n{i}" for i in range(SPARE_SUFFIXES + 1)]
    with pytest.raises(DataError, match=r"'n8' would be number 10 .* the suffix level holds 9"):
        append(table, many, np.ones((len(many), 2), int), small)


def test_appending_with_another_tokenizer_is_refused(small: RQKMeans) -> None:
    other = RQKMeans(RQKMeansConfig(levels=2, codebook_size=4)).fit(clustered_vectors(4))
    with pytest.raises(DataError, match="with the tokenizer that made the table"):
        append(assign(["m"], np.array([[1, 1]]), small), ["n"], np.array([[1, 1]]), other)


def test_appending_an_item_that_is_there_is_refused(small: RQKMeans) -> None:
    with pytest.raises(DataError, match="new items only"):
        append(assign(["m"], np.array([[1, 1]]), small), ["m"], np.array([[1, 1]]), small)


def test_an_unknown_policy_names_the_nearest(small: RQKMeans) -> None:
    with pytest.raises(SettingError, match="Did you mean 'suffix'"):
        assign(["m"], np.array([[1, 1]]), small, "sufix")


def test_balanced_codes_have_nearly_as_many_items_each_and_lose_little() -> None:
    vectors, unseen = np.split(clustered_vectors(items=4000), 2)
    plain = RQKMeans(RQKMeansConfig(levels=1, codebook_size=16)).fit(vectors)
    even = RQKMeans(RQKMeansConfig(levels=1, codebook_size=16, balanced=True)).fit(vectors)
    largest = [np.bincount(made.encode(vectors)[:, 0], minlength=16).max() for made in (plain, even)]
    assert largest[0] > 1.4 * 2000 / 16 > 1.15 * 2000 / 16 > largest[1]
    lost = [((vectors - made.decode(made.encode(vectors))) ** 2).sum() for made in (plain, even)]
    assert lost[1] < 2 * lost[0]
    assert np.bincount(even.encode(unseen)[:, 0], minlength=16).max() < 1.5 * 2000 / 16, "the same rule holds for new items"
