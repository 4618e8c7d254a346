"""Settings of the language model: which architecture, from scratch or pretrained, how large."""

from dataclasses import dataclass
from typing import Literal

from genrec.errors import SettingError, check_choice, check_integer

POOLINGS = ("attention", "mean")  # of the user adapter
DECODER, ENCODER_DECODER, ONE_PASS = ARCHITECTURES = ("decoder", "encoder-decoder", "one-pass")


@dataclass(frozen=True)
class ModelConfig:
    """architecture: "decoder" (one stack reads the history and writes the codes, a Qwen3 from scratch) or "encoder-decoder"
    (one reads, another writes, a T5 from scratch as in TIGER); or "one-pass", a network that scores all items at once and has
    more settings in the section one_pass.
    pretrained: folder or hub name of a causal LM, or of a T5 for an encoder-decoder; None for a model from scratch.
    lora_rank: rank of the LoRA adapters of a pretrained model; 0 trains all its weights (with item_encoder, none but the new
    rows). dora: whether the adapters are DoRA's, which learn the length of each weight vector apart.
    quantization: bits of the weights that LoRA leaves as they are, "8bit" or "4bit" (QLoRA; needs the extra quantization),
    None for 32; the saved model has 32 either way. new_rows: where the rows of the codes begin: in a pretrained model at
    the "mean" of all words, or each at the mean of the words in the "text" of its items; in one from scratch at random
    ("mean"), or each at the mean of the "vectors" of its items.
    hidden_size: width of a model from scratch. layers: its depth; an encoder-decoder has so many layers in each stack.
    heads: attention heads per layer. head_size: width of a head; None for hidden_size / heads. feed_forward: width of its
    feed-forward blocks. discrec: whether an encoder-decoder from scratch mixes what the codes of an item say together into
    what it reads (DiscRec). user_tokens: tokens that user ids are hashed onto, one of which an encoder-decoder reads before
    the items; 0 for none (TIGER has 2000). user_index: codes per level of an index of users, such as [32, 32]: what all
    items of a history have in common, as one token a level before the items; empty for none. user_adapter: how the items
    before those that the model reads become soft tokens of their user, pooled by "attention" or by their "mean"; None for
    no such tokens. user_adapter_tokens: how many there are. item_encoder: "qformer" reads each item of a history as soft
    tokens, which a Q-Former makes of its vector, in the stead of its codes (ILM); of a pretrained decoder the new rows are
    trained beside it, and LoRA if lora_rank is above 0, and nothing else. item_encoder_queries: soft tokens an item.
    item_encoder_epochs: passes of its first phase, beside texts and beside each other; 0 begins at random. dropout:
    attention and residual dropout of a model from scratch, and the dropout of LoRA adapters.
    """

    architecture: Literal["decoder", "encoder-decoder", "one-pass"] = "decoder"
    pretrained: str | None = None
    lora_rank: int = 16
    dora: bool = False
    quantization: Literal["8bit", "4bit"] | None = None
    new_rows: Literal["mean", "text", "vectors"] = "mean"
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    head_size: int | None = None
    feed_forward: int = 512
    discrec: bool = False
    user_tokens: int = 0
    user_index: tuple[int, ...] = ()
    user_adapter: Literal["attention", "mean"] | None = None
    user_adapter_tokens: int = 1
    item_encoder: Literal["qformer"] | None = None
    item_encoder_queries: int = 4
    item_encoder_epochs: int = 5
    dropout: float = 0.2

    def __post_init__(self) -> None:
        check_choice("model.architecture", self.architecture, ARCHITECTURES)
        for name in ("hidden_size", "layers", "heads", "feed_forward"):
            check_integer(name, getattr(self, name), 1)
        check_integer("lora_rank", self.lora_rank, 0)
        check_choice("model.new_rows", self.new_rows, ["mean", "text", "vectors"])
        if self.new_rows == "text" and self.pretrained is None:
            raise SettingError("model.new_rows 'text' needs a model that knows words. Set model.pretrained, or leave it out.")
        if self.new_rows == "vectors" and (self.pretrained is not None or self.architecture == ONE_PASS):
            raise SettingError(
                "model.new_rows 'vectors' is of a language model from scratch: beside the rows of known words, begin at the "
                "words of the items ('text') or at the 'mean'. A one-pass model reads vectors as they are."
            )
        for name, wanted in (("dora", self.dora), ("quantization", self.quantization)):
            if wanted and (self.pretrained is None or not self.lora_rank):
                raise SettingError(
                    f"model.{name} is of the adapters of a pretrained model; model.pretrained is {self.pretrained!r} and "
                    f"model.lora_rank {self.lora_rank}. Name a model and a rank, or leave it out."
                )
        if self.quantization is not None:
            check_choice("model.quantization", self.quantization, ["8bit", "4bit"])
        check_integer("model.user_tokens", self.user_tokens, 0)
        if self.user_tokens and self.architecture != ENCODER_DECODER:
            raise SettingError(
                f"model.user_tokens is for an encoder-decoder, as in TIGER; got {self.user_tokens} with {self.architecture!r}. "
                f"Set model.architecture to {ENCODER_DECODER!r}, or leave it out."
            )
        if self.discrec and (self.architecture != ENCODER_DECODER or self.pretrained is not None):
            raise SettingError(
                f"model.discrec is of a T5 from scratch; model.architecture is {self.architecture!r} and model.pretrained "
                f"{self.pretrained!r}. Set the one to {ENCODER_DECODER!r} and the other to null, or leave discrec out."
            )
        if self.discrec and self.hidden_size % 2:
            raise SettingError(f"hidden_size must be even, got {self.hidden_size}: model.discrec has two heads of its own.")
        object.__setattr__(self, "user_index", tuple(self.user_index))
        for size in self.user_index:
            check_integer("each number of model.user_index", size, 2, 65_536)
        if self.user_index and self.architecture == ONE_PASS:
            raise SettingError(
                f"model.user_index is tokens that a language model reads, and model.architecture is {ONE_PASS!r}. Make it "
                f"{DECODER!r} or {ENCODER_DECODER!r}, or leave user_index out."
            )
        self._check_adapter()
        self._check_item_encoder()
        if self.head_size is not None:
            check_integer("head_size", self.head_size, 2)
            if self.head_size % 2:
                raise SettingError(f"head_size must be an even number, got {self.head_size}: a decoder turns its halves.")
        elif self.hidden_size % (2 * self.heads):
            raise SettingError(
                f"hidden_size must be a multiple of 2 * heads, got hidden_size {self.hidden_size} with {self.heads} heads. "
                "Or set head_size."
            )
        if not 0 <= self.dropout < 1:
            raise SettingError(f"dropout must be from 0 to below 1, got {self.dropout}.")

    def _check_adapter(self) -> None:
        check_integer("model.user_adapter_tokens", self.user_adapter_tokens, 1, 64)
        if self.user_adapter is None:
            if self.user_adapter_tokens != 1:
                raise SettingError(
                    f"model.user_adapter_tokens is {self.user_adapter_tokens}, and there is no adapter to make them. Set "
                    "model.user_adapter to 'attention' or 'mean', or leave it out."
                )
            return
        check_choice("model.user_adapter", self.user_adapter, POOLINGS)
        if self.architecture == ONE_PASS:
            raise SettingError(
                f"model.user_adapter makes soft tokens that a language model reads, and model.architecture is {ONE_PASS!r}. "
                f"Make it {DECODER!r} or {ENCODER_DECODER!r}, or leave user_adapter out."
            )

    def _check_item_encoder(self) -> None:
        check_integer("model.item_encoder_queries", self.item_encoder_queries, 1, 64)
        check_integer("model.item_encoder_epochs", self.item_encoder_epochs, 0)
        if self.item_encoder is None:
            for name in ("item_encoder_queries", "item_encoder_epochs"):
                if getattr(self, name) != getattr(type(self), name):
                    raise SettingError(
                        f"model.{name} is {getattr(self, name)}, and there is no item encoder. Set model.item_encoder to "
                        "'qformer', or leave it out."
                    )
            return
        check_choice("model.item_encoder", self.item_encoder, ["qformer"])
        if self.architecture != DECODER or self.pretrained is None:
            raise SettingError(
                "model.item_encoder makes soft tokens that a pretrained decoder reads; model.architecture is "
                f"{self.architecture!r} and model.pretrained {self.pretrained!r}. Set the one to {DECODER!r} and the other to "
                "a causal language model, or leave item_encoder out."
            )
        for name in ("user_index", "user_adapter"):
            if getattr(self, name):
                raise SettingError(
                    f"model.{name} stands before histories of codes, and model.item_encoder reads histories of soft tokens. "
                    "Leave one of them out."
                )

    @property
    def soft_tokens(self) -> int:
        """Places for soft tokens behind [start]."""
        return 0 if self.user_adapter is None else self.user_adapter_tokens

    @property
    def queries(self) -> int:
        """Places for soft tokens of each item of a history."""
        return 0 if self.item_encoder is None else self.item_encoder_queries

    @property
    def lead(self) -> int:
        """Tokens before the first item of a history."""
        return 1 + self.soft_tokens + len(self.user_index)

    @property
    def head_width(self) -> int:
        """Width of an attention head of a model from scratch."""
        return self.head_size or self.hidden_size // self.heads
