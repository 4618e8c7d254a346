"""The user index: made of whole histories, told to no one who should not know, and worth its tokens where tastes are hidden."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quick import QUICK
from transformers import AutoTokenizer
from worlds import assert_same_ranking, brute_force

from genrec.bundle import USER_INDEX, VECTORS, read_bundle
from genrec.data.interactions import Histories
from genrec.data.splits import leave_one_out
from genrec.decoding.user_index import UNKNOWN, UserIndex
from genrec.errors import SettingError
from genrec.evaluate_bundle import evaluate_bundle
from genrec.fit import fit
from genrec.models.tokens import TokenLayout, write_histories
from genrec.recipe import load_recipe
from genrec.recommender import Recommender, Request
from genrec.serving.engine import TorchEngine
from genrec.serving.vllm.wire import pack, unpack
from genrec.training.examples import IGNORED, Collator, HistoryWindows
from genrec.training.targets import HistoryTargets, TargetCollator
from genrec.training.user_index import UNTOLD, Told, ToldBatches, ToldCollator, ToldTargets, ToldWindows

TASTES = ("tea", "bikes", "chess", "roses", "drums")
EACH, PLAIN = 3, 5
SHORT = QUICK | {
    "data.split": "user-holdout",
    "data.validation_share": 0.2,
    "data.test_share": 0.2,
    "tokenizer.rq_kmeans.levels": 1,
    "tokenizer.rq_kmeans.codebook_size": 8,
    "model.hidden_size": 64,
    "model.dropout": 0.0,
    "training.max_history": 1,
    "training.epochs": 6,
    "training.learning_rate": 5e-3,
    "training.batch_tokens": 256,
    "training.validation_users": 30,
    "evaluation.max_questions": 0,
    "evaluation.baselines": [],
}

lengths_of_users = st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any)


def shop_of_hidden_tastes(users: int = 300, turns: int = 6) -> tuple[pa.Table, pa.Table]:
    """Each user has one taste and takes of it after every thing that everybody takes: the last item says nothing of what comes
    next, all of them together say all there is to know."""
    random = np.random.default_rng(0)
    liked = [f"{taste} {number}" for taste in TASTES for number in range(EACH)]
    items = pa.table({"item_id": [*liked, *(f"soap {number}" for number in range(PLAIN))]})
    items = items.append_column("title", items.column("item_id"))
    events: dict[str, list[str]] = {"user_id": [], "item_id": []}
    for user in range(users):
        for _ in range(turns):
            taken = [f"{TASTES[user % len(TASTES)]} {random.integers(EACH)}"]
            taken.append(f"soap {random.integers(PLAIN)}")
            events["item_id"] += taken
        events["item_id"].append(f"{TASTES[user % len(TASTES)]} {random.integers(EACH)}")
        events["user_id"] += [f"u{user}"] * (2 * turns + 1)
    return items, pa.table(events)


def recall(folder: Path) -> float:
    return read_bundle(folder).metrics["test"][0]["metrics"]["unmasked"]["recall@5"]["mean"]


@pytest.fixture(scope="module")
def shop() -> tuple[pa.Table, pa.Table]:
    return shop_of_hidden_tastes()


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, shop: tuple[pa.Table, pa.Table]) -> Path:
    return fit(
        *shop,
        tmp_path_factory.mktemp("runs") / "indexed",
        load_recipe(overrides=SHORT | {"model.user_index": [8, 4], "training.epochs": 1}),
    )


@pytest.fixture(scope="module")
def recommender(indexed: Path) -> Recommender:
    return Recommender.load(indexed, "cpu")


@pytest.mark.parametrize(
    "shape",
    [
        {"model.architecture": "encoder-decoder", "training.targets_per_user": 0},
        {"model.layers": 2, "model.heads": 4, "training.epochs": 20, "training.patience": 20},
    ],
    ids=["t5", "decoder"],
)
def test_a_model_finds_tastes_that_the_latest_item_hides(shop: tuple, tmp_path: Path, shape: dict) -> None:
    out = fit(*shop, tmp_path / "shop", load_recipe(overrides=SHORT | {"model.user_index": [8, 4]} | shape))
    assert recall(out) > 0.9, "without it, five of fifteen liked items are a third"
    ranker = Recommender.load(out, "cpu").ranker
    history = np.arange(9)
    [rows], [scores] = ranker.rank(Histories.from_lists([history]), 20, exclude_seen=False)
    assert_same_ranking(rows, scores, brute_force(ranker, history, first=first_tokens(ranker, history)), set(range(20)))


def first_tokens(ranker: object, history: np.ndarray) -> list[int]:
    """What stands before the items of a history, by what the bundle says of its index."""
    layout, index = ranker.layout, ranker.user_index  # type: ignore[attr-defined]
    [codes] = index.codes([history], ranker.snapshot.vectors)  # type: ignore[attr-defined]
    return [layout.start, *layout.index_tokens(codes).tolist()]


def test_the_loaded_bundle_ranks_as_every_item_is_scored_and_the_index_is_of_the_whole_history(
    recommender: Recommender,
) -> None:
    ranker = recommender.ranker
    taste = np.array([0, 15, 1, 17])
    histories = [taste, np.array([3, 15, 4, 17]), taste[3:], np.zeros(0, np.int64)]
    rows, scores = ranker.rank(Histories.from_lists(histories), 20, exclude_seen=False)
    for history, found, its_scores in zip(histories, rows, scores, strict=True):
        exact = brute_force(ranker, history, first=first_tokens(ranker, history))
        assert_same_ranking(found, its_scores, exact, set(range(20)))
    assert first_tokens(ranker, histories[0]) != first_tokens(ranker, histories[1]), "the latest item is the same"
    assert first_tokens(ranker, histories[3])[1:] == [ranker.layout.unknown_user] * 2


def test_reasons_engines_and_measuring_again_read_the_same_index(recommender: Recommender, shop: tuple) -> None:
    ids = ["tea 0", "soap 0", "tea 1", "soap 1"]
    [items] = recommender.recommend([ids], k=5, explain=True)
    for item in items:
        assert item.explanation is not None
        assert item.explanation.score == pytest.approx(item.score, abs=1e-4)
    prepared = recommender.prepare([ids, []], Request(k=5))
    arrived = [
        unpack(pack(query, prepared.version), {prepared.version.hash: prepared.version})[0] for query in prepared.queries
    ]
    wanted, engine = recommender.ranker.answer(prepared.queries), TorchEngine(recommender.ranker)
    for answers in (engine.submit(prepared.queries, prepared.version).result(), recommender.ranker.answer(arrived)):
        for (rows, scores), (others, more) in zip(answers, wanted, strict=True):
            np.testing.assert_array_equal(rows, others)
            np.testing.assert_allclose(scores, more, atol=1e-4)
    engine.close()
    folder = recommender.bundle.folder
    [result] = evaluate_bundle(folder, shop[1], baselines=False).evaluation.results
    assert result.to_dict()["metrics"] == read_bundle(folder).metrics["test"][0]["metrics"]


def test_an_item_that_came_later_speaks_for_its_user_by_its_text(indexed: Path) -> None:
    recommender = Recommender.load(indexed, "cpu")
    recommender.catalogue.add(pa.table({"item_id": ["new"], "title": ["tea 1"]}))
    version = recommender.catalogue.current
    [row] = version.rows(["new"])
    assert version.snapshot.vectors is not None
    index = recommender.ranker.user_index  # type: ignore[union-attr]
    assert (index.codes([np.array([row])], version.snapshot.vectors) != UNKNOWN).all()
    [[best]] = recommender.recommend([["new", "soap 0"]], k=1)
    assert best.rank == 1


def test_the_vocabulary_grows_by_the_index_and_one_token_for_who_is_unknown(indexed: Path) -> None:
    bundle = read_bundle(indexed)
    layout = bundle.settings.layout
    plain = TokenLayout(layout.base, layout.sizes, layout.start, layout.pad)
    assert layout.vocabulary_size == plain.vocabulary_size + 1 + 8 + 4
    assert bundle.load_model("cpu").get_input_embeddings().weight.shape[0] == layout.vocabulary_size
    spelled = AutoTokenizer.from_pretrained(indexed)
    tokens = layout.index_tokens(np.array([[7, 3], [0, 0], [UNKNOWN, UNKNOWN]]))
    assert spelled.convert_ids_to_tokens(tokens[0].tolist()) == ["<u0_7>", "<u1_3>"]
    assert len(set(tokens.ravel())) == 5
    assert tokens.min() == layout.unknown_user == plain.vocabulary_size
    assert "2 tokens of the user index, made of all items" in (indexed / "README.md").read_text()


def test_histories_are_written_behind_their_index_and_padded_on_the_left() -> None:
    layout = TokenLayout.from_scratch((3, 3), users=1, index=(4, 2))
    histories, codes = [np.array([0, 1]), np.array([], int)], np.array([[0, 0], [2, 1]])
    tokens, mask = write_histories(histories, codes, layout, ["somebody", None], np.array([[3, 1], [UNKNOWN, UNKNOWN]]))
    assert tokens.tolist() == [[8, 13, 15, 2, 5, 4, 6], [0, 0, 0, 0, 1, 9, 9]]
    assert mask.sum(axis=1).tolist() == [7, 3]
    assert write_histories(histories, codes, layout)[0][0, 1:3].tolist() == [9, 9], "nobody says who it is"


def test_nothing_of_validation_and_test_is_in_the_index(tmp_path: Path) -> None:
    """The same training events and other questions: the same centroids and item vectors, byte for byte."""
    items, events = shop_of_hidden_tastes(60)
    last = np.arange(events.num_rows) % 13 >= 11
    changed = np.where(last, "drums 0", np.array(events.column("item_id").to_pylist()))
    recipe = load_recipe(overrides=QUICK | {"model.user_index": [4], "training.epochs": 1, "training.validation_users": 5})
    files = []
    for name, ids in (("one", events.column("item_id")), ("other", pa.array(changed))):
        out = fit(items, events.set_column(1, "item_id", ids), tmp_path / name, recipe)
        files.append([(out / path).read_bytes() for path in (USER_INDEX, VECTORS)])
    assert files[0] == files[1]


@given(lengths_of_users, st.integers(1, 6), st.integers(0, 5))
def test_a_window_is_told_what_its_user_had_before_all_that_is_learned(lengths: list[int], most: int, epoch: int) -> None:
    """Items are the numbers of their events here: what was before has smaller ones."""
    histories = numbered(lengths)
    windows = HistoryWindows(histories, most)
    told, batches = ToldWindows(windows), ToldBatches(windows.lengths, 1, 40, seed=1, lead=2)
    batches.set_epoch(epoch)
    layout = TokenLayout.from_scratch((sum(lengths),), index=(2,))
    collate = Collator(np.arange(sum(lengths))[:, None], layout)
    keys = [key for batch in batches for key in batch]
    assert sorted(number for number, _ in keys) == list(range(len(windows)))
    assert keys == [key for batch in batches for key in batch], "an epoch can be drawn again"
    for number, cut in keys:
        window, before, skipped, read = told[number, cut]
        assert before[len(before) - read :].tolist() == window[:skipped].tolist(), "what a model reads of it"
        labels = collate([window], np.array([[0]]), np.array([skipped]))["labels"][0]
        learned = (labels[labels != IGNORED] - layout.base).tolist()
        assert learned == window[skipped:].tolist()
        assert learned, "every window teaches something"
        first = histories.indptr[np.searchsorted(histories.indptr, learned[0], side="right") - 1]
        assert before.tolist() == ([] if cut < 0 else list(range(first, learned[0])))
        assert cut >= 0 or skipped == 0


def test_one_window_in_four_is_an_unknown_users_and_all_cuts_have_their_turn() -> None:
    windows = HistoryWindows(numbered([6] * 2000), 5)
    cuts = np.array([cut for batch in ToldBatches(windows.lengths, 1, 600, seed=0) for _, cut in batch])
    assert np.mean(cuts < 0) == pytest.approx(1 / UNTOLD, abs=0.03)
    shares = np.bincount(cuts[cuts >= 0], minlength=6) / (cuts >= 0).sum()
    np.testing.assert_allclose(shares, 1 / 6, atol=0.03)


@given(lengths_of_users)
def test_a_target_is_told_what_its_user_had_before_it(lengths: list[int]) -> None:
    histories = numbered(lengths)
    told = ToldTargets(HistoryTargets(histories, 2))
    for user in range(len(histories)):
        for place, item in enumerate(histories[user].tolist()):
            (history, target, _), before, _, read = told[item]
            assert target == item
            assert before.tolist() == ([] if told.untold[item] else histories[user][:place].tolist())
            assert before[len(before) - read :].tolist() == ([] if told.untold[item] else history.tolist())


def test_one_target_in_four_is_an_unknown_users_wherever_it_stands() -> None:
    untold = ToldTargets(HistoryTargets(numbered([20] * 400), 5)).untold
    np.testing.assert_allclose(untold.reshape(-1, 20).mean(axis=0), 1 / UNTOLD, atol=0.1)


def test_a_collator_writes_the_index_of_what_came_before_alone() -> None:
    random = np.random.default_rng(0)
    vectors, codes = random.normal(size=(16, 4)).astype(np.float32), np.arange(16)[:, None]
    index = UserIndex.fit(Histories.from_lists(random.integers(0, 16, (40, 5))), vectors, (6,), 0)
    layout = TokenLayout.from_scratch((16,), index=(6,))
    history, before = np.array([3, 4, 5]), np.array([1, 2, 3])
    [wanted] = layout.index_tokens(index.codes([before], vectors))
    window = Told(history, before, 1, 1)
    target = Told((history, 7, None), before, 0, 3)
    for collate, one in ((Collator(codes, layout), window), (TargetCollator(codes, layout), target)):
        assert ToldCollator(collate, index, vectors)([one])["input_ids"][0, 1] == wanted


def test_the_index_depends_on_the_training_part_and_not_on_its_order_or_on_who_else_asks(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(30, 6)).astype(np.float32)
    vectors[29] = 0  # an item that nothing is known of
    histories = Histories.from_lists([random.integers(0, 29, length) for length in random.integers(0, 12, 200)])
    train = leave_one_out(histories).train
    index = UserIndex.fit(train, vectors, (8, 4), 0)
    index.save(tmp_path / "one.safetensors")
    turned = train.select(np.arange(len(train))[::-1])
    UserIndex.fit(turned, vectors, (8, 4), 0).save(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    asked = [histories[user] for user in range(40)]
    together = UserIndex.load(tmp_path / "one.safetensors").codes(asked, vectors)
    for history, codes in zip(asked, together, strict=True):
        assert index.codes([history], vectors)[0].tolist() == codes.tolist()
        assert (codes == UNKNOWN).all() == (len(history) == 0)
    some = asked[int(np.argmax([len(history) for history in asked]))]
    assert index.codes([np.append(some, 29)], vectors).tolist() == index.codes([some], vectors).tolist()
    assert index.codes([np.array([29, 29])], vectors).tolist() == [[UNKNOWN, UNKNOWN]]
    with pytest.raises(SettingError, match="asks for 500 codes, and 1.. users train"):
        UserIndex.fit(train, vectors, (500,), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.user_index": [1]}, "each number of model.user_index must be an integer from 2 to 65536, got 1"),
        ({"model.user_index": [8], "model.architecture": "one-pass"}, "model.architecture is 'one-pass'. Make it 'decoder'"),
        ({"model.user_index": 8}, "model.user_index must be a list of whole numbers, got 8"),
        (
            {"model.user_index": [8], "model.pretrained": "some/llm", "tasks.search": 1.0},
            "prompts in words have no place for it yet",
        ),
    ],
)
def test_what_has_no_place_for_it_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load_recipe(overrides=settings)


def test_a_ranker_without_the_index_of_its_model_is_refused(recommender: Recommender) -> None:
    ranker = recommender.ranker
    with pytest.raises(SettingError, match=r"reads a user index of \[8, 4\] codes.* got none and the vectors"):
        type(ranker)(ranker.model, ranker.layout, ranker.snapshot, 20, 3)  # type: ignore[call-arg]


def numbered(lengths: list[int]) -> Histories:
    """Users whose items are the numbers of their events, from 0 on over all of them."""
    return Histories.from_lists(np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1]))
