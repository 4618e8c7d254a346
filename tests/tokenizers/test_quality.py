"""Quality numbers against cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.tokenizers import quality
from genrec.tokenizers.collisions import assign
from genrec.tokenizers.rq_kmeans import RQKMeans, RQKMeansConfig


def histories(*lists: list[int]) -> Histories:
    return Histories.from_lists([np.array(one, np.int64) for one in lists])


def test_collisions_are_items_that_are_not_the_first_of_their_tuple() -> None:
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 1], [1, 1], [1, 1]])
    assert quality.collision_rate(codes) == pytest.approx(3 / 6)
    assert sorted(quality.tuple_counts(codes).tolist()) == [1, 2, 3]
    assert quality.utilisation(codes, (4, 2)) == [0.5, 1.0]


def test_entropy_is_one_where_codes_are_used_alike_and_zero_where_one_is() -> None:
    codes = np.array([[0, 3], [1, 3], [2, 3], [3, 3]])
    assert quality.entropy(codes, (4, 4)) == pytest.approx([1.0, 0.0])
    half = np.array([[0], [0], [1], [1]])
    assert quality.entropy(half, (4,)) == pytest.approx([0.5])


def test_gini_of_even_and_of_extreme_counts() -> None:
    assert quality.gini(np.array([3, 3, 3])) == pytest.approx(0.0)
    assert quality.gini(np.array([7]), possible=10) == pytest.approx(0.9)
    # Two tuples with 1 and 3 items: the Lorenz curve goes through (1/2, 1/4), so G = 1 - 2 * (1/16 + 5/16) = 1/4.
    assert quality.gini(np.array([3, 1])) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="possible must be at least"):
        quality.gini(np.array([1, 1]), possible=1)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(0, 60))
def test_both_published_forms_of_gini_agree(counts: list[int], empty: int) -> None:
    """FORGE's paper: (2/N) sum (i/N - L(i)) with the Lorenz curve L; FORGE's code: the form used."""
    every = np.sort(np.array(counts + [0] * empty, np.float64))
    n = len(every)
    lorenz = np.cumsum(every) / every.sum()
    paper = 2 / n * (np.arange(1, n + 1) / n - lorenz).sum()
    assert quality.gini(np.array(counts), possible=n) == pytest.approx(paper, abs=1e-12)


def test_embedding_hit_rate_finds_duplicates_and_is_chance_for_noise() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(200, 8))
    twins = np.concatenate([vectors, vectors])
    users = histories(*[[user] for user in range(200)])
    assert quality.embedding_hit_rate(twins, users, np.arange(200) + 200, k=1) == 1.0
    far = quality.embedding_hit_rate(vectors, users, random.permutation(200), k=20, neighbours=200)
    assert far == pytest.approx(20 / 199, abs=0.06)
    assert quality.embedding_hit_rate(vectors, histories([]), np.array([3])) == 0.0


def test_a_huge_catalogue_is_asked_fewer_questions() -> None:
    asked = Targets(Histories.from_lists([np.arange(80)] * 3000), np.zeros(3000, np.int64))
    assert len(quality.fewer(asked, 12_000, 0)) == quality.SAMPLE
    assert len(quality.fewer(asked, 100_000, 0)) == 400
    assert len(quality.fewer(asked, 10_000_000, 0)) == quality.LEAST


def test_long_histories_speak_with_their_latest_items_and_hide_all() -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 4))
    vectors[150] = vectors[0]  # like the oldest item of the history, and like no later one
    histories = Histories.from_lists([np.arange(100)])
    assert quality.embedding_hit_rate(vectors, histories, np.array([10])) == 0, "what is old is no candidate either"
    assert quality.code_hit_rate(np.arange(200)[:, None] // 2, histories, np.array([101]), ordered=True) == 0
    assert quality.embedding_hit_rate(vectors, Histories.from_lists([[0]]), np.array([150]), k=1) == 1
    assert quality.embedding_hit_rate(vectors, Histories.from_lists([np.arange(100)]), np.array([150]), k=1) == 0


def test_caps_on_collisions_lower_gini_in_the_order_that_forge_reports() -> None:
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(12, 1, 6)) * 3 + random.normal(size=(12, 40, 6))).astype(np.float32)
    vectors[:, :15] = vectors[:, :1]  # in every cluster some items that are the same
    vectors = vectors.reshape(-1, 6)
    tokenizer = RQKMeans(RQKMeansConfig(levels=3, codebook_size=16)).fit(vectors)
    ids, codes = [f"{i:04d}" for i in range(len(vectors))], tokenizer.encode(vectors)
    found = [
        quality.gini(quality.tuple_counts(assign(ids, codes, tokenizer, policy, vectors).codes))
        for policy in ("shared", "knn-25", "knn-10", "knn-5", "random-5")
    ]
    assert found[0] >= found[1] >= found[2] >= found[3]
    assert found[0] > found[3] + 0.02
    assert found[0] > found[4]


def test_codes_that_make_all_items_one_hit_nothing_more_than_chance() -> None:
    users = histories(*[[user] for user in range(50)])
    found = quality.embedding_hit_rate(np.ones((200, 4)), users, np.arange(50) + 100, k=20)
    assert found == pytest.approx(20 / 199, abs=1e-6)


def test_code_hit_rate_counts_ties_in_part() -> None:
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [1, 1], [2, 2]])
    # After item 0: item 1 shares two codes, item 2 one, the others none.
    assert quality.code_hit_rate(codes, histories([0]), np.array([1]), True, k=1) == 1.0
    assert quality.code_hit_rate(codes, histories([0]), np.array([2]), True, k=1) == 0.0
    assert quality.code_hit_rate(codes, histories([0]), np.array([2]), True, k=2) == 1.0
    assert quality.code_hit_rate(codes, histories([3]), np.array([4]), True, k=1) == 1.0
    twins = np.array([[0], [0], [0], [0]])
    assert quality.code_hit_rate(twins, histories([0]), np.array([2]), True, k=1) == pytest.approx(1 / 3)
    assert quality.code_hit_rate(codes, histories([0]), np.array([5]), True, k=6) == 0.0, "nothing in common is no hit"


def test_shared_levels_count_from_the_first_or_anywhere() -> None:
    a, b = np.array([1, 2, 3]), np.array([1, 9, 3])
    assert quality.shared_levels(a, b, ordered=True) == 1
    assert quality.shared_levels(a, b, ordered=False) == 2


def test_neighbourhood_recall_is_one_for_codes_that_follow_the_vectors() -> None:
    vectors = np.repeat(np.eye(5), 11, axis=0) + np.random.default_rng(0).normal(size=(55, 5)) * 0.01
    codes = np.repeat(np.arange(5), 11)[:, None]
    assert quality.neighbourhood_recall(codes, vectors, True, k=10) == pytest.approx(1.0)
    assert quality.neighbourhood_recall(np.zeros((55, 1), int), vectors, True, k=10) == pytest.approx(10 / 54, abs=1e-9)


def test_reconstruction_purity_and_behaviour() -> None:
    vectors = np.array([[0.0], [2.0], [4.0]])
    assert quality.reconstruction_error(vectors, vectors) == 0.0
    assert quality.reconstruction_error(vectors, np.full((3, 1), 2.0)) == pytest.approx(1.0)
    codes = np.array([[0, 0], [0, 1], [0, 2], [1, 0]])
    assert quality.prefix_purity(codes, np.array(["a", "a", "b", "c"])) == pytest.approx(3 / 4)
    assert quality.prefix_purity(codes, np.array(["a", "a", "b", "c"]), length=2) == 1.0
    together = np.repeat([0, 1], 50)[:, None]
    steps = histories(*[[n, n + 1] for n in range(49)], *[[50 + n, 51 + n] for n in range(49)])
    assert quality.behaviour_lift(together, steps) == pytest.approx(2.0, rel=0.05)


def test_rank_correlation_is_one_for_codes_that_say_it_all_and_zero_where_nothing_varies() -> None:
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0]])
    pairs = np.array([[0, 1], [0, 2], [0, 3]])
    assert quality.rank_correlation(codes, np.array([0.9, 0.5, 0.1]), pairs, True) == pytest.approx(1.0)
    assert quality.rank_correlation(np.zeros((4, 2), int), np.array([0.9, 0.5, 0.1]), pairs, True) == 0.0
