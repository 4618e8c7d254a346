"""The recipe's section `training`: for how long, in which batches, how fast, on what. Checked when it is made.

In: settings. Out: `TrainingConfig`, which every training reads.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from genrec.errors import SettingError, check_choice, check_integer


@dataclass(frozen=True)
class TrainingConfig:
    """epochs: passes over the data at most. batch_tokens: tokens per step. learning_rate: peak of the schedule.
    weight_decay: AdamW's. warmup: share of all steps. patience: epochs without a better validation score before stopping.
    max_history: items of a history that the model sees, the latest. precision: "auto" is bf16 on a GPU that has it, else
    fp32. windows_per_user: stretches of max_history + 1 items of one history that a decoder or a one-pass model learns, the
    latest ones; 0 for all. targets_per_user: items of one history that an encoder-decoder learns to write in an epoch, drawn
    anew each epoch from all parts of the history; 0 for all. The history is read again for each, so 4 make an epoch two to
    three times as long as a decoder's, and all make it seven times as long where histories are short and far longer where they
    are long. distillation: weight of a loss that lets the model's state after an item's codes tell the item's vector, of which
    the codes are a part (UNGER's second stage); 0 for none.
    teacher: folder of a bundle, of a one-pass model say, whose recommendations are learned beside what came next; "" for none.
    It must be fitted on the same tables and the same split. teacher_weight: its part of what is learned, beside what came.
    teacher_items: how many of its best items are learned at each place.
    accumulation_steps: batches whose gradients are added up to one step; a step then reads so many times batch_tokens.
    gradient_checkpointing: keep less of each layer for the way back and compute it again, slower in less memory. report_to:
    names of the Trainer's reporters, such as "tensorboard", "wandb", "mlflow" or "trackio", whose packages must be installed.
    logging_folder: where TensorBoard's files go; "" for the bundle's folder with "-logs" behind its name.
    fsdp: of several processes (docs/training.md), each keeps a copy of the model with "none" (DDP); a part of weights,
    gradients and optimiser state with "full_shard"; the whole weights, but a part of the rest, with "shard_grad_op".
    validation_users: users drawn for the score after each epoch. validation_beam: its beam width.
    """

    epochs: int = 20
    batch_tokens: int = 4096
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    patience: int = 3
    max_history: int = 20
    windows_per_user: int = 0
    targets_per_user: int = 4
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    distillation: float = 0.0
    teacher: str = ""
    teacher_weight: float = 0.5
    teacher_items: int = 100
    accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    report_to: tuple[str, ...] = ()
    logging_folder: str = ""
    fsdp: Literal["none", "full_shard", "shard_grad_op"] = "none"
    validation_users: int = 2000
    validation_beam: int = 20

    def __post_init__(self) -> None:
        object.__setattr__(self, "report_to", tuple(self.report_to))
        for name in ("epochs", "batch_tokens", "patience", "max_history", "accumulation_steps", "validation_users"):
            check_integer(f"training.{name}", getattr(self, name), 1)
        for name in ("windows_per_user", "targets_per_user"):
            check_integer(f"training.{name}", getattr(self, name), 0)
        check_integer("training.validation_beam", self.validation_beam, 10, 512)
        check_choice("training.precision", self.precision, ["auto", "fp32", "bf16"])
        check_choice("training.fsdp", self.fsdp, ["none", "full_shard", "shard_grad_op"])
        if not 0 < self.learning_rate < 1:
            raise SettingError(f"training.learning_rate must be above 0 and below 1, got {self.learning_rate}.")
        if not 0 <= self.warmup < 1:
            raise SettingError(f"training.warmup must be from 0 to below 1 (a share of all steps), got {self.warmup}.")
        for name in ("weight_decay", "distillation"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"training.{name} must be 0 or more, got {getattr(self, name)}.")
        check_integer("training.teacher_items", self.teacher_items, 1, 4096)
        if not 0 < self.teacher_weight <= 1:
            raise SettingError(
                f"training.teacher_weight must be above 0 and at most 1, got {self.teacher_weight}. For no teacher, leave "
                "training.teacher out."
            )
        if self.distillation and self.accumulation_steps > 1:
            raise SettingError(
                "training.distillation tells an item from the others of its batch, so batches added up are no larger batch. "
                f"Set training.accumulation_steps to 1, got {self.accumulation_steps}, or leave distillation out."
            )

    @property
    def bf16(self) -> bool:
        """Whether to compute in bfloat16 on this machine."""
        return self.precision == "bf16" or (
            self.precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        )
