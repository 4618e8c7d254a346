"""The three choices of a one-pass recommender, their settings, and the shape of one network.

In: the recipe's section `one_pass`. Out: a checked `OnePassConfig`; with the sizes of a catalogue it makes a `Shape`, which
says all that is needed to build the network again.

Legend: `N` items, `L` codes per item, `S` slots per item, `D` vector width, `d` hidden width.
"""

from dataclasses import dataclass
from typing import Any, Literal

from genrec.errors import SettingError, check_choice, check_integer

Identifier = Literal["pooled", "codes", "set", "dual"]
Attention = Literal["hybrid", "blocked", "branches"]
Loss = Literal["items", "slots", "codes"]
PARTS = {"pooled": ("codes", "id", "vectors"), "codes": ("codes", "vectors"), "set": ("vectors",), "dual": ("codes", "id")}


@dataclass(frozen=True)
class OnePassConfig:
    """identifier: what an item looks like going in, "pooled", "codes", "set" or "dual" (docs/one_pass.md). parts: what it is
    made of, of "codes", "id" and "vectors"; empty for all that the identifier takes. try_without_vectors: train once more with
    the other parts of "pooled" alone, and keep what has the better validation; twice the training. attention: "hybrid",
    "blocked" or "branches". loss: what is asked after each item, "items", "slots" or "codes".
    temperature: that cosines are divided by. sampled: items drawn for each step's softmax over items, 0 for the softmax over
    the whole catalogue. shared_codes: a code means the same at every place, as FSQ's do, and has one embedding for all.
    cold_id: the id of an item without training events, "zero", or "shared" (one learned row for all of them). id_dropout:
    share of items that a training step sees without id and collaborative vector, so that the model knows such items.
    set_tokens: semantic tokens of "set". reconstruction: weight of its auto-encoder's loss. semantic_weight: of the semantic
    slots in the score with the loss "slots", from 0 to 1; "auto" chooses it on validation.
    item_alignment, user_alignment: weights of the contrastive losses of "dual", between the two sides of an item and the two
    states of a user. mask_share: share of codes hidden for the second.
    widths: numbers of a state and of an item that must do alone, the first so many, each below model.hidden_size: one training
    makes a recommender of each (Matryoshka, arXiv 2205.13147 and 2409.16627); empty for the whole only.
    filter_weight: share of a low-pass over time in each block, beside attention (BSARec, arXiv 2312.10325), 0 for none.
    frequencies: how many it counts as low, the constant included.
    mixture: states of a user that speak together, those after the last so many items; 1 for the one after the last item. The
    score is then the logarithm of the weighed mean of their probabilities. mixture_decay: what a state weighs beside the one
    after it, from 0 (nothing) to 1 (the same); "auto" chooses it on validation.
    rounds: searches that an answer is made of (Ada-Retrieval, arXiv 2401.06633), each but the first reading the history in the
    light of what was found before; 1 for one search. round_items: items that each round but the last gives. round_weight: what
    the loss of a round counts beside that of the round before it.
    """

    identifier: Identifier = "pooled"
    parts: tuple[str, ...] = ()
    try_without_vectors: bool = False
    attention: Attention = "hybrid"
    loss: Loss = "items"
    temperature: float = 0.07
    sampled: int = 0
    shared_codes: bool = False
    cold_id: Literal["zero", "shared"] = "zero"
    id_dropout: float = 0.0
    set_tokens: int = 4
    reconstruction: float = 0.7
    semantic_weight: float | Literal["auto"] = "auto"
    item_alignment: float = 0.0
    user_alignment: float = 0.0
    mask_share: float = 0.2
    widths: tuple[int, ...] = ()
    filter_weight: float = 0.0
    frequencies: int = 3
    mixture: int = 1
    mixture_decay: float | Literal["auto"] = "auto"
    rounds: int = 1
    round_items: int = 5
    round_weight: float = 0.3

    def __post_init__(self) -> None:
        check_choice("one_pass.identifier", self.identifier, list(PARTS))
        check_choice("one_pass.attention", self.attention, ["hybrid", "blocked", "branches"])
        check_choice("one_pass.loss", self.loss, ["items", "slots", "codes"])
        check_choice("one_pass.cold_id", self.cold_id, ["zero", "shared"])
        object.__setattr__(self, "parts", tuple(self.parts) or PARTS[self.identifier])
        for part in self.parts:
            check_choice(f"one_pass.parts of the identifier {self.identifier!r}", part, PARTS[self.identifier])
        if self.identifier != "pooled" and "codes" in PARTS[self.identifier] and "codes" not in self.parts:
            raise SettingError(f"The identifier {self.identifier!r} is made of codes: one_pass.parts must name 'codes'.")
        if self.identifier == "dual" and "id" not in self.parts:
            raise SettingError("The identifier 'dual' needs codes and id. Leave one_pass.parts out.")
        if self.try_without_vectors and (self.identifier != "pooled" or "vectors" not in self.parts or len(self.parts) == 1):
            raise SettingError(
                "one_pass.try_without_vectors needs the identifier 'pooled' and one_pass.parts of 'vectors' and at least one "
                f"other, got {self.identifier!r} of {list(self.parts)}. Leave it out."
            )
        check_integer("one_pass.sampled", self.sampled, 0)
        check_integer("one_pass.set_tokens", self.set_tokens, 1)
        if not self.temperature > 0:
            raise SettingError(f"one_pass.temperature must be above 0, got {self.temperature}.")
        for name in ("id_dropout", "mask_share"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(f"one_pass.{name} must be from 0 to below 1, got {getattr(self, name)}.")
        for name in ("reconstruction", "item_alignment", "user_alignment"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"one_pass.{name} must be 0 or more, got {getattr(self, name)}.")
        if self.semantic_weight != "auto" and not 0 <= self.semantic_weight <= 1:
            raise SettingError(f"one_pass.semantic_weight must be 'auto' or from 0 to 1, got {self.semantic_weight}.")
        if not 0 <= self.filter_weight < 1:
            raise SettingError(f"one_pass.filter_weight must be from 0 to below 1, got {self.filter_weight}.")
        check_integer("one_pass.frequencies", self.frequencies, 1)
        check_integer("one_pass.mixture", self.mixture, 1)
        if self.mixture_decay != "auto" and not 0 <= self.mixture_decay <= 1:
            raise SettingError(f"one_pass.mixture_decay must be 'auto' or from 0 to 1, got {self.mixture_decay}.")
        check_integer("one_pass.rounds", self.rounds, 1)
        check_integer("one_pass.round_items", self.round_items, 1)
        if not self.round_weight > 0:
            raise SettingError(f"one_pass.round_weight must be above 0, got {self.round_weight}.")
        for width in self.widths:
            check_integer("one_pass.widths (each)", width, 1)
        object.__setattr__(self, "widths", tuple(sorted(set(self.widths))))
        self._check_together()

    def _check_together(self) -> None:
        """Refuse what each choice allows and all together do not."""
        if self.loss == "codes" and self.identifier not in ("pooled", "codes"):
            raise SettingError(
                f"one_pass.loss 'codes' asks for codes from one state, or from one per code: the identifier must be 'pooled' "
                f"or 'codes', got {self.identifier!r}. Choose 'items' or 'slots'."
            )
        if self.loss == "slots" and self.identifier == "pooled":
            raise SettingError("one_pass.loss 'slots' asks every slot, and the identifier 'pooled' has one. Choose 'items'.")
        if self.loss == "codes" and self.sampled:
            raise SettingError("one_pass.sampled draws items, and the loss 'codes' asks for codes. Leave it out.")
        if self.loss == "codes" and self.widths:
            raise SettingError("one_pass.widths cut vectors of items, and the loss 'codes' asks for codes. Leave it out.")
        single = self.attention == "branches" or (self.identifier == "pooled" and self.attention == "hybrid")
        if self.filter_weight and not single:
            raise SettingError(
                "one_pass.filter_weight filters one state per item: it needs the identifier 'pooled' with the attention "
                f"'hybrid', or the attention 'branches', got {self.identifier!r} with {self.attention!r}. Leave it out."
            )
        if self.mixture == 1 and self.mixture_decay != "auto":
            raise SettingError("one_pass.mixture_decay weighs the states of a mixture. Set one_pass.mixture above 1.")
        if self.rounds > 1:
            self._check_rounds()
        if self.cold_id == "shared" and not self.id_dropout:
            raise SettingError("one_pass.cold_id 'shared' is learned where ids are hidden. Set one_pass.id_dropout above 0.")
        if (self.item_alignment or self.user_alignment) and self.identifier != "dual":
            raise SettingError("one_pass.item_alignment and user_alignment are of the identifier 'dual'. Leave them out.")

    def check_frequencies(self, history: int) -> None:
        """Refuse more frequencies than a history of so many items has, the start item included."""
        most = (history + 1) // 2 + 1
        if self.filter_weight and self.frequencies > most:
            raise SettingError(
                f"one_pass.frequencies must be at most {most} where training.max_history is {history}, got {self.frequencies}."
            )

    def _check_rounds(self) -> None:
        """Refuse what answers of several rounds cannot have."""
        reasons = {
            "loss 'codes'": (self.loss == "codes", "a round reads the items that the one before found, as whole items"),
            "sampled": (self.sampled > 0, "a training step searches the whole catalogue, as serving does"),
            "widths": (bool(self.widths), "the adapters of a round need the whole state"),
            "mixture": (self.mixture > 1, "a round has one state"),
        }
        for name, (chosen, why) in reasons.items():
            if chosen:
                raise SettingError(f"one_pass.rounds above 1 and one_pass.{name} do not go together: {why}. Leave one out.")

    def check_widths(self, hidden: int) -> None:
        """Refuse widths that are none of a network of width `hidden`."""
        if self.widths and self.widths[-1] >= hidden:
            raise SettingError(
                f"one_pass.widths must be below model.hidden_size, {hidden}, which is always trained, got {self.widths[-1]}. "
                "Leave it out, or make the network wider."
            )

    @property
    def uses_codes(self) -> bool:
        """Whether codes have embeddings here."""
        return "codes" in self.parts or self.loss == "codes"


@dataclass(frozen=True)
class Shape:
    """config: the choices. sizes: codes per level, `L` numbers. items: `N`, rows of the id table. content, collaborative:
    widths of the two parts of an item's vector, `D` together. history: items that the model reads. The rest: the network, as
    in `ModelConfig`.
    """

    config: OnePassConfig
    sizes: tuple[int, ...]
    items: int
    content: int
    collaborative: int
    history: int
    width: int = 128
    layers: int = 2
    heads: int = 2
    feed_forward: int = 512
    dropout: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if self.config.identifier == "set" and not (self.content and self.collaborative):
            raise SettingError(
                "The identifier 'set' has a collaborative token and semantic ones, so the item vectors must have both parts. "
                "Set text.collaborative_width above 0."
            )
        self.config.check_widths(self.width)
        self.config.check_frequencies(self.history)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of a vector that were trained to do alone, the whole vector last."""
        return (*self.config.widths, self.width)

    @property
    def slots(self) -> int:
        """`S`, vectors per item."""
        return {"pooled": 1, "codes": len(self.sizes), "set": 1 + self.config.set_tokens, "dual": 2}[self.config.identifier]

    @property
    def places_per_item(self) -> int:
        """Positions that attention spends on an item: what a step costs."""
        return self.slots * (2 if self.config.attention == "blocked" else 1)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Shape":
        """What `dataclasses.asdict` made, perhaps through JSON."""
        return cls(**{**values, "config": OnePassConfig(**values["config"])})
