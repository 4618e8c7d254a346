"""The user adapter: soft tokens of what came before the window, worth their places where tastes lie there alone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import get_peft_model_state_dict
from test_user_index import SHORT, lengths_of_users, numbered, recall, shop_of_hidden_tastes
from transformers import AutoModelForCausalLM, Gemma3TextConfig, OPTConfig
from worlds import assert_same_ranking, write_llm

from genrec.bundle import USER_ADAPTER, read_bundle
from genrec.data.interactions import Histories
from genrec.decoding.explain import weigh
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Snapshot
from genrec.decoding.user_index import UserIndex
from genrec.errors import SettingError
from genrec.evaluate_bundle import evaluate_bundle
from genrec.fit import fit
from genrec.models.adapters import merged
from genrec.models.config import ModelConfig
from genrec.models.decoder import build_decoder
from genrec.models.tokens import TokenLayout
from genrec.models.user_adapter import (
    MOST_OLDER,
    UserAdapter,
    adapter_of,
    add_user_adapter,
    outside,
    read_inputs,
    take_user_adapter,
)
from genrec.recipe import load_recipe
from genrec.recommender import Recommender
from genrec.training.examples import IGNORED, Collator, HistoryWindows
from genrec.training.preference_losses import candidate_log_probs
from genrec.training.targets import HistoryTargets, TargetCollator
from genrec.training.user_index import ToldBatches, ToldCollator, ToldTargets, ToldWindows

FEW = SHORT | {"training.epochs": 2, "training.validation_beam": 20}
SHAPES = {
    "t5": {"model.architecture": "encoder-decoder", "training.targets_per_user": 0},
    "decoder": {"model.layers": 2, "model.heads": 4},
}


@pytest.fixture(scope="module")
def shop() -> tuple[pa.Table, pa.Table]:
    return shop_of_hidden_tastes()


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, shop: tuple[pa.Table, pa.Table]) -> dict[str, Path]:
    """Bundles of either architecture, and of either way to pool."""
    ways = {
        "t5": {"model.user_adapter": "mean", "model.user_adapter_tokens": 2},
        "decoder": {"model.user_adapter": "attention"},
    }
    runs = tmp_path_factory.mktemp("runs")
    return {name: fit(*shop, runs / name, load_recipe(overrides=FEW | SHAPES[name] | way)) for name, way in ways.items()}


@pytest.fixture(params=["t5", "decoder"])
def folder(request: pytest.FixtureRequest, adapted: dict[str, Path]) -> Path:
    return adapted[request.param]


@pytest.fixture
def recommender(folder: Path) -> Recommender:
    return Recommender.load(folder, "cpu")


def every_score(ranker: BeamRanker, history: np.ndarray, soft: torch.Tensor) -> np.ndarray:
    """log P(codes | history) of every row by one full forward pass each, with `soft` [S, H] behind the first token: [R]."""
    layout, model, codes = ranker.layout, ranker.model, ranker.snapshot.codes
    vectors = model.get_input_embeddings()
    read = torch.from_numpy(layout.to_tokens(codes[history[-ranker.max_history :]]).reshape(-1))
    with torch.no_grad():
        past = torch.cat([vectors(torch.tensor([layout.start])), soft, vectors(read)])
        targets = torch.from_numpy(layout.to_tokens(codes))
        past = past.expand(len(targets), -1, -1)
        if model.config.is_encoder_decoder:
            written = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], dim=1)
            logits = model(inputs_embeds=past, decoder_input_ids=written).logits
        else:
            logits = model(inputs_embeds=torch.cat([past, vectors(targets)], dim=1)).logits[:, past.shape[1] - 1 : -1]
    return logits.double().log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1).sum(1).numpy()


def test_a_model_finds_tastes_that_lie_before_all_that_it_reads(folder: Path) -> None:
    assert recall(folder) > 0.9


def test_without_the_adapter_nobody_can_know(shop: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    assert recall(fit(*shop, tmp_path / "plain", load_recipe(overrides=FEW | SHAPES["decoder"]))) < 0.5


def told_and_ranked(recommender: Recommender, histories: list[np.ndarray], most: int) -> tuple[list[torch.Tensor], np.ndarray]:
    """The soft tokens of each history by the saved adapter, and the scores of its best, where all agree with `every_score`."""
    ranker, saved, softs = recommender.ranker, UserAdapter.load(recommender.bundle.folder / USER_ADAPTER), []
    rows, scores = ranker.rank(Histories.from_lists(histories), 20, exclude_seen=False)
    for history, found, its_scores in zip(histories, rows, scores, strict=True):
        told = outside([history[:-most]], [history[-most:]], ranker.snapshot.vectors)
        with torch.no_grad():
            [soft] = saved(*(torch.from_numpy(array) for array in told.values()))
        assert_same_ranking(found, its_scores, every_score(ranker, history, soft), set(range(20)))
        softs.append(soft)
    return softs, scores


def test_a_loaded_bundle_ranks_as_every_item_is_scored_with_the_saved_adapter(recommender: Recommender) -> None:
    saved = UserAdapter.load(recommender.bundle.folder / USER_ADAPTER)
    histories = [np.array([0, 15, 1, 17]), np.array([3, 15, 4, 17]), np.array([17]), np.zeros(0, np.int64)]
    softs, scores = told_and_ranked(recommender, histories, 1)
    with torch.no_grad():
        cold = torch.nn.functional.layer_norm(saved.cold, saved.cold.shape[1:]) * saved.scale
    for soft in softs[2:]:
        torch.testing.assert_close(soft, cold, msg="who has nothing before the window is the cold user")
    assert scores[0] != pytest.approx(scores[1]), "the model reads the same item of both"


def test_longer_windows_are_told_what_lies_before_them(recommender: Recommender) -> None:
    recommender.ranker.max_history = 3
    told_and_ranked(recommender, [np.array([0, 15, 1, 17, 2, 16]), np.array([3, 15, 4]), np.array([17, 2, 16, 0])], 3)


def test_of_a_long_past_the_latest_items_are_pooled() -> None:
    vectors = np.eye(2, dtype=np.float32)
    told = outside([np.array([0] * 10 + [1] * MOST_OLDER)], [np.zeros(0, np.int64)], vectors)
    assert told["older"].shape == (1, MOST_OLDER, 2)
    assert (told["older"][0] == vectors[1]).all()


def test_soft_tokens_are_as_wide_and_as_large_as_the_embeddings_beside_them() -> None:
    wide = OPTConfig(
        vocab_size=64, hidden_size=32, word_embed_proj_dim=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32
    )
    scaled = Gemma3TextConfig(
        vocab_size=64, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
        intermediate_size=64,
    )  # fmt: skip
    for config, width in ((wide, 16), (scaled, 64)):
        model = AutoModelForCausalLM.from_config(config)
        add_user_adapter(model, ModelConfig(user_adapter="mean"), 8)
        beside = model.get_input_embeddings()(torch.arange(64)).std().item()
        soft = adapter_of(model)(torch.ones(1, 1, 8), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 8))  # type: ignore[misc]
        assert soft.shape[-1] == width
        assert soft.std().item() == pytest.approx(beside, rel=0.1)


def test_measuring_again_gives_the_numbers_of_the_fit(folder: Path, shop: tuple[pa.Table, pa.Table]) -> None:
    [result] = evaluate_bundle(folder, shop[1], baselines=False).evaluation.results
    assert result.to_dict()["metrics"] == read_bundle(folder).metrics["test"][0]["metrics"]


def test_reasons_are_of_the_same_score_and_a_batch_changes_no_answer(recommender: Recommender) -> None:
    ranker = recommender.ranker
    long, short = np.array([0, 15, 1, 16, 2, 17]), np.array([4, 17])
    together, _ = ranker.rank(Histories.from_lists([long, short]), 5, exclude_seen=False)
    alone, [scores] = ranker.rank(Histories.from_lists([long]), 5, exclude_seen=False)
    assert together[0].tolist() == alone[0].tolist()
    weights = weigh(ranker, ranker.snapshot, long, int(alone[0, 0]))
    assert weights[: ranker.layout.levels].sum() == pytest.approx(scores[0], abs=1e-4)


def test_an_item_that_came_later_speaks_by_its_text(recommender: Recommender) -> None:
    recommender.catalogue.add(pa.table({"item_id": ["new"], "title": ["tea 1"]}))
    version = recommender.catalogue.current
    rows = version.rows(["new", "soap 0"])
    known = recommender.ranker.outside([rows], version.snapshot)
    assert known["there"].tolist() == [[True]]
    [items] = recommender.recommend([["new", "soap 0"]], k=1)
    assert len(items) == 1


@given(st.integers(0, 10**6), st.sampled_from(["mean", "attention"]), st.integers(1, 3))
def test_soft_tokens_depend_on_what_was_had_and_not_on_its_order_nor_on_padding(seed: int, pooling: str, tokens: int) -> None:
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    adapter = UserAdapter(6, 8, tokens, pooling)
    vectors = random.normal(size=(20, 6)).astype(np.float32)
    vectors[19] = 0  # an item that nothing is known of
    older, recent = random.integers(0, 19, random.integers(1, 6)), random.integers(0, 19, 3)

    def soft(*lists: np.ndarray) -> np.ndarray:
        told = outside(lists, [recent] * len(lists), vectors)
        with torch.no_grad():
            return adapter(**{name: torch.from_numpy(array) for name, array in told.items()}).numpy()

    [wanted] = soft(older)
    others = soft(random.permutation(older), np.append(older, [19, 19]), random.integers(0, 19, 9), np.array([19]), older[:0])
    np.testing.assert_allclose(others[:2], [wanted, wanted], atol=1e-5)
    assert not np.allclose(others[2], wanted, atol=1e-3)
    np.testing.assert_array_equal(others[3], others[4], err_msg="an item without a vector is nothing")
    assert wanted.shape == (tokens, 8)


@settings(max_examples=30)
@given(lengths_of_users, st.integers(1, 4), st.booleans())
def test_an_adapter_is_told_what_comes_before_the_window_and_a_query_what_is_not_learned(
    lengths: list[int], most: int, cut: bool
) -> None:
    """Items are the numbers of their events here, and each has an axis of its own."""
    histories, count = numbered(lengths), sum(lengths)
    vectors, layout = np.eye(count, dtype=np.float32), TokenLayout.from_scratch((count,), soft=2)
    codes = np.arange(count)[:, None]
    windows, targets = HistoryWindows(histories, most), HistoryTargets(histories, most)
    batches = ToldBatches(windows.lengths, 1, 40, seed=1, lead=3, cut=cut)
    of_windows = ToldCollator(Collator(codes, layout), None, vectors, adapted=True)
    of_targets = ToldCollator(TargetCollator(codes, layout), None, vectors, adapted=True)
    examples = [(of_windows, ToldWindows(windows)[key]) for batch in batches for key in batch]
    examples += [(of_targets, ToldTargets(targets)[event]) for event in range(count)]
    for collate, told in examples:
        batch = collate([told])
        read = batch["input_ids"][0, layout.lead :] - layout.base
        labels = batch["labels"][0]
        learned = set((labels[labels != IGNORED] - layout.base).tolist())
        older = batch["older"][0][batch["there"][0]].argmax(-1).tolist()
        user = int(np.searchsorted(histories.indptr, min(learned), side="right")) - 1
        window = [item for item in read.tolist() if item not in learned]
        begin = min([*read.tolist(), *learned])
        assert older in ([], list(range(int(histories.indptr[user]), begin)))
        asked = set(batch["recent"][0].nonzero().flatten().tolist())
        assert asked <= set(window)
        if older:
            assert asked == (set(window) if cut or collate is of_targets else set())


@pytest.mark.parametrize("tied", [True, False])
def test_lora_moves_every_row_of_the_index_and_all_of_the_adapter_and_no_word(tmp_path: Path, tied: bool) -> None:
    llm = write_llm(tmp_path / "llm", [f"thing {number}" for number in range(9)], tied=tied)
    random, sizes = np.random.default_rng(0), (4, 4)
    vectors = random.normal(size=(16, 6)).astype(np.float32)
    codes = np.array([[one, two] for one in range(4) for two in range(4)])
    histories = Histories.from_lists(random.integers(0, 16, (60, 12)))
    torch.manual_seed(0)
    asked = ModelConfig(pretrained=str(llm), lora_rank=2, dropout=0.0, user_index=(3, 2), user_adapter="attention")
    model, layout = build_decoder(asked, sizes, 64, width=6)
    adapter = adapter_of(model)
    assert adapter is not None
    trained = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    assert not any("user_adapter" in name and "lora_" in name for name in trained), "the adapter has no adapters of its own"
    before = [x.weight.detach().clone() for x in (model.get_input_embeddings(), model.get_output_embeddings())]
    windows = HistoryWindows(histories, 4)
    collate = ToldCollator(Collator(codes, layout), UserIndex.fit(histories, vectors, (3, 2), 0), vectors, adapted=True)
    told = ToldWindows(windows)
    optimiser = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    for keys in ToldBatches(windows.lengths, 2, 2000, 0, layout.lead):
        batch = collate([told[key] for key in keys])
        soft = adapter(*(batch.pop(name) for name in ("older", "there", "recent")))
        inputs = read_inputs(model, batch.pop("input_ids"), soft)
        model(**inputs, **batch).loss.backward()
    optimiser.step()
    still = [name for name, weight in model.named_parameters() if name in trained and torch.equal(weight, trained[name])]
    assert not [name for name in still if "lora_A" not in name], "A alone waits, for B begins at zero"
    kept = get_peft_model_state_dict(model, save_embedding_layers=False)
    assert sum("user_adapter" in name for name in kept) == sum("user_adapter" in name for name in trained), (
        "checkpoints hold it"
    )
    plain = merged(model)
    taken = take_user_adapter(plain)
    assert taken is not None
    torch.testing.assert_close(taken.cold, adapter.cold)
    assert not torch.equal(taken.cold, next(weight for name, weight in trained.items() if name.endswith("cold")))
    assert not any("user_adapter" in name for name in plain.state_dict()), "transformers loads what is left"
    after = [plain.get_input_embeddings().weight, plain.get_output_embeddings().weight]
    for old, new in zip(before, after, strict=True):
        assert ((new[512:] - old[512:]).abs().sum(1) > 0).all()
        torch.testing.assert_close(new[:512], old[:512])
    assert len(after[0]) == 512 + sum(sizes) + 1 + 3 + 2


def test_a_pretrained_model_with_lora_is_served_as_it_was_measured(shop: tuple[pa.Table, pa.Table], tmp_path: Path) -> None:
    llm = write_llm(tmp_path / "llm", shop[0].column("title").to_pylist())
    lora = {"model.pretrained": str(llm), "model.lora_rank": 4, "model.user_adapter": "mean", "model.user_index": [4]}
    out = fit(*shop, tmp_path / "shop", load_recipe(overrides=FEW | lora | {"training.epochs": 1}))
    [result] = evaluate_bundle(out, shop[1], baselines=False).evaluation.results
    assert result.to_dict()["metrics"] == read_bundle(out).metrics["test"][0]["metrics"]
    ranker = Recommender.load(out, "cpu").ranker
    one, other = np.array([0, 15, 1, 17]), np.array([3, 15, 4, 17])
    _, scores = ranker.rank(Histories.from_lists([one, other]), 20, exclude_seen=False)
    assert scores[0] != pytest.approx(scores[1]), "the model reads the same item of both"


def test_candidates_of_post_training_are_read_behind_the_same_soft_tokens(adapted: dict[str, Path]) -> None:
    ranker = Recommender.load(adapted["decoder"], "cpu").ranker
    histories = [np.array([0, 15, 1, 17]), np.array([17])]
    tokens, mask = (torch.from_numpy(array) for array in ranker.prompts(histories, ranker.snapshot))
    rows = np.array([[0, 3, 19], [5, 6, 7]])
    with torch.no_grad():
        found = candidate_log_probs(
            ranker.model, ranker.head, ranker.layout, tokens, mask,
            torch.from_numpy(ranker.snapshot.codes[rows].astype(np.int64)), ranker.soft_tokens(histories, ranker.snapshot),
        )  # fmt: skip
    for history, its_rows, its_scores in zip(histories, rows, found, strict=True):
        wanted = ranker.code_log_probs([history] * 3, its_rows, ranker.snapshot).sum(axis=1)
        np.testing.assert_allclose(its_scores, wanted, atol=1e-4)


def test_a_ranker_without_the_adapter_of_its_model_is_refused(adapted: dict[str, Path]) -> None:
    ranker = Recommender.load(adapted["decoder"], "cpu").ranker
    with pytest.raises(SettingError, match="reads 1 soft tokens of a user adapter.* got no adapter and the vectors"):
        BeamRanker(ranker.model, ranker.layout, ranker.snapshot, 10, 1)
    snapshot = Snapshot.of(ranker.snapshot.codes, ranker.snapshot.index.sizes)
    with pytest.raises(SettingError, match="got one of 1 and no vectors"):
        BeamRanker(ranker.model, ranker.layout, snapshot, 10, 1, user_adapter=ranker.user_adapter)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.user_adapter": "max"}, "model.user_adapter must be .attention. or .mean. or null, got .max."),
        ({"model.user_adapter_tokens": 2}, "there is no adapter to make them"),
        ({"model.user_adapter": "mean", "model.architecture": "one-pass"}, "model.architecture is 'one-pass'. Make it 'dec"),
        (
            {"model.user_adapter": "mean", "model.pretrained": "some/llm", "tasks.search": 1.0},
            "model.user_adapter stands before plain histories",
        ),
        ({"model.user_adapter": "mean", "training.fsdp": "full_shard"}, "shards the rows beside which the soft tokens"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load_recipe(overrides=settings)
