"""The sequence baselines: what their network may know, their losses, their training, and what they promise as rankers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError
from genrec.evaluation.baselines import sequence_ranker
from genrec.evaluation.baselines.popularity import Popularity
from genrec.evaluation.baselines.sequence_losses import Sampler, full_cross_entropy, sampled_cross_entropy
from genrec.evaluation.baselines.sequence_network import SequenceConfig, SequenceNetwork
from genrec.evaluation.baselines.sequence_ranker import BSAREC, SASREC, SequenceRanker, training_windows
from genrec.evaluation.evaluate import evaluate
from genrec.networks import low_pass

ITEMS = 12
SMALL = {"width": 16, "heads": 2, "history": 8, "dropout": 0.1, "epochs": 30, "batch_size": 64, "learning_rate": 1e-2}
MODELS = {"sasrec": replace(SASREC, **SMALL), "bsarec": replace(BSAREC, **SMALL)}


def walks(users: int, seed: int, step: int = 5) -> Histories:
    """Everybody takes the item `step` further, round the catalogue, from anywhere, for 2 to 12 items."""
    random = np.random.default_rng(seed)
    return Histories.from_lists([
        (random.integers(ITEMS) + step * np.arange(random.integers(2, 13))) % ITEMS for _ in range(users)
    ])  # fmt: skip


def questions(users: int, seed: int, step: int = 5) -> Targets:
    histories = walks(users, seed, step)
    return Targets(histories.select(np.arange(users), histories.lengths - 1), histories.items[histories.indptr[1:] - 1])


def fitted(config: SequenceConfig, **changes: object) -> SequenceRanker:
    config = replace(config, **changes)  # type: ignore[arg-type]
    return SequenceRanker(config).fit(walks(150, seed=0), ITEMS, questions(60, seed=1), exclude_seen=False)


@pytest.fixture(scope="module", params=MODELS)
def ranker(request: pytest.FixtureRequest) -> SequenceRanker:
    return fitted(MODELS[request.param])


@pytest.fixture(params=MODELS)
def network(request: pytest.FixtureRequest) -> SequenceNetwork:
    torch.manual_seed(0)
    made = SequenceNetwork(ITEMS, MODELS[request.param]).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4)  # far from the small numbers it starts with, so that a leak shows
    return made


def test_a_walk_that_is_certain_is_learnt(ranker: SequenceRanker) -> None:
    result = evaluate(ranker, questions(200, seed=2), ks=(1,), exclude_seen=(False,), progress=False)
    assert result.metrics["unmasked"]["recall@1"].mean > 0.95


@settings(max_examples=25)
@given(st.lists(st.integers(0, ITEMS - 1), min_size=2, max_size=8), st.data())
def test_a_later_item_changes_no_earlier_state(history: list[int], data: st.DataObject) -> None:
    torch.manual_seed(0)
    place = data.draw(st.integers(1, len(history) - 1))
    other = [*history[:place], *data.draw(st.lists(st.integers(0, ITEMS), min_size=len(history) - place, max_size=8 - place))]
    for config in MODELS.values():
        made = SequenceNetwork(ITEMS, config).eval()
        with torch.no_grad():
            before, after = (made(torch.tensor([line]))[0, :place] for line in (history, other))
        torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


def test_every_earlier_item_changes_a_later_state(network: SequenceNetwork) -> None:
    history = torch.arange(8)[None]
    with torch.no_grad():
        last = network(history)[0, -1]
        for place in range(8):
            changed = history.clone()
            changed[0, place] = 11
            assert (network(changed)[0, -1] - last).abs().max() > 1e-4


def test_the_filter_is_a_low_pass_of_the_history_behind_zeros() -> None:
    for history, frequencies in ((50, 3), (8, 5), (7, 4), (6, 1)):
        x = np.random.default_rng(0).normal(size=history)
        found = low_pass(history, frequencies).numpy() @ x
        for end in range(history):
            spectrum = np.fft.rfft(np.concatenate([np.zeros(history - end - 1), x[: end + 1]]))
            spectrum[frequencies:] = 0
            np.testing.assert_allclose(found[end], np.fft.irfft(spectrum, history)[-1], atol=1e-6)


def test_scores_alone_are_those_beside_longer_histories(ranker: SequenceRanker) -> None:
    lists = [[3], [1, 6, 11], list(range(12)), [0, 5]]
    rows, scores = ranker.rank(Histories.from_lists(lists), ITEMS, exclude_seen=False)
    for user, history in enumerate(lists):
        alone, scores_alone = ranker.rank(Histories.from_lists([history]), ITEMS, exclude_seen=False)
        order, order_alone = np.argsort(rows[user]), np.argsort(alone[0])
        np.testing.assert_allclose(scores[user, order], scores_alone[0, order_alone], atol=1e-5)


def test_only_the_latest_items_are_seen_but_all_are_masked(ranker: SequenceRanker) -> None:
    long = [2, 9, *([7, 4] * 4)]
    asked = Histories.from_lists([long, long[-8:]])
    _, scores = ranker.rank(asked, ITEMS, exclude_seen=False)
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    rows, scores = ranker.rank(asked, ITEMS, exclude_seen=True)
    assert set(rows[0]) == set(range(ITEMS)) - set(long) | {-1}
    assert np.isneginf(scores[0][rows[0] < 0]).all()
    assert set(rows[1]) == set(range(ITEMS)) - {7, 4} | {-1}


def test_an_empty_history_gets_the_popularity_order(ranker: SequenceRanker) -> None:
    rows, scores = ranker.rank(Histories.from_lists([[0], [], [1]]), 5, exclude_seen=True)
    expected, counts = Popularity().fit(walks(150, seed=0), ITEMS).rank(Histories.from_lists([[]]), 5, exclude_seen=True)
    np.testing.assert_array_equal(rows[1], expected[0])
    np.testing.assert_array_equal(scores[1], counts[0])


def test_equal_scores_come_in_catalogue_order_and_other_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ranker = fitted(MODELS["sasrec"], epochs=1)
    with torch.no_grad():
        ranker.network.items.weight[[3, 7, 9]] = ranker.network.items.weight[3].clone()
    asked = Histories.from_lists([[0], [1, 2, 4], [], [5, 6]])
    rows, scores = ranker.rank(asked, ITEMS, exclude_seen=False)
    for user in (0, 1, 3):
        assert [row for row in rows[user] if row in (3, 7, 9)] == [3, 7, 9]
        assert (np.diff(scores[user]) <= 0).all()
    monkeypatch.setattr(sequence_ranker, "BATCH_CELLS", ITEMS)
    again, _ = ranker.rank(asked, ITEMS, exclude_seen=False)
    np.testing.assert_array_equal(rows, again)


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    first, again, other = (fitted(MODELS["bsarec"], epochs=2, seed=seed) for seed in (3, 3, 4))
    pairs = list(zip(first.network.parameters(), again.network.parameters(), other.network.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)
    assert first.scores == again.scores


def test_the_order_of_the_users_changes_nothing() -> None:
    train, config = walks(150, seed=0), replace(MODELS["sasrec"], epochs=2)
    shuffled = train.select(np.random.default_rng(5).permutation(150))
    first, other = (SequenceRanker(config).fit(part, ITEMS, questions(60, seed=1), False) for part in (train, shuffled))
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), other.network.parameters(), strict=True))


def test_fitting_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fitted(MODELS["sasrec"], epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_the_best_epoch_is_kept_and_its_score_is_that_of_the_full_ranking() -> None:
    config = replace(MODELS["sasrec"], epochs=12, patience=3, learning_rate=1e-3)
    other_way = questions(60, seed=1, step=7)  # the more of the training walk is learnt, the worse
    ranker = SequenceRanker(config).fit(walks(150, seed=0), ITEMS, other_way, exclude_seen=False)
    assert len(ranker.scores) == int(np.argmax(ranker.scores)) + 1 + 3
    assert ranker.scores[-1] < max(ranker.scores)
    result = evaluate(ranker, other_way, exclude_seen=(False,), progress=False)
    assert result.metrics["unmasked"]["ndcg@10"].mean == pytest.approx(max(ranker.scores))


def test_every_step_of_a_history_is_in_exactly_one_window() -> None:
    histories = [list(range(23)), [5], [], [4, 6], list(range(5))]
    windows = training_windows(Histories.from_lists(histories), 4)
    assert max(map(len, windows)) <= 5
    assert min(map(len, windows)) >= 2
    steps = [tuple(pair) for window in windows for pair in zip(window[:-1].tolist(), window[1:].tolist(), strict=True)]
    expected = [pair for history in histories for pair in itertools.pairwise(history)]
    assert sorted(steps) == sorted(expected)


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 10**6))
def test_the_loss_in_chunks_is_the_loss_at_once_and_so_are_its_gradients(positions: int, cells: int, seed: int) -> None:
    torch.manual_seed(seed)
    states, table = (torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for n in (positions, ITEMS))
    right = torch.randint(ITEMS, (positions,))
    expected = cross_entropy(states @ table.T, right)
    found = full_cross_entropy(states, table, right, cells)
    torch.testing.assert_close(found, expected)
    gradients, gradients_expected = (torch.autograd.grad(3 * loss, [states, table]) for loss in (found, expected))
    torch.testing.assert_close(gradients, gradients_expected)


def test_huge_scores_keep_the_loss_finite() -> None:
    states, table = torch.tensor([[1e3], [-1e3]]), torch.tensor([[1.0], [-1.0], [0.0]])
    assert full_cross_entropy(states, table, torch.tensor([1, 1])).item() == pytest.approx(1e3)


def test_the_loss_over_many_drawn_items_is_that_over_all_of_them() -> None:
    torch.manual_seed(0)
    states, table, right = torch.randn(20, 8), torch.randn(ITEMS, 8), torch.randint(ITEMS, (20,))
    sampler = Sampler(np.arange(ITEMS, dtype=np.float32), 200_000)
    expected = full_cross_entropy(states, table, right)
    found = sampled_cross_entropy(states, table, right, *sampler.draw())
    assert found.item() == pytest.approx(expected.item(), rel=0.01)


def test_the_sampler_draws_as_often_as_it_says_and_leaves_nobody_out() -> None:
    torch.manual_seed(0)
    sampler = Sampler(np.array([0.0, 9.0, 89.0], np.float32), 100_000)
    drawn, log_expected = sampler.draw()
    counts = np.bincount(drawn.numpy(), minlength=3)
    np.testing.assert_allclose(counts, np.exp(sampler.log_expected.numpy()), rtol=0.1)
    np.testing.assert_allclose(np.exp(sampler.log_expected.numpy()) / 100_000, np.array([1, 10, 90]) / 101, rtol=1e-5)
    assert torch.equal(log_expected, sampler.log_expected[drawn])


def test_a_model_trained_on_drawn_items_learns_the_walk_too() -> None:
    ranker = fitted(MODELS["sasrec"], sampled=8)
    result = evaluate(ranker, questions(200, seed=2), ks=(1,), exclude_seen=(False,), progress=False)
    assert result.metrics["unmasked"]["recall@1"].mean > 0.9


def test_a_huge_catalogue_is_refused_until_somebody_asks_for_drawn_items() -> None:
    with pytest.raises(SettingError, match="at most full_softmax_up_to = 11 items, got 12"):
        fitted(MODELS["sasrec"], full_softmax_up_to=ITEMS - 1)
    fitted(MODELS["sasrec"], full_softmax_up_to=ITEMS - 1, sampled=4, epochs=1)


def test_every_position_but_the_first_is_a_question_once_an_epoch_and_padding_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def noted(states: torch.Tensor, table: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        asked.extend(right.tolist())
        return full_cross_entropy(states, table, right)

    monkeypatch.setattr(sequence_ranker, "full_cross_entropy", noted)
    train = Histories.from_lists([[0, 1], [2, 3, 4, 5, 6], [7], [8, 9, 8], [1, 0]])
    for batch_size in (1, 6, 100):
        asked.clear()
        config = replace(MODELS["sasrec"], epochs=1, batch_size=batch_size)
        SequenceRanker(config).fit(train, ITEMS, questions(5, seed=1), exclude_seen=False)
        assert sorted(asked) == sorted([1, 3, 4, 5, 6, 9, 8, 0])


def test_names_say_which_model_it_is() -> None:
    assert (SequenceRanker().name, SequenceRanker(BSAREC).name) == ("sasrec", "bsarec")


def test_a_training_that_diverges_is_an_error() -> None:
    with pytest.raises(SettingError, match="diverged"):
        fitted(MODELS["bsarec"], learning_rate=1e38)


def test_nothing_to_learn_from_or_to_stop_on_is_an_error() -> None:
    one = Histories.from_lists([[1], [2], []])
    with pytest.raises(DataError, match="no training history has two items"):
        SequenceRanker().fit(one, ITEMS, questions(5, seed=1), True)
    with pytest.raises(DataError, match="validation questions to stop on"):
        SequenceRanker().fit(walks(5, seed=0), ITEMS, Targets(Histories.from_lists([]), np.zeros(0, np.int64)), True)
    with pytest.raises(DataError, match="0 to 3, got row"):
        SequenceRanker().fit(walks(5, seed=0), 4, questions(5, seed=1), True)


@pytest.mark.parametrize(
    "setting",
    [
        {"width": 0}, {"layers": 0}, {"heads": 3}, {"history": 0}, {"dropout": 1.0}, {"dropout": -0.1}, {"filter_weight": 1.0},
        {"frequencies": 0}, {"frequencies": 27}, {"epochs": 0}, {"patience": 0}, {"batch_size": 0}, {"learning_rate": 0.0},
        {"weight_decay": -1.0}, {"sampled": -1}, {"full_softmax_up_to": 0}, {"validation_users": 0}, {"seed": -1},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(setting: dict) -> None:
    with pytest.raises(SettingError, match=next(iter(setting))):
        SequenceConfig(**setting)
