"""The item encoder: items as soft tokens that a frozen language model reads, answers in codes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from quick import QUICK
from worlds import assert_same_ranking, write_llm

from genrec.bundle import ITEM_ENCODER, read_bundle
from genrec.data.interactions import Histories
from genrec.decoding.explain import weigh
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Snapshot
from genrec.errors import SettingError
from genrec.evaluate_bundle import evaluate_bundle
from genrec.fit import fit
from genrec.models.adapters import merged
from genrec.models.config import ModelConfig
from genrec.models.decoder import build_decoder
from genrec.models.item_encoder import ItemEncoder, encoder_of, read_items, take_item_encoder
from genrec.models.tokens import SOFT, TokenLayout
from genrec.models.user_adapter import read_inputs
from genrec.recipe import load_recipe
from genrec.recommender import Recommender
from genrec.training.examples import IGNORED
from genrec.training.item_encoder import PromptCollator, align, contrast, item_text_loss, pair_likeness

KINDS, EACH = ("tea", "bike", "chess", "rose", "drum"), 4
ITEMS = len(KINDS) * EACH
SETTINGS = QUICK | {
    "data.split": "user-holdout",
    "data.validation_share": 0.2,
    "data.test_share": 0.2,
    "tokenizer.rq_kmeans.levels": 2,
    "tokenizer.rq_kmeans.codebook_size": 8,
    "model.item_encoder": "qformer",
    "model.item_encoder_queries": 2,
    "model.item_encoder_epochs": 2,
    "model.lora_rank": 0,
    "model.dropout": 0.0,
    "training.max_history": 4,
    "training.epochs": 6,
    "training.batch_tokens": 256,
    "training.patience": 6,
    "training.learning_rate": 2e-2,
    "training.validation_users": 30,
    "evaluation.max_questions": 0,
    "evaluation.baselines": [],
}


@pytest.fixture(scope="module")
def shop() -> tuple[pa.Table, pa.Table]:
    """Whoever takes a thing of one kind takes another of it next, in four cases of five."""
    random = np.random.default_rng(0)
    titles = [f"{kind} {number}" for kind in KINDS for number in range(EACH)]
    items = pa.table({"item_id": titles, "title": titles})
    events: dict[str, list[str]] = {"user_id": [], "item_id": []}
    for user in range(300):
        kind = random.integers(len(KINDS))
        for _ in range(8):
            if random.random() < 0.2:
                kind = random.integers(len(KINDS))
            events["item_id"].append(f"{KINDS[kind]} {random.integers(EACH)}")
            events["user_id"].append(f"u{user}")
    return items, pa.table(events)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llm(tmp_path_factory.mktemp("llm"), [f"{kind} {number}" for kind in KINDS for number in range(EACH)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shop: tuple[pa.Table, pa.Table], llm: Path) -> Path:
    recipe = load_recipe(overrides=SETTINGS | {"model.pretrained": str(llm)})
    return fit(*shop, tmp_path_factory.mktemp("runs") / "read", recipe)


@pytest.fixture
def recommender(folder: Path) -> Recommender:
    return Recommender.load(folder, "cpu")


def every_score(ranker: BeamRanker, history: np.ndarray, encoder: ItemEncoder) -> np.ndarray:
    """log P(codes | history) of every row by one full forward pass each, the soft tokens of each item made alone: [R]."""
    layout, model, snapshot = ranker.layout, ranker.model, ranker.snapshot
    embed = model.get_input_embeddings()
    with torch.no_grad():
        read = [torch.from_numpy(snapshot.vectors[row : row + 1]) for row in history[-ranker.max_history :]]
        soft = [encoder(vector, torch.zeros(1, dtype=torch.int64))[0] for vector in read]
        past = torch.cat([embed(torch.tensor([layout.start])), *soft])
        targets = torch.from_numpy(layout.to_tokens(snapshot.codes))
        whole = torch.cat([past.expand(len(targets), -1, -1), embed(targets)], dim=1)
        logits = model(inputs_embeds=whole).logits[:, len(past) - 1 : -1]
    return logits.double().log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1).sum(1).numpy()


def test_a_frozen_model_recommends_of_the_kind_that_it_reads(folder: Path) -> None:
    found = read_bundle(folder).metrics["test"][0]["metrics"]["unmasked"]["recall@5"]["mean"]
    assert found > 0.5, "chance is a quarter, and no rule finds more than about .84"


def test_words_and_layers_of_the_bundle_are_those_of_the_language_model(folder: Path, llm: Path) -> None:
    from transformers import AutoModelForCausalLM

    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (llm, folder))
    assert before.keys() == after.keys(), "what is left is a plain model"
    for name, weight in before.items():
        torch.testing.assert_close(after[name][: len(weight)], weight, rtol=0, atol=0)


def test_a_loaded_bundle_ranks_as_every_item_is_scored_with_the_saved_encoder(recommender: Recommender) -> None:
    ranker, saved = recommender.ranker, ItemEncoder.load(recommender.bundle.folder / ITEM_ENCODER)
    histories = [np.array([0, 5, 9, 9, 2, 17]), np.array([3]), np.zeros(0, np.int64)]
    rows, scores = ranker.rank(Histories.from_lists(histories), ITEMS, exclude_seen=False)
    for history, found, its_scores in zip(histories, rows, scores, strict=True):
        assert_same_ranking(found, its_scores, every_score(ranker, history, saved), set(range(ITEMS)))


def test_measuring_again_gives_the_numbers_of_the_fit(folder: Path, shop: tuple[pa.Table, pa.Table]) -> None:
    [result] = evaluate_bundle(folder, shop[1], baselines=False).evaluation.results
    assert result.to_dict()["metrics"] == read_bundle(folder).metrics["test"][0]["metrics"]


def test_reasons_are_of_the_same_score(recommender: Recommender) -> None:
    ranker, history = recommender.ranker, np.array([0, 5, 17])
    [rows], [scores] = ranker.rank(Histories.from_lists([history]), 1, exclude_seen=False)
    weights = weigh(ranker, ranker.snapshot, history, int(rows[0]))
    assert len(weights) == ranker.layout.levels + 3
    assert weights[: ranker.layout.levels].sum() == pytest.approx(scores[0], abs=1e-4)


def test_an_item_that_came_later_is_read_by_its_text(recommender: Recommender) -> None:
    recommender.catalogue.add(pa.table({"item_id": ["new", "other"], "title": ["tea 1", "drum 3"]}))
    version = recommender.catalogue.current
    new, other = version.rows(["new", "other"])
    soft = recommender.ranker.soft_tokens([np.array([new]), np.array([other])], version.snapshot)
    assert soft.shape[:2] == (2, 2)
    assert not torch.allclose(soft[0], soft[1], atol=1e-2)
    [items] = recommender.recommend([["new"]], k=5)
    assert sum(item.item_id.startswith("tea") or item.item_id == "new" for item in items) >= 3


def test_soft_tokens_of_an_item_do_not_depend_on_who_else_is_read() -> None:
    torch.manual_seed(0)
    encoder, vectors = ItemEncoder(70, 16, 3, 0.5), np.random.default_rng(0).normal(size=(9, 70)).astype(np.float32)

    def soft(*histories: list[int]) -> torch.Tensor:
        told = read_items([np.array(history, np.int64) for history in histories], vectors)
        with torch.no_grad():
            return encoder(**{name: torch.from_numpy(array) for name, array in told.items()})

    together = soft([4, 2, 4], [], [8])
    assert together.shape == (4, 3, 16)
    torch.testing.assert_close(together, torch.cat([soft([4]), soft([2]), soft([4]), soft([8])]))
    assert not torch.allclose(together[0, 0], together[0, 1], atol=1e-2), "each query has something of its own to say"
    torch.testing.assert_close(together.std(2, correction=0), torch.full((4, 3), 0.5), atol=1e-3, rtol=0)
    assert soft([]).shape == (0, 3, 16)


def test_a_prompt_is_soft_tokens_and_then_the_codes_that_are_learned() -> None:
    codes, vectors = np.array([[0, 1], [1, 0], [2, 2]]), np.eye(3, dtype=np.float32)
    layout = TokenLayout(10, (3, 3), start=9, pad=7, queries=3)
    batch = PromptCollator(codes, layout, vectors)([(np.array([2, 0]), 1, None), (np.zeros(0, np.int64), 2, None)])
    assert batch["input_ids"].tolist() == [[9, *[SOFT] * 6, 11, 13], [*[7] * 6, 9, 12, 15]]
    assert batch["attention_mask"].tolist() == [[1] * 9, [0] * 6 + [1] * 3]
    assert batch["labels"].tolist() == [[IGNORED] * 7 + [11, 13], [IGNORED] * 7 + [12, 15]]
    assert batch["position_ids"].tolist() == [list(range(9)), [0] * 7 + [1, 2]]
    assert batch["vectors"][batch["places"]].argmax(1).tolist() == [2, 0]
    assert layout.longest(2) == 9


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rank", [0, 2])
def test_a_step_moves_the_encoder_and_the_rows_of_codes_and_no_word(tmp_path: Path, tied: bool, rank: int) -> None:
    folder = write_llm(tmp_path / "llm", ["thing one"], tied=tied)
    codes = np.array([[one, two] for one in range(4) for two in range(4)])
    vectors = np.random.default_rng(0).normal(size=(16, 40)).astype(np.float32)
    torch.manual_seed(0)
    asked = ModelConfig(pretrained=str(folder), lora_rank=rank, dropout=0.0, item_encoder="qformer")
    model, layout = build_decoder(asked, (4, 4), 64, width=40)
    encoder = encoder_of(model)
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert any("lora_" in name for name in names) == (rank > 0)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    before = {name: weight.clone() for name, weight in merged_copy(model).state_dict().items()}
    batch = PromptCollator(codes, layout, vectors)([(np.array([n, 15 - n]), (n + 1) % 16, None) for n in range(16)])
    soft = encoder(*(batch.pop(name) for name in encoder.reads))
    model(**read_inputs(model, batch.pop("input_ids"), soft), **batch).loss.backward()
    torch.optim.SGD(trained, lr=1.0).step()
    plain = merged(model)
    after = plain.state_dict()
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    of_encoder = {name for name in before if name.startswith("item_encoder.")}
    assert of_encoder - moved <= {name for name in of_encoder if name.endswith("in_proj_bias")}, "the encoder learns"
    rows = {"model.embed_tokens.weight", "lm_head.weight"}
    assert moved - of_encoder == rows if not rank else moved > rows
    for name in rows:
        torch.testing.assert_close(after[name][:512], before[name][:512], rtol=0, atol=0)
        last = 4 if not tied and "embed" in name else 0  # codes of the last level are written, and never read
        assert ((after[name][512:] - before[name][512:]).abs().sum(1) > 0)[: 8 - last].all()
    assert take_item_encoder(plain) is not None
    assert not any("item_encoder" in name for name in plain.state_dict())


def merged_copy(model: torch.nn.Module) -> torch.nn.Module:
    import copy

    return merged(copy.deepcopy(model))


@pytest.fixture
def world() -> tuple[Histories, np.ndarray, int]:
    """Items 2n and 2n + 1 are taken one after the other; a vector says which item it is, in its text and by its company."""
    random = np.random.default_rng(0)
    histories = Histories.from_lists([np.array([2 * n, 2 * n + 1])[random.permutation(2)] for n in range(20)])
    vectors = random.normal(size=(40, 96)).astype(np.float32)
    return histories, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 64


def test_phase_1_brings_items_near_to_what_is_taken_with_them(world: tuple[Histories, np.ndarray, int]) -> None:
    histories, vectors, content = world
    torch.manual_seed(0)
    encoder = ItemEncoder(96, 16, 2)

    def hits() -> float:
        with torch.no_grad():
            found = torch.nn.functional.normalize(encoder.answers(torch.from_numpy(vectors)), dim=-1)
        likeness = pair_likeness(found, found).fill_diagonal_(-2)
        return float((likeness.argmax(1) == torch.arange(40) // 2 * 2 + 1 - torch.arange(40) % 2).float().mean())

    before = hits()
    losses = align(encoder, histories, vectors, content, 25, seed=0)
    assert losses[-1] < losses[0] / 2
    assert before < 0.2
    assert hits() > 0.9


def test_phase_1_is_a_function_of_its_seed_and_disturbs_no_other_draw(world: tuple[Histories, np.ndarray, int]) -> None:
    def run(seed: int) -> tuple[list[float], torch.Tensor]:
        torch.manual_seed(0)
        encoder = ItemEncoder(96, 16, 2)
        return align(encoder, *world, epochs=2, seed=seed), torch.rand(1)

    assert run(0) == run(0)
    assert run(0)[0] != run(1)[0]
    assert run(0)[1] == run(1)[1]


def test_the_text_loss_reads_the_collaborative_part_alone(world: tuple[Histories, np.ndarray, int]) -> None:
    torch.manual_seed(0)
    encoder, content = ItemEncoder(96, 16, 2), world[2]
    vectors = torch.from_numpy(world[1])
    text_side = torch.nn.Linear(content, 128)
    seen: list[torch.Tensor] = []
    watch: Callable = lambda _, given: seen.append(given[0])  # noqa: E731
    encoder.pieces.register_forward_pre_hook(watch)
    item_text_loss(encoder, text_side, vectors, content)
    assert not seen[0][:, :2].any()
    assert seen[0][:, 2].any()


def test_what_is_alike_is_no_negative() -> None:
    likeness = torch.tensor([[0.9, 0.9, -1.0], [0.9, 0.9, -1.0], [-1.0, -1.0, 0.9]])
    alike = torch.eye(3, dtype=torch.bool)
    told = alike.clone()
    told[0, 1] = told[1, 0] = True
    assert contrast(likeness, told) < 1e-3 < contrast(likeness, alike)


def test_a_ranker_without_the_encoder_of_its_model_is_refused(recommender: Recommender) -> None:
    ranker = recommender.ranker
    with pytest.raises(SettingError, match="reads 2 soft tokens an item.* got no encoder and the vectors"):
        BeamRanker(ranker.model, ranker.layout, ranker.snapshot, 10, 4)
    snapshot = Snapshot.of(ranker.snapshot.codes, ranker.snapshot.index.sizes)
    with pytest.raises(SettingError, match="got one of 2 and no vectors"):
        BeamRanker(ranker.model, ranker.layout, snapshot, 10, 4, item_encoder=ranker.item_encoder)


LLM = {"model.item_encoder": "qformer", "model.pretrained": "some/llm"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.item_encoder": "mlp", "model.pretrained": "some/llm"}, "model.item_encoder must be .*qformer.*, got .mlp."),
        ({"model.item_encoder_queries": 2}, "model.item_encoder_queries is 2, and there is no item encoder"),
        ({"model.item_encoder": "qformer"}, "that a pretrained decoder reads; .* model.pretrained None"),
        (LLM | {"model.architecture": "encoder-decoder"}, "model.architecture is 'encoder-decoder'"),
        (LLM | {"model.architecture": "one-pass"}, "model.architecture is 'one-pass'"),
        (LLM | {"model.user_adapter": "mean"}, "model.user_adapter stands before histories of codes"),
        (LLM | {"model.user_index": [4]}, "model.user_index stands before histories of codes"),
        (LLM | {"tasks.search": 1.0}, "and the section tasks is for histories of codes"),
        (LLM | {"post_training.method": "dpo"}, "and post_training is for histories of codes"),
        (LLM | {"training.windows_per_user": 2}, "training.targets_per_user says how many"),
        (LLM | {"training.distillation": 0.1, "model.lora_rank": 0}, "training.distillation is for histories of codes"),
        (LLM | {"training.fsdp": "full_shard", "model.lora_rank": 0}, "soft tokens of model.item_encoder stand"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load_recipe(overrides=settings)
