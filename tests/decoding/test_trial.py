"""The trial before a search: a model that reads beams side by side as it reads each alone is taken, any other is refused."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM as CausalLM
from transformers import (
    BloomConfig,
    ElectraConfig,
    Gemma2Config,
    GPTNeoConfig,
    MistralConfig,
    MptConfig,
    OlmoeConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RwkvConfig,
)
from worlds import MAX_HISTORY, T5S, assert_same_ranking, brute_force, make_model, make_ranker

from genrec.data.interactions import Histories
from genrec.decoding import trial
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Snapshot
from genrec.decoding.trial import try_steps
from genrec.errors import SettingError
from genrec.models.tokens import TokenLayout

SIZES = (4, 5, 3)
LAYOUT = TokenLayout.from_scratch(SIZES)
CODES = np.random.default_rng(0).integers(0, SIZES, (30, 3))
WORDS = {"vocab_size": LAYOUT.vocabulary_size}
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 4, "num_key_value_heads": 1}  # all: rounding cannot choose another
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def gpt_neo(window: int) -> GPTNeoConfig:
    return GPTNeoConfig(**WORDS, hidden_size=16, num_layers=2, num_heads=2, attention_types=[[["global", "local"], 1]],
                        window_size=window, max_position_embeddings=64)  # fmt: skip


def made(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = CausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim > 1:
            parameter.mul_(4)
    return model


@pytest.mark.parametrize(
    "config",
    [
        OlmoeConfig(**WORDS, **SHAPE, **MIXTURE),
        MistralConfig(**WORDS, **SHAPE, num_key_value_heads=1),
        # Small logits hide their cap.
        Gemma2Config(**WORDS, **SHAPE, num_key_value_heads=1, head_dim=8, pad_token_id=0, final_logit_softcapping=8.0),
    ],
    ids=lambda config: config.model_type,
)
def test_a_model_that_passes_is_decoded_exactly(config: PreTrainedConfig) -> None:
    ranker = BeamRanker(made(config).eval(), LAYOUT, Snapshot.of(CODES, SIZES), 4096, MAX_HISTORY)
    histories = [np.array([3, 4, 3, 9, 9, 1]), np.array([7]), np.zeros(0, np.int64)]
    rows, scores = ranker.rank(Histories.from_lists(histories), 30, exclude_seen=False)
    for history, found, found_scores in zip(histories, rows, scores, strict=True):
        assert_same_ranking(found, found_scores, brute_force(ranker, history), set(range(30)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RwkvConfig(**WORDS, hidden_size=16, num_hidden_layers=2, attention_hidden_size=16), "would not decode exactly"),
        (MptConfig(**WORDS, d_model=16, n_layers=2, n_heads=2, max_seq_len=64), "would not decode exactly"),
        (gpt_neo(window=50), "counts its windows and places by what lies in the cache"),
        (BloomConfig(**WORDS, hidden_size=16, n_layer=2, n_head=2), "cannot read the beams of a user side by side"),
        (MistralConfig(**WORDS, **SHAPE, num_key_value_heads=1, sliding_window=5), "attends to the last 5 tokens"),
        (ElectraConfig(**WORDS, **SHAPE, is_decoder=True), "changes its logits"),
    ],
    ids=["state", "places from the end", "window", "other calls", "window of all layers", "head of another width"],
)
def test_a_model_that_would_be_decoded_to_wrong_scores_is_refused(config: PreTrainedConfig, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        BeamRanker(made(config), LAYOUT, Snapshot.of(CODES, SIZES), 8, MAX_HISTORY)


@pytest.mark.parametrize("family", ["qwen3", "gpt2", *T5S])
@pytest.mark.parametrize("sizes", [(7,), (4, 5), SIZES])
def test_a_right_model_is_far_from_being_refused(family: str, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is being trained, and stays so; one that draws neurons to drop would seem to say other things each time."""
    monkeypatch.setattr(trial, "TOLERANCE", 1e-5)
    layout = TokenLayout.from_scratch(sizes)
    model = make_model(family, layout.vocabulary_size, 0).train()
    try_steps(model, layout, 1)
    try_steps(model, layout, MAX_HISTORY)
    assert model.training
    model.eval()


def test_under_adapters_the_model_is_named_and_not_its_wrapper() -> None:
    model = get_peft_model(made(gpt_neo(window=5)), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(SettingError, match="^GPTNeoForCausalLM would not decode exactly"):
        BeamRanker(model, LAYOUT, Snapshot.of(CODES, SIZES), 8, MAX_HISTORY)  # type: ignore[arg-type]


def test_places_from_the_end_are_found_with_two_levels_too() -> None:
    layout = TokenLayout.from_scratch((4, 5))
    model = made(MptConfig(vocab_size=layout.vocabulary_size, d_model=16, n_layers=2, n_heads=2, max_seq_len=64))
    with pytest.raises(SettingError, match="would not decode exactly"):
        try_steps(model, layout, MAX_HISTORY)
    try_steps(made(MistralConfig(**WORDS, **SHAPE, num_key_value_heads=1)).bfloat16(), LAYOUT, MAX_HISTORY)


def test_a_model_whose_training_diverged_is_not_said_to_be_of_another_kind() -> None:
    model = made(MistralConfig(**WORDS, **SHAPE, num_key_value_heads=1))
    model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(SettingError, match="not finite: its training has diverged"):
        try_steps(model, LAYOUT, MAX_HISTORY)


def test_no_memory_is_not_said_to_be_the_models_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(trial, "start", full)
    with pytest.raises(torch.OutOfMemoryError):
        make_ranker(SIZES, CODES)
