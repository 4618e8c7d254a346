"""One process of several that train together; test_processes.py starts them with torchrun.

    torchrun --nproc-per-node 2 tests/training/shared_runs.py FOLDER

Trains all of `RUNS` one after the other, and leaves weights and logs in FOLDER/NAME.
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file
from test_tasks_training import CATALOGUE
from test_tasks_training import run as run_mix
from test_teacher import Always
from test_training import CODES, SIZES, walkers
from worlds import write_llm

from genrec.decoding.snapshot import Snapshot
from genrec.decoding.user_index import UserIndex
from genrec.models.config import ModelConfig
from genrec.models.decoder import build_decoder
from genrec.models.encoder_decoder import build_encoder_decoder
from genrec.training import processes
from genrec.training.checkpoints import MarkComplete
from genrec.training.config import TrainingConfig
from genrec.training.teacher import Lists, Teacher
from genrec.training.trainer import train


@dataclass(frozen=True)
class Run:
    """killed: it dies after its first epoch, and is started again. told: it reads a user index, and soft tokens. taught: by
    another recommender. prompted: a pretrained decoder learns a mix of tasks under LoRA."""

    architecture: str = "decoder"
    dropout: float = 0.0  # what is drawn differs between one process and several
    killed: bool = False
    told: bool = False
    taught: bool = False
    prompted: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


SHARDED = {"fsdp": "full_shard"}
RUNS = {
    "ddp": Run(),
    "ddp-t5": Run("encoder-decoder", settings={"learning_rate": 1e-3}),
    "ddp-told": Run(told=True, settings={"max_history": 4}),
    "ddp-taught": Run(taught=True),
    "ddp-prompted": Run(prompted=True, settings={"batch_tokens": 256, "learning_rate": 1e-3}),
    "ddp-whole": Run(dropout=0.1),
    "ddp-killed": Run(dropout=0.1, killed=True),
    "fsdp": Run(settings=SHARDED),
    "fsdp-killed": Run(killed=True, settings=SHARDED),
    "fsdp-grad-op": Run(settings={"fsdp": "shard_grad_op", "gradient_checkpointing": True}),
}


def run(folder: Path, asked: Run) -> None:
    """Batches of 40 tokens are 1 to 4 histories, so that a process may have none of its own in a step."""
    quick = {"epochs": 2, "batch_tokens": 40, "learning_rate": 0.01, "validation_users": 50, "validation_beam": 16}
    shape = ModelConfig(
        asked.architecture, hidden_size=32, layers=1, heads=2, feed_forward=64, dropout=asked.dropout,  # type: ignore[arg-type]
        user_index=(3, 2) if asked.told else (), user_adapter="attention" if asked.told else None,
    )  # fmt: skip
    vectors = np.random.default_rng(0).normal(size=(len(CODES), 6)).astype(np.float32)

    def go() -> torch.nn.Module:
        if asked.prompted:
            if processes.is_first():
                write_llm(folder / "llm", CATALOGUE.column("title").to_pylist())
            processes.wait()
            return run_mix(folder / "work", folder / "llm", 8, asked.dropout, **quick | asked.settings)[0]
        torch.manual_seed(0)
        build = build_decoder if asked.architecture == "decoder" else build_encoder_decoder
        model, layout = build(shape, SIZES, 64, width=vectors.shape[1])
        config, split = TrainingConfig(**(quick | asked.settings)), walkers(16)
        snapshot = replace(Snapshot.of(CODES, SIZES), vectors=vectors)
        index = UserIndex.fit(split.train, vectors, shape.user_index, 0) if asked.told else None
        lists = None
        if asked.taught:
            if processes.is_first():
                Teacher(Always(1), np.arange(len(CODES))).lists(split.train, 5, False, folder / "teacher")  # type: ignore[arg-type]
            processes.wait()
            lists = Lists.load(folder / "teacher")
        train(model, layout, snapshot, split, config, folder / "work", False, user_index=index, lists=lists)
        return model

    if asked.killed:
        after, on_save = MarkComplete.on_save, mock.Mock(side_effect=KeyboardInterrupt)
        with mock.patch.object(MarkComplete, "on_save", lambda *args, **kwargs: (after(*args, **kwargs), on_save())):
            try:
                go()
            except KeyboardInterrupt:
                processes.wait()
            else:
                raise AssertionError("it was to be killed")
        go()  # to its end, where it is killed once more
    model = go()
    if processes.is_first():
        save_file({name: value.clone() for name, value in model.state_dict().items()}, folder / "model.safetensors")


if __name__ == "__main__":
    for name, asked in RUNS.items():
        run(Path(sys.argv[1]) / name, asked)
