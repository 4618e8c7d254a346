"""Checkpoints of a training: which of them are whole, and how a run that was killed goes on.

In: a Trainer and the folder of its checkpoints. Out: the model at its best, the same as if nobody had killed the run.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from genrec.errors import BundleError
from genrec.training import processes

log = logging.getLogger(__name__)

METRIC = "ndcg@10"  # of validation, which the best checkpoint is the best of
COMPLETE = "complete"  # name of the mark in a checkpoint folder
FINISHED = "finished.json"  # beside the checkpoints of a run that has ended


class MarkComplete(TrainerCallback):
    """Marks a checkpoint once all of it is on disk: what a kill left half written must not be gone on from. The best one is
    looked for where the folder is now: it may have been moved, or named from another place."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        name_best(state, Path(str(args.output_dir)))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        processes.wait()  # until all have written their random states
        if processes.is_first():
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def train_to_the_end(trainer: Trainer, folder: Path, patience: int | None = None) -> None:
    """Train from the start, or from where a killed run was, and leave the model at its best. patience: epochs without progress
    after which the trainer stops (None: it does not).

    A run that has ended is not trained again: what comes after it may be killed too, and of its checkpoints only the best is
    left, from which the last epochs would be repeated.
    """
    finished = folder / FINISHED
    last, ended = processes.told((last_complete_checkpoint(folder), finished.exists()) if processes.is_first() else None)
    if last and not ended and patience is not None:
        ended = stopped_early(last, patience)
        finished = last / "trainer_state.json"
    if last:
        log.info("Going on from %s", last.name)
    if last and ended:
        trainer.state = TrainerState.load_from_json(str(finished))
        name_best(trainer.state, folder)
        trainer._load_best_model()
        return
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    if processes.is_first():
        partial = folder / f"{FINISHED}.partial"
        trainer.state.save_to_json(str(partial))
        partial.replace(folder / FINISHED)


def name_best(state: TrainerState, folder: Path) -> None:
    """Say where the best checkpoint of a run lies, if it has one. Raises `BundleError` where it is gone: the Trainer would only
    warn, and leave the model as it is."""
    if state.best_global_step is None:
        return
    best = folder / f"checkpoint-{state.best_global_step}"
    if not best.exists():
        raise BundleError(
            f"The training in {folder} was at its best in {best.name}, which is gone. Delete {folder} to train anew."
        )
    state.best_model_checkpoint = str(best)


def stopped_early(checkpoint: Path, patience: int) -> bool:
    """Whether the run had lost its patience at this checkpoint: it was killed after training, and must not train on."""
    log_history = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")).log_history
    scores = [entry[f"eval_{METRIC}"] for entry in log_history if f"eval_{METRIC}" in entry]
    return len(scores) - 1 - int(np.argmax(scores)) >= patience


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that was written to its end; half-written ones are deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[-1]))
    for path in found:
        if not (path / COMPLETE).exists():
            shutil.rmtree(path)
    return next((path for path in reversed(found) if path.exists()), None)
