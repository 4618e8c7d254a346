"""Scoring the whole catalogue a piece at a time: the same as a full sort, for any pieces, ties and rules."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from genrec.decoding.allowed import Allowed, Bitmap
from genrec.decoding.scoring import best_rows, dots, mixed, sums


@st.composite
def worlds(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, Allowed]:
    """Scores [B, R] full of ties, the order of the rows, and what each user may get [B, P]."""
    items, users = draw(st.integers(1, 40)), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    scores = torch.from_numpy(random.integers(0, draw(st.integers(1, 6)), (users, items)).astype(np.float32))
    order = torch.from_numpy(random.permutation(items))
    mask = random.random(items) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    excluded = np.stack([random.choice(items, min(items, 3), replace=False) for _ in range(users)])
    excluded[:, 0] = -1
    allowed = Allowed.of(items, [Bitmap.from_mask(mask)], None, torch.from_numpy(excluded))
    may = np.repeat(mask[None], users, axis=0)
    for user, places in enumerate(excluded):
        may[user, places[places >= 0]] = False
    return scores, order, may, allowed


@given(worlds(), st.integers(1, 12), st.integers(1, 200))
def test_the_best_are_those_of_a_full_sort_with_ties_in_code_order(world: tuple, k: int, cells: int) -> None:
    scores, order, may, allowed = world
    rows, found = best_rows(
        lambda start, stop: scores[:, start:stop].clone(), scores.shape[1], order, len(scores), k, allowed, None, cells
    )
    for user in range(len(scores)):
        places = np.flatnonzero(may[user])
        values = scores[user, order[places]].numpy()
        best = places[np.argsort(-values, kind="stable")][:k]
        padded = np.concatenate([order[best].numpy(), np.full(k - len(best), -1)])
        np.testing.assert_array_equal(rows[user].numpy(), padded)
        np.testing.assert_array_equal(found[user, : len(best)].numpy(), scores[user, order[best]].numpy())
        assert torch.isneginf(found[user, len(best) :]).all()


@given(st.integers(0, 10**6), st.integers(1, 100))
def test_scores_are_made_log_probabilities_over_what_counts_whatever_the_pieces(seed: int, cells: int) -> None:
    torch.manual_seed(seed)
    scores, counted = torch.randn(3, 20), torch.rand(20) < 0.7
    rows, found = best_rows(lambda start, stop: scores[:, start:stop], 20, torch.arange(20), 3, 5, Allowed(), counted, cells)
    expected = scores - scores[:, counted].logsumexp(dim=1, keepdim=True)
    torch.testing.assert_close(found, expected.gather(1, rows))


@given(st.integers(0, 10**6), st.integers(1, 4), st.booleans(), st.integers(1, 100))
def test_a_mixture_is_the_weighed_mean_of_probabilities_whatever_the_pieces(
    seed: int, states: int, raw: bool, cells: int
) -> None:
    torch.manual_seed(seed)
    scores, counted, shares = torch.randn(3, states, 20), torch.rand(20) < 0.7, torch.rand(3, states).log().log_softmax(dim=1)
    counted[0] = True
    each = scores - scores[..., counted].logsumexp(dim=2, keepdim=True) if raw else scores
    expected = (shares.exp().unsqueeze(-1) * each.exp()).sum(dim=1).log()
    plain = scores.flatten(0, 1)
    score = mixed(lambda start, stop: plain[:, start:stop], shares, 20, counted if raw else None, cells)
    rows, found = best_rows(score, 20, torch.arange(20), 3, 5, Allowed(), None, cells)
    torch.testing.assert_close(found, expected.gather(1, rows))
    torch.testing.assert_close(found, expected.sort(dim=1, descending=True).values[:, :5])


def test_rows_that_the_index_lacks_never_come_back() -> None:
    scores = torch.arange(6.0).expand(2, -1)
    rows, _ = best_rows(lambda start, stop: scores[:, start:stop], 6, torch.tensor([4, 0, 2]), 2, 5, Allowed(), None, 4)
    assert rows.tolist() == [[4, 2, 0, -1, -1]] * 2


def test_two_ways_to_score_are_what_they_say() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(3, 5), torch.randn(7, 5)
    torch.testing.assert_close(dots(queries, keys)(2, 6), (queries @ keys.T)[:, 2:6])
    log_probs, tokens = torch.randn(3, 9), torch.randint(0, 9, (7, 4), dtype=torch.int32)
    torch.testing.assert_close(sums(log_probs, tokens)(2, 6), log_probs[:, tokens[2:6].long()].sum(dim=-1))


def test_an_empty_catalogue_has_no_best() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    rows, scores = best_rows(lambda start, stop: torch.zeros(2, stop - start), 0, nothing, 2, 3, Allowed())
    assert (rows == -1).all()
    assert torch.isneginf(scores).all()
