"""The click-through task holds what it says, the model learns planted rules, and padding counts for nothing."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Histories, Interactions
from genrec.data.splits import global_time, leave_one_out
from genrec.errors import DataError, SettingError
from genrec.evaluation.ctr import Impressions, implicit_popularity_negatives, liked_events, rated_task
from genrec.evaluation.ctr_metrics import auc, gauc
from genrec.evaluation.ctr_model import CtrConfig, InterestNetwork, click_probabilities, measure_ctr, train_ctr
from genrec.evaluation.representations import SEMANTIC_ID, SEMANTIC_VECTOR, TEXT, UNIQUE_ID, Representation, weights_of

ITEMS, KINDS = 40, 4
ONE_HOT = np.eye(KINDS)[np.arange(ITEMS) % KINDS]
CODES = np.column_stack([np.arange(ITEMS) % KINDS, np.arange(ITEMS) // KINDS])
FORMS = [
    Representation(UNIQUE_ID, ITEMS),
    Representation(TEXT, ITEMS, vectors=ONE_HOT),
    Representation(SEMANTIC_VECTOR, ITEMS, vectors=np.hstack([ONE_HOT, np.random.default_rng(0).standard_normal((ITEMS, 3))])),
    Representation(SEMANTIC_ID, ITEMS, codes=CODES, sizes=(KINDS, ITEMS // KINDS)),
]
QUICK = CtrConfig(width=8, hidden=16, history=6, epochs=6, batch_size=64, learning_rate=1e-2)


def rated() -> pa.Table:
    return pa.table({
        "user_id": ["b", "a", "b", "b", "a", "b", "a", "b", "b", "c", "c", "c"],
        "item_id": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "1", "2", "3"],
        "timestamp": [5, 1, 1, 2, 2, 3, 3, 4, 6, 1, 2, 3],
        "stars": [2.0, 4.0, 5.0, 1.0, 5.0, 4.0, 3.0, 3.5, 5.0, 5.0, 2.0, 4.0],
    })  # fmt: skip


def catalogue(items: int = 9) -> Catalogue:
    return Catalogue.from_table(pa.table({"item_id": [str(number) for number in range(items)]}))


def same_kind(impressions: int, seed: int) -> Impressions:
    """The planted rule: a click where the candidate's kind was liked before."""
    random = np.random.default_rng(seed)
    lists = [random.integers(0, ITEMS, random.integers(1, 4)) for _ in range(impressions)]
    items = random.integers(0, ITEMS, impressions)
    labels = [int(item % KINDS in history % KINDS) for item, history in zip(items, lists, strict=True)]
    histories = Histories.from_lists(lists)
    return Impressions(histories, np.arange(impressions), histories.lengths, items, np.array(labels))


def test_rated_events_become_likes_and_dislikes_in_order_of_time_and_what_lies_between_is_left_out() -> None:
    histories, liked = liked_events(catalogue(), rated(), "stars")
    assert histories.user_ids.tolist() == ["a", "b", "c"]
    assert [list(map(int, one)) for one in histories.to_lists()] == [[1, 4, 6], [2, 3, 5, 0, 8], [1, 2, 3]]
    assert liked.tolist() == [True, True, False, True, False, True, False, True, True, False, True]


def test_the_history_of_a_rated_event_is_what_was_liked_before_it() -> None:
    histories, liked = liked_events(catalogue(), rated(), "stars")
    task = rated_task(histories, liked, leave_one_out)
    seen = {
        (user, int(item)): (history[history >= 0].tolist(), int(label))
        for part in (task.train, task.validation, task.test)
        for user, item, label, history in zip(
            part.user_ids, part.items, part.labels, part.padded(np.arange(len(part)), 10), strict=True
        )
    }
    assert seen == {
        ("a", 4): ([1], 1), ("a", 6): ([1, 4], 0),
        ("b", 3): ([2], 0), ("b", 5): ([2], 1), ("b", 0): ([2, 5], 0), ("b", 8): ([2, 5], 1),
        ("c", 2): ([1], 0), ("c", 3): ([1], 1),
    }  # fmt: skip
    assert set(zip(task.test.user_ids, task.test.items.tolist(), strict=True)) == {("a", 6), ("b", 8), ("c", 3)}
    assert task.split == "leave-one-out"


def test_a_cut_in_time_holds_for_impressions_too(shop: tuple[Catalogue, Interactions]) -> None:
    histories = shop[1].histories(shop[0])
    liked = np.random.default_rng(0).random(len(histories.items)) < 0.6
    task, cut = rated_task(histories, liked, global_time), global_time(histories)
    assert task.split == "global-time"
    for part, questions in ((task.validation, cut.validation), (task.test, cut.test)):
        asked = set(zip(questions.histories.user_ids, questions.items.tolist(), strict=True))
        shown = set(zip(part.user_ids, part.items.tolist(), strict=True))
        assert shown <= asked
        assert len(shown) > 0.8 * len(asked), "all but those before whom nothing was liked"


def test_the_order_of_rows_changes_no_task() -> None:
    table = rated()
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(len(table))))
    for source in (lambda t: rated_task(*liked_events(catalogue(), t, "stars"), leave_one_out),
                   lambda t: implicit_popularity_negatives(
                       Interactions.from_table(t).histories(catalogue()), 9, leave_one_out)):  # fmt: skip
        one, other = source(table), source(shuffled)
        for a, b in ((one.train, other.train), (one.test, other.test)):
            assert a.user_ids.tolist() == b.user_ids.tolist()
            np.testing.assert_array_equal(a.items, b.items)
            np.testing.assert_array_equal(a.labels, b.labels)
            np.testing.assert_array_equal(a.padded(np.arange(len(a)), 3), b.padded(np.arange(len(b)), 3))


@pytest.mark.parametrize(
    ("column", "bounds", "error", "message"),
    [
        ("starz", {}, DataError, "must have a column 'starz'"),
        ("item_id", {"like": 90, "dislike": -90}, DataError, "at least 90 or at most -90"),
        ("user_id", {}, DataError, "ratings as numbers"),
        ("stars", {"like": 3.0, "dislike": 3.0}, SettingError, "dislike must be below like"),
    ],
)
def test_ratings_that_cannot_be_are_refused(column: str, bounds: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        liked_events(catalogue(), rated(), column, **bounds)


def test_a_task_with_one_label_only_is_refused() -> None:
    histories, liked = liked_events(catalogue(), rated(), "stars")
    with pytest.raises(DataError, match="both labels"):
        rated_task(histories, np.ones_like(liked), leave_one_out)
    with pytest.raises(DataError, match="each of 11 events"):
        rated_task(histories, liked[:-1], leave_one_out)


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 11), min_size=3, max_size=7, unique=True), min_size=4, max_size=12), st.integers(0, 99))
def test_each_positive_has_one_negative_that_training_met_and_the_user_had_not(lists: list[list[int]], seed: int) -> None:
    histories = Histories.from_lists(lists)
    try:
        task = implicit_popularity_negatives(histories, 12, leave_one_out, seed)
    except DataError:  # nobody has an item left that could be drawn
        return
    trained = set(leave_one_out(histories).train.items.tolist())
    for part in (task.train, task.validation, task.test):
        half = len(part) // 2
        assert part.labels.tolist() == [1] * half + [0] * half
        np.testing.assert_array_equal(part.users[:half], part.users[half:])
        for user, stop, positive, negative in zip(
            part.user_ids[:half], part.stops[:half], part.items[:half], part.items[half:], strict=True
        ):
            history = lists[int(user)]
            assert history[stop] == positive
            assert negative in trained
            assert negative not in history[: stop + 1]
    assert task.name == "implicit_popularity_negatives"


def test_negatives_come_by_popularity_so_that_popularity_tells_nothing() -> None:
    random = np.random.default_rng(0)
    chance = 1 / np.arange(1, 301)
    lists = [random.choice(300, 6, replace=False, p=chance / chance.sum()) for _ in range(800)]
    task = implicit_popularity_negatives(Histories.from_lists(lists), 300, leave_one_out)
    counts = np.bincount(leave_one_out(Histories.from_lists(lists)).train.items, minlength=300)
    assert 0.45 < auc(task.test.labels, counts[task.test.items]) < 0.58
    uniform = random.integers(0, 300, len(task.test) // 2)
    shown = np.concatenate([task.test.items[: len(uniform)], uniform])
    assert auc(task.test.labels, counts[shown]) > 0.7, "which uniform negatives would let it"


def test_where_users_repeat_items_a_negative_may_be_an_old_one() -> None:
    lists = [[item, (item + 1) % 5, item, (item + 1) % 5, item, (item + 2) % 5] for item in range(5)] * 10
    task = implicit_popularity_negatives(Histories.from_lists(lists), 5, leave_one_out)
    negatives = task.train.labels == 0
    histories = task.train.padded(np.arange(len(task.train)), 9)
    old = (histories == task.train.items[:, None]).any(axis=1)
    assert old[negatives].any()


@given(st.lists(st.lists(st.integers(0, 30), max_size=9), min_size=1, max_size=6), st.integers(1, 5), st.data())
def test_padding_writes_the_latest_items_before_the_impression(
    lists: list[list[int]], longest: int, data: st.DataObject
) -> None:
    histories = Histories.from_lists(lists)
    stops = np.array([data.draw(st.integers(0, len(history))) for history in lists])
    impressions = Impressions(histories, np.arange(len(lists)), stops, np.zeros(len(lists), int), np.zeros(len(lists), int))
    found = impressions.padded(np.arange(len(lists)), longest)
    for row, history, stop in zip(found, lists, stops, strict=True):
        assert row[row >= 0].tolist() == history[:stop][-longest:]
        assert (row[len(row[row >= 0]) :] == -1).all()


def test_grouped_auc_compares_inside_users_and_weighs_by_impressions() -> None:
    labels = np.array([1, 0, 1, 1, 0, 0, 1])
    users = np.array(["a", "a", "b", "b", "b", "c", "d"])
    scores = np.array([0.1, 0.9, 0.8, 0.3, 0.5, 0.0, 1.0])
    assert gauc(labels, scores, users) == pytest.approx((2 * 0.0 + 3 * 0.5) / 5)
    with pytest.raises(DataError, match="of the same user"):
        gauc(labels[[0, 5, 6]], scores[[0, 5, 6]], users[[0, 5, 6]])
    with pytest.raises(DataError, match="clicked and unclicked"):
        auc(np.ones(3), scores[:3])


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_representation_learns_the_planted_rule(form: Representation) -> None:
    config = replace(QUICK, epochs=15)
    model = train_ctr(same_kind(2500, seed=1), form, config)
    result = measure_ctr(model, same_kind(600, seed=2), config)
    assert result.auc > (0.8 if form.name == UNIQUE_ID else 0.9)
    assert result.log_loss < 0.6
    assert np.isnan(result.gauc), "one impression per user"
    assert result.weights == weights_of(model)


def test_a_rule_that_is_not_there_is_not_learned() -> None:
    blank = Representation("nothing", ITEMS, vectors=np.ones((ITEMS, 2)))
    shown = same_kind(600, seed=2)
    random = replace(shown, labels=np.random.default_rng(3).permutation(shown.labels))
    model = train_ctr(same_kind(1500, seed=1), FORMS[1], QUICK)
    assert 0.4 < measure_ctr(model, random, QUICK).auc < 0.6
    assert measure_ctr(train_ctr(same_kind(300, 1), blank, QUICK), shown, QUICK).auc < 0.75, "the length alone"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_attention_gives_padding_nothing_and_longer_padding_changes_no_probability(form: Representation) -> None:
    torch.manual_seed(0)
    model = InterestNetwork(form, QUICK).eval()
    candidates, short = torch.tensor([3, 5]), torch.tensor([[1, 2], [7, -1]])
    longer = torch.cat([short, torch.full((2, 3), -1)], dim=1)
    there = longer >= 0
    weights = model.attention(model.items(candidates), model.items(longer.clamp(min=0)), there)
    assert (weights[~there] == 0).all()
    assert (weights[there] != 0).all()
    torch.testing.assert_close(model(candidates, short), model(candidates, longer))
    nothing = model(candidates, torch.full((2, 1), -1))
    assert torch.isfinite(nothing).all()
    assert not torch.allclose(nothing, model(candidates, short)), "but a history does change it"


def test_forms_differ_in_their_weights_and_in_nothing_else() -> None:
    shapes = {}
    for form in FORMS:
        model = InterestNetwork(form, QUICK)
        shapes[form.name] = {name: tuple(p.shape) for name, p in model.named_parameters() if not name.startswith("items.")}
    assert len({str(found) for found in shapes.values()}) == 1
    learned = [weights_of(InterestNetwork(form, QUICK).items) for form in FORMS]
    assert learned == [ITEMS * 8, (KINDS + 1) * 8, (KINDS + 3 + 1) * 8, (KINDS + ITEMS // KINDS) * 8]


def test_given_vectors_stay_as_they_are_and_the_same_seed_gives_the_same_probabilities() -> None:
    shown, form = same_kind(200, seed=1), FORMS[2]
    state = torch.random.get_rng_state()
    one, two, other = (train_ctr(shown, form, replace(QUICK, epochs=1, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's random numbers go on"
    np.testing.assert_array_equal(*(click_probabilities(model, shown, QUICK) for model in (one, two)))
    assert not np.allclose(click_probabilities(one, shown, QUICK), click_probabilities(other, shown, QUICK))
    torch.testing.assert_close(one.items.vectors, InterestNetwork(form, QUICK).items.vectors)


def test_impossible_models_are_refused() -> None:
    with pytest.raises(DataError, match="got both"):
        Representation("x", 4, vectors=np.ones((4, 2)), codes=np.zeros((4, 1), int), sizes=(2,))
    with pytest.raises(DataError, match="one row per item, 5"):
        Representation("x", 5, vectors=np.ones((4, 2)))
    with pytest.raises(DataError, match="one column per level"):
        Representation("x", 4, codes=np.zeros((4, 2), int), sizes=(2,))
    with pytest.raises(DataError, match="0 to 2, got row"):
        train_ctr(same_kind(20, seed=0), Representation("x", 3), QUICK)
    with pytest.raises(SettingError, match="hidden"):
        CtrConfig(hidden=0)
