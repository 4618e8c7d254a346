"""Training: windows and batches, learning, early stopping, and a kill that changes nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainingArguments

from genrec.data.interactions import Histories
from genrec.data.splits import Split, leave_one_out
from genrec.decoding.snapshot import Snapshot
from genrec.decoding.user_index import UserIndex
from genrec.errors import BundleError, SettingError
from genrec.models.config import ModelConfig
from genrec.models.decoder import build_decoder
from genrec.models.encoder_decoder import build_encoder_decoder
from genrec.models.tokens import TokenLayout
from genrec.training import trainer as trainer_module
from genrec.training.config import TrainingConfig
from genrec.training.distillation import Distillation
from genrec.training.examples import IGNORED, Collator, HistoryWindows, LengthBatches
from genrec.training.targets import TargetCollator
from genrec.training.teacher import Teacher
from genrec.training.trainer import TrainingResult, train

CODES = np.array([[a, b] for a in range(4) for b in range(4)])
SIZES = (4, 4)


def walkers(users: int = 120, seed: int = 0) -> Split:
    """Users who mostly go from item i to item i + 1: learnable in a few steps."""
    random = np.random.default_rng(seed)
    steps = np.where(random.random((users, 12)) < 0.9, 1, 5)
    walks = (random.integers(0, 16, (users, 1)) + np.cumsum(steps, axis=1)) % 16
    return leave_one_out(Histories.from_lists([walk[: random.integers(4, 13)] for walk in walks]))


def run(
    folder: Path,
    split: Split | None = None,
    vectors: np.ndarray | None = None,
    architecture: str = "decoder",
    dropout: float = 0.1,
    index: tuple[int, ...] = (),
    teacher: Teacher | None = None,
    **settings: object,
) -> tuple[torch.nn.Module, TrainingResult]:
    quick = {"epochs": 4, "batch_tokens": 256, "learning_rate": 0.01, "validation_users": 50, "validation_beam": 16}
    config = TrainingConfig(**(quick | settings))  # type: ignore[arg-type]
    torch.manual_seed(0)
    shape = ModelConfig(
        architecture,
        hidden_size=32,
        layers=1,
        heads=2,
        feed_forward=64,
        dropout=dropout,
        user_index=index,  # type: ignore[arg-type]
    )
    model, layout = (build_decoder if architecture == "decoder" else build_encoder_decoder)(shape, SIZES, 64)
    split, snapshot = split or walkers(), replace(Snapshot.of(CODES, SIZES), vectors=vectors)
    user_index = UserIndex.fit(split.train, vectors, index, 0) if index and vectors is not None else None
    lists = None if teacher is None else teacher.lists(split.train, config.teacher_items, False, folder / "teacher")
    result = train(model, layout, snapshot, split, config, folder, False, 0, vectors, user_index=user_index, lists=lists)
    return model, result


def test_training_learns_what_comes_next(tmp_path: Path) -> None:
    _, result = run(tmp_path, epochs=8)
    scores = [epoch["eval_ndcg@10"] for epoch in result.history]
    assert result.best == max(scores)
    assert result.best > 0.8, "9 of 10 steps are predictable"
    assert scores[0] < result.best


def test_an_encoder_decoder_learns_what_comes_next(tmp_path: Path) -> None:
    settings = {"epochs": 8, "batch_tokens": 512, "learning_rate": 3e-3, "targets_per_user": 0}
    _, result = run(tmp_path, walkers(400), architecture="encoder-decoder", **settings)
    assert result.best > 0.7, "9 of 10 steps are predictable"
    assert result.history[0]["eval_ndcg@10"] < result.best


def test_bf16_learns_on_a_cpu_too_and_keeps_its_weights_in_float32(tmp_path: Path) -> None:
    model, result = run(tmp_path, epochs=8, precision="bf16")
    assert result.best > 0.8
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("architecture", ["decoder", "encoder-decoder"])
def test_a_model_that_learned_in_bf16_answers_in_float32(architecture: str, tmp_path: Path) -> None:
    model, _ = run(tmp_path, architecture=architecture, epochs=1, precision="bf16")
    same = type(model)(model.config).eval()  # type: ignore[arg-type, call-arg]
    same.load_state_dict(model.state_dict())
    asked = {"input_ids": torch.tensor([[0, 3, 7]])} | ({"labels": torch.tensor([[3, 7]])} if "encoder" in architecture else {})
    torch.testing.assert_close(model.eval()(**asked).logits, same(**asked).logits, rtol=0, atol=0)


def test_item_ends_are_where_the_last_code_of_each_item_stands() -> None:
    windows = [np.array([3, 7, 9]), np.array([5])]
    batch = Collator(CODES, TokenLayout.from_scratch(SIZES), items=True)(windows)
    assert batch["items"].tolist() == [[-1, -1, 3, -1, 7, -1, 9], [-1, -1, -1, -1, -1, -1, 5]]
    assert batch["items"].shape == batch["input_ids"].shape


def test_distillation_teaches_the_model_and_not_the_teachers() -> None:
    torch.manual_seed(0)
    vectors = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    distillation = Distillation(8, vectors, 0.5)
    states = torch.randn(2, 5, 8, requires_grad=True)
    items = torch.tensor([[-1, -1, 3, -1, 4], [-1, -1, -1, -1, 3]])
    distillation(states, items).backward()
    assert states.grad is not None
    assert (states.grad.abs().sum(dim=2) > 0).tolist() == (items >= 0).tolist()
    assert distillation.head.weight.grad is not None
    assert not distillation.get_buffer("teachers").requires_grad
    assert [name for name, _ in distillation.named_parameters()] == ["head.weight"]
    vectors[5] = vectors[3]
    alone = Distillation(8, vectors, 0.5)
    alone.load_state_dict(distillation.state_dict())
    twin = torch.tensor([[-1, -1, 3, -1, 5], [-1, -1, -1, -1, -1]])
    assert alone(states, twin).item() == 0, "an item with the very same vector is no negative"
    twice = Distillation(8, vectors, 1.0)
    twice.load_state_dict(distillation.state_dict())
    assert twice(states, items).item() == pytest.approx(2 * distillation(states, items).item())


def test_distillation_changes_weights_and_nothing_else(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    plain, _ = run(tmp_path / "plain", epochs=1)
    taught, _ = run(tmp_path / "taught", vectors=vectors, epochs=1, distillation=0.5)
    shapes = [{name: tuple(p.shape) for name, p in model.named_parameters()} for model in (plain, taught)]
    assert shapes[0] == shapes[1]
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), taught.parameters(), strict=True))
    with pytest.raises(SettingError, match="distillation needs item vectors"):
        run(tmp_path / "none", distillation=0.5)
    with pytest.raises(SettingError, match="no encoder-decoder"):
        run(tmp_path / "none", None, vectors, "encoder-decoder", distillation=0.5)


@pytest.mark.parametrize(
    ("architecture", "distillation", "index"),
    [("decoder", 0.0, ()), ("decoder", 0.5, (4, 2)), ("encoder-decoder", 0.0, ()), ("encoder-decoder", 0.0, (4,))],
)
def test_a_killed_run_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, distillation: float, index: tuple[int, ...]
) -> None:
    vectors = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    settings = {"distillation": distillation, "index": index}
    whole, expected = run(tmp_path / "whole", None, vectors, architecture, **settings)  # type: ignore[arg-type]
    calls = {"left": int(2.5 * expected.steps / 4)}
    collator = Collator if architecture == "decoder" else TargetCollator
    collate = collator.__call__

    def killed(self: Collator, *told: Any) -> dict:
        calls["left"] -= 1
        if calls["left"] < 0:
            raise KeyboardInterrupt
        return collate(self, *told)

    with monkeypatch.context() as patch:
        patch.setattr(collator, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", None, vectors, architecture, **settings)  # type: ignore[arg-type]
    [last, *_] = sorted((tmp_path / "killed").glob("checkpoint-*"), reverse=True)
    half_written = last.with_name("checkpoint-999")
    half_written.mkdir()
    (half_written / "trainer_state.json").write_text('{"best_met')
    resumed, result = run(tmp_path / "killed", None, vectors, architecture, **settings)  # type: ignore[arg-type]
    assert result.steps == expected.steps
    assert [e["eval_ndcg@10"] for e in result.history] == [e["eval_ndcg@10"] for e in expected.history]
    for (name, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def test_the_best_epoch_is_kept_and_training_stops_when_it_does_not_get_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.5, 0.2, 0.3, 0.4, 0.45])
    monkeypatch.setattr(trainer_module, "ndcg_at", lambda positions, k: np.array([next(scores)]))
    _, result = run(tmp_path, epochs=6, patience=2)
    assert (result.best, result.epoch, len(result.history)) == (0.5, 2.0, 4)


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_kill_does_not_lend_new_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int) -> None:
    """Scores 5, 4, 3: with a patience of 2 the run ends at epoch 3, whenever it was killed before that or after."""
    scores = [0.5, 0.4, 0.3, 0.9, 0.9]
    asked: list[float] = []

    def fake(positions: np.ndarray, k: int) -> np.ndarray:
        asked.append(scores[len(asked)])
        return np.array([asked[-1]])

    monkeypatch.setattr(trainer_module, "ndcg_at", fake)
    begin = trainer_module.MarkComplete.on_save

    def kill(self: trainer_module.MarkComplete, *args: object, **kwargs: object) -> None:
        begin(self, *args, **kwargs)  # type: ignore[arg-type]
        if len(asked) == killed_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.MarkComplete, "on_save", kill)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", epochs=5, patience=2)
    resumed, result = run(tmp_path / "killed", epochs=5, patience=2)
    assert asked == scores[:3]
    assert (result.best, result.epoch, len(result.history)) == (0.5, 1.0, 3)
    asked.clear()
    whole, expected = run(tmp_path / "whole", epochs=5, patience=2)
    assert result == expected
    for one, two in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("architecture", ["decoder", "encoder-decoder"])
def test_a_run_that_has_ended_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    """Of its checkpoints only the best is left, and what comes after training may be killed too. Its folder may move."""
    scores = iter([0.5, 0.4, 0.3])
    monkeypatch.setattr(trainer_module, "ndcg_at", lambda positions, k: np.array([next(scores)]))
    model, expected = run(tmp_path / "here", architecture=architecture, epochs=5, patience=2)
    (tmp_path / "here").rename(tmp_path / "there")
    [checkpoint] = tmp_path.glob("there/checkpoint-*")
    monkeypatch.setattr(trainer_module.RecommendationTrainer, "train", None)  # whoever trains again fails
    again, result = run(tmp_path / "there", architecture=architecture, epochs=5, patience=2)
    assert result == expected
    assert (result.epoch, len(result.history)) == (1.0, 3)
    for (name, one), two in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    checkpoint.rename(tmp_path / "lost")
    (tmp_path / "there" / "checkpoint-9").mkdir()
    (tmp_path / "there" / "checkpoint-9" / "complete").touch()
    with pytest.raises(BundleError, match=f"at its best in {checkpoint.name}, which is gone"):
        run(tmp_path / "there", architecture=architecture, epochs=5, patience=2)


class TwoGpus(TrainingArguments):
    def __post_init__(self) -> None:
        super().__post_init__()
        self._n_gpu = 2


class Refused(torch.nn.DataParallel):
    def __init__(self, *_: object, **__: object) -> None:
        raise AssertionError


def test_of_several_gpus_one_process_takes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The Trainer would split each batch over them by itself, which is another training than the recipe's."""
    model, _ = run(tmp_path / "one", epochs=1)

    monkeypatch.setattr(trainer_module, "TrainingArguments", TwoGpus)

    with caplog.at_level("INFO", logger="genrec"), monkeypatch.context() as patch:
        patch.setattr(torch.nn, "DataParallel", Refused)
        same, _ = run(tmp_path / "two", epochs=1)
    assert "One of 2 GPUs is used. training/one_node.sh starts a process on each." in caplog.text
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), same.parameters(), strict=True))


def test_a_split_without_validation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="needs validation questions"):
        run(tmp_path, split=leave_one_out(Histories.from_lists([[1, 2], [3, 4]])))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "training.epochs must be an integer of at least 1, got 0"),
        ({"learning_rate": 0.0}, "training.learning_rate must be above 0"),
        ({"warmup": 1.0}, "training.warmup must be from 0 to below 1"),
        ({"precision": "fp16"}, r"training.precision must be one of \['auto', 'fp32', 'bf16'\], got 'fp16'"),
        ({"weight_decay": -0.1}, "training.weight_decay"),
        ({"validation_beam": 5}, "training.validation_beam must be an integer from 10"),
    ],
)
def test_impossible_settings_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        TrainingConfig(**setting)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.integers(1, 8))
def test_windows_hold_every_event_once_and_never_more_than_the_model_reads(lengths: list[int], max_history: int) -> None:
    histories = [np.arange(n) for n in lengths]
    windows = HistoryWindows(Histories.from_lists(histories), max_history)
    assert windows.lengths.sum() == sum(lengths)
    assert all(1 <= n <= max_history + 1 for n in windows.lengths)
    assert sorted(np.concatenate([*windows, np.zeros(0, int)])) == sorted(np.concatenate([*histories, np.zeros(0, int)]))
    for window in windows:
        np.testing.assert_array_equal(np.diff(window), 1)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.integers(1, 8), st.integers(0, 3))
def test_windows_stand_in_the_order_of_the_histories_the_latest_first(lengths: list[int], size: int, per_user: int) -> None:
    """Which example has which number decides what a batch holds: it must never change."""
    histories = Histories.from_lists([np.arange(n) + 100 * user for user, n in enumerate(lengths)])
    windows = HistoryWindows(histories, size - 1, per_user)
    expected = [
        history[max(0, stop - size) : stop]
        for history in histories.to_lists()
        for stop in list(range(len(history), 0, -size))[: per_user or None]
    ]
    assert [windows[number].tolist() for number in range(len(windows))] == [window.tolist() for window in expected]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=200), st.integers(1, 4), st.integers(20, 400))
def test_batches_hold_every_window_once_within_the_budget(lengths: list[int], per_item: int, budget: int) -> None:
    batches = LengthBatches(np.array(lengths), per_item, budget, seed=3)
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        drawn = list(batches)
        assert len(drawn) == len(batches)
        assert sorted(n for batch in drawn for n in batch) == list(range(len(lengths)))
        for batch in drawn:
            assert len(batch) == 1 or len(batch) * (1 + per_item * max(lengths[n] for n in batch)) <= budget
        assert list(batches) == drawn, "an epoch can be drawn again"


def test_batches_waste_little_on_padding_and_differ_between_epochs() -> None:
    lengths = np.random.default_rng(0).geometric(0.12, 5000).clip(max=21)
    batches = LengthBatches(lengths, 4, 4096, seed=0)
    first = list(batches)
    padded = sum(len(batch) * (1 + 4 * lengths[batch].max()) for batch in first)
    assert (1 + 4 * lengths).sum() / padded > 0.97
    batches.set_epoch(1)
    assert list(batches) != first


def test_every_code_is_predicted_and_nothing_else() -> None:
    layout = TokenLayout.from_scratch(SIZES)
    batch = Collator(CODES, layout)([np.array([5, 7]), np.array([1])])
    assert batch["input_ids"].shape == batch["labels"].shape == (2, 5)
    assert (batch["labels"] != IGNORED).sum() == 6, "3 items of 2 codes"
    assert (batch["labels"][batch["labels"] != IGNORED] >= layout.base).all()
    assert batch["attention_mask"].tolist() == [[1] * 5, [0, 0, 1, 1, 1]]
