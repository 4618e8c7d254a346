"""The encoder-decoder language model: a T5 from scratch, or a pretrained T5 whose vocabulary grows by the codes.

In: a `ModelConfig` and the codes per level. Out: a Hugging Face model and the `TokenLayout` that goes with it. The encoder
reads `[start] codes codes ...` of a history (or a user's token for [start]), the decoder writes the codes of the next item and
nothing else. Source of the shape: TIGER (arXiv 2305.05065), whose transformer is a T5 (arXiv 1910.10683).

    model, layout = build_encoder_decoder(ModelConfig("encoder-decoder"), sizes=(256, 256, 256, 12))
"""

from typing import Any

from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from genrec.models.config import ModelConfig
from genrec.models.discrec import DiscRecConfig, DiscRecForConditionalGeneration
from genrec.models.pretrained import Named, load_grown
from genrec.models.tokens import TokenLayout
from genrec.models.user_adapter import add_user_adapter


def build_encoder_decoder(
    config: ModelConfig, sizes: tuple[int, ...], max_tokens: int = 0, named: Named | None = None, width: int = 0
) -> tuple[PreTrainedModel, TokenLayout]:
    """The model to train and its token layout. `max_tokens`, `named` and `width` as in `build_decoder`. Raises as
    `load_grown`."""
    if config.pretrained is None:
        layout = TokenLayout.from_scratch(sizes, config.user_tokens, config.user_index, config.soft_tokens)
        model = from_scratch(config, layout)
        add_user_adapter(model, config, width)
        return model, layout
    model, layout = load_grown(config, sizes, max_tokens, named, width)
    if model.config.decoder_start_token_id is None:
        model.config.decoder_start_token_id = layout.pad  # as T5 was trained
    return model, layout


def from_scratch(config: ModelConfig, layout: TokenLayout) -> PreTrainedModel:
    """A T5 with random weights (seed torch first), as many layers in either stack, embeddings tied to the output layer.

    Positions are distances, so it has no longest sequence. `discrec` puts branches before either stack. Its
    decoder begins with the pad token, as T5's do.
    """
    shape: dict[str, Any] = {
        "vocab_size": layout.vocabulary_size,
        "d_model": config.hidden_size,
        "d_kv": config.head_width,
        "d_ff": config.feed_forward,
        "num_layers": config.layers,
        "num_heads": config.heads,
        "dropout_rate": config.dropout,
        "pad_token_id": layout.pad,
        "eos_token_id": None,
    }
    model: T5ForConditionalGeneration
    if config.discrec:
        with_items = DiscRecConfig(**shape, levels=layout.levels, lead=layout.lead)
        with_items.decoder_start_token_id = layout.pad
        model = DiscRecForConditionalGeneration(with_items)
    else:
        plain = T5Config(**shape)
        plain.decoder_start_token_id = layout.pad
        model = T5ForConditionalGeneration(plain)
    model._keys_to_ignore_on_save = list(model._tied_weights_keys)  # or the Trainer warns of a head that is tied anyway
    return model
