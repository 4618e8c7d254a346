"""Several processes that train one model, one a GPU or, on a CPU, as many as you like. Alone, all of this does nothing.

    torchrun --nproc-per-node 2 -m genrec.cli fit --items items.csv --interactions events.csv --out runs/shop

Whoever starts the processes tells them of one another as torchrun does (WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT); they share a file system. All draw the same batches, and each takes its rows of every batch. The loss is divided
by what all of them learn in a step, so N processes take the steps that one would take. What is done once is done by the first.
"""

import atexit
import logging
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, broadcast_object_list
from torch.utils.data import Sampler

from genrec.training.examples import IGNORED

PATIENCE = timedelta(days=7)  # the others wait while the first one makes codes or asks all test questions


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def several() -> bool:
    return count() > 1


def is_first() -> bool:
    """Whether this process does what is done once: alone, it is."""
    return not several() or _state().is_main_process


def join() -> None:
    """Meet the others, who may be minutes away; the first process speaks for all."""
    if several() and not _state().is_main_process:
        logging.getLogger("genrec").setLevel(logging.ERROR)


def wait() -> None:
    """Until all are here."""
    if several():
        _state().wait_for_everyone()


def told(value: Any) -> Any:
    """What the first process says; the value of the others is not looked at."""
    return broadcast_object_list([value])[0] if several() else value


def trainer_arguments(sharded: bool) -> dict[str, Any]:
    """What the Trainer's arguments say of this. sharded: by FSDP."""
    if not several():
        return {}
    state = _state()
    AcceleratorState._reset_state()  # an earlier training in these processes may have been of another kind
    if state.device.type == "cpu":
        # PyTorch shards on a CPU as on a GPU, but Accelerate asks it to only where it sees an accelerator of some name.
        state.distributed_type = DistributedType.MULTI_XPU if sharded else DistributedType.MULTI_CPU
    return {
        "accelerator_config": {"use_configured_state": True},
        "ddp_find_unused_parameters": False,
    }


def _state() -> PartialState:
    """Accelerate's, which is one for the process; made when first asked for."""
    if PartialState._shared_state:
        return PartialState()
    atexit.register(lambda: PartialState().destroy_process_group())
    return PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)


class Shares(Sampler[list[Any]]):
    """This process's rows of each batch: every so-manyth one, so that all have rows of about the same lengths."""

    def __init__(self, batches: Any, number: int, count: int) -> None:
        self.batches, self.number, self.count = batches, number, count

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self.batches:
            yield batch[self.number :: self.count]


class ShareCollator:
    """Writes a share of a batch. Where that is empty, an example that nothing is learned from: all processes must take all
    steps together."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, torch.Tensor]], any_example: Callable[[], Any]) -> None:
        self.collate, self.any_example = collate, any_example

    def __call__(self, examples: list[Any]) -> dict[str, torch.Tensor]:
        if examples:
            return self.collate(examples)
        batch = self.collate([self.any_example()])
        batch["labels"].fill_(IGNORED)
        return batch


def share() -> tuple[int, int]:
    """Number of this process, and how many there are."""
    return (_state().process_index, _state().num_processes) if several() else (0, 1)
