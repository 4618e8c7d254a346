"""The estimate of memory, held against tiny models that were really made, stepped and measured."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel, T5Config
from worlds import write_llm

from genrec.errors import SettingError
from genrec.models.config import ModelConfig
from genrec.models.decoder import build_decoder
from genrec.training.memory import SEQUENCE, training_memory

SIZES = (5, 4, 3)
SEQUENCES = 4


def made(folder: Path, tied: bool = True, **settings: object) -> tuple[PreTrainedModel, ModelConfig]:
    path = write_llm(folder, ["red hat", "blue coat"], positions=SEQUENCE, tied=tied)
    config = ModelConfig(pretrained=str(path), dropout=0.05, **settings)  # type: ignore[arg-type]
    return build_decoder(config, SIZES, SEQUENCE)[0].train(), config


def step(model: PreTrainedModel, bf16: bool) -> Tensor:
    tokens = torch.randint(0, 500, (SEQUENCES, SEQUENCE))
    mask = torch.ones_like(tokens)
    mask[0, 0] = 0  # without padding no mask is made at all
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return model(input_ids=tokens, attention_mask=mask, labels=tokens).loss


def size(tensors: list[Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


@pytest.mark.parametrize(
    ("setting", "tied"),
    [({"lora_rank": 8}, True), ({"lora_rank": 8}, False), ({"lora_rank": 8, "dora": True}, True), ({"lora_rank": 0}, True)],
)
def test_weights_gradients_and_optimiser_are_the_bytes_of_a_real_step(tmp_path: Path, setting: dict, tied: bool) -> None:
    model, config = made(tmp_path, tied, **setting)
    found = training_memory(AutoConfig.from_pretrained(tmp_path), config, sum(SIZES), SEQUENCES * SEQUENCE, bf16=False)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained)
    step(model, False).backward()
    optimiser.step()
    states = [value for state in optimiser.state.values() for value in state.values() if value.ndim]  # not its step counts
    assert found.weights == size(list(model.parameters()))
    assert found.gradients == size([weight.grad for weight in trained if weight.grad is not None])
    assert found.optimiser == size(states)


@pytest.mark.parametrize(("setting", "bf16"), [({"lora_rank": 8}, True), ({"lora_rank": 8}, False), ({"lora_rank": 0}, True)])
def test_activations_are_what_autograd_keeps_of_a_real_step(tmp_path: Path, setting: dict, bf16: bool) -> None:
    model, config = made(tmp_path, **setting)
    found = training_memory(AutoConfig.from_pretrained(tmp_path), config, sum(SIZES), SEQUENCES * SEQUENCE, bf16)
    kept: dict[int, Tensor] = {}

    def keep(saved: Tensor) -> Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        step(model, bf16)
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    assert found.activations == pytest.approx(size([t for place, t in kept.items() if place not in own]), rel=0.05)


def test_checkpointing_keeps_less_and_twice_the_tokens_twice_as_much(tmp_path: Path) -> None:
    _, config = made(tmp_path, lora_rank=8)
    base = AutoConfig.from_pretrained(tmp_path)
    one, two = (training_memory(base, config, 12, tokens, bf16=False) for tokens in (1024, 2048))
    assert two.activations == pytest.approx(2 * one.activations, rel=0.02)
    assert two.logits == 2 * one.logits
    assert training_memory(base, config, 12, 1024, checkpointing=True).total < training_memory(base, config, 12, 1024).total


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_packed_base_takes_the_bytes_that_were_estimated(tmp_path: Path, bits: str) -> None:
    pytest.importorskip("bitsandbytes")
    model, config = made(tmp_path, lora_rank=8, quantization=bits)
    packed = [weight for weight in model.parameters() if not weight.is_floating_point()]
    scales = [s.absmax if bits == "4bit" else w.SCB for w in packed for s in [getattr(w, "quant_state", None)]]
    found = training_memory(AutoConfig.from_pretrained(tmp_path), config, sum(SIZES), SEQUENCES * SEQUENCE)
    assert packed
    assert found.weights == pytest.approx(size([*model.parameters(), *scales]), rel=0.03)


def test_an_encoder_decoder_is_refused() -> None:
    with pytest.raises(SettingError, match="The estimate is for decoders"):
        training_memory(T5Config(), ModelConfig("encoder-decoder", pretrained="a/t5"), 12, 1024)
