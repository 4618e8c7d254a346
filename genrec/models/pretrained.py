"""Pretrained models: loaded, and grown by one row per code (and per token of users).

In: a `ModelConfig` that names a folder or a model of the hub. Out: a Hugging Face model and the `TokenLayout` that goes with
it. Words keep their rows and their meaning; codes get rows of their own behind them, in and out.
"""

import typing
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from genrec.errors import SettingError
from genrec.models.adapters import TYPES, keep_trainable, quantization_of, require_adapters, with_lora
from genrec.models.config import DECODER, ENCODER_DECODER, ModelConfig
from genrec.models.item_encoder import add_item_encoder
from genrec.models.tokens import TokenLayout
from genrec.models.user_adapter import add_user_adapter
from genrec.models.words import Texts, Words

# The optimiser's answer to "how far off was the random start of a new row": larger than the noise that breaks ties, smaller
# than the spread of the rows that the model knows.
NEW_ROW_NOISE = 0.02
NAME_TOKENS = 64  # of an item's text that its codes' rows begin with
# Encoder-decoders whose positions are distances, which is what the search over codes needs (decoding/steps.py).
RELATIVE = ("t5", "mt5", "umt5")
WANTED = {DECODER: "a causal language model", ENCODER_DECODER: f"a T5 (model types {', '.join(RELATIVE)})"}


@dataclass(frozen=True, eq=False)
class Named:
    """codes: int [N, L]. texts: what the N items are, in words."""

    codes: np.ndarray
    texts: Sequence[str]


def check_pretrained(config: ModelConfig) -> None:
    """Raise `SettingError` unless `config.pretrained`, if any, is there and of the architecture that is asked for, and
    `MissingDependencyError` where a package is missing. No weights are read: it can be asked early.
    """
    if config.pretrained is None:
        return
    require_adapters(config)
    try:
        found = AutoConfig.from_pretrained(config.pretrained)
    except (OSError, ValueError) as error:
        raise _not_there(config, error) from None
    if found.is_encoder_decoder != (config.architecture == ENCODER_DECODER):
        other = ENCODER_DECODER if found.is_encoder_decoder else DECODER
        raise SettingError(
            f"model.architecture is {config.architecture!r}, which takes {WANTED[config.architecture]}; {config.pretrained} is "
            f"of type {found.model_type!r}. Set model.architecture to {other!r}, or name another model."
        )
    if found.is_encoder_decoder and found.model_type not in RELATIVE:
        raise SettingError(
            f"An encoder-decoder must be {WANTED[ENCODER_DECODER]}, got {config.pretrained} of type {found.model_type!r}: the "
            "beams of a user share one sequence, which only relative positions allow."
        )
    if found.model_type not in TYPES:
        raise SettingError(
            f"{config.pretrained} is of type {found.model_type!r}, for which transformers has no language model: nobody could "
            "load a bundle of it. Name a causal language model, such as a Qwen3 or a Llama."
        )
    check_layers(found.get_text_config(decoder=True), config.pretrained)
    if getattr(found, "quantization_config", None) is not None:
        raise SettingError(
            f"The weights of {config.pretrained} are packed into fewer bits already, into which rows for the codes and "
            "adapters cannot be folded. Name the same model in full precision, and set model.quantization to '8bit' or '4bit'."
        )
    _layout(config, _text_tokenizer(config), 0, (1,))


def check_layers(config: PreTrainedConfig, name: str) -> None:
    """Raise `SettingError` for layers that keep a state in place of their past, which beams side by side would share."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds - {"full_attention", "sliding_attention"}:
        raise SettingError(
            f"Catalogue-constrained beam search needs attention layers; {name} has {sorted(kinds)}. "
            "Use a model with full attention, such as Qwen3, Llama or T5."
        )


def load_grown(
    config: ModelConfig, sizes: tuple[int, ...], max_tokens: int, named: Named | None = None, width: int = 0
) -> tuple[PreTrainedModel, TokenLayout]:
    """The pretrained model with one new row per new token, in and out, started near the mean of the known rows, or with
    `named` near those of the words of its items.

    With `lora_rank` > 0 the model comes wrapped by peft: adapters on every linear layer, and of the embeddings only the new
    rows trained; with an item encoder and no LoRA, these rows and the encoder alone. width: of the item vectors, which a user
    adapter or an item encoder reads. Raises as `check_pretrained`, and `SettingError` for a
    model too short for `max_tokens`.
    """
    assert config.pretrained is not None
    check_pretrained(config)
    kind = AutoModelForSeq2SeqLM if config.architecture == ENCODER_DECODER else AutoModelForCausalLM
    try:
        model: PreTrainedModel = kind.from_pretrained(
            config.pretrained, dtype=torch.float32, quantization_config=quantization_of(config)
        )
    except (OSError, ValueError) as error:
        raise _not_there(config, error) from None
    text_tokenizer = _text_tokenizer(config)
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and longest < max_tokens:
        raise SettingError(
            f"{config.pretrained} reads at most {longest} tokens; these histories need {max_tokens}. "
            f"Lower training.max_history to {(longest - config.lead - len(sizes)) // (config.queries or len(sizes))} or less."
        )
    layout = _layout(config, text_tokenizer, embedding_rows(model), sizes)
    words = None if named is None else word_shares(named, layout, text_tokenizer)
    tied = grow(model, layout, words)
    model.config.pad_token_id = layout.pad
    keep_trainable(model)
    add_user_adapter(model, config, width)
    add_item_encoder(model, config, width)
    if config.lora_rank or config.item_encoder:
        model = with_lora(model, layout, config, tied)
    return model, layout


def layout_alone(config: ModelConfig, sizes: tuple[int, ...]) -> tuple[TokenLayout, PreTrainedTokenizerBase]:
    """The layout that `load_grown` would give, and the text tokenizer, without reading the weights. Raises as
    `check_pretrained`."""
    assert config.pretrained is not None
    check_pretrained(config)
    text_tokenizer = _text_tokenizer(config)
    rows = AutoConfig.from_pretrained(config.pretrained).get_text_config().vocab_size
    return _layout(config, text_tokenizer, rows, sizes), text_tokenizer


def _text_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    try:
        found = AutoTokenizer.from_pretrained(config.pretrained)
        # Transformers makes up one for some model types, of special tokens and T5's sign for a space.
        if not any(word.strip("\u2581") for word in found.get_vocab().keys() - set(found.all_special_tokens)):
            raise ValueError("no tokenizer with words lies there")
        return found
    except (OSError, ValueError) as error:
        raise _not_there(config, error) from None


def _layout(config: ModelConfig, text_tokenizer: PreTrainedTokenizerBase, rows: int, sizes: tuple[int, ...]) -> TokenLayout:
    starts = [i for i in (text_tokenizer.bos_token_id, text_tokenizer.eos_token_id) if i is not None]
    if not starts:
        raise SettingError(f"The tokenizer of {config.pretrained} has neither a bos nor an eos token to start a history with.")
    pad = text_tokenizer.pad_token_id if text_tokenizer.pad_token_id is not None else starts[-1]
    start, more = starts[0], (config.user_tokens, config.user_index, config.soft_tokens, config.queries)
    return TokenLayout(rows, tuple(sizes), start, pad, *more)


def word_shares(named: Named, layout: TokenLayout, text_tokenizer: PreTrainedTokenizerBase) -> csr_array:
    """How much each word is in the items of each code: float32 [codes of all levels, known rows]. Every item of a code weighs
    the same, and every word of an item; the rows of codes without words are 0.
    """
    texts: Texts = Words(text_tokenizer, layout.base, NAME_TOKENS).texts(named.texts)
    there = np.flatnonzero(texts.lengths)
    weights = np.repeat(1 / texts.lengths[there], texts.lengths[there])
    words = csr_array((weights, texts.tokens, texts.indptr), (len(texts), layout.base))
    codes = (layout.to_tokens(named.codes[there]) - layout.base).reshape(-1)
    items = np.repeat(there, layout.levels)
    counts = np.bincount(codes, minlength=len(layout.code_tokens))
    members = csr_array((1 / counts[codes], (codes, items)), (len(layout.code_tokens), len(texts)))
    return (members @ words).astype(np.float32)


def grow(model: PreTrainedModel, layout: TokenLayout, words: csr_array | None = None) -> bool:
    """Give `model` the rows of the new tokens. words: where those of the codes begin, as `word_shares` gives it. Returns
    whether what goes in and what comes out are one matrix, as before."""
    known, output = layout.base, typing.cast(nn.Linear, model.get_output_embeddings())
    tied = output.weight is model.get_input_embeddings().weight
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the resize warns that mean_resizing is off; the rows are set right below
    model.resize_token_embeddings(layout.vocabulary_size, mean_resizing=False)
    logging.set_verbosity(verbosity)
    if not tied and model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        # T5 v1.1, Flan-T5 and mT5 have an output layer of their own, which transformers 5 ties whenever it resizes.
        own = nn.Linear(output.in_features, layout.vocabulary_size, bias=False, device=output.weight.device)
        own.weight.data[:known] = output.weight.data
        model.set_output_embeddings(own)
    matrices = [model.get_input_embeddings()] if tied else [model.get_input_embeddings(), model.get_output_embeddings()]
    with torch.no_grad():
        for matrix in matrices:
            weight = typing.cast(Tensor, matrix.weight)
            noise = torch.randn(len(weight) - known, weight.shape[1]).to(weight) * weight[:known].std(0) * NEW_ROW_NOISE
            start = weight[:known].mean(0).repeat(len(weight) - known, 1)
            if words is not None:
                told = np.flatnonzero(words.sum(axis=1))
                start[told] = torch.from_numpy(words[told] @ weight[:known].cpu().numpy()).to(weight)
            weight[known:] = start + noise
    return tied


def embedding_rows(model: PreTrainedModel) -> int:
    """Tokens that the model has rows for (some models have more rows than their tokenizer has words)."""
    return int(typing.cast(Tensor, model.get_input_embeddings().weight).shape[0])


def _not_there(config: ModelConfig, error: Exception) -> SettingError:
    return SettingError(
        f"model.pretrained must be the folder or hub name of {WANTED[config.architecture]} with its tokenizer, "
        f"got {config.pretrained!r}: {error}"
    )
