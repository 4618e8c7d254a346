"""The decoder language model: a Qwen3 from scratch, or a pretrained causal LM whose vocabulary grows by the codes.

In: a `ModelConfig` and the codes per level. Out: a Hugging Face model and the `TokenLayout` that goes with it.

    model, layout = build_decoder(ModelConfig(), sizes=(256, 256, 256, 12), max_tokens=256)
    model, layout = build_decoder(ModelConfig(pretrained="path/to/llm", lora_rank=16), sizes=..., max_tokens=...)
"""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from genrec.models.config import ModelConfig
from genrec.models.pretrained import Named, load_grown
from genrec.models.tokens import TokenLayout
from genrec.models.user_adapter import add_user_adapter


def build_decoder(
    config: ModelConfig, sizes: tuple[int, ...], max_tokens: int, named: Named | None = None, width: int = 0
) -> tuple[PreTrainedModel, TokenLayout]:
    """The model to train and its token layout. `max_tokens` is the longest sequence it will see. named: what the rows of a
    pretrained model's codes begin with, if not the mean of all words. width: of the item vectors, which a user adapter reads.
    Raises as `load_grown`."""
    if config.pretrained is None:
        layout = TokenLayout.from_scratch(sizes, index=config.user_index, soft=config.soft_tokens)
        model = from_scratch(config, layout, max_tokens)
        add_user_adapter(model, config, width)
        return model, layout
    return load_grown(config, sizes, max_tokens, named, width)


def from_scratch(config: ModelConfig, layout: TokenLayout, max_tokens: int) -> PreTrainedModel:
    """A Qwen3 with random weights (seed torch first) and embeddings tied to the output layer."""
    architecture = Qwen3Config(
        vocab_size=layout.vocabulary_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.feed_forward,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        head_dim=config.head_width,
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
    words |= {f"<user_{number}>": layout.code_tokens.stop + number for number in range(layout.users)}
    if layout.index:
        words["<unknown_user>"] = first = layout.unknown_user
        for level, size in enumerate(layout.index):
            words |= {f"<u{level}_{code}>": first + 1 + sum(layout.index[:level]) + code for code in range(size)}
    spelling = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    spelling.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=spelling, pad_token="<pad>", bos_token="<start>").save_pretrained(folder)
