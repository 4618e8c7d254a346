"""Search along neighbours: exact where everybody is a neighbour, the same for everybody and every time, and open about what it
misses."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genrec.decoding.approximate import CellSearch
from genrec.decoding.graph import ItemGraph, alike_by_codes, alike_by_vectors, graph_recall, picked_dots, picked_sums
from genrec.decoding.scoring import dots, sums
from genrec.errors import DataError, SettingError


def world(seed: int, items: int = 200, users: int = 20, width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Items and users [., F], normalised."""
    random = torch.Generator().manual_seed(seed)
    keys, queries = (torch.randn(count, width, generator=random) for count in (items, users))
    return torch.nn.functional.normalize(keys, dim=1), torch.nn.functional.normalize(queries, dim=1)


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 8))
def test_where_everybody_is_a_neighbour_it_is_the_full_sort_with_ties_by_row(seed: int, items: int, k: int) -> None:
    random = torch.Generator().manual_seed(seed)
    keys, queries = (torch.randint(-1, 2, (count, 2), generator=random).float() for count in (items, 3))
    graph = ItemGraph.build(alike_by_vectors(keys), items, items)
    rows, scores = graph.best(picked_dots(queries, keys), 3, k, beam=k, rounds=1)
    exact = (queries @ keys.T).numpy()
    for user in range(3):
        best = np.argsort(-exact[user], kind="stable")[:k]
        assert rows[user].tolist() == best.tolist() + [-1] * (k - len(best))
        np.testing.assert_array_equal(scores[user, : len(best)], exact[user, best])
        assert torch.isneginf(scores[user, len(best) :]).all()


def test_neighbours_are_the_most_alike_and_never_the_item_itself() -> None:
    keys, _ = world(0)
    graph = ItemGraph.build(alike_by_vectors(keys), len(keys), 7)
    alike = (keys @ keys.T).fill_diagonal_(-torch.inf)
    torch.testing.assert_close(alike.gather(1, graph.neighbours.long()), alike.topk(7, dim=1).values)
    assert (graph.neighbours != torch.arange(len(keys))[:, None]).all()


def test_items_without_a_like_of_their_own_lose_the_last_neighbour_and_not_the_first() -> None:
    keys = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])  # the third is nearest to all three
    graph = ItemGraph.build(alike_by_vectors(keys), 3, 1)
    assert graph.neighbours.tolist() == [[2], [2], [1]]


def test_items_are_alike_by_the_mean_cosine_of_their_codes() -> None:
    random = torch.Generator().manual_seed(0)
    code_keys = [torch.nn.functional.normalize(torch.randn(size, 4, generator=random), dim=1) for size in (5, 3)]
    codes = torch.stack([torch.randint(0, size, (30,), generator=random) for size in (5, 3)], dim=1)
    vectors = torch.stack([keys[codes[:, level]] for level, keys in enumerate(code_keys)], dim=1)
    by_hand = torch.einsum("ald,bld->ab", vectors, vectors) / 2
    torch.testing.assert_close(alike_by_codes(code_keys, codes)(torch.arange(30))(0, 30), by_hand)


def test_a_search_by_codes_finds_what_the_sums_say() -> None:
    random = torch.Generator().manual_seed(1)
    code_keys = [torch.nn.functional.normalize(torch.randn(6, 4, generator=random), dim=1) for _ in range(3)]
    codes = torch.randint(0, 6, (80, 3), generator=random)
    log_probs = torch.randn(5, 18, generator=random)
    tokens = codes + torch.tensor([0, 6, 12])
    graph = ItemGraph.build(alike_by_codes(code_keys, codes), 80, 79)
    assert graph_recall(graph, picked_sums(log_probs, tokens), sums(log_probs, tokens), 5, 4, beam=4, rounds=1) == 1


def test_recall_counts_what_is_found_of_the_exact_best_and_grows_with_the_rounds() -> None:
    keys, queries = world(2)
    graph = ItemGraph.build(alike_by_vectors(keys), len(keys), 8)
    pick, score = picked_dots(queries, keys), dots(queries, keys)
    found, _ = graph.best(pick, len(queries), 5, beam=5, rounds=1)
    exact = (queries @ keys.T).topk(5, dim=1).indices
    by_hand = np.mean([len(set(mine) & set(right)) / 5 for mine, right in zip(found.tolist(), exact.tolist(), strict=True)])
    measured = [graph_recall(graph, pick, score, len(queries), 5, 5, rounds) for rounds in (1, 2, 8)]
    assert measured[0] == pytest.approx(by_hand)
    assert measured[0] < measured[1] < measured[2]
    assert measured[2] > 0.8


def test_the_same_seed_gives_the_same_answer_whoever_is_asked_beside() -> None:
    keys, queries = world(3)
    graph = ItemGraph.build(alike_by_vectors(keys), len(keys), 5)
    together, scores = graph.best(picked_dots(queries, keys), len(queries), 4, beam=6, rounds=2, seed=1)
    for user in range(len(queries)):
        alone, same = graph.best(picked_dots(queries[user : user + 1], keys), 1, 4, beam=6, rounds=2, seed=1)
        assert alone[0].tolist() == together[user].tolist()
        torch.testing.assert_close(same[0], scores[user])
    other, _ = graph.best(picked_dots(queries, keys), len(queries), 4, beam=6, rounds=1, seed=2)
    first, _ = graph.best(picked_dots(queries, keys), len(queries), 4, beam=6, rounds=1, seed=1)
    assert not torch.equal(other, first), "where it starts is drawn"


def test_no_item_is_found_twice_and_scores_are_those_of_the_items() -> None:
    keys, queries = world(4)
    graph = ItemGraph.build(alike_by_vectors(keys), len(keys), 10)
    rows, scores = graph.best(picked_dots(queries, keys), len(queries), 8, beam=8, rounds=3)
    assert all(len(set(mine)) == 8 for mine in rows.tolist())
    torch.testing.assert_close(scores, (queries @ keys.T).gather(1, rows))


def test_a_graph_from_all_cells_is_the_exact_one_and_one_of_few_cells_may_lack_neighbours() -> None:
    keys, queries = world(5)
    arrays = keys.numpy()
    cells = CellSearch.build(arrays, cells=10)
    exact = ItemGraph.build(alike_by_vectors(keys), len(keys), 6)
    assert torch.equal(ItemGraph.from_cells(cells, arrays, 6, probes=10).neighbours, exact.neighbours)
    few = ItemGraph.from_cells(cells, arrays, 60, probes=1)
    assert (few.neighbours < 0).any()
    rows, scores = few.best(picked_dots(queries, keys), len(queries), 5, beam=5, rounds=2)
    torch.testing.assert_close(scores, (queries @ keys.T).gather(1, rows))


def test_what_cannot_be_is_refused() -> None:
    keys, queries = world(6)
    with pytest.raises(DataError, match="at least one item"):
        ItemGraph.build(alike_by_vectors(keys[:0]), 0, 5)
    with pytest.raises(SettingError, match="neighbours must be"):
        ItemGraph.build(alike_by_vectors(keys), len(keys), 0)
    graph = ItemGraph.build(alike_by_vectors(keys), len(keys), 5)
    with pytest.raises(SettingError, match="beam must be"):
        graph.best(picked_dots(queries, keys), len(queries), 5, beam=4, rounds=1)
    with pytest.raises(SettingError, match="rounds must be"):
        graph.best(picked_dots(queries, keys), len(queries), 5, beam=5, rounds=0)
