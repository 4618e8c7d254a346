"""The language model: from scratch, and a pretrained one grown by the codes and trained through LoRA."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from genrec.errors import DataError, MissingDependencyError, SettingError
from genrec.models.adapters import merged
from genrec.models.config import ModelConfig
from genrec.models.decoder import build_decoder, save_text_tokenizer
from genrec.models.pretrained import NEW_ROW_NOISE, grow
from genrec.models.tokens import TokenLayout, write_histories
from tokenizers import Tokenizer, models

SIZES = (5, 4, 3)


def write_stand_in(folder: Path, tied: bool = True, start_token: bool = True, positions: int = 128) -> Path:
    """A tiny "pretrained" Qwen3 with a text vocabulary of 50 words."""
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, max_position_embeddings=positions, tie_word_embeddings=tied, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    words = {f"w{i}": i for i in range(49)} | {"<eos>": 49}
    special = {"eos_token": "<eos>"} if start_token else {}
    spelling = Tokenizer(models.WordLevel(words, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=spelling, **special).save_pretrained(folder)
    return folder


def one_step(model: torch.nn.Module, layout: TokenLayout) -> None:
    """One optimiser step on a batch that holds every code."""
    model.train()
    tokens = torch.tensor([[layout.start, *layout.code_tokens]])
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trainable, lr=1.0)
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimiser.step()
    model.eval()


def test_a_model_from_scratch_is_a_plain_qwen3_with_a_row_per_code(tmp_path: Path) -> None:
    model, layout = build_decoder(ModelConfig(hidden_size=32, layers=1, heads=2, feed_forward=64), SIZES, 64)
    model.save_pretrained(tmp_path)
    save_text_tokenizer(ModelConfig(), layout, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is Qwen3ForCausalLM
    assert loaded.get_input_embeddings().weight.shape[0] == 2 + sum(SIZES)
    words = AutoTokenizer.from_pretrained(tmp_path)
    assert words("<start> <c0_4> <c1_0> <c2_2>")["input_ids"] == [1, *layout.to_tokens(np.array([4, 0, 2]))]


def test_dropout_acts_in_training_only() -> None:
    model, layout = build_decoder(ModelConfig(hidden_size=32, layers=1, heads=2, feed_forward=64, dropout=0.5), SIZES, 64)
    tokens = torch.tensor([[layout.start, *layout.code_tokens]])
    with torch.no_grad():
        model.eval()
        assert torch.equal(model(tokens).logits, model(tokens).logits)
        model.train()
        assert not torch.equal(model(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize("tied", [True, False])
def test_lora_trains_new_rows_in_and_out_and_no_old_ones_and_merges_into_a_plain_model(tmp_path: Path, tied: bool) -> None:
    path = write_stand_in(tmp_path / "base", tied)
    base = AutoModelForCausalLM.from_pretrained(path)
    model, layout = build_decoder(ModelConfig(pretrained=str(path), lora_rank=4, dropout=0.0), SIZES, 64)
    assert layout.base == 50
    start_in = model.get_input_embeddings().weight.detach().clone()
    start_out = model.get_output_embeddings().weight.detach().clone()
    share = sum(p.numel() for p in model.parameters() if p.requires_grad) / sum(p.numel() for p in model.parameters())
    assert share < 0.5, "LoRA must not train the whole model"
    one_step(model, layout)
    tokens = torch.tensor([[layout.start, *layout.code_tokens]])
    adapted = model(tokens).logits.detach()
    plain = merged(model)
    plain.save_pretrained(tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(loaded(tokens).logits, adapted, atol=1e-4, rtol=1e-4)
    new_in, new_out = loaded.get_input_embeddings().weight, loaded.get_output_embeddings().weight
    assert new_in.shape[0] == 50 + sum(SIZES), "grown by exactly the codes"
    assert ((new_in[50:-1] - start_in[50:-1]).abs().sum(1) > 0).all(), "every new input row moved (the last is never an input)"
    assert ((new_out[50:] - start_out[50:]).abs().sum(1) > 0).all(), "every new output row moved"
    torch.testing.assert_close(new_in[:50], base.get_input_embeddings().weight)
    torch.testing.assert_close(new_out[:50], base.get_output_embeddings().weight)
    assert not torch.equal(loaded.model.layers[0].self_attn.q_proj.weight, base.model.layers[0].self_attn.q_proj.weight)


def test_new_rows_start_near_the_known_ones_and_apart_from_each_other(tmp_path: Path) -> None:
    model, _ = build_decoder(ModelConfig(pretrained=str(write_stand_in(tmp_path)), lora_rank=0), SIZES, 64)
    rows = model.get_input_embeddings().weight.detach()
    assert (rows[50:] - rows[:50].mean(0)).norm(dim=1).max() < rows[:50].std(0).norm()
    assert len(torch.unique(rows[50:], dim=0)) == sum(SIZES)


@pytest.mark.parametrize("spread", [1.0, 0.005])
def test_the_noise_of_new_rows_is_a_share_of_the_spread_of_the_known_ones(spread: float) -> None:
    """However far apart the words of a pretrained model lie: 0.02 of it is neither a move of a word nor a tie."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=200, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                                         num_attention_heads=1, num_key_value_heads=1, head_dim=32))  # fmt: skip
    known = model.get_input_embeddings().weight.data
    known.normal_(3 * spread, spread)
    start = known.clone()
    grow(model, TokenLayout(200, (300, 300), 0, 0))
    rows = model.get_input_embeddings().weight.detach()
    torch.testing.assert_close(rows[:200], start)
    noise = rows[200:] - start.mean(0)
    assert float(noise.std() / spread) == pytest.approx(NEW_ROW_NOISE, rel=0.05)


def test_rank_zero_trains_every_weight(tmp_path: Path) -> None:
    model, _ = build_decoder(ModelConfig(pretrained=str(write_stand_in(tmp_path)), lora_rank=0), SIZES, 64)
    assert all(p.requires_grad for p in model.parameters())


def test_lora_without_peft_is_an_error_and_no_silent_full_fine_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match="pip install peft.*lora_rank to 0"):
        build_decoder(ModelConfig(pretrained=str(write_stand_in(tmp_path)), lora_rank=4), SIZES, 64)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"model.pretrained must be .* got '.*nowhere'"):
        build_decoder(ModelConfig(pretrained=str(tmp_path / "nowhere"), lora_rank=0), SIZES, 64)


def test_a_model_too_short_for_the_histories_says_what_fits(tmp_path: Path) -> None:
    with pytest.raises(
        SettingError, match=r"reads at most 16 tokens; these histories need 64\. Lower training.max_history to 4 or less"
    ):
        build_decoder(ModelConfig(pretrained=str(write_stand_in(tmp_path, positions=16)), lora_rank=0), SIZES, 64)


def test_a_tokenizer_without_start_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="neither a bos nor an eos"):
        build_decoder(ModelConfig(pretrained=str(write_stand_in(tmp_path, start_token=False)), lora_rank=0), SIZES, 64)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"hidden_size": 100, "heads": 3}, "multiple of 2"),
        ({"layers": 0}, "layers must be an integer of at least 1"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1"),
        ({"lora_rank": -1}, "lora_rank"),
    ],
)
def test_impossible_sizes_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        ModelConfig(**setting)


def test_codes_become_tokens_by_arithmetic_and_come_back() -> None:
    layout = TokenLayout(100, SIZES, 1, 0)
    codes = np.array([[0, 0, 0], [4, 3, 2]])
    assert layout.to_tokens(codes).tolist() == [[100, 105, 109], [104, 108, 111]]
    np.testing.assert_array_equal(layout.to_codes(layout.to_tokens(codes)), codes)
    assert layout.vocabulary_size == 112
    with pytest.raises(DataError, match="do not spell items"):
        layout.to_codes(np.array([105, 105, 109]))


def test_a_users_token_depends_on_the_id_alone_and_lies_behind_the_codes() -> None:
    layout = TokenLayout(100, SIZES, 1, 0, users=1000)
    tokens = [layout.first_token(f"u{number}") for number in range(500)]
    assert tokens[:3] == [799, 242, 226], "the same on every machine: a bundle may be served elsewhere"
    assert min(tokens) >= 112
    assert max(tokens) < layout.vocabulary_size == 1112
    assert len(set(tokens)) > 350, "spread over all of them"
    assert layout.first_token(None) == TokenLayout(100, SIZES, 1, 0).first_token("u0") == layout.start
    assert layout.code_tokens == range(100, 112)


def test_histories_are_padded_on_the_left_and_start_with_the_start_token() -> None:
    layout = TokenLayout.from_scratch((3, 3))
    codes = np.array([[0, 0], [2, 1]])
    tokens, mask = write_histories([np.array([0, 1]), np.array([], int)], codes, layout)
    assert tokens.tolist() == [[1, 2, 5, 4, 6], [0, 0, 0, 0, 1]]
    assert mask.tolist() == [[True] * 5, [False] * 4 + [True]]
