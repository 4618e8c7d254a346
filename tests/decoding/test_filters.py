"""What a request may get: counting, starvation, caps, and what happens at the edges."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import FAMILIES, brute_force, catalogues, histories_for, make_ranker

from genrec.data.interactions import Histories
from genrec.decoding.allowed import Allowed, Bitmap
from genrec.decoding.diversity import Cap, Groups
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.snapshot import LONGEST_LIST, Rules, Snapshot
from genrec.errors import SettingError

NOBODY = Histories.from_lists([[]])


@given(st.integers(0, 10**6), st.integers(1, 100))
def test_counting_allowed_items_equals_counting_them_one_by_one(seed: int, positions: int) -> None:
    random = np.random.default_rng(seed)
    users = 3
    masks = [random.random(positions) < share for share in (0.1, 0.9)]
    which = random.integers(0, 2, users)
    excluded = np.full((users, 5), -1)
    for user in range(users):
        some = random.permutation(positions)[: random.integers(0, min(6, positions + 1))]
        excluded[user, : len(some)] = some
    for bitmaps in ([], [Bitmap.from_mask(mask) for mask in masks]):
        allowed = Allowed.of(positions, bitmaps, torch.from_numpy(which), torch.from_numpy(excluded))
        before = allowed.before(torch.arange(positions + 1).repeat(users, 1))
        for user in range(users):
            fine = masks[which[user]].copy() if bitmaps else np.ones(positions, bool)
            fine[excluded[user][excluded[user] >= 0]] = False
            np.testing.assert_array_equal(before[user], np.concatenate([[0], np.cumsum(fine)]))


@given(st.integers(0, 10**6), st.integers(0, 70))
def test_bitmaps_intersect_like_sets(seed: int, positions: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.random(positions) < 0.5, random.random(positions) < 0.5
    both = Bitmap.from_mask(a) & Bitmap.from_mask(b)
    assert len(both) == int((a & b).sum())
    assert torch.equal(both.words, Bitmap.from_mask(a & b).words)
    assert torch.equal(both.ranks, Bitmap.from_mask(a & b).ranks)


def test_a_long_exclusion_list_rules_like_a_short_one() -> None:
    codes = np.random.default_rng(0).integers(0, 9, (600, 3))
    snapshot = Snapshot.of(codes, (9, 9, 9))
    ranker = make_ranker((9, 9, 9), codes, 1, snapshot=snapshot)
    gone = np.arange(LONGEST_LIST + 50)
    rules = Rules.of(snapshot, None, gone)
    assert rules.bitmap is not None
    [rows], _ = ranker.rank(NOBODY, 600, False, rules)
    assert set(rows[rows >= 0].tolist()) == set(range(len(gone), 600))
    # A history longer than the list is masked whole as well, beside users with short ones and under a rule.
    histories = Histories.from_lists([gone, [2, 2, 599], [], gone[::-1]])
    for rules, allowed in ((None, range(600)), (Rules.of(snapshot, np.arange(1, 400)), range(1, 400))):
        found, _ = ranker.rank(histories, 600, True, rules)
        for history, rows in zip(histories.to_lists(), found, strict=True):
            assert set(rows[rows >= 0].tolist()) == set(allowed) - set(history)
            assert (rows >= 0).sum() == len(set(allowed) - set(history))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_caps_are_what_a_person_gets_who_goes_down_the_exact_ranking(data: st.DataObject) -> None:
    sizes, codes = data.draw(catalogues())
    ranker = make_ranker(sizes, codes, data.draw(st.integers(0, 3)), data.draw(st.sampled_from(FAMILIES)))
    brands = data.draw(st.lists(st.none() | st.sampled_from("abc"), min_size=len(codes), max_size=len(codes)))
    most, prefix_most = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    caps = [
        Cap(Groups.of_column(pa.chunked_array([pa.array(brands, pa.string())])), most),
        Cap(Groups.of_prefix(codes, 1), prefix_most),
    ]
    history = histories_for(data.draw, len(codes))[0]
    k = data.draw(st.integers(1, len(codes)))
    width = data.draw(st.sampled_from([k, 4096]))  # a search of k asks again; a wide one has all at once
    [rows], [scores] = ranker.rank(Histories.from_lists([history]), k, True, Rules(caps=caps), beam_width=width)
    found = rows[rows >= 0].tolist()
    taken = [brands[row] for row in found if brands[row] is not None]
    assert all(taken.count(brand) <= most for brand in "abc")
    firsts = [int(codes[row, 0]) for row in found]
    assert all(firsts.count(code) <= prefix_most for code in firsts)
    assert len(set(found)) == len(found)
    assert not set(found) & set(history.tolist())
    exact = brute_force(ranker, history)
    np.testing.assert_allclose(scores[rows >= 0], exact[found], atol=2e-4, rtol=5e-5)
    if len(found) < k:  # nothing that fits is left
        for row in set(range(len(codes))) - set(found) - set(history.tolist()):
            full_brand = brands[row] is not None and taken.count(brands[row]) == most
            assert full_brand or firsts.count(int(codes[row, 0])) == prefix_most
    if width == 4096 and len(np.unique(np.round(exact, 3))) == len(exact):  # no ties: the greedy choice is one
        expected, counts = [], {}
        for row in np.argsort(-exact).tolist():
            keys = [("prefix", int(codes[row, 0]), prefix_most)]
            keys += [("brand", brands[row], most)] if brands[row] is not None else []
            if row not in history and all(counts.get(key[:2], 0) < key[2] for key in keys) and len(expected) < k:
                expected.append(row)
                for key in keys:
                    counts[key[:2]] = counts.get(key[:2], 0) + 1
        assert found == expected


def test_items_of_several_categories_count_in_each() -> None:
    groups = Groups.of_column(pa.chunked_array([pa.array([["a", "b"], ["b"], [], None], pa.list_(pa.string()))]))
    assert [sorted(groups.of(row)) for row in range(4)] == [[0, 1], [1], [], []]
    assert sorted(groups.rows([1]).tolist()) == [0, 1]
    assert groups.rows([]).tolist() == []


def test_a_value_named_twice_counts_once_and_a_missing_one_not_at_all() -> None:
    twice = Groups.of_column(pa.chunked_array([pa.array([["a", "a"], ["a"]])]))
    assert [twice.of(row) for row in range(2)] == [[0], [0]]
    prices = Groups.of_column(pa.chunked_array([pa.array([1.0, float("nan"), None, 1.0])]))
    assert [prices.of(row) for row in range(4)] == [[0], [], [], [0]]
    with pytest.raises(SettingError, match="max_per takes columns of texts, numbers or lists of them"):
        Groups.of_column(pa.chunked_array([pa.array([{"a": 1}])]))


def test_rules_made_on_the_host_follow_the_search_to_its_device() -> None:
    snapshot = Snapshot.of(grid(), (4, 4))
    one, other = (Rules.of(snapshot, np.array(rows)).bitmap for rows in ([1, 2], [3]))
    there = snapshot.to(torch.device("meta"))
    for bitmaps in ([one], [one, other]):
        allowed = there.allowed(bitmaps, [np.zeros(0, np.int64)] * len(bitmaps))
        assert allowed.words is not None
        assert allowed.words.device == allowed.ranks.device == torch.device("meta")


def grid() -> np.ndarray:
    return np.array([[a, b] for a in range(4) for b in range(4)])


def test_empty_history_gets_a_full_list() -> None:
    rows, scores = make_ranker((4, 4), grid()).rank(NOBODY, 5, True)
    assert (rows >= 0).all()
    assert np.isfinite(scores).all()


def test_empty_catalogue_and_everything_filtered_out_give_an_empty_list() -> None:
    empty = Snapshot(CatalogueIndex.build(np.zeros((0, 2), int), (4, 4)), np.zeros((0, 2), np.int32))
    everything_gone = Rules.of(Snapshot.of(grid(), (4, 4)), np.zeros(0, np.int64))
    for ranker, rules in ((make_ranker((4, 4), grid(), snapshot=empty), None), (make_ranker((4, 4), grid()), everything_gone)):
        rows, scores = ranker.rank(NOBODY, 3, True, rules)
        assert rows.tolist() == [[-1] * 3]
        assert np.isneginf(scores).all()


def test_more_items_asked_for_than_there_are_gives_all_of_them() -> None:
    [rows], [scores] = make_ranker((4, 4), grid()).rank(NOBODY, 20, False)
    assert sorted(rows[:16].tolist()) == list(range(16))
    assert rows[16:].tolist() == [-1] * 4
    assert np.isneginf(scores[16:]).all()


@pytest.mark.parametrize("width", [1, 512])
def test_beams_of_one_and_of_hundreds(width: int) -> None:
    codes = np.random.default_rng(0).integers(0, 30, (2000, 3))
    ranker = make_ranker((30, 30, 30), codes, 2)
    [rows], [scores] = ranker.rank(NOBODY, width, False, beam_width=width)
    assert len(set(rows.tolist())) == width
    assert (rows >= 0).all()
    np.testing.assert_allclose(scores, brute_force(ranker, np.array([], int))[rows], atol=2e-4)


def test_a_beam_may_grow_from_level_to_level() -> None:
    codes = np.random.default_rng(0).integers(0, 8, (300, 3))
    ranker = make_ranker((8, 8, 8), codes, 2)
    growing, _ = ranker.rank(NOBODY, 4, False, beam_width=[4, 32, 64])
    wide, _ = ranker.rank(NOBODY, 4, False, beam_width=64)
    assert (growing >= 0).all()
    assert len(set(growing[0]) & set(wide[0])) >= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 5, "beam_width": 4}, "k must be at most the smallest beam_width, 4, got 5"),
        ({"k": 5, "beam_width": [9, 4]}, "k must be at most the smallest beam_width, 4, got 5"),
        ({"k": 0}, "k must be an integer from 1"),
        ({"k": 3, "beam_width": 0}, "beam_width must be a whole number of at least 1"),
        ({"k": 3, "beam_width": [5]}, "or a list of 2, one per level"),
        ({"k": 3, "beam_width": "wide"}, "beam_width must be a whole number"),
        ({"k": 3, "beam_width": 20.0}, "beam_width must be a whole number"),
        ({"k": 3, "beam_width": [20, True]}, "beam_width must be a whole number"),
        ({"k": 2.5}, "k must be an integer"),
        ({"k": 10**6}, "k must be an integer from 1 to 4096"),
        ({"k": 3, "beam_width": 10**6}, "beam_width must be an integer from 1 to 4096"),
    ],
)
def test_impossible_requests_say_what_is_allowed(arguments: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make_ranker((4, 4), grid()).rank(Histories.from_lists([[0]]), exclude_seen=False, **arguments)


def test_numbers_of_numpy_are_numbers() -> None:
    ranker = make_ranker((4, 4), grid())
    plain = ranker.rank(NOBODY, 3, False, beam_width=[8, 8])
    for k, width in ((np.int64(3), np.int32(8)), (3, np.array([8, 8]))):
        np.testing.assert_array_equal(ranker.rank(NOBODY, k, False, beam_width=width)[0], plain[0])


def test_no_histories_is_an_empty_answer() -> None:
    rows, scores = make_ranker((4, 4), grid()).rank(Histories.from_lists([]), 2, exclude_seen=True)
    assert rows.shape == scores.shape == (0, 2)
