"""Bundles: whole or refused, and loadable without genrec."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from genrec.bundle import EDITABLE, read_bundle
from genrec.errors import BundleError, SettingError
from genrec.manifest import MANIFEST
from genrec.recommender import Recommender
from genrec.tokenizers.rq_kmeans import RQKMeans


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def files_of(folder: Path) -> list[str]:
    return list(json.loads((folder / MANIFEST).read_text())["files"])


def test_it_loads_with_transformers_alone(bundle: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(bundle)
    words = AutoTokenizer.from_pretrained(bundle)
    settings = read_bundle(bundle).settings
    assert model.get_input_embeddings().weight.shape[0] == settings.layout.vocabulary_size
    logits = model(torch.tensor([words("<start> <c0_0>")["input_ids"]])).logits
    assert torch.isfinite(logits).all()


def test_no_tensors_but_the_weights_lie_beside_the_weights(bundle: Path) -> None:
    """vLLM reads every .safetensors file of a model's folder as weights, and refuses names that the model does not have."""
    assert [path.name for path in bundle.glob("*.safetensors")] == ["model.safetensors"]


def test_it_carries_everything_needed_to_encode_items_later(bundle: Path) -> None:
    opened = read_bundle(bundle)
    tokenizer = RQKMeans.load(bundle / "item_tokenizer")
    assert tokenizer.fingerprint == opened.codes.tokenizer
    vectors = opened.load_encoders()[0].encode(opened.catalogue)
    assert tokenizer.encode(vectors).shape == (len(opened.catalogue), tokenizer.config.levels)


def test_it_records_what_it_was_made_from(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    assert set(manifest["data"]) == {"items", "interactions"}
    assert manifest["recipe"]["training"]["epochs"] == 2
    assert manifest["versions"]["torch"] == torch.__version__
    assert "popularity" in (bundle / "README.md").read_text(encoding="utf-8")
    assert not (bundle / "work").exists()
    assert read_bundle(bundle).metrics["test"][0]["questions"] == 60


def test_every_file_is_missed_by_name(bundle: Path, copy: Path) -> None:
    for name in files_of(copy):
        (copy / name).unlink()
        with pytest.raises(BundleError, match=name.replace(".", r"\.")):
            Recommender.load(copy)
        shutil.copy(bundle / name, copy / name)
    Recommender.load(copy)


def test_every_truncated_file_is_refused_by_name(bundle: Path, copy: Path) -> None:
    for name in set(files_of(copy)) - EDITABLE:
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(BundleError, match=rf"{name} in the bundle .* was truncated or edited"):
            Recommender.load(copy)
        (copy / name).write_bytes(content)


def test_every_edited_file_is_refused_by_name(copy: Path) -> None:
    for name in set(files_of(copy)) - EDITABLE:
        content = (copy / name).read_bytes()
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        (copy / name).write_bytes(bytes(changed))
        with pytest.raises(BundleError, match=rf"{name} in the bundle .* was edited"):
            Recommender.load(copy)
        (copy / name).write_bytes(content)


def test_an_edited_or_truncated_manifest_is_refused(copy: Path) -> None:
    path = copy / MANIFEST
    content = path.read_text()
    path.write_text(content.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(BundleError, match=r"manifest\.json is truncated or was edited"):
        read_bundle(copy)
    path.write_text(content[:100])
    with pytest.raises(BundleError, match=r"manifest\.json is truncated or was edited"):
        read_bundle(copy)


def test_no_manifest_no_bundle(copy: Path, tmp_path: Path) -> None:
    (copy / MANIFEST).unlink()
    with pytest.raises(BundleError, match=r"is not a bundle: it has no manifest\.json"):
        read_bundle(copy)
    with pytest.raises(BundleError, match="is not a bundle: it does not exist"):
        read_bundle(tmp_path / "nowhere")


def test_serving_settings_may_be_edited_and_are_checked(copy: Path) -> None:
    (copy / "serving.json").write_text('{"beam_width": 30, "k": 3, "exclude_seen": false}')
    [items] = Recommender.load(copy).recommend([[]])
    assert len(items) == 3
    (copy / "serving.json").write_text('{"beam_width": 0, "k": 3, "exclude_seen": false}')
    with pytest.raises(BundleError, match=r"serving\.json cannot be used: beam_width must be an integer from 1 to 512, got 0"):
        read_bundle(copy)


def test_checking_sizes_only_is_an_option_and_nothing_else_is(copy: Path) -> None:
    Recommender.load(copy, verify="size")
    with pytest.raises(SettingError, match=r"verify must be one of \['full', 'size'\]"):
        Recommender.load(copy, verify="none")  # type: ignore[arg-type]


def test_another_bundle_that_took_the_folders_place_is_not_mixed_with_the_first(copy: Path) -> None:
    read = read_bundle(copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    del manifest["self"]
    manifest["seed"] = 12345
    manifest["self"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (copy / MANIFEST).write_text(json.dumps(manifest))
    for load in (read.load_model, read.load_encoders):
        with pytest.raises(BundleError, match="now holds bundle .* Load it again"):
            load()
    assert read_bundle(copy).hash != read.hash
