"""The model card: the hub reads it, and it says what the bundle says."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelCardData
from transformers import AutoModelForCausalLM

from genrec.bundle import read_bundle
from genrec.card import model_card
from genrec.models.tokens import TokenLayout
from genrec.recipe import load_recipe
from genrec.recommender import Recommender

SECTIONS = ("What it reads", "Measured", "Limits", "Recipe")


def test_the_hub_reads_the_card_with_the_numbers_that_were_measured(bundle: Path) -> None:
    data = ModelCard.load(bundle / "README.md").data
    assert isinstance(data, ModelCardData)
    assert data.library_name == "genrec"
    assert "generative-recommendation" in data.tags
    assert data.license is None, "that is for who publishes to say"
    measured = read_bundle(bundle).metrics["test"][0]["metrics"]
    assert data.eval_results
    told = {(found.metric_type, found.metric_name.rsplit(" ", 1)[-1]): found.metric_value for found in data.eval_results}
    assert told == {
        (name, protocol): pytest.approx(numbers[name]["mean"], abs=1e-6)
        for protocol, numbers in measured.items()
        for name in numbers
        if name.startswith(("recall", "ndcg"))
    }


def test_the_card_names_hashes_intervals_tokens_and_limits(bundle: Path) -> None:
    opened, text = read_bundle(bundle), (bundle / "README.md").read_text(encoding="utf-8")
    for name in ("items", "interactions"):
        assert opened.manifest["data"][name] in text
    assert opened.codes.hash in text
    found = opened.metrics["test"][0]["metrics"]["masked"]["recall@10"]
    assert f"{found['mean']:.4f} ({found['low']:.4f} to {found['high']:.4f})" in text
    tokens = opened.settings.layout.to_tokens(opened.codes.codes[:1])[0].tolist()
    assert f"`{opened.codes.item_ids[0]}` is `{tokens}`" in text
    assert "answers no prompts in words" in text
    places = [text.index(f"\n## {section}\n") for section in SECTIONS]
    assert places == sorted(places)


def test_a_card_of_a_fine_tuned_model_names_its_base_and_the_prompts_it_learned(bundle: Path) -> None:
    opened = read_bundle(bundle)
    recipe = load_recipe(overrides={"model.pretrained": "some/llm", "tasks.yes_no": 0.5, "tasks.text_to_codes": 1.0})
    layout = TokenLayout(500, opened.codes.sizes, 3, 0)
    text = model_card("shop", recipe, [], opened.manifest["data"], opened.codes, layout)
    data = ModelCard(text).data
    assert data.base_model == "some/llm"
    assert data.eval_results is None, "nothing was measured"
    assert "some/llm, fine-tuned: what that model must not be used for" in text
    prompts = [line for line in text.splitlines() if line.startswith(("| yes_no", "| text_to_codes", "| search"))]
    assert [line.split("|")[1].strip() for line in prompts] == ["text_to_codes", "yes_no"]
    assert "{title}" in prompts[0]


def test_a_base_that_is_a_folder_is_not_named_to_the_hub(bundle: Path, tmp_path: Path) -> None:
    opened, layout = read_bundle(bundle), TokenLayout(500, read_bundle(bundle).codes.sizes, 3, 0)
    (tmp_path / "llm").mkdir()
    hashes = opened.manifest["data"] | {"training.teacher": "abc", "item_vectors": None}
    for base, told in ((tmp_path / "llm", "It is llm, fine-tuned"), ("some/llm", "It is some/llm, fine-tuned")):
        recipe = load_recipe(overrides={"model.pretrained": str(base)})
        text = model_card("shop", recipe, [], hashes, opened.codes, layout)
        data = ModelCard(text).data
        assert isinstance(data, ModelCardData)
        assert data.base_model == (base if base == "some/llm" else None), "the hub refuses a folder's path"
        assert told in text
        assert "| training.teacher | `abc` |\n| seed |" in text
        assert "item vectors" not in text
    recipe = load_recipe(overrides={"model.pretrained": "../llm"})  # as in a bundle that was moved to another machine
    data = ModelCard(model_card("shop", recipe, [], hashes, opened.codes, layout)).data
    assert isinstance(data, ModelCardData)
    assert data.base_model is None


def test_a_bundle_with_a_licence_on_its_card_is_the_same_bundle(bundle: Path, tmp_path: Path) -> None:
    """As after `hf upload`, an edit on the hub, and `hf download`, which leaves files of its own."""
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    card = ModelCard.load(copy / "README.md")
    card.data.license = "cc-by-4.0"
    card.save(copy / "README.md")
    (copy / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    assert read_bundle(copy).hash == read_bundle(bundle).hash
    AutoModelForCausalLM.from_pretrained(copy)
    ids = read_bundle(copy).catalogue.item_ids[:2].tolist()
    assert Recommender.load(copy).recommend([ids], k=3) == Recommender.load(bundle).recommend([ids], k=3)
    assert json.loads((copy / "config.json").read_text())["architectures"] == ["Qwen3ForCausalLM"]
