"""Train the language model with the Hugging Face Trainer: warm-up and cosine, early stopping on validation NDCG@10, resume.

In: a model, its layout, a split and the code table's index. Out: the model at its best validation score.

    result = train(model, layout, snapshot, split, TrainingConfig(epochs=20), Path("runs/shop/training"))

A run that was killed goes on from its last checkpoint in the same folder and ends with the same weights: batches are a
function of seed and epoch, and the Trainer restores optimiser, schedule and random states. Several processes may train one
model together (processes.py), each with a copy of it (DDP) or with a part of it (FSDP).
"""

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    ProgressCallback,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from genrec.data.interactions import Histories
from genrec.data.splits import Split, Targets
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Snapshot
from genrec.decoding.user_index import UserIndex
from genrec.errors import SettingError
from genrec.evaluation.metrics import hit_positions, ndcg_at, recall_at
from genrec.models.item_encoder import encoder_of
from genrec.models.tokens import TokenLayout
from genrec.models.user_adapter import adapter_of, read_inputs
from genrec.training import processes
from genrec.training.checkpoints import METRIC, MarkComplete, train_to_the_end
from genrec.training.config import TrainingConfig
from genrec.training.distillation import Distillation
from genrec.training.examples import IGNORED, Collator, HistoryWindows, LengthBatches
from genrec.training.item_encoder import PromptCollator
from genrec.training.processes import ShareCollator, Shares
from genrec.training.reporters import check_reporters, place_logs
from genrec.training.targets import HistoryTargets, TargetBatches, TargetCollator
from genrec.training.tasks.mix import Mix, MixBatches, MixCollator
from genrec.training.teacher import Lists, TaughtCollator, TaughtExamples, taught_loss
from genrec.training.user_index import ToldBatches, ToldCollator, ToldTargets, ToldWindows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """best: validation NDCG@10 of the returned model; epoch: when it was reached; history: one dict per epoch. post: what
    `post_train` did, if anything."""

    best: float
    epoch: float
    steps: int
    history: list[dict[str, float]]
    post: dict[str, Any] | None = None


class ScoreBar(ProgressCallback):
    """The Trainer's progress bar with the latest loss and validation score on it, instead of a line per log entry."""

    shown: dict[str, str]

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self.shown = {}
        if self.training_bar is not None:
            self.training_bar.set_description("Training")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        names = {"loss": "loss", f"eval_{METRIC}": f"validation {METRIC}"}
        self.shown |= {names[name]: f"{float(value):.4f}" for name, value in (logs or {}).items() if name in names}
        if self.training_bar is not None:
            self.training_bar.set_postfix(self.shown)


Batches = LengthBatches | TargetBatches | MixBatches


class RecommendationTrainer(Trainer):
    """The Trainer with batches by length and a validation score that decodes real items.

    ranker: has the model that is trained or, where that is sharded, a whole one beside it that takes over its weights.
    """

    def __init__(
        self,
        *,
        args: TrainingArguments,
        batches: Batches,
        ranker: BeamRanker,
        questions: Targets,
        exclude_seen: bool,
        **kwargs: Any,
    ) -> None:
        if args.n_gpu > 1:  # the Trainer would spread each batch over all of them by DataParallel, which nobody asked for
            log.info("One of %d GPUs is used. training/one_node.sh starts a process on each.", args.n_gpu)
            args._n_gpu = 1
        super().__init__(args=args, eval_dataset=questions, **kwargs)  # type: ignore[arg-type]  # only `evaluate` below reads it
        self.batches, self.ranker, self.questions, self.exclude_seen = batches, ranker, questions, exclude_seen

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's, and then without its wrapper: bf16 was for the training, answers are float32."""
        result = super().train(*args, **kwargs)
        self.accelerator.unwrap_model(self.ranker.model, keep_fp32_wrapper=False)
        return result

    def get_train_dataloader(self) -> DataLoader:
        examples, collate = self.train_dataset, self.data_collator
        if not processes.several():
            loader = DataLoader(examples, batch_sampler=self.batches, collate_fn=collate)  # type: ignore[arg-type]
            return self.accelerator.prepare(loader)
        shares = Shares(self.batches, *processes.share())
        collate = ShareCollator(collate, lambda: examples[next(iter(self.batches))[0]])  # type: ignore[arg-type,index]
        loader = DataLoader(examples, batch_sampler=shares, collate_fn=collate)  # type: ignore[arg-type]
        # Accelerate would give each process other batches, and so take larger steps. These are shared out already.
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=True)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The language model's loss over all that is learned in a step, by whatever process and in whatever part of it; what a
        teacher says of it; and where the model has a head for it, that of distillation."""
        if "taught_tokens" in inputs:
            return self.taught(model, inputs, return_outputs, num_items_in_batch)
        if (soft := self.soft_tokens(inputs)) is not None:
            inputs |= read_inputs(self.accelerator.unwrap_model(model), inputs.pop("input_ids"), soft)
        if self.ranker.model.config.is_encoder_decoder:  # T5's own is the mean of what it sees at once
            outputs = model(**inputs)
            logits, labels = outputs.logits, inputs["labels"]
            total = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")
            loss = total * processes.count() / num_items_in_batch  # gradients of the processes are averaged
            return (loss, outputs) if return_outputs else loss
        items = inputs.pop("items", None)
        if items is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = inputs | {"output_hidden_states": True}
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        loss = loss + self.accelerator.unwrap_model(model).distillation(outputs.hidden_states[-1], items)
        return (loss, outputs) if return_outputs else loss

    def taught(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool, learned: Any) -> Any:
        """`compute_loss` of lessons instead of labels alone."""
        tokens, shares, labels = (inputs.pop(name) for name in ("taught_tokens", "taught_shares", "labels"))
        if self.ranker.model.config.is_encoder_decoder:
            outputs = model(**inputs, labels=labels)
            total = taught_loss(outputs.logits, labels, tokens, shares)
        else:  # a token is what the place before it says
            outputs = model(**inputs)
            total = taught_loss(outputs.logits[:, :-1], labels[:, 1:], tokens[:, 1:], shares[:, 1:])
        loss = total * processes.count() / learned
        return (loss, outputs) if return_outputs else loss

    def soft_tokens(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        """Those of a batch, whose parts for what makes them are taken out of it; None where there are none."""
        maker = self.ranker.soft_maker
        return None if maker is None else maker(*(inputs.pop(name) for name in maker.reads))

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Item-level Recall and NDCG @10 on the validation sample, by constrained beam search in the first process."""
        self.gather()
        found = self._scores() if processes.is_first() else None
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in processes.told(found).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _scores(self) -> dict[str, float]:
        self.ranker.model.to(self.args.device)  # type: ignore[arg-type]
        rows, _scores = self.ranker.rank(self.questions.histories, 10, self.exclude_seen)  # puts the model to eval and back
        if self.is_fsdp_enabled:
            self.ranker.model.to("cpu")  # type: ignore[arg-type]
        positions = hit_positions(rows, self.questions.items)
        return {METRIC: float(ndcg_at(positions, 10).mean()), "recall@10": float(recall_at(positions, 10).mean())}

    def gather(self) -> None:
        """Bring the parts of a sharded model together in the ranker's, in the first process."""
        if self.is_fsdp_enabled:
            weights = self.accelerator.get_state_dict(self.model)
            if processes.is_first():
                self.ranker.model.load_state_dict(weights)


def train(
    model: PreTrainedModel,
    layout: TokenLayout,
    snapshot: Snapshot,
    split: Split,
    config: TrainingConfig,
    folder: Path,
    exclude_seen: bool,
    seed: int = 0,
    vectors: np.ndarray | None = None,
    mix: Mix | None = None,
    user_index: UserIndex | None = None,
    lists: Lists | None = None,
) -> TrainingResult:
    """Train `model`, a decoder or an encoder-decoder, in place and leave it at its best validation score. Checkpoints live in
    `folder`.

    snapshot: the catalogue and its codes. exclude_seen: whether validation masks what a user had before. vectors: of the
    items [N, D], needed for distillation. mix: what a decoder learns from in place of plain histories alone. user_index: of
    a layout that has one. lists: what a teacher has at each training event, learned beside plain histories. Raises
    `SettingError` for a split or a mix that this model cannot be trained on. Of several processes, each calls this with the
    same arguments; at the end the model is trained in all of them, but with `config.fsdp` in the first one alone.
    """
    processes.join()
    sharded = check_processes(config)
    if config.distillation:
        if vectors is None or hasattr(model, "merge_and_unload") or model.config.is_encoder_decoder:
            raise SettingError(
                "training.distillation needs item vectors, and a decoder whose weights are all trained: no LoRA and no "
                "encoder-decoder."
            )
        model.distillation = Distillation(model.config.hidden_size, vectors, config.distillation)
    if mix is None:
        examples, batches, collator = _examples(model, layout, snapshot, split.train, config, seed, user_index)
    else:
        check_length(model, mix)
        examples, batches, collator = mix, MixBatches(mix, config.batch_tokens, seed), MixCollator(layout.pad)
    if lists is not None:
        if not isinstance(examples, HistoryWindows | HistoryTargets) or layout.queries or config.distillation:
            raise SettingError("A teacher's lists are learned beside plain histories of codes alone. Leave one of them out.")
        collator = TaughtCollator(collator, lists, split.train.items, snapshot.codes, layout, config.teacher_weight)
        examples = TaughtExamples(examples)
    questions = split.validation.sample(config.validation_users, seed)
    if not len(questions):
        raise SettingError("Training needs validation questions to stop on, and the split has none: every user is too short.")
    epoch_steps = math.ceil(len(batches) / config.accumulation_steps)
    sharding: dict[str, Any] = {"reshard_after_forward": config.fsdp == "full_shard"}
    if config.gradient_checkpointing:
        sharding["activation_checkpointing"] = True
    if config.report_to:
        check_reporters(config.report_to)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=math.ceil(config.warmup * config.epochs * epoch_steps),
        lr_scheduler_type="cosine",
        max_grad_norm=1.0,
        bf16=config.bf16,
        use_cpu=not torch.accelerator.is_available(),  # or it refuses bf16 there
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # the count of epochs without progress goes on where it was
        metric_for_best_model=METRIC,
        greater_is_better=True,
        logging_strategy="steps",
        logging_steps=max(1, epoch_steps // 10),
        gradient_accumulation_steps=config.accumulation_steps,
        gradient_checkpointing=config.gradient_checkpointing and not sharded,  # FSDP has its own
        seed=seed,
        data_seed=seed,
        report_to=list(config.report_to) or "none",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        fsdp=sharded,  # type: ignore[arg-type]  # text is how older versions were told
        fsdp_config=sharding if sharded else None,
        **processes.trainer_arguments(sharded),
    )
    adapter, encoder = adapter_of(model), encoder_of(model)
    if (adapter or encoder) and sharded:
        raise SettingError(
            "training.fsdp shards the rows that stand beside the soft tokens of model.user_adapter or model.item_encoder. "
            "Leave one of them out; several processes then keep a copy of the model each."
        )
    ranker = BeamRanker(
        model, layout, snapshot, config.validation_beam, config.max_history, user_index=user_index, user_adapter=adapter,
        item_encoder=encoder,
    )  # fmt: skip
    trainer = RecommendationTrainer(
        model=copy.deepcopy(model) if sharded else model,
        args=arguments,
        train_dataset=examples,
        data_collator=collator,
        callbacks=[EarlyStoppingCallback(config.patience), MarkComplete()],
        batches=batches,
        ranker=ranker,
        questions=questions,
        exclude_seen=exclude_seen,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(ScoreBar())
    place_logs(trainer.callback_handler.callbacks, config.logging_folder or str(folder))
    if processes.several():
        torch.manual_seed(seed + processes.share()[0])  # or all would drop the same neurons
    train_to_the_end(trainer, folder, config.patience)
    trainer.gather()
    if config.gradient_checkpointing and not sharded:
        model.gradient_checkpointing_disable()
    if config.distillation:
        del model.distillation  # it has done its work: what is served is the language model alone
    state = trainer.state
    history = [entry for entry in state.log_history if f"eval_{METRIC}" in entry]
    best = max(history, key=lambda entry: entry[f"eval_{METRIC}"])
    return TrainingResult(best[f"eval_{METRIC}"], best["epoch"], state.global_step, history)


def _examples(
    model: PreTrainedModel,
    layout: TokenLayout,
    snapshot: Snapshot,
    histories: Histories,
    config: TrainingConfig,
    seed: int,
    user_index: UserIndex | None,
) -> tuple[Dataset, Batches, Callable[[list[Any]], dict[str, torch.Tensor]]]:
    """What the model learns from, in which batches, and how a batch is written."""
    size, adapter = (layout.levels, config.batch_tokens, seed, layout.lead), adapter_of(model)
    examples: Dataset
    batches: Batches
    collate: Collator | TargetCollator
    if layout.queries:  # an answer may be longer than an item that is read
        assert snapshot.vectors is not None
        shape = (layout.item_tokens, config.batch_tokens, seed, layout.lead + max(0, layout.levels - layout.item_tokens))
        targets = HistoryTargets(histories, config.max_history)
        batches = TargetBatches(targets, config.targets_per_user, *shape)
        return targets, batches, PromptCollator(snapshot.codes, layout, snapshot.vectors)
    if model.config.is_encoder_decoder:
        targets = HistoryTargets(histories, config.max_history)
        examples, batches = targets, TargetBatches(targets, config.targets_per_user, *size)
        collate = TargetCollator(snapshot.codes, layout)
        told: Dataset = ToldTargets(targets)
    else:
        windows = HistoryWindows(histories, config.max_history, config.windows_per_user)
        examples, batches = windows, LengthBatches(windows.lengths, *size)
        if user_index or adapter:  # a query is made of items of the window, and those must not be learned
            cut = user_index is not None or (adapter is not None and adapter.pooling == "attention")
            batches = ToldBatches(windows.lengths, *size, cut=cut)
        collate = Collator(snapshot.codes, layout, items=config.distillation > 0)
        told = ToldWindows(windows)
    if user_index is None and adapter is None:
        return examples, batches, collate
    assert snapshot.vectors is not None
    return told, batches, ToldCollator(collate, user_index, snapshot.vectors, adapter is not None)


def check_processes(config: TrainingConfig) -> bool:
    """Whether the model is sharded. Raises `SettingError` for what several processes, or one, cannot do."""
    sharded = config.fsdp != "none"
    if sharded and not processes.several():
        raise SettingError(
            f"training.fsdp {config.fsdp!r} shards the model over several processes, and this is one alone. Start them with "
            "torchrun (see docs/training.md), or leave it out."
        )
    if config.distillation and processes.several():
        raise SettingError(
            "training.distillation tells an item from the others of its batch, which several processes would share out. Leave "
            "it out, or train in one process."
        )
    return sharded


def check_length(model: PreTrainedModel, mix: Mix) -> None:
    """Raise `SettingError` where a sample of the mix may be longer than the model reads."""
    longest, most = int(mix.longest.max()), getattr(model.config, "max_position_embeddings", None)
    if most is not None and longest > most:
        raise SettingError(
            f"The model reads at most {most} tokens, and the longest prompt of tasks may have {longest}. Lower "
            "training.max_history or tasks.text_tokens."
        )
