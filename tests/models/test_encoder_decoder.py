"""The encoder-decoder: a T5 from scratch, and a pretrained one grown by the codes and trained with or without LoRA."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    GPT2Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
)
from worlds import write_t5

from genrec.errors import SettingError
from genrec.models.adapters import merged
from genrec.models.config import ModelConfig
from genrec.models.decoder import build_decoder, save_text_tokenizer
from genrec.models.encoder_decoder import build_encoder_decoder
from genrec.models.pretrained import check_pretrained
from tokenizers import Tokenizer, models

SIZES = (5, 4, 3)
SMALL = ModelConfig("encoder-decoder", hidden_size=32, layers=2, heads=2, feed_forward=64)
READ, WRITTEN = torch.tensor([[1, 3, 7, 11]]), torch.tensor([[0, 4, 8]])


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=READ, decoder_input_ids=WRITTEN).logits


def pretrained(folder: Path, rank: int) -> ModelConfig:
    return ModelConfig("encoder-decoder", pretrained=str(folder), lora_rank=rank, dropout=0.0)


def test_a_model_from_scratch_is_a_plain_t5_with_a_row_per_code(tmp_path: Path) -> None:
    model, layout = build_encoder_decoder(SMALL, SIZES)
    model.save_pretrained(tmp_path)
    save_text_tokenizer(SMALL, layout, tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(loaded) is T5ForConditionalGeneration
    assert loaded.get_input_embeddings().weight.shape == (2 + sum(SIZES), 32)
    assert (len(loaded.encoder.block), len(loaded.decoder.block)) == (2, 2)
    assert loaded.config.decoder_start_token_id == layout.pad
    torch.testing.assert_close(logits(loaded), logits(model))
    words = AutoTokenizer.from_pretrained(tmp_path)
    assert words("<start> <c0_4> <c1_0> <c2_2>")["input_ids"] == [1, *layout.to_tokens(np.array([4, 0, 2]))]


def test_the_shape_of_the_tiger_paper_can_be_asked_for() -> None:
    """6 heads of 64 in a width of 128: head_size is apart from hidden_size / heads."""
    model, _ = build_encoder_decoder(ModelConfig("encoder-decoder", heads=6, head_size=64, layers=1, feed_forward=1024), SIZES)
    assert model.encoder.block[0].layer[0].SelfAttention.q.weight.shape == (384, 128)
    decoder, _ = build_decoder(ModelConfig(heads=6, head_size=64, layers=1), SIZES, 64)
    assert decoder.model.layers[0].self_attn.q_proj.weight.shape == (384, 128)


def test_dropout_acts_in_training_only() -> None:
    model, _ = build_encoder_decoder(SMALL, SIZES)
    assert torch.equal(logits(model), logits(model))
    model.train()
    with torch.no_grad():
        once, twice = (model(input_ids=READ, decoder_input_ids=WRITTEN).logits for _ in range(2))
    assert not torch.equal(once, twice)


@pytest.mark.parametrize("own_output", [False, True])
@pytest.mark.parametrize("rank", [0, 4])
def test_a_pretrained_t5_grows_learns_and_is_saved_whole(tmp_path: Path, own_output: bool, rank: int) -> None:
    """T5 v1.1 and its like have an output layer of their own, which must not be tied to the embeddings on the way."""
    base = AutoModelForSeq2SeqLM.from_pretrained(write_t5(tmp_path / "base", own_output))
    model, layout = build_encoder_decoder(pretrained(tmp_path / "base", rank), SIZES)
    assert (layout.base, layout.start, layout.pad) == (50, 1, 0)
    torch.testing.assert_close(logits(model)[..., :50], logits(base), msg="what it knew it still knows")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad) / sum(p.numel() for p in model.parameters())
    assert trained == 1 if rank == 0 else trained < 0.5
    before = model.get_output_embeddings().weight.detach().clone()
    tokens = torch.tensor([[layout.start, *layout.code_tokens]])
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    model.train()
    model(input_ids=tokens, labels=torch.tensor([list(layout.code_tokens)])).loss.backward()
    optimiser.step()
    taught = logits(model)
    assert (model.get_output_embeddings().weight - before)[50:].abs().sum(1).min() > 0, "every new row moved"
    plain = merged(model)
    plain.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(loaded), taught, atol=1e-4, rtol=1e-4)
    assert (loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight) != own_output
    if rank:
        torch.testing.assert_close(loaded.get_input_embeddings().weight[:50], base.get_input_embeddings().weight)


def test_a_pretrained_model_of_the_right_kind_passes_before_its_weights_are_read(tmp_path: Path) -> None:
    umt5, gpt2 = tmp_path / "umt5", tmp_path / "gpt2"
    UMT5Config().save_pretrained(umt5)
    GPT2Config().save_pretrained(gpt2)
    T5Config().save_pretrained(tmp_path / "t5")
    for config in (pretrained(tmp_path / "t5", 4), ModelConfig(pretrained=str(gpt2), lora_rank=0)):
        with pytest.raises(SettingError, match="with its tokenizer"):
            check_pretrained(config)
    spelling = Tokenizer(models.WordLevel({"<end>": 0, "hat": 1}, "<end>"))
    for config in (pretrained(umt5, 4), ModelConfig(pretrained=str(gpt2), lora_rank=0)):
        PreTrainedTokenizerFast(tokenizer_object=spelling).save_pretrained(str(config.pretrained))
        with pytest.raises(SettingError, match="neither a bos nor an eos token"):
            check_pretrained(config)
        PreTrainedTokenizerFast(tokenizer_object=spelling, eos_token="<end>").save_pretrained(str(config.pretrained))
        check_pretrained(config)
    check_pretrained(SMALL)


def test_user_tokens_are_rows_behind_the_codes_of_either_model(tmp_path: Path) -> None:
    for config in (replace(SMALL, user_tokens=7), replace(pretrained(write_t5(tmp_path / "base"), 4), user_tokens=7)):
        model, layout = build_encoder_decoder(config, SIZES)
        assert model.get_input_embeddings().weight.shape[0] == layout.vocabulary_size == layout.code_tokens.stop + 7
        save_text_tokenizer(config, layout, tmp_path / "words")
    with pytest.raises(SettingError, match="model.user_tokens is for an encoder-decoder, as in TIGER; got 7 with"):
        ModelConfig(user_tokens=7)


@pytest.mark.parametrize(
    ("architecture", "found", "message"),
    [
        (
            "decoder",
            "t5",
            r"'decoder', which takes a causal language model; .* type 't5'. Set model.architecture to 'enc",
        ),
        (
            "encoder-decoder",
            "gpt2",
            r"takes a T5 \(model types t5, mt5, umt5\); .*type 'gpt2'. Set model.architecture to 'd",
        ),
        ("encoder-decoder", "bart", "must be a T5 .* of type 'bart': the beams of a user share one sequence"),
        ("encoder-decoder", "nowhere", "model.pretrained must be the folder or hub name of a T5 .* got '.*base'"),
    ],
)
def test_a_pretrained_model_of_another_kind_is_refused(tmp_path: Path, architecture: str, found: str, message: str) -> None:
    base = tmp_path / "base"
    if found != "nowhere":
        {"t5": T5Config, "gpt2": GPT2Config, "bart": BartConfig}[found]().save_pretrained(base)
    with pytest.raises(SettingError, match=message):
        check_pretrained(ModelConfig(architecture, pretrained=str(base), lora_rank=0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"architecture": "t5"}, r"model.architecture must be one of \['decoder', 'encoder-decoder', 'one-pass'\], got 't5'"),
        ({"head_size": 0}, "head_size must be an integer of at least 2, got 0"),
        ({"head_size": 7}, "head_size must be an even number, got 7"),
        ({"heads": 3}, "multiple of 2 .* heads.*Or set head_size"),
    ],
)
def test_impossible_shapes_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        ModelConfig(**setting)
