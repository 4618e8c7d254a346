"""Adapters: what is trained is what is saved, whatever the base; and nothing is saved that an engine would refuse."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Qwen3ForCausalLM, ViTConfig
from worlds import write_llm

from genrec.errors import BundleError, MissingDependencyError, SettingError
from genrec.models.adapters import check_plain, merged, save_plain
from genrec.models.config import ModelConfig
from genrec.models.decoder import build_decoder
from genrec.models.pretrained import check_pretrained
from genrec.models.tokens import TokenLayout

SIZES = (5, 4, 3)
BITS = [("8bit", 0.05), ("4bit", 1e-4)]  # the 8-bit product also rounds what goes in, by a row's largest number


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llm(tmp_path_factory.mktemp("llm"), ["red hat", "blue coat", "grey belt"])


def learned(llm: Path, **settings: object) -> tuple[PreTrainedModel, torch.Tensor, TokenLayout]:
    """A model with adapters after a few steps on all codes, those codes as tokens, and the layout."""
    torch.manual_seed(0)
    model, layout = build_decoder(ModelConfig(pretrained=str(llm), lora_rank=4, dropout=0.0, **settings), SIZES, 64)  # type: ignore[arg-type]
    tokens = torch.tensor([[layout.start, *layout.code_tokens]])
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=0.05)
    model.train()
    for _ in range(5):
        optimiser.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimiser.step()
    return model.eval(), tokens, layout


def test_dora_learns_lengths_of_weights_and_is_folded_in(llm: Path, tmp_path: Path) -> None:
    model, tokens, _ = learned(llm, dora=True)
    lengths = {name: weight for name, weight in model.named_parameters() if "lora_magnitude_vector" in name}
    assert lengths, "DoRA has a length for each output of each linear layer"
    assert all(weight.requires_grad for weight in lengths.values())
    wanted = model(tokens).logits.detach()
    save_plain(merged(model), tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(tokens).logits, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("bits", "near"), BITS)
def test_a_base_of_few_bits_is_saved_whole_as_it_was_trained(llm: Path, tmp_path: Path, bits: str, near: float) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    model, tokens, layout = learned(llm, quantization=bits)
    kinds = {type(module) for module in model.modules()}
    assert kinds & {bnb.nn.Linear8bitLt, bnb.nn.Linear4bit}, "the base has fewer bits"
    with torch.inference_mode():
        model(tokens)  # a validation between two epochs changes nothing
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert any("trainable_tokens" in name for name in trained), "rows of the codes are trained, as float32"
    wanted = model(tokens).logits.detach()
    save_plain(merged(model), tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is Qwen3ForCausalLM
    assert getattr(loaded.config, "quantization_config", None) is None
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert (loaded(tokens).logits - wanted).abs().max() < near * wanted.abs().max()
    base = AutoModelForCausalLM.from_pretrained(llm)
    rows = loaded.get_input_embeddings().weight
    torch.testing.assert_close(rows[: layout.base], base.get_input_embeddings().weight)


def test_bits_without_the_library_are_an_error_that_names_it(llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependencyError, match=r"'4bit', which needs .* bitsandbytes.*genrec\[quantization\]"):
        check_pretrained(ModelConfig(pretrained=str(llm), quantization="4bit"))


@pytest.mark.parametrize("setting", [{"dora": True}, {"quantization": "4bit"}])
@pytest.mark.parametrize("without", [{"pretrained": None}, {"pretrained": "some/llm", "lora_rank": 0}])
def test_settings_of_adapters_need_adapters(setting: dict, without: dict) -> None:
    with pytest.raises(SettingError, match="of the adapters of a pretrained model.*or leave it out"):
        ModelConfig(**without, **setting)


def test_a_model_with_adapters_is_not_saved(llm: Path, tmp_path: Path) -> None:
    model, _, _ = learned(llm)
    with pytest.raises(BundleError, match=r"still has adapters.*adapters\.merged"):
        save_plain(model, tmp_path)
    assert list(tmp_path.iterdir()) == []
    check_plain(merged(model))


def test_a_model_of_packed_weights_is_not_saved(llm: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model, _, _ = learned(llm, quantization="4bit")
    with pytest.raises(BundleError, match=r"packed into fewer bits.*full precision"):
        save_plain(model.unload(), tmp_path)


def test_a_model_of_a_class_that_nobody_loads_is_not_saved(llm: Path, tmp_path: Path) -> None:
    class Mine(Qwen3ForCausalLM):
        pass

    with pytest.raises(BundleError, match="Mine is no language model of transformers"):
        save_plain(Mine.from_pretrained(llm), tmp_path)


def test_models_that_could_not_be_saved_are_refused_before_the_work(llm: Path, tmp_path: Path) -> None:
    ViTConfig().save_pretrained(tmp_path / "images")
    with pytest.raises(SettingError, match="of type 'vit', for which transformers has no language model"):
        check_pretrained(ModelConfig(pretrained=str(tmp_path / "images")))
    packed = AutoConfig.from_pretrained(llm)
    packed.quantization_config = {"quant_method": "gptq", "bits": 4}
    packed.save_pretrained(tmp_path / "packed")
    with pytest.raises(SettingError, match="packed into fewer bits already.*model.quantization"):
        check_pretrained(ModelConfig(pretrained=str(tmp_path / "packed")))
