"""Training on a mix of tasks: codes learned in and out, resumed to the same weights, and LC-Rec's recipe from end to end."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM
from worlds import write_llm

from genrec.bundle import read_bundle
from genrec.cli import main
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.data.synthetic import write_shop
from genrec.decoding.snapshot import Snapshot
from genrec.errors import SettingError
from genrec.fit import fit
from genrec.models.config import ModelConfig
from genrec.models.decoder import build_decoder
from genrec.models.pretrained import Named, layout_alone
from genrec.recipe import load_recipe
from genrec.recommender import Recommender
from genrec.tables import read_tables, split_histories
from genrec.tasks import mix_of
from genrec.training.config import TrainingConfig
from genrec.training.examples import Collator
from genrec.training.tasks.mix import MixBatches, MixCollator
from genrec.training.tasks.prompts import Sample
from genrec.training.trainer import TrainingResult, train

RECIPE = Path(__file__).parents[2] / "training" / "recipes" / "lc_rec.yaml"
ITEMS = 16
SIZES = (4, 4)
CODES = np.array([[a, b] for a in range(4) for b in range(4)])
COLOURS, THINGS = ["red", "green", "blue", "grey"], ["hat", "coat", "shoe", "belt"]
CATALOGUE = pa.table({
    "item_id": [f"i{item}" for item in range(ITEMS)],
    "title": [f"{COLOURS[a]} {THINGS[b]}" for a, b in CODES],
})  # fmt: skip
TASKS = {"tasks.text_to_codes": 0.5, "tasks.codes_to_text": 0.5, "tasks.codes_to_title": 0.5, "tasks.yes_no": 0.5}
# The recipe as it stands, but for sizes: a stand-in, a small catalogue, a few seconds.
SMALL = {
    "text.encoder": "tfidf-svd", "tokenizer.rq_vae.steps": 30, "tokenizer.rq_vae.codebook_size": 16,
    "training.epochs": 1, "training.validation_users": 40, "evaluation.max_questions": 40, "evaluation.baselines": [],
}  # fmt: skip


def walkers(users: int = 120) -> pa.Table:
    """Users who mostly go from item i to item i + 1."""
    random = np.random.default_rng(0)
    steps = np.where(random.random((users, 10)) < 0.9, 1, 5)
    walks = (random.integers(0, ITEMS, (users, 1)) + np.cumsum(steps, axis=1)) % ITEMS
    rows = [(f"u{user}", f"i{item}", place) for user, walk in enumerate(walks) for place, item in enumerate(walk)]
    return pa.table(dict(zip(("user_id", "item_id", "timestamp"), map(list, zip(*rows, strict=True)), strict=True)))


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llm(tmp_path_factory.mktemp("llm"), CATALOGUE.column("title").to_pylist())


def run(
    folder: Path, llm: Path, rank: int = 0, dropout: float = 0.2, **settings: object
) -> tuple[torch.nn.Module, TrainingResult]:
    recipe = load_recipe(overrides=TASKS | {"model.pretrained": str(llm)})
    tables = read_tables(CATALOGUE, walkers(), recipe)
    split = split_histories(tables.interactions.histories(tables.catalogue), recipe)
    torch.manual_seed(0)
    model, layout = build_decoder(ModelConfig(pretrained=str(llm), lora_rank=rank, dropout=dropout), SIZES, 64)
    mix, _ = mix_of(recipe, tables, split.train, CODES, layout, AutoTokenizer.from_pretrained(llm))
    quick = {"epochs": 3, "batch_tokens": 1024, "learning_rate": 3e-3, "validation_users": 50, "validation_beam": 16}
    config = TrainingConfig(**(quick | settings))  # type: ignore[arg-type]
    return model, train(model, layout, Snapshot.of(CODES, SIZES), split, config, folder, False, 0, mix=mix)


def test_a_model_learns_from_words_which_item_is_meant(llm: Path) -> None:
    recipe = load_recipe(overrides={"model.pretrained": str(llm), "tasks.text_to_codes": 3.0})
    tables = read_tables(CATALOGUE, walkers(40), recipe)
    train_part = split_histories(tables.interactions.histories(tables.catalogue), recipe).train
    torch.manual_seed(0)
    named = Named(CODES, CATALOGUE.column("title").to_pylist())
    model, layout = build_decoder(ModelConfig(pretrained=str(llm), lora_rank=0, new_rows="text"), SIZES, 64, named)
    mix, _ = mix_of(recipe, tables, train_part, CODES, layout, AutoTokenizer.from_pretrained(llm))
    optimiser, batches, collate = torch.optim.AdamW(model.parameters(), 3e-3), MixBatches(mix, 512, 0), MixCollator(layout.pad)
    for epoch in range(25):
        batches.set_epoch(epoch)
        for keys in batches:
            model(**collate([mix[key] for key in keys])).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
    [task] = mix.tasks
    asked = collate([mix[1, item, 0] for item in range(ITEMS)])
    with torch.no_grad():
        logits = model.eval()(asked["input_ids"], attention_mask=asked["attention_mask"]).logits
    right = logits[:, -3:-1].argmax(-1) == asked["labels"][:, -2:]
    assert len(task.examples) == ITEMS
    assert right.float().mean() > 0.5, "by chance it would be one in hundreds, and one in four for who only knows the codes"


def test_a_killed_run_on_a_mix_ends_with_the_same_weights(tmp_path: Path, llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, expected = run(tmp_path / "whole", llm)
    calls, collate = {"left": int(1.5 * expected.steps / 3)}, MixCollator.__call__

    def killed(self: MixCollator, samples: list) -> dict:
        calls["left"] -= 1
        if calls["left"] < 0:
            raise KeyboardInterrupt
        return collate(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(MixCollator, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", llm)
    resumed, result = run(tmp_path / "killed", llm)
    assert result.steps == expected.steps
    for (name, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_other_families_learn_the_mix_under_lora_and_begin_as_their_tokenizer_says(tmp_path: Path, family: str) -> None:
    path = write_llm(tmp_path / "llm", CATALOGUE.column("title").to_pylist(), family=family)
    words = AutoTokenizer.from_pretrained(path)
    layout, _ = layout_alone(ModelConfig(pretrained=str(path)), SIZES)
    assert layout.start == (words.eos_token_id if words.bos_token_id is None else words.bos_token_id)
    model, result = run(tmp_path / "work", path, rank=8, epochs=2, learning_rate=1e-2)
    assert result.steps > 0
    asked = torch.tensor([[layout.start, 3, 4, *layout.to_tokens(CODES[7])]])
    with torch.no_grad():
        wanted = model.eval()(input_ids=asked).logits
        plain = model.merge_and_unload()  # type: ignore[operator]
        torch.testing.assert_close(plain(input_ids=asked).logits, wanted, rtol=1e-4, atol=1e-4)
    base = AutoModelForCausalLM.from_pretrained(path)
    assert type(plain) is type(base)
    words, linear = base.get_input_embeddings().weight, "h.0.mlp.c_fc" if family == "gpt2" else "layers.0.mlp.up_proj"
    torch.testing.assert_close(plain.get_input_embeddings().weight[: len(words)], words, msg="words stay as they were")
    assert not torch.equal(plain.base_model.get_submodule(linear).weight, base.base_model.get_submodule(linear).weight)


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
def test_padding_moves_nothing(tmp_path: Path, family: str) -> None:
    """A sample that stands beside a longer one is read as it is read alone, and as the search reads it."""
    path = write_llm(tmp_path / "llm", CATALOGUE.column("title").to_pylist(), family=family)
    model, layout = build_decoder(ModelConfig(pretrained=str(path), lora_rank=0), SIZES, 64)
    short, long = np.array([0, 2]), np.array([0, 1, 2, 3, 1, 0])
    alone, beside = (Collator(CODES, layout)(windows) for windows in ([short], [short, long]))
    width = alone["input_ids"].shape[1]
    tokens = alone["input_ids"][0].numpy(), beside["input_ids"][1].numpy()
    mixed = MixCollator(layout.pad)([Sample(some, some >= 0) for some in tokens])
    with torch.no_grad():
        wanted, *found = (model.eval()(**batch).logits[:1, -width:] for batch in (alone, beside, mixed))
    for one in found:
        torch.testing.assert_close(one, wanted)
    assert family != "gpt2" or not torch.allclose(
        model(**{name: x for name, x in beside.items() if name != "position_ids"}).logits[:1, -width:], wanted
    )


@pytest.mark.parametrize("tied", [True, False])
def test_every_new_row_moves_in_and_out_under_lora_and_no_word_does(tmp_path: Path, tied: bool) -> None:
    path = write_llm(tmp_path, CATALOGUE.column("title").to_pylist(), tied=tied)
    recipe = load_recipe(overrides=TASKS | {"model.pretrained": str(path)})
    tables = read_tables(CATALOGUE, walkers(), recipe)
    train_part = split_histories(tables.interactions.histories(tables.catalogue), recipe).train
    model, layout = build_decoder(ModelConfig(pretrained=str(path), lora_rank=4, dropout=0.0), SIZES, 64)
    mix, _ = mix_of(recipe, tables, train_part, CODES, layout, AutoTokenizer.from_pretrained(path))
    assert model.get_input_embeddings().weight.shape[0] == 512 + sum(SIZES), "grown by exactly the codes"
    before = [x.weight.detach().clone() for x in (model.get_input_embeddings(), model.get_output_embeddings())]
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for keys in MixBatches(mix, 4096, 0):
        model(**MixCollator(layout.pad)([mix[key] for key in keys])).loss.backward()
    optimiser.step()
    model = model.merge_and_unload()
    after = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    for old, new in zip(before, after, strict=True):
        assert ((new[512:] - old[512:]).abs().sum(1) > 0).all()
        torch.testing.assert_close(new[:512], old[:512])


def test_new_rows_begin_with_the_words_of_their_items(llm: Path) -> None:
    config = ModelConfig(pretrained=str(llm), lora_rank=0, new_rows="text")
    texts = [*CATALOGUE.column("title").to_pylist()[:-1], ""]  # the last item has nothing to say
    codes = np.where(CODES == 3, 2, CODES)
    codes[-1] = [3, 3]
    model, layout = build_decoder(config, SIZES, 64, Named(codes, texts))
    plain, _ = build_decoder(ModelConfig(pretrained=str(llm), lora_rank=0), SIZES, 64)
    rows = model.get_input_embeddings().weight.detach()
    tokenizer, noise = AutoTokenizer.from_pretrained(llm), 6 * 0.02 * rows[:512].std(0).max()
    for level in (0, 1):
        for code in range(4):
            row = rows[layout.offsets[level] + code]
            own = [tokenizer(f" {t}")["input_ids"] for t, c in zip(texts, codes, strict=True) if c[level] == code and t]
            start = torch.stack([rows[ids].mean(0) for ids in own]).mean(0) if own else rows[:512].mean(0)
            assert (row - start).abs().max() < noise
    assert (rows[512:] - rows[:512].mean(0)).norm() > 2 * (
        plain.get_input_embeddings().weight[512:] - rows[:512].mean(0)
    ).norm()
    assert layout == layout_alone(config, SIZES)[0]
    with pytest.raises(SettingError, match="new_rows 'text' needs a model that knows words"):
        ModelConfig(new_rows="text")


def test_a_prompt_that_the_model_is_too_short_for_is_refused_before_training(tmp_path: Path) -> None:
    short = write_llm(tmp_path / "short", CATALOGUE.column("title").to_pylist(), positions=64)
    with pytest.raises(SettingError, match=r"reads at most 64 tokens, and the longest prompt of tasks may have \d+\. Lower"):
        run(tmp_path, short)


def test_the_recipe_of_lc_rec_runs_from_tables_to_recommendations(
    shop: tuple[Catalogue, Interactions], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llm = write_llm(tmp_path / "llm", shop[0].table.column("title").to_pylist(), positions=1024)
    out = fit(shop[0].table, shop[1].table, tmp_path / "out", load_recipe(RECIPE, SMALL | {"model.pretrained": str(llm)}))
    model, opened = AutoModelForCausalLM.from_pretrained(out), read_bundle(out)
    assert type(model) is Qwen3ForCausalLM, "merged: a plain model that needs no peft to load"
    assert len(opened.settings.sizes) == 4
    assert len(np.unique(opened.codes.codes, axis=0)) == len(opened.codes), "no two items are alike"
    assert model.get_input_embeddings().weight.shape[0] == 512 + sum(opened.settings.sizes)
    assert opened.manifest["recipe"]["tasks"]["search"] == 1.0
    words = AutoTokenizer.from_pretrained(out)
    assert words.decode(words("spelled as ever")["input_ids"]) == "spelled as ever"
    [items] = Recommender.load(out).recommend([shop[0].item_ids[:3].tolist()], k=5)
    assert len(items) == 5


@pytest.mark.parametrize("way", [{}, {"model.quantization": "4bit"}], ids=["lora", "4bit"])
def test_the_recipe_of_a_real_model_runs_with_a_stand_in_of_its_architecture(
    shop: tuple[Catalogue, Interactions], tmp_path: Path, way: dict
) -> None:
    """Nothing is overridden but the model's folder, sizes, and how long it trains."""
    if "model.quantization" in way:
        pytest.importorskip("bitsandbytes")
    llm = write_llm(tmp_path / "llm", shop[0].table.column("title").to_pylist(), positions=1024)
    small = {name: value for name, value in SMALL.items() if "rq_vae" not in name} | {"tokenizer.rq_kmeans.codebook_size": 16}
    recipe = load_recipe(RECIPE.with_name("qwen3.yaml"), small | {"model.pretrained": str(llm)} | way)
    assert (recipe.model.lora_rank, recipe.model.new_rows) == (16, "text")
    out = fit(shop[0].table, shop[1].table, tmp_path / "out", recipe)
    opened, model = read_bundle(out), AutoModelForCausalLM.from_pretrained(out)
    assert type(model) is Qwen3ForCausalLM
    assert model.config.tie_word_embeddings, "as in the real one"
    assert getattr(model.config, "quantization_config", None) is None
    assert model.get_input_embeddings().weight.shape[0] == 512 + sum(opened.settings.sizes)
    [items] = Recommender.load(out).recommend([shop[0].item_ids[:3].tolist()], k=5)
    assert len(items) == 5


def test_the_preview_of_a_recipe_shows_every_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = write_shop(tmp_path, users=60, items=40, seed=1)
    llm = write_llm(tmp_path / "llm", ["a shop"])
    arguments = [
        "preview",
        "--items",
        str(tables[0]),
        "--interactions",
        str(tables[1]),
        "--recipe",
        str(RECIPE),
        "--samples",
        "1",
    ]
    small = [
        part
        for name, value in SMALL.items()
        if name.startswith(("text", "tok"))
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    assert main([*arguments, *small, "--model.pretrained", str(llm)]) == 0
    page = capsys.readouterr().out
    for task in load_recipe(RECIPE).tasks.aligned:
        assert f"\n{task}: " in page
    assert page.count("[[") == 1 + 1 + len(load_recipe(RECIPE).tasks.aligned)
    codes = [part for part in arguments if part not in ("preview", "--samples", "1")]
    assert main(["tokenize", *codes, *small, "--out", str(tmp_path / "codes")]) == 0
    capsys.readouterr()
    assert main([*arguments, "--model.pretrained", str(llm), "--codes", str(tmp_path / "codes"), *small]) == 0
    assert capsys.readouterr().out == page, "codes of the same recipe are the same"
    assert main(["preview", *arguments[1:5]]) == 2
    assert "no task beside next_item, so there is nothing to preview" in capsys.readouterr().err
    assert main([*arguments, *small, "--model.pretrained", str(tmp_path / "nowhere")]) == 2
    assert "model.pretrained must be the folder or hub name" in capsys.readouterr().err
