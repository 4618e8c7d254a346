"""A teacher: what it is asked, what becomes of its answers, and that a model learns them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_training import CODES, SIZES, run
from torch.nn.functional import cross_entropy

from genrec.data.interactions import Histories
from genrec.data.splits import leave_one_out
from genrec.errors import SettingError
from genrec.models.tokens import TokenLayout
from genrec.recipe import load_recipe
from genrec.training import teacher as teacher_module
from genrec.training.examples import IGNORED, Collator, HistoryWindows
from genrec.training.targets import HistoryTargets, TargetCollator
from genrec.training.teacher import Lists, TaughtCollator, TaughtExamples, Teacher, taught_loss

LAYOUT = TokenLayout.from_scratch(SIZES)
SAME = np.arange(len(CODES))


class Always:
    """Recommends the item so many behind the latest one, with most of its belief, and the one after that; for no history item 0
    alone. `asked` keeps what it was asked."""

    def __init__(self, step: int) -> None:
        self.step, self.asked = step, []

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        rows, scores = np.full((len(histories), k), -1), np.full((len(histories), k), -np.inf, np.float32)
        for number, history in enumerate(histories.to_lists()):
            self.asked.append((history.tolist(), exclude_seen))
            latest = history[-1] + self.step if len(history) else 0
            found = [latest % 16, (latest + 1) % 16][: 2 if len(history) else 1]
            rows[number, : len(found)], scores[number, : len(found)] = found, np.log([0.9, 0.1])[: len(found)]
        return rows, scores


def teacher(step: int = 1, rows: np.ndarray = SAME) -> Teacher:
    return Teacher(Always(step), rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("copied", [1, 2, 2**20])
def test_it_is_asked_once_about_what_came_before_each_event_and_nothing_later(
    copied: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_module, "COPIED", copied)
    histories, asked = Histories.from_lists([[3, 7, 9], [], [5]]), teacher()
    (tmp_path / "lists.partial").mkdir()  # a run was killed here
    for _ in range(2):
        lists = asked.lists(histories, 3, True, tmp_path / "lists")
    assert asked.ranker.asked == [([], True), ([3], True), ([3, 7], True), ([], True)]  # type: ignore[union-attr]
    assert lists.rows.tolist() == [[0, -1, -1], [4, 5, -1], [8, 9, -1], [0, -1, -1]]
    np.testing.assert_allclose(lists.shares, [[1, 0, 0], [0.9, 0.1, 0], [0.9, 0.1, 0], [1, 0, 0]], atol=1e-6)


def test_its_rows_are_turned_into_ours(tmp_path: Path) -> None:
    """Our item i is its item 15 - i: it hears of 12 where we had 3, and its 13 and 14 are our 2 and 1."""
    asked = teacher(rows=SAME[::-1].copy())
    lists = asked.lists(Histories.from_lists([[3, 7]]), 2, False, tmp_path / "lists")
    assert asked.ranker.asked == [([], False), ([12], False)]  # type: ignore[union-attr]
    assert lists.rows.tolist() == [[15, -1], [2, 1]]


def test_a_teacher_that_has_nothing_to_say_leaves_the_label_alone(tmp_path: Path) -> None:
    class Silent(Always):
        def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
            return np.full((len(histories), k), -1), np.full((len(histories), k), -np.inf, np.float32)

    silent = Teacher(Silent(1), SAME)  # type: ignore[arg-type]
    lists = silent.lists(Histories.from_lists([[3]]), 2, True, tmp_path / "lists")
    _, shares = TaughtCollator(Collator(CODES, LAYOUT), lists, np.array([3]), CODES, LAYOUT, 0.9).lessons(np.array([0]))
    assert shares.tolist() == [[[1, 0, 0], [1, 0, 0]]]


@given(st.data())
def test_a_lesson_is_how_the_teacher_goes_on_from_the_codes_before(data: st.DataObject) -> None:
    """Against the definition, level by level: of the listed items with the codes before, how much has each code."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sizes = tuple(data.draw(st.lists(st.integers(2, 4), min_size=1, max_size=3)))
    codes = np.column_stack([random.integers(0, size, 12) for size in sizes])
    most, weight = data.draw(st.integers(1, 12)), data.draw(st.sampled_from([0.3, 1.0]))
    rows = np.stack([random.permutation(12)[:most] for _ in range(5)]).astype(np.int32)
    rows[random.random(rows.shape) < 0.2] = -1
    shares = np.where(rows >= 0, random.random(rows.shape), 0).astype(np.float32)
    items, layout = random.integers(0, 12, 5), TokenLayout.from_scratch(sizes)
    collator = TaughtCollator(Collator(codes, layout), Lists(rows, shares), items, codes, layout, weight)
    tokens, parts = collator.lessons(np.arange(5))
    for event, item in enumerate(items):
        for level in range(len(sizes)):
            expected = np.zeros(layout.vocabulary_size)
            for row, share in zip(rows[event], shares[event], strict=True):
                if row >= 0 and (codes[row, :level] == codes[item, :level]).all():
                    expected[layout.to_tokens(codes[row])[level]] += share
            expected *= weight / expected.sum() if expected.sum() > 0 else 0
            expected[layout.to_tokens(codes[item])[level]] += 1 - expected.sum()
            found = np.bincount(tokens[event, level], parts[event, level], layout.vocabulary_size)
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("cells", [1, 20, 10**6])
def test_the_loss_is_the_cross_entropy_to_the_lesson(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are worked on at once."""
    monkeypatch.setattr(teacher_module, "CPU_CELLS", cells)
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 9, requires_grad=True)
    labels = torch.tensor([[IGNORED, 2, 5], [IGNORED, 4, 7]])
    tokens = torch.tensor([[[1, 3], [2, 4], [5, 5]], [[0, 0], [4, 0], [7, 1]]])
    shares = torch.tensor([[[0.5, 0.5], [0.5, 0.5], [0.3, 0.7]], [[0, 0], [1, 0], [0.2, 0.8]]])
    loss = 3 * taught_loss(logits, labels, tokens, shares)
    [gradient] = torch.autograd.grad(loss, logits)
    target = torch.zeros(2, 3, 9).scatter_add(2, tokens, shares)
    other = logits.detach().clone().requires_grad_()
    expected = cross_entropy(other.flatten(0, 1), target.flatten(0, 1), reduction="none")[labels.flatten() != IGNORED].sum()
    torch.testing.assert_close(loss, 3 * expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(3 * expected, other)[0])


@pytest.mark.parametrize("architecture", ["decoder", "encoder-decoder"])
def test_what_a_batch_is_taught_stands_where_its_labels_stand(architecture: str, tmp_path: Path) -> None:
    histories = Histories.from_lists([[3, 7, 9], [5]])
    if architecture == "decoder":
        examples, collate = TaughtExamples(HistoryWindows(histories, 1)), Collator(CODES, LAYOUT)
    else:
        examples, collate = TaughtExamples(HistoryTargets(histories, 2)), TargetCollator(CODES, LAYOUT)  # type: ignore[assignment]
    lists = teacher().lists(histories, 2, False, tmp_path / "lists")
    batch = TaughtCollator(collate, lists, histories.items, CODES, LAYOUT, 0.5)([examples[n] for n in range(len(examples))])
    learned = batch["labels"] != IGNORED
    torch.testing.assert_close(batch["taught_shares"].sum(dim=2), learned.float())
    assert torch.equal(batch["taught_tokens"][learned][:, 0], batch["labels"][learned])
    events = np.concatenate([examples[n][1] for n in range(len(examples))])
    second = LAYOUT.to_tokens(CODES[lists.rows[events, 0]]).reshape(-1)
    assert batch["taught_tokens"][learned][:, 1].tolist() == second.tolist()
    assert set(events) == {0, 1, 2, 3}


@pytest.mark.parametrize(("architecture", "rate", "least"), [("decoder", 0.01, 0.6), ("encoder-decoder", 0.003, 0.45)])
def test_a_model_learns_what_its_teacher_says_and_its_histories_do_not(
    architecture: str, rate: float, least: float, tmp_path: Path
) -> None:
    """Training events are drawn at random; what is asked at the end is three items further, as the teacher has it."""
    random, histories = np.random.default_rng(0), []
    for length in random.integers(5, 13, 300):
        walk = random.permutation(16)[:length]
        histories.append(np.concatenate([walk, (walk[-1] + [3, 6]) % 16]))
    split = leave_one_out(Histories.from_lists(histories))
    settings: dict[str, Any] = {"architecture": architecture, "learning_rate": rate, "dropout": 0.0, "epochs": 12}
    settings |= {"patience": 12, "targets_per_user": 0}
    _, alone = run(tmp_path / "alone", split, **settings)
    _, taught = run(tmp_path / "taught", split, teacher=teacher(3), teacher_weight=1.0, **settings)
    assert alone.best < 0.4
    assert taught.best > least


@pytest.mark.parametrize("architecture", ["decoder", "encoder-decoder"])
def test_a_killed_run_ends_with_the_same_weights(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"architecture": architecture}
    whole, expected = run(tmp_path / "whole", teacher=teacher(), **settings)
    left, collate = int(2.5 * expected.steps / 4), TaughtCollator.__call__

    def killed(self: TaughtCollator, some: list) -> dict:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return collate(self, some)

    with monkeypatch.context() as patch:
        patch.setattr(TaughtCollator, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", teacher=teacher(), **settings)
    resumed, result = run(tmp_path / "killed", teacher=teacher(), **settings)
    assert result == expected
    for (name, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def test_lists_beside_other_examples_are_refused(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    for name, more in {"distilled": {"distillation": 0.5}, "indexed": {"index": (3,)}}.items():
        with pytest.raises(SettingError, match="beside plain histories of codes alone"):
            run(tmp_path / name, vectors=vectors, teacher=teacher(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training.teacher_weight": 0.3}, "there is no teacher"),
        ({"training.teacher_items": 5}, "there is no teacher"),
        ({"training.teacher": "a", "training.teacher_weight": 0.0}, "must be above 0 and at most 1, got 0.0"),
        ({"training.teacher": "a", "training.teacher_items": 0}, "training.teacher_items must be an integer from 1 to 4096"),
        ({"training.teacher": "a", "training.distillation": 0.5}, "training.distillation learns from more"),
        ({"training.teacher": "a", "model.user_index": [4]}, "model.user_index learns from more"),
        ({"training.teacher": "a", "model.user_adapter": "mean"}, "model.user_adapter learns from more"),
        ({"training.teacher": "a", "model.pretrained": "b", "tasks.search": 1.0}, "the section tasks learns from more"),
        ({"training.teacher": "a", "model.architecture": "one-pass"}, "training.teacher is of language models"),
    ],
)
def test_what_no_teacher_can_do_is_refused(overrides: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load_recipe(overrides=overrides)
