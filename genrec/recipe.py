"""Recipes: every setting of `genrec fit` in one YAML file, with flags to override.

In: a YAML file (or nothing: the defaults) and flags such as `--training.epochs 5`. Out: a checked `Recipe`. A wrong key names
the nearest right one, a wrong value says what is allowed. The field docs below are also the help texts of the flags.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from genrec.data.splits import QUESTIONS, SPLITS, USER_HOLDOUT
from genrec.embedding.fused import EmbeddingConfig
from genrec.errors import SettingError, check_choice, check_integer, nearest
from genrec.evaluation.baselines import BASELINES, TRAINED
from genrec.models.config import DECODER, ENCODER_DECODER, ONE_PASS, ModelConfig
from genrec.models.one_pass.config import OnePassConfig
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.collisions import MOVING, check_policy
from genrec.tokenizers.das import DASConfig
from genrec.tokenizers.families import FAMILIES
from genrec.tokenizers.fsq import FSQConfig
from genrec.tokenizers.opq import OPQConfig
from genrec.tokenizers.rq_kmeans import RQKMeansConfig
from genrec.tokenizers.rq_vae import RQVAEConfig
from genrec.training.config import TrainingConfig
from genrec.training.fusion import FusionConfig
from genrec.training.preference import PostTrainingConfig
from genrec.training.tasks.config import TasksConfig


@dataclass(frozen=True)
class DataConfig:
    """items_columns, interactions_columns: genrec's column name -> yours. unknown_items: "raise" or "drop" events of items
    that the items table lacks. split: "leave-one-out", "global-time" or "user-holdout". validation_share, test_share: of all
    events, for the global-time split; of all users, for the user holdout. split_seed: chooses the users of the user holdout;
    the recipe's seed does not, so that fits of several seeds answer the same questions. questions: "all", or only those whose
    target has training events ("warm") or has none ("cold").
    """

    items_columns: dict[str, str] = field(default_factory=dict)
    interactions_columns: dict[str, str] = field(default_factory=dict)
    unknown_items: Literal["raise", "drop"] = "raise"
    split: Literal["leave-one-out", "global-time", "user-holdout"] = "leave-one-out"
    validation_share: float = 0.1
    test_share: float = 0.1
    split_seed: int = 0
    questions: Literal["all", "warm", "cold"] = "all"

    def __post_init__(self) -> None:
        check_choice("data.unknown_items", self.unknown_items, ["raise", "drop"])
        check_choice("data.split", self.split, SPLITS)
        check_choice("data.questions", self.questions, QUESTIONS)
        check_integer("data.split_seed", self.split_seed, 0, 2**31 - 1)
        if self.split_seed and self.split != USER_HOLDOUT:
            raise SettingError(
                f"data.split_seed chooses the users of the split {USER_HOLDOUT!r}; the split is {self.split!r}. Leave it out."
            )

    @property
    def cut(self) -> dict[str, Any]:
        """The settings that say which events train: two runs that agree in them may share what one learned."""
        return {name: getattr(self, name) for name in ("split", "validation_share", "test_share", "split_seed")}


@dataclass(frozen=True)
class TokenizerConfig:
    """family: "rq-kmeans", "rq-vae", "das", "fsq" or "opq"; each has its own section. collision_policy: "suffix" (one more code
    makes every item unique), "popular-suffix" (the same, the most popular first), "shared" (alike items keep the same codes),
    "knn-5" or "random-5" (other last codes until no more than 5 items are alike), "sinkhorn" (the same until all are unique),
    "id" or "hash-1024" (one more code names the item itself). fit_on: items that the codebooks learn from, all of the
    "catalogue", or those that "training" histories hold.
    """

    family: str = "rq-kmeans"
    collision_policy: str = "suffix"
    fit_on: Literal["catalogue", "training"] = "catalogue"
    rq_kmeans: RQKMeansConfig = field(default_factory=RQKMeansConfig)
    rq_vae: RQVAEConfig = field(default_factory=RQVAEConfig)
    das: DASConfig = field(default_factory=DASConfig)
    fsq: FSQConfig = field(default_factory=FSQConfig)
    opq: OPQConfig = field(default_factory=OPQConfig)

    def __post_init__(self) -> None:
        check_choice("tokenizer.family", self.family, list(FAMILIES))
        check_policy("tokenizer.collision_policy", self.collision_policy)
        check_choice("tokenizer.fit_on", self.fit_on, ["catalogue", "training"])
        for family in FAMILIES:
            section = getattr(self, _section(family))
            if family != self.family and section != type(section)():
                raise SettingError(
                    f"The recipe has settings in tokenizer.{_section(family)}, but tokenizer.family is {self.family!r}. Set "
                    f"the family to {family!r}, or move them to tokenizer.{_section(self.family)}."
                )
            if section.seed:
                raise SettingError(f"tokenizer.{_section(family)}.seed cannot be set: the recipe's seed is everybody's.")

    def make(self, seed: int) -> ItemTokenizer:
        """The item tokenizer of the recipe, not fitted."""
        settings = dataclasses.asdict(getattr(self, _section(self.family)))
        return FAMILIES[self.family].from_settings(settings | {"seed": seed})


def _section(family: str) -> str:
    return family.replace("-", "_")


@dataclass(frozen=True)
class DecodingConfig:
    """beam_width: prefixes kept per step. k: items returned. exclude_seen: leave out what a user already had ("auto": yes
    where the training data hardly repeats). tie_rule: order of items that share all codes.
    """

    beam_width: int = 50
    k: int = 10
    exclude_seen: bool | Literal["auto"] = "auto"
    tie_rule: Literal["popularity", "item_id"] = "popularity"

    def __post_init__(self) -> None:
        check_integer("decoding.beam_width", self.beam_width, 1, 512)
        check_integer("decoding.k", self.k, 1, self.beam_width)
        check_choice("decoding.tie_rule", self.tie_rule, ["popularity", "item_id"])


@dataclass(frozen=True)
class EvaluationConfig:
    """baselines: what to measure beside the model, of "popularity", "recent-popularity", "repeat-last", "cooccurrence-tfidf",
    "item-knn", "text-neighbours", "ease", "als" and "bpr" (these two need the extra `baselines`), "sasrec" and "bsarec" (which
    are trained, for minutes and more). tune_baselines: choose the baselines' settings on validation. max_questions: test
    questions at most, drawn at random; 0 for all.
    """

    baselines: list[str] = field(default_factory=lambda: ["popularity", "cooccurrence-tfidf"])
    tune_baselines: bool = True
    max_questions: int = 0

    def __post_init__(self) -> None:
        check_integer("evaluation.max_questions", self.max_questions, 0)
        for name in self.baselines:
            check_choice("evaluation.baselines", name, [*BASELINES, *TRAINED])


@dataclass(frozen=True)
class Recipe:
    """One section per stage, and the seed of everything random."""

    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    text: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    one_pass: OnePassConfig = field(default_factory=OnePassConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    post_training: PostTrainingConfig = field(default_factory=PostTrainingConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        check_integer("seed", self.seed, 0, 2**31 - 16)
        self._check_architecture()
        if self.training.distillation and self.model.pretrained and self.model.lora_rank:
            raise SettingError("training.distillation trains all weights. Set model.lora_rank to 0, or leave distillation out.")
        if self.training.fsdp != TrainingConfig().fsdp and self.model.pretrained and self.model.lora_rank:
            raise SettingError(
                "training.fsdp shards a model whose weights are all trained; it fails on the rows that train beside LoRA. "
                "Set model.lora_rank to 0, or leave fsdp out; several processes then keep a copy of the model each."
            )
        for name in ("user_adapter", "item_encoder"):
            if self.training.fsdp != TrainingConfig().fsdp and getattr(self.model, name):
                raise SettingError(
                    f"training.fsdp shards the rows beside which the soft tokens of model.{name} stand. Leave one of them out; "
                    "several processes then keep a copy of the model each."
                )
        self._check_item_encoder()
        self._check_teacher()
        if self.text.seed:
            raise SettingError("text.seed cannot be set: the recipe's seed is everybody's.")
        self._check_one_pass()
        self._check_tasks()
        self._check_post_training()

    def _check_post_training(self) -> None:
        """Refuse settings of post-training that nothing would read."""
        if self.post_training == PostTrainingConfig():
            return
        if self.post_training.method is None:
            raise SettingError(
                "The recipe has settings in post_training, and post_training.method is not set. Set it to 'dpo' or 'grpo', or "
                "leave them out."
            )
        if self.model.architecture != DECODER:
            raise SettingError(
                f"post_training is for decoders; model.architecture is {self.model.architecture!r}. Set it to {DECODER!r}, or "
                "leave the section out."
            )

    def _check_item_encoder(self) -> None:
        """Refuse what writes or learns items of a history as codes, where the model reads them as soft tokens."""
        if self.model.item_encoder is None:
            return
        for name, unlike in {
            "the section tasks": self.tasks != TasksConfig(),
            "post_training": self.post_training != PostTrainingConfig(),
            "training.distillation": self.training.distillation > 0,
            "training.windows_per_user": self.training.windows_per_user > 0,
        }.items():
            if unlike:
                raise SettingError(
                    f"With model.item_encoder a history is soft tokens, and {name} is for histories of codes. Leave one of "
                    "them out (training.targets_per_user says how many items of a history are learned)."
                )

    def _check_teacher(self) -> None:
        """Refuse a teacher beside what has other examples than plain histories of codes, and settings of none."""
        training, usual = self.training, TrainingConfig()
        if not training.teacher:
            for name in ("teacher_weight", "teacher_items"):
                if getattr(training, name) != getattr(usual, name):
                    raise SettingError(
                        f"training.{name} is {getattr(training, name)}, and there is no teacher. Set training.teacher to the "
                        "folder of a bundle, or leave it out."
                    )
            return
        for name, set_too in {
            "the section tasks": self.tasks.aligned,
            "training.distillation": training.distillation > 0,
            **{f"model.{name}": bool(getattr(self.model, name)) for name in ("user_index", "user_adapter", "item_encoder")},
        }.items():
            if set_too:
                raise SettingError(
                    f"training.teacher is asked about plain histories of codes, and {name} learns from more. Leave one of "
                    "them out."
                )

    def _check_tasks(self) -> None:
        """Refuse tasks with words where the model has none, or would not read them."""
        if self.tasks == TasksConfig():
            return
        if self.model.architecture != DECODER or self.model.pretrained is None:
            raise SettingError(
                "Tasks beside next_item are prompts in words, which a pretrained decoder knows; model.architecture is "
                f"{self.model.architecture!r} and model.pretrained {self.model.pretrained!r}. Name a causal language model (a "
                "small one will do), or leave the section tasks out."
            )
        for name in ("user_index", "user_adapter"):
            if getattr(self.model, name) and self.tasks.aligned:
                raise SettingError(
                    f"model.{name} stands before plain histories, and prompts in words have no place for it yet. Leave it or "
                    "the section tasks out."
                )
        if self.training.distillation and self.tasks.aligned:
            raise SettingError("training.distillation learns from plain histories alone. Leave it or the section tasks out.")

    def _check_one_pass(self) -> None:
        """Refuse settings that a one-pass model, or a language model, would not look at."""
        if self.model.architecture != ONE_PASS:
            if self.one_pass != OnePassConfig():
                raise SettingError(
                    f"The recipe has settings in one_pass, but model.architecture is {self.model.architecture!r}. Make it "
                    f"{ONE_PASS!r}, or leave them out."
                )
            return
        usual = TrainingConfig()
        for name, unlike in {
            "fusion.scorer": self.fusion.scorer,
            "model.pretrained": self.model.pretrained is not None,
            "model.head_size": self.model.head_size is not None,
            "training.distillation": self.training.distillation != usual.distillation,
            "training.teacher": bool(self.training.teacher),
            "training.warmup": self.training.warmup != usual.warmup,
            "training.precision": self.training.precision == "bf16",
            **{
                f"training.{name}": getattr(self.training, name) != getattr(usual, name)
                for name in ("fsdp", "accumulation_steps", "gradient_checkpointing", "report_to", "logging_folder")
            },
            "training.validation_beam": self.training.validation_beam != usual.validation_beam,
        }.items():
            if unlike:
                raise SettingError(f"{name} is of language models, and model.architecture is 'one-pass'. Leave it out.")
        self.one_pass.check_widths(self.model.hidden_size)
        if self.one_pass.rounds > 1 and self.fusion.votes:
            raise SettingError(
                "fusion.votes are added to one score per item, and one_pass.rounds above 1 have several. Leave one out."
            )
        kind = check_policy("tokenizer.collision_policy", self.tokenizer.collision_policy)[0]
        if self.one_pass.shared_codes and not (
            FAMILIES[self.tokenizer.family].shared_vocabulary and kind in (*MOVING, "shared")
        ):
            raise SettingError(
                "one_pass.shared_codes needs codes that mean the same at every place: tokenizer.family 'fsq' with a "
                f"collision_policy that adds no code, such as 'shared'; got {self.tokenizer.family!r} and "
                f"{self.tokenizer.collision_policy!r}."
            )

    def _check_architecture(self) -> None:
        """Refuse settings of training that the model's architecture would not read."""
        training, usual = self.training, TrainingConfig()
        if self.model.architecture != ENCODER_DECODER:
            if training.targets_per_user != usual.targets_per_user and not self.model.item_encoder:
                raise SettingError(
                    "training.targets_per_user is for an encoder-decoder: a decoder learns every item of a window at once. Set "
                    f"model.architecture to {ENCODER_DECODER!r}, or leave it out (training.windows_per_user limits windows)."
                )
            return
        if training.fsdp != usual.fsdp:
            raise SettingError(
                "training.fsdp is for a decoder: the rows that a T5 shares between its stacks cannot be sharded. Leave it out; "
                "several processes then keep a copy of the model each."
            )
        if training.windows_per_user != usual.windows_per_user:
            raise SettingError(
                "training.windows_per_user is for a decoder: an encoder-decoder learns single targets. Set "
                "training.targets_per_user instead."
            )
        if training.distillation:
            raise SettingError(
                "training.distillation needs the state after an item's last code, which an encoder-decoder never has: it reads "
                f"histories in one stack and writes a target's codes in the other. Set model.architecture to {DECODER!r}, or "
                "leave distillation out."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts, ready for YAML or JSON."""
        return dataclasses.asdict(self)


def load_recipe(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The defaults, changed by the YAML file, changed by `overrides` ({"training.epochs": 5}). Raises `SettingError`."""
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            raise SettingError(f"There is no recipe {path}. Recipes that come with genrec are in training/recipes/.") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SettingError(f"The recipe {path} is not valid YAML: {error}") from None
        if not isinstance(tree, dict):
            raise SettingError(f"The recipe {path} must be a mapping of sections, got {type(tree).__name__}.")
    for dotted, value in (overrides or {}).items():
        *sections, name = dotted.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return build(Recipe, tree, "")


def build(kind: type, tree: Mapping[str, Any], prefix: str) -> Any:
    """A (nested) dataclass from plain dicts, with every key and type checked."""
    if not isinstance(tree, Mapping):
        raise SettingError(f"{prefix.rstrip('.')} must be a mapping of settings, got {tree!r}.")
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in tree.items():
        if key not in hints:
            known = [f"{prefix}{name}" for name in hints] + _elsewhere(str(key), prefix)
            raise SettingError(
                f"There is no setting {prefix}{key}.{nearest(f'{prefix}{key}', known)} Allowed here: {', '.join(hints)}."
            )
        if dataclasses.is_dataclass(hints[key]):
            values[key] = build(typing.cast(type, hints[key]), {} if value is None else value, f"{prefix}{key}.")
        else:
            values[key] = _value(f"{prefix}{key}", hints[key], value)
    return kind(**values)


def settings() -> list[tuple[str, Any, Any, str]]:
    """Every setting as (dotted name, type, default, help), in the order of the recipe."""
    return [("seed", int, Recipe().seed, "seed of everything random"), *_settings_of(Recipe(), "")]


def _settings_of(section: Any, prefix: str) -> list[tuple[str, Any, Any, str]]:
    found, helps = (
        [],
        _helps(" ".join(base.__doc__ or "" for base in reversed(type(section).__mro__[:-1]))),
    )
    for name, kind in typing.get_type_hints(type(section)).items():
        value = getattr(section, name)
        if dataclasses.is_dataclass(value):
            found += _settings_of(value, f"{prefix}{name}.")
        elif name != "seed":
            found.append((f"{prefix}{name}", kind, value, helps.get(name, "")))
    return found


def _helps(doc: str) -> dict[str, str]:
    """`name: text.` sentences of a config's docstring, by name (several names may share one text)."""
    helps, names, words = {}, [], []  # type: ignore[var-annotated]
    for sentence in " ".join(doc.split()).replace(". ", ".\n").splitlines():
        head, colon, rest = sentence.partition(": ")
        candidates = head.split(", ")
        if colon and all(c.isidentifier() or (" " in c and c.split(" ")[0].isidentifier()) for c in candidates):
            names, words = [c.split(" ")[0] for c in candidates], [rest]
        else:
            words.append(sentence)
        helps |= {name: " ".join(words) for name in names}
    return helps


def _elsewhere(key: str, prefix: str) -> list[str]:
    """Where else a setting of this name lives: someone may have put it into the wrong section."""
    return [name for name, *_ in settings() if name.rsplit(".", 1)[-1] == key and not name.startswith(prefix or "\0")]


def _value(name: str, kind: Any, value: Any) -> Any:
    """`value` as `kind`; text from the command line is read as YAML first where text is not what is wanted."""
    options: Sequence[Any] = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    for option in options:
        origin = typing.get_origin(option)
        if origin is Literal and value in typing.get_args(option):
            return value
        if option is type(None) and value is None:
            return None
        if option is bool and isinstance(value, bool):
            return value
        if option is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if option is float and isinstance(value, str) and _is_number(value):
            return float(value)  # YAML 1.1 reads 1e-3 as text: it wants 1.0e-3, and nobody writes that
        if option is str and isinstance(value, str):
            return value
        if origin is dict and isinstance(value, dict) and all(isinstance(x, str) for kv in value.items() for x in kv):
            return value
        if origin in (list, tuple) and isinstance(value, list) and all(type(x) is typing.get_args(option)[0] for x in value):
            return origin(value)
    raise SettingError(f"{name} must be {_describe(options)}, got {value!r}.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _describe(options: Sequence[Any]) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    described = []
    for option in options:
        if typing.get_origin(option) is Literal:
            described += [repr(choice) for choice in typing.get_args(option)]
        elif typing.get_origin(option) is dict:
            described.append("a mapping of text to text")
        elif typing.get_origin(option) in (list, tuple):
            described.append("a list of " + {str: "texts", int: "whole numbers"}[typing.get_args(option)[0]])
        else:
            described.append(words[option])
    return " or ".join(described)


def from_text(kind: Any, text: str) -> Any:
    """A flag's text as the YAML value it would be in a recipe; plain text where the setting is text."""
    options = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    if str in options and text != "null":
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
