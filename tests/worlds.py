"""Small random worlds for the decoding tests: models of several families, catalogues, and scoring by brute force; and tiny
stand-ins for pretrained models."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Snapshot
from genrec.models.tokens import TokenLayout
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

ALL = 4096  # a beam wider than any catalogue here
MAX_HISTORY = 6
FAMILIES = ("qwen3", "llama", "gpt2", "t5")
T5S = {
    "t5": (T5Config, T5ForConditionalGeneration),
    "mt5": (MT5Config, MT5ForConditionalGeneration),
    "umt5": (UMT5Config, UMT5ForConditionalGeneration),
}


@cache
def make_model(family: str, vocabulary: int, seed: int) -> PreTrainedModel:
    """A random model whose probabilities are far from uniform, so that wrong ones show."""
    torch.manual_seed(seed)
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32}
    if family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=vocabulary, hidden_size=16, head_dim=8, max_position_embeddings=64,
                                             tie_word_embeddings=True, **heads))  # fmt: skip
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, hidden_size=16, max_position_embeddings=64, **heads))
    elif family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=16, n_layer=2, n_head=2, n_positions=64,
                                         bos_token_id=1, eos_token_id=None))  # fmt: skip
    else:
        config, kind = T5S[family]
        model = kind(config(
            vocab_size=vocabulary, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0,
            relative_attention_num_buckets=8, relative_attention_max_distance=16))  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model.eval()


def make_ranker(
    sizes: tuple[int, ...],
    codes: np.ndarray,
    seed: int = 0,
    family: str = "qwen3",
    snapshot: Snapshot | None = None,
    spare: int = 3,
) -> BeamRanker:
    """spare: words of the vocabulary behind the codes, which take probability and never come back."""
    layout = TokenLayout.from_scratch(sizes)
    model = make_model(family, layout.vocabulary_size + spare, seed)
    return BeamRanker(model, layout, snapshot or Snapshot.of(codes, sizes), ALL, MAX_HISTORY)


def brute_force(
    ranker: BeamRanker, history: np.ndarray, codes: np.ndarray | None = None, first: int | list[int] | None = None
) -> np.ndarray:
    """log P(codes | history) of every row by one full forward pass each, full softmax, no code of the search: [R]. first: what
    the history begins with, if not the start token."""
    codes = ranker.snapshot.codes if codes is None else codes
    layout, model = ranker.layout, ranker.model
    past = [
        *np.atleast_1d(layout.start if first is None else first),
        *layout.to_tokens(codes[history[-ranker.max_history :]]).reshape(-1),
    ]
    targets = torch.from_numpy(layout.to_tokens(codes))
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            written = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], dim=1)
            logits = model(input_ids=torch.tensor([past] * len(targets)), decoder_input_ids=written).logits
        else:
            whole = torch.cat([torch.tensor([past] * len(targets)), targets], dim=1)
            logits = model(whole).logits[:, len(past) - 1 : -1]
    steps = logits.double().log_softmax(-1)
    return steps.gather(-1, targets.unsqueeze(-1)).squeeze(-1).sum(1).numpy()


def write_t5(folder: Path, own_output: bool = False) -> Path:
    """A tiny "pretrained" T5 with a text vocabulary of 50 words. own_output: with an output layer apart from its embeddings, as
    T5 v1.1, Flan-T5 and mT5 have."""
    torch.manual_seed(1)
    model = T5ForConditionalGeneration(T5Config(
        vocab_size=50, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0,
        tie_word_embeddings=not own_output, feed_forward_proj="gated-gelu" if own_output else "relu",
    ))  # fmt: skip
    if own_output:
        model.set_output_embeddings(torch.nn.Linear(32, 50, bias=False))
    model.save_pretrained(folder)
    words = {"<pad>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, 50)}
    spelling = Tokenizer(models.WordLevel(words, unk_token="w2"))
    PreTrainedTokenizerFast(tokenizer_object=spelling, pad_token="<pad>", eos_token="</s>").save_pretrained(folder)
    return folder


def write_llm(folder: Path, texts: Iterable[str], positions: int = 512, tied: bool = True, family: str = "qwen3") -> Path:
    """A tiny "pretrained" Qwen3 that can spell anything: byte pairs learned from `texts`, as Qwen3's own are learned from more.
    As there, the end token begins a history, and the model has more rows than its tokenizer has words. family: or "llama",
    which has a bos, or "gpt2"."""
    spelling = Tokenizer(models.BPE())
    spelling.pre_tokenizer, spelling.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words = {"eos_token": "<|end|>", "pad_token": "<|end|>"} | ({"bos_token": "<|begin|>"} if family == "llama" else {})
    special = list(dict.fromkeys(words.values()))
    learner = trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    spelling.train_from_iterator(texts, learner)
    PreTrainedTokenizerFast(tokenizer_object=spelling, **words).save_pretrained(folder)
    torch.manual_seed(1)
    shape = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": positions, "tie_word_embeddings": tied,
             "bos_token_id": 1 if family == "llama" else None, "eos_token_id": 0}  # fmt: skip
    model: PreTrainedModel
    if family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=2, n_positions=positions,
                                           bos_token_id=0, eos_token_id=0))  # fmt: skip
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape)) if family == "llama" else Qwen3ForCausalLM(Qwen3Config(**shape))
    with torch.no_grad():  # words far apart, measured in steps of training, as pretrained ones are
        model.get_input_embeddings().weight.mul_(10)
    model.save_pretrained(folder)
    return folder


@st.composite
def catalogues(draw: st.DrawFn, most: int = 24) -> tuple[tuple[int, ...], np.ndarray]:
    """Codes per level and the codes of the items, shared tuples included; 1 to 8 levels of different sizes."""
    sizes = tuple(
        draw(st.lists(st.integers(1, 6), min_size=1, max_size=4) | st.lists(st.integers(1, 3), min_size=5, max_size=8))
    )
    items = draw(st.integers(1, most))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    return sizes, random.integers(0, sizes, (items, len(sizes)))


def histories_for(draw: st.DrawFn, items: int) -> list[np.ndarray]:
    """1 to 4 histories, empty ones and ones longer than the model reads included."""
    lists = draw(st.lists(st.lists(st.integers(0, items - 1), max_size=MAX_HISTORY + 3), min_size=1, max_size=4))
    return [np.array(h, np.int64) for h in lists]


def assert_same_ranking(rows: np.ndarray, scores: np.ndarray, exact: np.ndarray, allowed: set[int]) -> None:
    """`rows` is the ranking of `allowed` by `exact` up to ties within rounding, filled up with -1."""
    found = rows[rows >= 0]
    assert len(set(found.tolist())) == len(found), "no item twice"
    assert set(found.tolist()) <= allowed, "nothing that is not allowed"
    np.testing.assert_allclose(scores[rows >= 0], exact[found], atol=2e-4, rtol=5e-5)
    assert (np.diff(scores[rows >= 0]) <= 0).all(), "best first"
    assert np.isneginf(scores[rows < 0]).all()
    best = np.sort(exact[sorted(allowed)])[::-1][: len(rows)]
    np.testing.assert_allclose(scores[rows >= 0], best, atol=2e-4, rtol=5e-5, err_msg="the best ones, and as many as there are")
