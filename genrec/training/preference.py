"""Post-training: a decoder learns from the items that its own constrained beam finds, and from which of them was taken.

In: a trained decoder, and the training part of the histories. Out: the same model, never worse on validation: the best epoch of
post-training is kept, or the model as it came.

    result = post_train(model, layout, snapshot, split, training, PostTrainingConfig("dpo"), folder, True, start=0.04)

A prompt is a training history without its last item; what the beam finds after it are the rollouts, made once, by the model as
it came. So their scores are the reference's log-probabilities, and no second model is kept. Nothing of validation and test is
read.

The losses are our own and not trl's (1.16 was looked at): its DPO trainer spells prompts with a text tokenizer, where codes are
never text, and takes one rejected answer, each behind a history of its own; its GRPO trainer samples its own rollouts, which
may be no items, unless an experimental hook brings others, and reads a history again for each.

Legend: `M` prompts, `B` of a batch, `G` candidates of each, `L` levels, `T` tokens of the longest history.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, ProgressCallback, TrainingArguments

from genrec.data.interactions import Histories
from genrec.data.splits import Split
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Snapshot
from genrec.decoding.user_index import UserIndex
from genrec.errors import SettingError, check_choice, check_integer
from genrec.models.tokens import TokenLayout
from genrec.models.user_adapter import adapter_of
from genrec.training.checkpoints import METRIC, MarkComplete, train_to_the_end
from genrec.training.config import TrainingConfig
from genrec.training.examples import LengthBatches
from genrec.training.preference_losses import candidate_log_probs, group_loss, preference_loss
from genrec.training.reporters import place_logs
from genrec.training.trainer import RecommendationTrainer, ScoreBar

log = logging.getLogger(__name__)

# On Beauty 1e-4 of dpo left nothing of what had been learned (docs/results.md).
LEARNING_RATES = {"dpo": 1e-5, "grpo": 1e-4}


@dataclass(frozen=True)
class PostTrainingConfig:
    """method: "dpo" (the item that was taken shall gain on those that the beam found instead) or "grpo" (items of the beam are
    rewarded, the taken one most and the others less the higher they stood), after training; None for neither. epochs: passes
    over the prompts. beta: of dpo, how much a gain counts, so that smaller moves further; of grpo, the weight of the distance
    to the model before. rollouts: items that the beam finds for each prompt. prompts: training histories that are asked about,
    drawn at random; 0 for all. learning_rate: peak of the schedule; None for 1e-5 of dpo and 1e-4 of grpo, whose steps are
    clipped.
    """

    method: Literal["dpo", "grpo"] | None = None
    epochs: int = 1
    beta: float = 0.1
    rollouts: int = 10
    prompts: int = 0
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if self.method is None:
            return
        check_choice("post_training.method", self.method, ["dpo", "grpo"])
        check_integer("post_training.epochs", self.epochs, 1)
        check_integer("post_training.rollouts", self.rollouts, 2, 512)
        check_integer("post_training.prompts", self.prompts, 0)
        if not self.beta > 0:
            raise SettingError(f"post_training.beta must be above 0, got {self.beta}.")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise SettingError(f"post_training.learning_rate must be above 0 and below 1, got {self.learning_rate}.")


@dataclass(frozen=True, eq=False)
class Rollouts(Dataset):
    """histories: M lists of catalogue rows, whole. items: candidates of each, int64 [M, G], -1 for an empty place. reference:
    their log P before post-training, float32 [M, G]. values: what each is worth, float32 [M, G]; only GRPO looks at it.
    """

    histories: list[np.ndarray]
    items: np.ndarray
    reference: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.histories)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.histories[number], self.items[number], self.reference[number], self.values[number]

    def select(self, numbers: np.ndarray) -> "Rollouts":
        """Some of the prompts (int64 [n])."""
        return Rollouts(
            [self.histories[n] for n in numbers], self.items[numbers], self.reference[numbers], self.values[numbers]
        )


def post_train(
    model: PreTrainedModel,
    layout: TokenLayout,
    snapshot: Snapshot,
    split: Split,
    training: TrainingConfig,
    config: PostTrainingConfig,
    folder: Path,
    exclude_seen: bool,
    start: float,
    seed: int = 0,
    user_index: UserIndex | None = None,
) -> dict[str, Any]:
    """Post-train `model` in place and leave it at its best, or as it was. start: its validation score. Checkpoints live in
    `folder`; a run that was killed goes on from the last one.

    Returns what happened: prompts, the score of each epoch, which was kept (0: the model as it came). Raises `SettingError`
    where the rollouts teach nothing.
    """
    widest, most = max(training.validation_beam, config.rollouts + 1), training.max_history
    adapter = adapter_of(model)
    ranker = BeamRanker(model, layout, snapshot, widest, most, user_index=user_index, user_adapter=adapter)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    rollouts = make_rollouts(ranker, split.train, config, exclude_seen, seed)
    behind = -(-rollouts.items.shape[1] * (layout.levels - 1) // layout.levels)  # what candidates take, in items
    lengths = np.array([min(len(history), most) for history in rollouts.histories]) + behind
    batches = LengthBatches(lengths, layout.levels, training.batch_tokens, seed, layout.lead)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate or LEARNING_RATES[str(config.method)],
        weight_decay=0.0,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        bf16=training.bf16,
        use_cpu=not torch.accelerator.is_available(),  # or it refuses bf16 there
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=METRIC,
        greater_is_better=True,
        logging_steps=max(1, len(batches) // training.accumulation_steps // 10),
        gradient_accumulation_steps=training.accumulation_steps,
        seed=seed,
        data_seed=seed,
        report_to=list(training.report_to) or "none",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = PreferenceTrainer(
        config=config,
        model=model,
        args=arguments,
        train_dataset=rollouts,
        data_collator=RolloutCollator(ranker),
        callbacks=[MarkComplete()],
        batches=batches,
        ranker=BeamRanker(model, layout, snapshot, training.validation_beam, most, user_index=user_index, user_adapter=adapter),
        questions=split.validation.sample(training.validation_users, seed),
        exclude_seen=exclude_seen,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(ScoreBar())
    place_logs(trainer.callback_handler.callbacks, str(Path(training.logging_folder or folder) / "post_training"))
    log.info("Post-training by %s on %d prompts", config.method, len(rollouts))
    train_to_the_end(trainer, folder)
    scores = [float(entry[f"eval_{METRIC}"]) for entry in trainer.state.log_history if f"eval_{METRIC}" in entry]
    kept = int(np.argmax(scores)) + 1 if max(scores) > start else 0
    if not kept:
        log.info("Post-training did not help on validation: the model stays as it was")
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name in before:
                    weight.copy_(before[name])
    return {"method": config.method, "prompts": len(rollouts), "before": start, "epochs": scores, "kept": kept}


def make_rollouts(ranker: BeamRanker, train: Histories, config: PostTrainingConfig, exclude_seen: bool, seed: int) -> Rollouts:
    """What the beam finds after training histories without their last items, and what each of it is worth. train: the training
    part. Items with the very codes of the one that was taken are never among the others.

    Raises `SettingError` where no prompt is left that says which item is better.
    """
    users = np.flatnonzero(train.lengths > 1)
    if config.prompts and config.prompts < len(users):
        users = np.sort(np.random.default_rng(seed).choice(users, config.prompts, replace=False))
    asked = train.select(users, train.lengths[users] - 1)
    taken = train.items[train.indptr[users + 1] - 1]
    histories, codes = asked.to_lists(), ranker.snapshot.codes
    rows, scores = ranker.rank(asked, config.rollouts, exclude_seen, progress=True)
    rows = rows.astype(np.int64)
    right = (codes[rows] == codes[taken][:, None]).all(axis=2) & (rows >= 0)
    if config.method == "dpo":
        own = ranker.code_log_probs(histories, taken, ranker.snapshot).sum(axis=1, keepdims=True)
        items = np.concatenate([taken[:, None], np.where(right, -1, rows)], axis=1)
        found = Rollouts(histories, items, np.concatenate([own, scores], axis=1), np.zeros(items.shape, np.float32))
        useful = (items[:, 1:] >= 0).any(axis=1)
    else:
        found = Rollouts(histories, rows, scores, advantages(right, rows >= 0))
        useful = right.any(axis=1) & ((rows >= 0) & ~right).any(axis=1)
    if not useful.any():
        raise SettingError(
            f"None of {len(users)} rollouts tells a better item from a worse one. Raise post_training.rollouts (now "
            f"{config.rollouts}) or train longer, or leave post_training out."
        )
    return found.select(np.flatnonzero(useful))


def advantages(right: np.ndarray, there: np.ndarray) -> np.ndarray:
    """GRPO's advantages: rewards less their mean, in units of their deviation, within each row: float32 [M, G]. right: which
    candidate is the item that was taken; there: which places hold one; best first, bool [M, G] each.

    The reward is 1 for the very item. The others share -1 by 1 / log2(1 + place), as NDCG discounts places: what stood first in
    its stead loses most (MiniOneRec, arXiv 2510.24431).
    """
    discount = np.where(there & ~right, 1 / np.log2(np.arange(right.shape[1]) + 2), 0.0)
    reward = right - discount / np.maximum(discount.sum(axis=1, keepdims=True), 1e-9)
    count = np.maximum(there.sum(axis=1, keepdims=True), 1)
    mean = np.where(there, reward, 0).sum(axis=1, keepdims=True) / count
    away = np.where(there, reward - mean, 0)
    return (away / np.maximum(np.sqrt((away**2).sum(axis=1, keepdims=True) / count), 1e-6)).astype(np.float32)


class RolloutCollator:
    """Rollouts -> `input_ids`, `attention_mask` [B, T], `codes` [B, G, L], all int64; `reference`, `values` float32 [B, G];
    `candidates` bool [B, G], which places hold one; and what a user adapter reads."""

    def __init__(self, ranker: BeamRanker) -> None:
        self.ranker, self.codes = ranker, ranker.snapshot.codes

    def __call__(self, some: list[Any]) -> dict[str, Tensor]:
        histories, items, reference, values = zip(*some, strict=True)
        tokens, mask = self.ranker.prompts(histories, self.ranker.snapshot)
        rows = np.stack(items)
        batch = {
            "input_ids": tokens,
            "attention_mask": mask.astype(np.int64),
            "codes": self.codes[rows].astype(np.int64),  # an empty place gets the codes of some item, and counts for nothing
            "reference": np.where(rows < 0, 0, np.stack(reference)).astype(np.float32),
            "values": np.stack(values),
            "candidates": rows >= 0,
            **self.ranker.outside(histories, self.ranker.snapshot),
        }
        return {name: torch.from_numpy(array) for name, array in batch.items()}


class PreferenceTrainer(RecommendationTrainer):
    """The Trainer with a loss over rollouts. Dropout is off: the reference had none."""

    def __init__(self, *, config: PostTrainingConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of the method. inputs: as `RolloutCollator` gives them."""
        plain, ranker = self.accelerator.unwrap_model(model).eval(), self.ranker
        found = candidate_log_probs(
            plain, ranker.head, ranker.layout, inputs["input_ids"], inputs["attention_mask"], inputs["codes"],
            self.soft_tokens(inputs),
        )  # fmt: skip
        reference, there = inputs["reference"], inputs["candidates"]
        if self.config.method == "dpo":
            loss = preference_loss(found, reference, there, self.config.beta)
        else:
            loss = group_loss(found, reference, inputs["values"], there, self.config.beta)
        return (loss, {"log_probs": found}) if return_outputs else loss
