"""Post-training: the losses are the papers', what was taken gains, nothing but training is read, and it is never worse."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from quick import QUICK
from test_training import CODES, SIZES, walkers
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK
from worlds import brute_force, make_ranker, write_llm

from genrec.bundle import read_bundle
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Snapshot
from genrec.errors import SettingError
from genrec.fit import fit
from genrec.models.config import ModelConfig
from genrec.models.decoder import build_decoder
from genrec.models.tokens import TokenLayout, write_histories
from genrec.recipe import load_recipe
from genrec.recommender import Recommender
from genrec.training.config import TrainingConfig
from genrec.training.preference import PostTrainingConfig, RolloutCollator, advantages, make_rollouts, post_train
from genrec.training.preference_losses import CLIP, candidate_log_probs, group_loss, preference_loss
from genrec.training.trainer import train

TRAINING = TrainingConfig(epochs=2, batch_tokens=512, learning_rate=0.01, validation_users=50, validation_beam=16)
Trained = tuple[torch.nn.Module, TokenLayout, Snapshot]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    torch.manual_seed(0)
    shape = ModelConfig(hidden_size=32, layers=1, heads=2, feed_forward=64, dropout=0.1)
    (model, layout), snapshot = build_decoder(shape, SIZES, 64), Snapshot.of(CODES, SIZES)
    train(model, layout, snapshot, walkers(), TRAINING, tmp_path_factory.mktemp("training"), False)
    return model, layout, snapshot


def run(
    trained: Trained, folder: Path, method: str = "dpo", start: float = -1.0, **settings: object
) -> tuple[torch.nn.Module, dict]:
    """A copy of the model, post-trained, and what happened. start below 0: the last word is not validation's."""
    model, layout, snapshot = copy.deepcopy(trained[0]), *trained[1:]
    config = PostTrainingConfig(method, **({"learning_rate": 3e-3, "rollouts": 6} | settings))  # type: ignore[arg-type]
    return model, post_train(model, layout, snapshot, walkers(), TRAINING, config, folder, False, start)


def test_a_model_that_was_post_trained_in_bf16_answers_in_float32(trained: Trained, tmp_path: Path) -> None:
    model, layout, snapshot = copy.deepcopy(trained[0]), *trained[1:]
    config = PostTrainingConfig("dpo", rollouts=6)
    post_train(model, layout, snapshot, walkers(), replace(TRAINING, precision="bf16"), config, tmp_path, False, -1.0)
    same = copy.deepcopy(trained[0]).eval()
    same.load_state_dict(model.state_dict())
    asked = torch.tensor([[0, 3, 7]])
    torch.testing.assert_close(model.eval()(input_ids=asked).logits, same(input_ids=asked).logits, rtol=0, atol=0)


def ranker_of(trained: Trained, model: torch.nn.Module | None = None) -> BeamRanker:
    return BeamRanker(model or trained[0], *trained[1:], 16, TRAINING.max_history)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
def test_candidates_side_by_side_have_the_log_probabilities_of_one_at_a_time(family: str) -> None:
    codes = np.random.default_rng(0).integers(0, 3, (12, 3))
    ranker = make_ranker((3, 3, 3), codes, family=family)
    histories = [np.array([4, 0, 7]), np.array([], np.int64), np.array([1])]
    candidates = np.array([[0, 3, 5], [2, 2, 9], [11, 1, 4]])
    tokens, mask = map(torch.from_numpy, write_histories(histories, codes, ranker.layout))
    found = candidate_log_probs(
        ranker.model, ranker.head, ranker.layout, tokens, mask, torch.from_numpy(codes[candidates].astype(np.int64))
    )
    wanted = np.stack([brute_force(ranker, h)[rows] for h, rows in zip(histories, candidates, strict=True)])
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=1e-4)
    assert found.requires_grad


def test_the_preference_loss_is_dpo_with_one_other_item_and_s_dpo_with_more() -> None:
    now, before = torch.tensor([[-1.0, -2.0, -4.0]]), torch.tensor([[-1.5, -1.0, -3.0]])
    margins = [0.1 * ((-1.0 + 1.5) - (-2.0 + 1.0)), 0.1 * ((-1.0 + 1.5) - (-4.0 + 3.0))]
    one = preference_loss(now, before, torch.tensor([[True, True, False]]), 0.1)
    assert one.item() == pytest.approx(-math.log(1 / (1 + math.exp(-margins[0]))))
    both = preference_loss(now, before, torch.ones(1, 3, dtype=torch.bool), 0.1)
    assert both.item() == pytest.approx(math.log(1 + math.exp(-margins[0]) + math.exp(-margins[1])))
    assert preference_loss(before, before, torch.ones(1, 3, dtype=torch.bool), 0.1).item() == pytest.approx(math.log(3))


def test_the_group_loss_pushes_by_advantage_clips_and_pays_for_distance() -> None:
    before, worth = torch.zeros(1, 3), torch.tensor([[2.0, -1.0, 5.0]])
    there = torch.tensor([[True, True, False]])
    now = torch.tensor([[math.log(1.1), math.log(0.9), 3.0]], requires_grad=True)
    loss = group_loss(now, before, worth, there, 0.0)
    assert loss.item() == pytest.approx(-(1.1 * 2.0 - 0.9 * 1.0) / 2)
    loss.backward()
    assert now.grad is not None
    assert (now.grad.sign() == torch.tensor([[-1.0, 1.0, 0.0]])).all(), "up, down, and an empty place"
    far = torch.tensor([[math.log(2.0), math.log(0.9), 0.0]])
    assert group_loss(far, before, worth, there, 0.0).item() == pytest.approx(-((1 + CLIP) * 2.0 - 0.9) / 2)
    distance = sum(1 / ratio + math.log(ratio) - 1 for ratio in (2.0, 0.9)) / 2
    costs = group_loss(far, before, worth, there, 0.5) - group_loss(far, before, worth, there, 0.0)
    assert costs.item() == pytest.approx(0.5 * distance)


def test_rewards_are_the_exact_item_and_a_discount_by_place() -> None:
    right = np.array([[False, True, False, False]])
    there = np.array([[True, True, True, False]])
    discounts = [1 / math.log2(2), 1 / math.log2(4)]
    rewards = np.array([-discounts[0] / sum(discounts), 1, -discounts[1] / sum(discounts)])
    wanted = (rewards - rewards.mean()) / rewards.std()
    np.testing.assert_allclose(advantages(right, there), [[*wanted, 0.0]], rtol=1e-5)
    assert wanted[1] > wanted[2] > wanted[0], "a wrong item at the top is worst"


@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_prompts_are_training_histories_without_their_last_items(trained: Trained, method: str) -> None:
    split = walkers()
    config = PostTrainingConfig(method, rollouts=5)  # type: ignore[arg-type]
    found = make_rollouts(ranker_of(trained), split.train, config, False, 0)
    known = {(*history[:-1].tolist(),): set() for history in split.train.to_lists()}
    for history in split.train.to_lists():
        known[(*history[:-1].tolist(),)].add(int(history[-1]))
    for number in range(len(found)):
        taken = known[tuple(found.histories[number].tolist())]
        best = found.items[number, 0 if method == "dpo" else int(found.values[number].argmax())]
        assert int(best) in taken
    some = RolloutCollator(ranker_of(trained))([found[n] for n in range(4)])
    now = candidate_log_probs(
        trained[0].eval(), ranker_of(trained).head, trained[1], some["input_ids"], some["attention_mask"], some["codes"]
    )
    there = some["candidates"]
    np.testing.assert_allclose(now[there].detach().numpy(), some["reference"][there].numpy(), atol=1e-4)
    assert len(make_rollouts(ranker_of(trained), split.train, PostTrainingConfig("dpo", prompts=7), False, 0)) == 7


@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_the_item_that_was_taken_gains_on_what_the_beam_found_instead(trained: Trained, tmp_path: Path, method: str) -> None:
    model, told = run(trained, tmp_path, method, epochs=2)
    assert (told["method"], len(told["epochs"])) == (method, 2)
    assert told["kept"] in (1, 2)
    rollouts = make_rollouts(ranker_of(trained), walkers().train, PostTrainingConfig("dpo", rollouts=6), False, 0)
    batch = RolloutCollator(ranker_of(trained))([rollouts[n] for n in range(len(rollouts))])

    def margin(of: torch.nn.Module) -> float:
        with torch.no_grad():
            found = candidate_log_probs(
                of.eval(), ranker_of(trained, of).head, trained[1], batch["input_ids"], batch["attention_mask"], batch["codes"]
            )
        others = found[:, 1:].masked_fill(~batch["candidates"][:, 1:], -torch.inf).logsumexp(1)
        return float((found[:, 0] - others).mean())

    assert margin(model) > margin(trained[0]) + 0.1


def test_a_model_that_gets_worse_stays_as_it_was(trained: Trained, tmp_path: Path) -> None:
    model, told = run(trained, tmp_path, start=2.0)
    assert told["kept"] == 0
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), trained[0].parameters(), strict=True))


def test_a_killed_post_training_ends_with_the_same_weights(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, told = run(trained, tmp_path / "whole", epochs=3)
    collate = RolloutCollator.__call__

    def killed(self: RolloutCollator, some: list) -> dict:
        if list((tmp_path / "killed").glob("checkpoint-*")):  # in the second epoch
            raise KeyboardInterrupt
        return collate(self, some)

    with monkeypatch.context() as patch:
        patch.setattr(RolloutCollator, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            run(trained, tmp_path / "killed", epochs=3)
    resumed, again = run(trained, tmp_path / "killed", epochs=3)
    assert again == told
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), resumed.parameters(), strict=True))
    monkeypatch.setattr(RolloutCollator, "__call__", None)  # it has ended: whoever trains again fails
    ended, again = run(trained, tmp_path / "killed", epochs=3)
    assert again == told
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), ended.parameters(), strict=True))


def test_post_training_adds_up_gradients_and_reports_as_training_does(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float]] = []

    class Reporter(TrainerCallback):
        logging_dir = None

        def on_train_end(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
            seen.append((state.global_step, args.gradient_accumulation_steps))
            assert self.logging_dir == str(tmp_path / "logs" / "post_training")

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Reporter)
    config = PostTrainingConfig("dpo", learning_rate=3e-3, rollouts=6, epochs=1)
    for steps in (1, 3):
        told = replace(TRAINING, accumulation_steps=steps, report_to=["tensorboard"], logging_folder=str(tmp_path / "logs"))
        model, layout, snapshot = copy.deepcopy(trained[0]), *trained[1:]
        post_train(model, layout, snapshot, walkers(), told, config, tmp_path / f"work{steps}", False, -1.0)
    (plain, _), (added, asked) = seen
    assert (added, asked) == (-(-plain // 3), 3)


def test_post_training_and_gradient_checkpointing_are_refused_together(
    shop: tuple[Catalogue, Interactions], tmp_path: Path
) -> None:
    recipe = load_recipe(overrides={"post_training.method": "dpo", "training.gradient_checkpointing": True})
    with pytest.raises(SettingError, match="post_training keeps all activations"):
        fit(shop[0].table, shop[1].table, tmp_path / "out", recipe)


@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_a_recipe_with_post_training_makes_a_bundle_no_worse_on_validation(
    shop: tuple[Catalogue, Interactions], tmp_path: Path, method: str
) -> None:
    settings = {"post_training.method": method, "post_training.prompts": 60, "evaluation.baselines": []}
    if method == "dpo":  # one of the two under adapters
        llm = write_llm(tmp_path / "llm", shop[0].table.column("title").to_pylist())
        settings |= {"model.pretrained": str(llm), "model.lora_rank": 4}
    out = fit(shop[0].table, shop[1].table, tmp_path / "out", load_recipe(overrides=QUICK | settings))
    metrics = read_bundle(out).metrics
    told, validation = metrics["post_training"], metrics["validation"]
    assert told["method"] == method
    assert told["before"] == max(epoch["eval_ndcg@10"] for epoch in validation["epochs"])
    assert validation["best_ndcg@10"] == max(told["before"], *told["epochs"])
    [items] = Recommender.load(out).recommend([shop[0].item_ids[:3].tolist()], k=5)
    assert len(items) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"post_training.epochs": 2}, "post_training.method is not set"),
        ({"post_training.method": "dpo", "model.architecture": "encoder-decoder"}, "post_training is for decoders"),
        ({"post_training.method": "ppo"}, "post_training.method must be 'dpo' or 'grpo'"),
        ({"post_training.method": "dpo", "post_training.rollouts": 1}, "rollouts must be an integer from 2 to 512"),
        ({"post_training.method": "dpo", "post_training.beta": 0.0}, "beta must be above 0"),
    ],
)
def test_settings_that_nothing_would_read_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load_recipe(overrides=settings)
