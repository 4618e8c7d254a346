"""The decoder language model: a Qwen3 from scratch, or a pretrained causal LM whose vocabulary grows by the codes.

In: a `ModelConfig` and the codes per level. Out: a Hugging Face model and the `TokenLayout` that goes with it.

    model, layout = build_decoder(ModelConfig(), sizes=(256, 256, 256, 12), max_tokens=256)
    model, layout = build_decoder(ModelConfig(pretrained="path/to/llm", lora_rank=16), sizes=..., max_tokens=...)
"""

import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from genrec.errors import MissingDependencyError, SettingError, check_choice, check_integer
from genrec.models.tokens import TokenLayout

# The optimiser's answer to "how far off was the random start of a new row": larger than the noise that breaks ties, smaller
# than the spread of the rows that the model knows.
NEW_ROW_NOISE = 0.02


@dataclass(frozen=True)
class ModelConfig:
    """family: "decoder", a language model that writes codes, or "one-pass", a network that scores all items at once (its own
    settings are in the section one_pass). pretrained: folder or hub name of a causal LM, or None for a Qwen3 from scratch.
    lora_rank: rank of the LoRA adapters of a pretrained model; 0 trains all its weights.
    hidden_size: width of a model from scratch. layers: its depth. heads: attention heads per layer. feed_forward: width of
    its feed-forward blocks. dropout: attention and residual
    dropout of a model from scratch, and the dropout of LoRA adapters.
    """

    family: Literal["decoder", "one-pass"] = "decoder"
    pretrained: str | None = None
    lora_rank: int = 16
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 512
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_choice("model.family", self.family, ["decoder", "one-pass"])
        for name in ("hidden_size", "layers", "heads", "feed_forward"):
            check_integer(name, getattr(self, name), 1)
        check_integer("lora_rank", self.lora_rank, 0)
        if self.hidden_size % (2 * self.heads):
            raise SettingError(
                f"hidden_size must be a multiple of 2 * heads, got hidden_size {self.hidden_size} with {self.heads} heads."
            )
        if not 0 <= self.dropout < 1:
            raise SettingError(f"dropout must be from 0 to below 1, got {self.dropout}.")


def build_decoder(config: ModelConfig, sizes: tuple[int, ...], max_tokens: int) -> tuple[PreTrainedModel, TokenLayout]:
    """The model to train and its token layout. `max_tokens` is the longest sequence it will see."""
    if config.pretrained is None:
        layout = TokenLayout.from_scratch(sizes)
        return from_scratch(config, layout, max_tokens), layout
    return from_pretrained(config, sizes, max_tokens)


def from_scratch(config: ModelConfig, layout: TokenLayout, max_tokens: int) -> PreTrainedModel:
    """A Qwen3 with random weights (seed torch first) and embeddings tied to the output layer."""
    head = config.hidden_size // config.heads
    architecture = Qwen3Config(
        vocab_size=layout.vocabulary_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.feed_forward,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        head_dim=head,
        max_position_embeddings=max_tokens,
        attention_dropout=config.dropout,
        tie_word_embeddings=True,
        pad_token_id=layout.pad,
        bos_token_id=layout.start,
        eos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    model = Qwen3ForCausalLM(architecture)
    model._keys_to_ignore_on_save = list(model._tied_weights_keys)  # or the Trainer warns of a head that is tied anyway
    if config.dropout:
        add_residual_dropout(model, config.dropout)
    return model


def add_residual_dropout(model: PreTrainedModel, rate: float) -> None:
    """Dropout on the embeddings and after every attention and feed-forward block, which Qwen3 has no setting for.

    Forward hooks leave the module tree, and so the checkpoint, as plain Qwen3: the saved model needs no code of ours.
    """

    def drop(module: nn.Module, _: tuple, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        if isinstance(output, tuple):
            return (nn.functional.dropout(output[0], rate, module.training), *output[1:])
        return nn.functional.dropout(output, rate, module.training)

    decoder = model.get_decoder()
    decoder.embed_tokens.register_forward_hook(drop)
    for layer in decoder.layers:
        layer.self_attn.register_forward_hook(drop)
        layer.mlp.register_forward_hook(drop)


def from_pretrained(config: ModelConfig, sizes: tuple[int, ...], max_tokens: int) -> tuple[PreTrainedModel, TokenLayout]:
    """A pretrained causal LM with one new row per code, in and out, started near the mean of the known rows.

    With `lora_rank` > 0 the model comes wrapped by peft: adapters on every linear layer, and of the embeddings only the new
    rows trained. Raises `SettingError` for a model that is not there or too short for `max_tokens`.
    """
    assert config.pretrained is not None
    if config.lora_rank:
        require_peft()
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(config.pretrained, dtype=torch.float32)
        text_tokenizer = AutoTokenizer.from_pretrained(config.pretrained)
    except (OSError, ValueError) as error:
        raise SettingError(
            f"model.pretrained must be the folder or hub name of a causal language model with its tokenizer, "
            f"got {config.pretrained!r}: {error}"
        ) from None
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and longest < max_tokens:
        raise SettingError(
            f"{config.pretrained} reads at most {longest} tokens; these histories need {max_tokens}. "
            f"Lower training.max_history to {(longest - 1) // len(sizes) - 1} or less."
        )
    known = embedding_rows(model)
    starts = [i for i in (text_tokenizer.bos_token_id, text_tokenizer.eos_token_id) if i is not None]
    if not starts:
        raise SettingError(f"The tokenizer of {config.pretrained} has neither a bos nor an eos token to start a history with.")
    pad = text_tokenizer.pad_token_id if text_tokenizer.pad_token_id is not None else starts[-1]
    layout = TokenLayout(known, tuple(sizes), starts[0], pad)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the resize warns that mean_resizing is off; the rows are set right below
    model.resize_token_embeddings(layout.vocabulary_size, mean_resizing=False)
    logging.set_verbosity(verbosity)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    matrices: list[nn.Module] = (
        [model.get_input_embeddings()] if tied else [model.get_input_embeddings(), model.get_output_embeddings()]
    )
    with torch.no_grad():
        for matrix in matrices:
            weight = typing.cast(torch.Tensor, matrix.weight)
            noise = torch.randn(sum(sizes), weight.shape[1]) * weight[:known].std(0) * NEW_ROW_NOISE
            weight[known:] = weight[:known].mean(0) + noise
    model.config.pad_token_id = layout.pad
    if config.lora_rank:
        model = with_lora(model, layout, config, tied)
    return model, layout


def embedding_rows(model: PreTrainedModel) -> int:
    """Tokens that the model has rows for (some models have more rows than their tokenizer has words)."""
    return int(typing.cast(torch.Tensor, model.get_input_embeddings().weight).shape[0])


def with_lora(model: PreTrainedModel, layout: TokenLayout, config: ModelConfig, tied: bool) -> PreTrainedModel:
    """`model` under peft: LoRA on the linear layers, the new token rows trained in full, everything else frozen."""
    from peft import LoraConfig, get_peft_model

    rows = list(layout.code_tokens)
    modules = {name.rsplit(".", 1)[-1]: module for name, module in model.named_modules()}
    embedding = next(n for n, m in modules.items() if m is model.get_input_embeddings())
    head = next(n for n, m in modules.items() if m is model.get_output_embeddings())
    trainable = {embedding: rows} if tied else {embedding: rows, head: rows}
    adapters = LoraConfig(
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank,
        lora_dropout=config.dropout,
        target_modules="all-linear",
        trainable_token_indices=trainable,
        task_type="CAUSAL_LM",
    )
    return typing.cast(PreTrainedModel, get_peft_model(model, adapters))  # it forwards everything a model has


def require_peft() -> None:
    """Raise `MissingDependencyError` where peft is missing: LoRA asked for must never become a full fine-tune."""
    try:
        import peft  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "model.lora_rank is above 0, and LoRA needs the package peft, which is not installed. Install it with "
            "`pip install peft`, or set model.lora_rank to 0 to train all weights (slower, more memory)."
        ) from None


def merged(model: nn.Module) -> PreTrainedModel:
    """The plain model to save: adapters and new rows folded into the weights; a model without adapters as it is."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model  # type: ignore[operator,return-value]


def save_text_tokenizer(config: ModelConfig, layout: TokenLayout, folder: Path) -> None:
    """Write the text tokenizer that transformers and vLLM expect beside the weights.

    A model from scratch gets a word-level one that spells its codes (`<c0_12> <c1_7> ...`), for people to look at; a
    pretrained model keeps its own untouched: codes are never text there.
    """
    if config.pretrained is not None:
        AutoTokenizer.from_pretrained(config.pretrained).save_pretrained(folder)
        return
    from transformers import PreTrainedTokenizerFast

    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<pad>": layout.pad, "<start>": layout.start}
    for level, size in enumerate(layout.sizes):
        words |= {layout.name(level, code): int(layout.offsets[level]) + code for code in range(size)}
    spelling = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    spelling.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=spelling, pad_token="<pad>", bos_token="<start>").save_pretrained(folder)
