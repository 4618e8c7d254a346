"""What later rounds learn: one question a window, in the light of what was found, where it was not found before."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from one_pass_worlds import METHODS
from test_one_pass_training import BATCH, COUNT, QUICK, known, make, snapshot_of, walks

from genrec.errors import SettingError
from genrec.training.one_pass import step_loss, train_one_pass


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("method", "masked"), [("composed", True), ("composed", False), ("h2rec", True)])
def test_a_later_round_is_asked_only_where_none_before_it_found_the_answer(method: str, masked: bool, seed: int) -> None:
    config = replace(METHODS[method], rounds=2, round_items=3, round_weight=0.4)
    model, items = make(config, seed), known(config)
    torch.manual_seed(seed)
    loss = step_loss(model, items, BATCH, exclude_seen=masked)
    torch.manual_seed(seed)
    drawn = (torch.rand(2) * torch.tensor([4, 2])).long().tolist()
    slots = model.tokens(items)
    later = []
    for window, after in zip(([1, 2, 3, 4], [5, 6]), drawn, strict=True):
        read, right = window[:after], window[after]
        state = model.states(slots[read][None])[:, after]
        logits = (torch.nn.functional.cosine_similarity(state, slots, dim=-1) * model.weights).sum(dim=1)
        best = [row for row in logits.argsort(descending=True).tolist() if not (masked and row in read)][:3]
        if right in best:
            continue
        told = model.later_state(slots[read][None], torch.tensor([after]), slots[best][None, None], state[:, None])
        cosines = (torch.nn.functional.cosine_similarity(told, slots, dim=-1) * model.weights).sum(dim=1)
        later.append(torch.nn.functional.cross_entropy(cosines / config.temperature, torch.tensor(right)))
    extra = 0.4 * torch.stack(later).mean().item() if later else 0.0
    model.shape = replace(model.shape, config=replace(config, rounds=1))
    assert loss.item() == pytest.approx(step_loss(model, items, BATCH).item() + extra, abs=1e-4)


def test_every_part_of_the_adapters_is_learned_and_a_walk_still_is() -> None:
    config = replace(METHODS["composed"], rounds=3, round_items=2)
    model = make(config)
    before = {name: weight.clone() for name, weight in model.adapters.named_parameters()}
    longer = replace(QUICK, epochs=25, patience=25, batch_tokens=16)
    result = train_one_pass(model, snapshot_of(config), np.ones(COUNT, np.int64), walks(), longer, True)
    assert result.best > 0.7
    assert [name for name, weight in model.adapters.named_parameters() if torch.equal(weight, before[name])] == []


def test_rounds_that_find_everything_before_the_last_are_refused() -> None:
    config = replace(METHODS["composed"], rounds=4, round_items=4)
    with pytest.raises(SettingError, match="find all of the 12 items with training events before the last round"):
        train_one_pass(make(config), snapshot_of(config), np.ones(COUNT, np.int64), walks(), QUICK, True)
