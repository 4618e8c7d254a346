"""Training of what does not fit: accumulated batches, recomputed layers, half precision; and who is told how it goes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_teacher import Always
from test_training import run, walkers
from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK

from genrec.errors import MissingDependencyError, SettingError
from genrec.recipe import load_recipe
from genrec.training import reporters
from genrec.training import trainer as trainer_module
from genrec.training.config import TrainingConfig
from genrec.training.examples import LengthBatches
from genrec.training.targets import TargetBatches
from genrec.training.teacher import Teacher


class Halves:
    """Every batch as two."""

    def __init__(self, batches: LengthBatches | TargetBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return 2 * len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield batch[: len(batch) // 3]  # of different sizes: what counts is what is learned, not how many batches
            yield batch[len(batch) // 3 :]


def losses(folder: Path) -> list[float]:
    [last] = folder.glob("checkpoint-*")
    log = trainer_module.TrainerState.load_from_json(str(last / "trainer_state.json")).log_history
    return [entry["loss"] for entry in log if "loss" in entry]


@pytest.mark.parametrize("architecture", ["decoder", "encoder-decoder"])
def test_accumulated_batches_are_one_large_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    """Without dropout, whose draws would differ."""
    usual = trainer_module._examples

    def halved(*given: Any) -> Any:
        examples, batches, collator = usual(*given)
        return examples, Halves(batches), collator  # type: ignore[arg-type]

    settings = {"epochs": 1, "batch_tokens": 256, "learning_rate": 1e-3, "dropout": 0.0}
    whole, _ = run(tmp_path / "whole", architecture=architecture, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "_examples", halved)
        halves, _ = run(tmp_path / "halves", architecture=architecture, accumulation_steps=2, **settings)
    np.testing.assert_allclose(losses(tmp_path / "halves"), losses(tmp_path / "whole"), rtol=1e-3)
    for (name, one), two in zip(whole.state_dict().items(), halves.state_dict().values(), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("architecture", ["decoder", "encoder-decoder"])
def test_a_teacher_who_counts_for_nothing_changes_no_loss(architecture: str, steps: int, tmp_path: Path) -> None:
    settings = {"architecture": architecture, "epochs": 1, "learning_rate": 1e-3, "dropout": 0.0, "accumulation_steps": steps}
    run(tmp_path / "alone", **settings)
    silent = Teacher(Always(1), np.arange(16))  # type: ignore[arg-type]
    run(tmp_path / "taught", teacher=silent, teacher_weight=1e-9, **settings)
    np.testing.assert_allclose(losses(tmp_path / "taught"), losses(tmp_path / "alone"), rtol=1e-3)


def test_computing_layers_again_changes_no_weight(tmp_path: Path) -> None:
    usual, _ = run(tmp_path / "usual", walkers(30), epochs=1)
    again, _ = run(tmp_path / "again", walkers(30), epochs=1, gradient_checkpointing=True)
    for (name, one), two in zip(usual.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    assert not again.is_gradient_checkpointing, "only training needs it"


def test_half_precision_learns_on_a_cpu_and_keeps_whole_weights(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "fp32", epochs=1, precision="fp32")
    half, _ = run(tmp_path / "bf16", epochs=1, precision="bf16")
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    assert any(not torch.equal(one, two) for one, two in zip(whole.parameters(), half.parameters(), strict=True))
    np.testing.assert_allclose(losses(tmp_path / "bf16"), losses(tmp_path / "fp32"), rtol=0.05)


def test_a_reporter_is_told_losses_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, float] = {}

    class Reporter(TrainerCallback):
        logging_dir: str | None = None

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            told.update(logs, folder=self.logging_dir)  # type: ignore[arg-type]

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Reporter)
    monkeypatch.setattr(reporters, "get_available_reporting_integrations", lambda: ["tensorboard"])
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    _, result = run(tmp_path, walkers(30), epochs=1, report_to=["tensorboard"], logging_folder="logs")
    assert told["eval_ndcg@10"] == result.best
    assert {"loss", "learning_rate", "grad_norm"} <= told.keys()
    assert told["folder"] == "logs"


def test_a_reporter_that_is_not_there_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporters, "get_available_reporting_integrations", list)
    with pytest.raises(MissingDependencyError, match="pip install tensorboard"):
        reporters.check_reporters(["tensorboard"])
    with pytest.raises(SettingError, match=r"training.report_to must be one of .* Did you mean 'wandb'"):
        reporters.check_reporters(["wandbb"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"accumulation_steps": 0}, "training.accumulation_steps must be an integer of at least 1, got 0"),
        ({"accumulation_steps": 2, "distillation": 0.5}, "training.distillation .*accumulation_steps to 1, got 2"),
        ({"fsdp": "hybrid"}, r"training.fsdp must be one of \['none', 'full_shard', 'shard_grad_op'\], got 'hybrid'"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        TrainingConfig(**setting)


def test_a_one_pass_model_has_none_of_these_settings() -> None:
    with pytest.raises(SettingError, match="training.gradient_checkpointing is of language models"):
        load_recipe(overrides={"model.architecture": "one-pass", "training.gradient_checkpointing": True})
