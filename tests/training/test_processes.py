"""Several processes that train one model: what they learn is what one process learns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from shared_runs import RUNS, run

from genrec.errors import SettingError
from genrec.models.tokens import TokenLayout
from genrec.recipe import load_recipe
from genrec.training.config import TrainingConfig
from genrec.training.examples import IGNORED, Collator
from genrec.training.processes import ShareCollator, Shares
from genrec.training.trainer import check_processes

ROOT = Path(__file__).parents[2]


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine's CPU (gloo)."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", *arguments]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "training")])
    env = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "TQDM_DISABLE": "1"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left of all RUNS."""
    folder = tmp_path_factory.mktemp("two")
    done = torchrun("tests/training/shared_runs.py", str(folder))
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def logged(folder: Path, name: str) -> list[float]:
    last = max((folder / "work").glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-")[-1]))
    log = json.loads((last / "trainer_state.json").read_text())["log_history"]
    return [entry[name] for entry in log if name in entry]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process leaves of the runs without dropout."""
    folder = tmp_path_factory.mktemp("one")
    for name in ("ddp", "ddp-t5", "ddp-told", "ddp-taught", "ddp-prompted"):
        run(folder / name, RUNS[name])
    return folder


@pytest.mark.parametrize("name", ["ddp", "ddp-t5", "ddp-told", "ddp-taught", "ddp-prompted", "fsdp", "fsdp-grad-op"])
def test_two_processes_learn_what_one_does(two: Path, one: Path, name: str) -> None:
    """With AdamW, which divides a gradient by its size, weights alone would not show a loss of another scale."""
    alone = one / ("ddp" if name.startswith("fsdp") else name)
    for number in ("loss", "grad_norm", "eval_ndcg@10"):
        np.testing.assert_allclose(logged(two / name, number), logged(alone, number), rtol=2e-3, err_msg=number)
    ours, theirs = load_file(alone / "model.safetensors"), load_file(two / name / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for weight in ours:
        torch.testing.assert_close(theirs[weight], ours[weight], rtol=1e-3, atol=1e-3, msg=weight)


@pytest.mark.parametrize(("whole", "killed"), [("ddp-whole", "ddp-killed"), ("fsdp", "fsdp-killed")])
def test_processes_that_were_killed_end_with_the_same_weights(two: Path, whole: str, killed: str) -> None:
    expected, found = (load_file(two / name / "model.safetensors") for name in (whole, killed))
    for weight in expected:
        assert torch.equal(expected[weight], found[weight]), weight


def test_every_row_of_a_batch_has_one_process() -> None:
    batches = [[5, 3, 8], [1], [2, 4, 6, 7]]
    shares = [list(Shares(batches, number, 2)) for number in range(2)]
    assert shares == [[[5, 8], [1], [2, 6]], [[3], [], [4, 7]]]
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == [sorted(batch) for batch in batches]


def test_an_empty_share_teaches_nothing() -> None:
    collator = Collator(np.array([[0, 1], [1, 0]]), TokenLayout.from_scratch((2, 2)))
    batch = ShareCollator(collator, lambda: np.array([1]))([])
    assert batch["input_ids"].shape == (1, 3)
    assert (batch["labels"] == IGNORED).all()


def test_what_one_process_or_several_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="Start them with torchrun"):
        check_processes(TrainingConfig(fsdp="full_shard"))
    with pytest.raises(SettingError, match="training.fsdp is for a decoder"):
        load_recipe(overrides={"training.fsdp": "full_shard", "model.architecture": "encoder-decoder"})
    with pytest.raises(SettingError, match="training.fsdp is of language models"):
        load_recipe(overrides={"training.fsdp": "full_shard", "model.architecture": "one-pass"})
    with pytest.raises(SettingError, match="Set model.lora_rank to 0"):
        load_recipe(overrides={"training.fsdp": "full_shard", "model.pretrained": "llm"})
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingError, match=r"training\.distillation .* one process"):
        check_processes(TrainingConfig(distillation=0.5))
