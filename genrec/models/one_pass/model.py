"""OnePassModel: histories in, for every item of them a state that is asked for the next one.

In: the slots of a history's items. Out: states; compared with the slots of whole items (`dot_queries`, `keys`), or with code
embeddings, one head per code (`code_queries`). All three choices of docs/one_pass.md take this road; none needs more than one
forward pass.

Heads (RPG, arXiv 2506.05781): h_j = h + SiLU(W_j h + b_j), W_j zero at first; logits are cosines over a temperature.

Legend: `B` histories, `T` items of the longest, `S` slots per item, `L` codes per item, `K` codes of a level, `d` width, `n`
items, `M` states of a mixture, `R` rounds so far, `F` items found in each.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, silu

from genrec.errors import SettingError
from genrec.models.one_pass.adapters import Adapters
from genrec.models.one_pass.config import Shape
from genrec.models.one_pass.identifiers import IDENTIFIERS, Codes, Items
from genrec.models.one_pass.network import Encoder, attention_mask

ARCHITECTURE = "GenrecOnePass"  # in config.json, where a transformers model has its class
MODEL_TYPE = "genrec-one-pass"
STD = 0.02


class OnePassModel(nn.Module):
    """The network of a `Shape`, random weights (seed torch first). weights: [S], what each slot counts in a score. mixture:
    [M], what the state after the last item counts, the one before it, and so on."""

    weights: Tensor
    mixture: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, config, slots = shape, shape.config, shape.slots
        self.codes = Codes(shape) if config.uses_codes else None
        self.identifier = IDENTIFIERS[config.identifier](shape)
        self.start = nn.Parameter(torch.empty(slots, shape.width))
        by_slot = config.attention == "hybrid"
        self.places = nn.Embedding((shape.history + 1) * slots if by_slot else shape.history + 2, shape.width)
        self.queries = nn.Parameter(torch.empty(slots, shape.width)) if config.attention == "blocked" else None
        self.encoders = nn.ModuleList(Encoder(shape) for _ in range(slots if config.attention == "branches" else 1))
        self.adapters = Adapters(shape) if config.rounds > 1 else None
        if config.loss == "codes":
            self.head_weights = nn.Parameter(torch.zeros(len(shape.sizes), shape.width, shape.width))
            self.head_biases = nn.Parameter(torch.empty(len(shape.sizes), shape.width))
        self.register_buffer("weights", torch.full((slots,), 1 / slots))
        self.register_buffer("mixture", torch.eye(config.mixture)[0], persistent=config.mixture > 1)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1 and name != "head_weights":
                nn.init.normal_(parameter, std=STD)
        for module in self.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx].detach())
        for module in self.identifier.modules():
            if isinstance(module, nn.Linear):  # a perceptron of small weights would make all items look alike
                nn.init.xavier_uniform_(module.weight)

    def for_catalogue(self, items: int) -> "OnePassModel":
        """The same weights over another catalogue of `items` items. Raises `SettingError` where items have ids of their own."""
        if "id" in self.shape.config.parts:
            raise SettingError(
                f"This model learned a vector for each of its {self.shape.items} items, so it has none for others. Fit one "
                "with one_pass.parts without id, of the identifier 'pooled' or 'codes'."
            )
        other = OnePassModel(replace(self.shape, items=items))
        other.load_state_dict(self.state_dict())
        return other.eval()

    def tokens(self, items: Items) -> Tensor:
        """The slots of some items: [n, S, d]."""
        return self.identifier(items, self.codes)

    def states(self, tokens: Tensor) -> Tensor:
        """What is expected after 0, 1, ... T items: [B, 1 + T, S, d]. tokens: [B, T, S, d], padded on the right with anything,
        which changes no state before it.
        """
        batch, _, slots, width = tokens.shape
        x = torch.cat([self.start.expand(batch, 1, slots, width), tokens], dim=1)
        length, attention = x.shape[1], self.shape.config.attention
        place = torch.arange(length, device=x.device)
        if attention == "branches":
            mask = attention_mask("hybrid", length, 1).to(x.device)
            x = x + self.places(place)[:, None]
            return torch.stack([encoder(x[:, :, slot], mask) for slot, encoder in enumerate(self.encoders)], dim=2)
        mask = attention_mask(attention, length, slots).to(x.device)
        if attention == "hybrid":
            x = x.flatten(1, 2) + self.places(torch.arange(length * slots, device=x.device))
            return self.encoders[0](x, mask).view(batch, length, slots, width)
        # Siblings share a place, and so do the queries that stand behind one item: nothing tells their order.
        assert self.queries is not None
        x = x + self.places(place)[:, None]
        asked = (self.queries + self.places(place + 1)[:, None]).expand(batch, -1, -1, -1)
        states = self.encoders[0](torch.cat([x.flatten(1, 2), asked.flatten(1, 2)], dim=1), mask)
        return states[:, length * slots :].view(batch, length, slots, width)

    def later_state(self, tokens: Tensor, ends: Tensor, found: Tensor, earlier: Tensor) -> Tensor:
        """The state of a later round after `ends` items of each history, int64 [B]: [B, S, d]. tokens: [B, T, S, d]; found:
        slots of what the rounds before it found, [B, R, F, S, d]; earlier: their states, [B, R, S, d].
        """
        assert self.adapters is not None
        states = self.states(self.adapters.items(tokens, found))
        return self.adapters.users(states[torch.arange(len(ends), device=ends.device), ends], earlier)

    def dot_queries(self, states: Tensor) -> Tensor:
        """States [..., S, d] as what is multiplied with `keys`, slot by slot: cosine over temperature."""
        return normalize(states, dim=-1) / self.shape.config.temperature

    def weighed(self, queries: Tensor) -> Tensor:
        """Queries [..., S, d] with the weights of the slots, side by side: [..., S * d]."""
        return (queries * self.weights[:, None]).flatten(-2)

    def keys(self, tokens: Tensor) -> Tensor:
        """Slots of items [n, S, d] as what queries are multiplied with."""
        return normalize(tokens, dim=-1)

    def code_queries(self, states: Tensor) -> Tensor:
        """One query per code, [..., S, d] -> [..., L, d]: from the one state, or from the state of that code."""
        told = torch.einsum("...jd,jed->...je", states.expand(*states.shape[:-2], len(self.head_biases), -1), self.head_weights)
        return normalize(states + silu(told + self.head_biases), dim=-1) / self.shape.config.temperature

    def code_keys(self, level: int) -> Tensor:
        """What the query of a level is multiplied with: [K, d]."""
        assert self.codes is not None
        return normalize(self.codes.level(level), dim=-1)

    def code_log_probs(self, queries: Tensor) -> Tensor:
        """log P of every code of every level, one level after the other: [B, sum of K]. queries: [B, L, d]."""
        levels = range(len(self.shape.sizes))
        return torch.cat([linear(queries[:, level], self.code_keys(level)).log_softmax(-1) for level in levels], dim=1)

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        about = {"architectures": [ARCHITECTURE], "model_type": MODEL_TYPE, "shape": asdict(self.shape)}
        (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / "model.safetensors")

    @classmethod
    def load(cls, folder: Path, device: str | None = None) -> "OnePassModel":
        """Read what `save` wrote, ready to rank, on `device` (default: a GPU where there is one)."""
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model = cls(Shape.from_dict(about["shape"]))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
