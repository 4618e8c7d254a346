"""The launchers in training/: each starts `genrec fit` with the flags that it was given."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from quick import QUICK

from genrec import ray_train
from genrec.bundle import read_bundle
from genrec.data.synthetic import write_shop
from genrec.fit import fit
from genrec.recipe import load_recipe
from genrec.recommender import Recommender

ROOT = Path(__file__).parents[2]
LAUNCHERS = sorted((ROOT / "training").glob("*.sh"))


def launch(name: str, *flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
    command = ["bash", str(ROOT / "training" / name), *flags]
    return subprocess.run(command, cwd=ROOT, env=env | settings, capture_output=True, text=True, check=False)


def write_program(path: Path, line: str) -> str:
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.name)
def test_every_launcher_is_bash_that_can_be_run_and_says_how(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert "set -euo pipefail" in text
    assert f"training/{path.name} --items" in text
    assert f"training/{path.name}" in (ROOT / "training" / "README.md").read_text(encoding="utf-8").replace("](", "](training/")


def test_one_gpu_is_the_first_unless_another_is_named(tmp_path: Path) -> None:
    python = write_program(tmp_path / "python", 'echo "$CUDA_VISIBLE_DEVICES|$@"')
    assert launch("one_gpu.sh", "--items", "a b.csv", PYTHON=python).stdout == "0|-m genrec.cli fit --items a b.csv\n"
    assert launch("one_gpu.sh", PYTHON=python, CUDA_VISIBLE_DEVICES="3").stdout == "3|-m genrec.cli fit\n"


def test_slurm_starts_a_torchrun_on_every_machine_that_meets_at_the_first(tmp_path: Path) -> None:
    names = "echo node7; yes node8 | head -n 50000"  # more than a pipe holds
    write_program(tmp_path / "scontrol", f'[ "$1 $2 $3" = "show hostnames node[7-8]" ] || exit 1; {names}')
    write_program(tmp_path / "srun", 'echo "$@"')
    job = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "41", "PYTHON": "python3"}
    done = launch("slurm.sh", "--out", "runs/shop", PATH=f"{tmp_path}:{os.environ['PATH']}", **job)
    assert done.stdout == (
        "python3 -m torch.distributed.run --nnodes 2 --nproc-per-node gpu --rdzv-id 41 --rdzv-backend c10d "
        "--rdzv-endpoint node7:29500 -m genrec.cli fit --out runs/shop\n"
    )


def test_ray_workers_get_the_flags_behind_the_dashes(tmp_path: Path) -> None:
    python = write_program(tmp_path / "python", 'echo "$@"')
    started = launch("ray_train.sh", "--out", "runs/shop", PYTHON=python, WORKERS="4").stdout
    assert started == "-m genrec.ray_train --workers 4 -- --out runs/shop\n"
    started = launch("ray_train.sh", "--out", "runs/shop", PYTHON=python, CPU="1").stdout
    assert started == "-m genrec.ray_train --workers 1 --no-gpu -- --out runs/shop\n"


def test_a_ray_worker_fits_where_it_was_started_and_fails_when_the_fit_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("/")
    flags = ["--items", "items.csv", "--interactions", "interactions.csv", "--out", "out"]
    with pytest.raises(RuntimeError, match="genrec fit failed"):
        ray_train.work({"flags": flags, "folder": str(tmp_path)})
    assert Path.cwd() == tmp_path
    assert "items.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "2"], "stand behind --"),
        (["--workers", "0", "--", "--out", "x"], "--workers must be an integer of at least 1, got 0"),
    ],
)
def test_ray_train_says_what_it_cannot_start(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ray_train.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_one_node_fits_one_bundle_in_two_processes(tmp_path: Path) -> None:
    """And it recommends as the bundle of one process does; without dropout, whose draws differ."""
    write_shop(tmp_path, users=120, items=60, seed=1)
    settings = QUICK | {"model.dropout": 0.0, "training.epochs": 1, "evaluation.max_questions": 20}
    items, events = str(tmp_path / "items.csv"), str(tmp_path / "interactions.csv")
    flags = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    done = launch(
        "one_node.sh", "--items", items, "--interactions", events, "--out", str(tmp_path / "two"), *flags,
        PYTHON=sys.executable, PROCESSES="2", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("Bundle written to") == 1
    assert not (tmp_path / "two" / "work").exists()
    alone = read_bundle(fit(items, events, tmp_path / "one", load_recipe(overrides=settings)))
    assert read_bundle(tmp_path / "two").codes.hash == alone.codes.hash
    history = alone.catalogue.item_ids[:2].tolist()
    [[ours], [theirs]] = [Recommender.load(tmp_path / name).recommend([history], k=5) for name in ("one", "two")]
    assert [item.item_id for item in ours] == [item.item_id for item in theirs]
    np.testing.assert_allclose([item.score for item in ours], [item.score for item in theirs], atol=1e-3)
