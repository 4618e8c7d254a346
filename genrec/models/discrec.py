"""DiscRec: a T5 that knows where items begin, with a branch of its own for what the codes of one item say together.

In: tokens of a history as the layout writes them, padded on the left. Out: what T5 gives, whose first layer reads a mixture of
two branches in place of plain embeddings. The semantic branch is the embeddings themselves. The collaborative branch adds the
place that a token has inside its item, and lets the codes of one item, and of no other, attend to one another. A gate mixes the
two, token by token. Encoder and decoder have branches of their own; T5's layers, the loss and the search are as without.

Source: DiscRec (arXiv 2506.15576), whose loss is that of the next codes alone. Other than there: [start] stands before the
items in the place of an end token behind them, and attends to no item; histories are padded on the left, so that none attends
to padding; the feed-forward block is two linear layers, where the published code has convolutions.

Legend: `B` histories, `T` tokens, `L` codes of an item, `H` hidden size.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration
from transformers import initialization as init
from transformers.models.t5.modeling_t5 import T5Stack

from genrec.errors import SettingError

HEADS = 2  # of the collaborative branch, as in the paper
BEGIN = 0  # the place of the decoder's first token; codes have 1 to L, and what stands before all items L + 1


class DiscRecConfig(T5Config):
    """A T5's, and: levels: codes of an item, L. lead: tokens before the first item. There is no cache of the decoder's keys."""

    model_type = "genrec-discrec"
    use_cache: bool = False
    levels: int = 4
    lead: int = 1


class Branches(nn.Module):
    """The two branches and the gate of one stack."""

    def __init__(self, config: DiscRecConfig) -> None:
        super().__init__()
        width = config.d_model
        self.places = nn.Embedding(config.levels + 2, width)
        self.norm, self.inner_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.inner, self.outer = nn.Linear(width, config.d_ff), nn.Linear(config.d_ff, width)
        self.gate = nn.Parameter(torch.zeros(2, width))  # of the semantic and of the collaborative branch

    def collaborative(self, semantic: Tensor, places: Tensor, visible: Tensor) -> Tensor:
        """The second branch: [B, T, H]. semantic: the first one; places, visible: see `places_of_history`."""
        x = self.norm(semantic + self.places(places))
        query, key, value = (
            layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        x = x + scaled_dot_product_attention(query, key, value, attn_mask=visible.unsqueeze(1)).transpose(1, 2).flatten(2)
        return x + self.outer(relu(self.inner(self.inner_norm(x))))

    def weights(self, semantic: Tensor, collaborative: Tensor) -> Tensor:
        """What either branch counts for a token: [B, T, 2], from 0 to 1, sums of 1."""
        return torch.stack([semantic @ self.gate[0], collaborative @ self.gate[1]], dim=-1).softmax(-1)

    def forward(self, semantic: Tensor, places: Tensor, visible: Tensor) -> Tensor:
        """What T5's layers read: [B, T, H]. semantic: embeddings [B, T, H]."""
        collaborative = self.collaborative(semantic, places, visible)
        counts = self.weights(semantic, collaborative)
        return counts[..., :1] * semantic + counts[..., 1:] * collaborative


def places_of_history(mask: Tensor, levels: int, lead: int) -> tuple[Tensor, Tensor]:
    """mask: [B, T], which tokens are there. Returns the place of each token inside its item, int64 [B, T], and who may see whom
    in the collaborative branch, bool [B, T, T]: the codes of one item one another, so what stands before the items. Items end
    with the last token that is there, so places are counted from it."""
    length = mask.shape[1]
    behind = mask.long().flip(1).cumsum(1).flip(1) - 1
    items = mask.bool() & (behind < mask.long().sum(1, keepdim=True) - lead)
    places = torch.where(items, levels - behind % levels, levels + 1)
    group = torch.where(items, behind // levels, torch.where(mask.bool(), length, length + 1))
    return places, group[:, :, None] == group[:, None]


def places_of_answer(like: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same for what the decoder writes: a token sees the codes before it, and its place is how many there are. like: [B, T,
    H]. mask: additive [B, 1, T, T], where beams stand side by side as blocks of their own; None for one answer a row."""
    if mask is None:
        length = like.shape[1]
        visible = torch.ones(length, length, dtype=torch.bool, device=like.device).tril().expand(len(like), -1, -1)
    else:
        visible = mask[:, 0] >= 0
    return BEGIN + visible.sum(-1) - 1, visible


def _check_decoder(mask: Tensor | None, cache: Any) -> None:
    """Refuse what would be read as something else."""
    if cache is not None and cache.get_seq_length() > 0:
        raise SettingError("A DiscRec decoder reads whole answers: it has no cache of its keys. Pass use_cache=False.")
    if mask is not None and mask.ndim != 4:
        raise SettingError(
            f"A DiscRec decoder takes no mask, or one for each query, additive [B, 1, T, T]; got {list(mask.shape)}. Leave "
            "decoder_attention_mask out: answers are not padded."
        )


class Drawn:
    """First weights as T5 draws them. Of classes that are not its own, transformers takes each module without weights of its
    own, such as T5's attention and its feed-forward blocks, for drawn already, and all their weights begin at a spread of 1."""

    def _initialize_weights(self, module: nn.Module, *_: Any) -> None:
        super()._initialize_weights(module)  # type: ignore[misc]


class DiscRecStack(Drawn, T5Stack):
    """T5's encoder or decoder, with branches before its first layer."""

    def __init__(self, config: DiscRecConfig) -> None:
        super().__init__(config)
        self.branches = Branches(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Branches):
            for name, weight in module.named_parameters():
                if name in ("places.weight", "gate"):
                    init.normal_(weight, std=0.02)  # a mixture of halves at first: a large gate would begin shut
                elif weight.ndim == 2:
                    init.normal_(weight, std=weight.shape[1] ** -0.5)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **more: Any,
    ) -> Any:
        """As T5's. The encoder takes a mask [B, T], the decoder none or one of its own for each query [B, 1, T, T]."""
        semantic = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if self.is_decoder:
            _check_decoder(attention_mask, more.get("past_key_values"))
            places, visible = places_of_answer(semantic, attention_mask)
        else:
            there = semantic.new_ones(semantic.shape[:2]) if attention_mask is None else attention_mask
            places, visible = places_of_history(there, self.config.levels, self.config.lead)
        return super().forward(attention_mask=attention_mask, inputs_embeds=self.branches(semantic, places, visible), **more)


class DiscRecForConditionalGeneration(Drawn, T5ForConditionalGeneration):
    """A T5 with branches in both stacks. It reads whole answers at every step: no cache of the decoder's own keys."""

    config_class = DiscRecConfig

    def __init__(self, config: DiscRecConfig) -> None:
        super().__init__(config)
        self.encoder, self.decoder = (DiscRecStack(cast(DiscRecConfig, stack.config)) for stack in (self.encoder, self.decoder))
        self.post_init()


AutoConfig.register(DiscRecConfig.model_type, DiscRecConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(DiscRecConfig, DiscRecForConditionalGeneration, exist_ok=True)
