"""One-pass models: who sees whom, what an item looks like, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from one_pass_worlds import METHODS
from torch import Tensor

from genrec.errors import SettingError
from genrec.models.one_pass import network
from genrec.models.one_pass.config import OnePassConfig, Shape
from genrec.models.one_pass.identifiers import ContinuousSet, Dual, Items
from genrec.models.one_pass.model import OnePassModel
from genrec.models.one_pass.network import attention_mask

SIZES = (5, 4, 3)
COUNT, HISTORY = 12, 6


def shape_of(config: OnePassConfig, sizes: tuple[int, ...] = SIZES) -> Shape:
    vectors = "vectors" in config.parts
    return Shape(config, sizes, COUNT, 6 if vectors else 0, 4 if vectors else 0, HISTORY, 16, 2, 2, 32, 0.1)


def make(config: OnePassConfig, seed: int = 0, sizes: tuple[int, ...] = SIZES) -> OnePassModel:
    """A random model far from its calm start, so that what should not matter shows where it does."""
    torch.manual_seed(seed)
    model = OnePassModel(shape_of(config, sizes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or "head" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0
    return model


def items(config: OnePassConfig, seed: int = 0, count: int = COUNT) -> Items:
    random = np.random.default_rng(seed)
    codes = random.integers(0, SIZES, (count, len(SIZES)))
    vectors = random.standard_normal((count, 10)).astype(np.float32) if "vectors" in config.parts else None
    return Items.of(codes, np.arange(count) % (COUNT + 1), vectors)


def asked(model: OnePassModel, states: Tensor) -> Tensor:
    if model.shape.config.loss == "codes":
        return model.code_log_probs(model.code_queries(states))
    return model.dot_queries(states).flatten(1)


def seen_masks(model: OnePassModel, tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The masks that the attention kernel gets."""
    masks: list[Tensor] = []

    def spy(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: torch.nn.Module) -> Tensor:
        masks.append(mask)
        return real(q, k, v, mask, dropout)

    real = network.attend
    monkeypatch.setattr(network, "attend", spy)
    model.states(tokens)
    return masks


def test_the_hybrid_mask_that_the_kernel_gets_is_bidirectional_within_an_item_and_causal_across(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make(METHODS["recgpt"])
    slots = len(SIZES)
    masks = seen_masks(model, torch.randn(2, 5, slots, 16), monkeypatch)
    place = np.arange(6 * slots)
    expected = place[None] // slots <= place[:, None] // slots
    assert len(masks) == 2
    assert all(mask.shape == (1, 1, 18, 18) and np.array_equal(mask[0, 0].numpy(), expected) for mask in masks)


def test_the_blocked_mask_that_the_kernel_gets_hides_siblings_and_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(METHODS["setrec"])
    slots, length = 5, 4
    [mask, _] = seen_masks(model, torch.randn(2, length - 1, slots, 16), monkeypatch)
    half = length * slots
    for p in range(2 * half):
        for q in range(2 * half):
            item_p, item_q = p % half // slots, q % half // slots
            told = q == p or (q < half and (item_q < item_p or (p >= half and item_q == item_p)))
            assert bool(mask[0, 0, p, q]) == told


def test_with_one_slot_hybrid_attention_is_plain_causal_attention() -> None:
    assert torch.equal(attention_mask("hybrid", 7, 1), torch.ones(7, 7, dtype=torch.bool).tril())


@pytest.mark.parametrize("method", METHODS)
def test_padding_and_batch_mates_change_no_state(method: str) -> None:
    model = make(METHODS[method])
    tokens = model.tokens(items(METHODS[method]))
    alone = model.states(tokens[torch.tensor([[1, 2, 3]])])
    beside = model.states(tokens[torch.tensor([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]])])
    torch.testing.assert_close(beside[:1, :4], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_an_item_changes_the_states_behind_it_and_none_before(method: str) -> None:
    model = make(METHODS[method])
    tokens = model.tokens(items(METHODS[method]))
    one, other = model.states(tokens[torch.tensor([[1, 2, 3, 4]])]), model.states(tokens[torch.tensor([[1, 2, 9, 4]])])
    torch.testing.assert_close(one[:, :3], other[:, :3], atol=1e-5, rtol=1e-5)
    assert all((one[0, place] - other[0, place]).abs().max() > 1e-3 for place in (3, 4))


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_history_has_a_state(method: str) -> None:
    model = make(METHODS[method])
    states = model.states(torch.zeros(2, 0, model.shape.slots, 16))
    assert states.shape == (2, 1, model.shape.slots, 16)
    assert torch.isfinite(states).all()


@given(st.permutations(range(5)), st.integers(0, 3))
def test_the_order_of_the_tokens_of_a_set_changes_no_answer(order: list[int], place: int) -> None:
    model = make(METHODS["setrec"])
    tokens = model.tokens(items(METHODS["setrec"]))[torch.tensor([[1, 2, 3, 4]])]
    shuffled = tokens.clone()
    shuffled[0, place] = tokens[0, place][order]
    torch.testing.assert_close(model.states(shuffled), model.states(tokens), atol=1e-5, rtol=1e-5)


def test_a_token_of_a_set_is_blind_for_its_siblings_and_seen_by_later_items() -> None:
    model = make(METHODS["setrec"])
    tokens = model.tokens(items(METHODS["setrec"]))[torch.tensor([[1, 2, 3, 4]])]
    changed = tokens.clone()
    changed[0, 1, 2] += torch.linspace(-1, 1, 16)  # a constant would be normalised away
    layers: list[list[Tensor]] = []
    for given_tokens in (tokens, changed):
        outputs: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _, __, out, to=outputs: to.append(out)) for block in model.encoders[0].blocks
        ]
        model.states(given_tokens)
        for hook in hooks:
            hook.remove()
        layers.append(outputs)
    for before, after in zip(*layers, strict=True):
        item = slice(2 * 5, 3 * 5)  # the start item stands first, so the second item of the history is the third
        moved = (before - after)[0].abs().amax(dim=1)
        assert moved[item].argmax() == 2
        torch.testing.assert_close(moved[item][[0, 1, 3, 4]], torch.zeros(4), atol=1e-6, rtol=0)
        assert (moved[3 * 5 : 5 * 5] > 1e-6).all()


def test_without_one_query_the_others_answer_the_same() -> None:
    model = make(METHODS["setrec"])
    tokens = model.tokens(items(METHODS["setrec"]))[torch.tensor([[1, 2, 3]])]
    before = model.states(tokens)
    assert model.queries is not None
    with torch.no_grad():
        model.queries[3] += torch.linspace(-5, 5, 16)
    after = model.states(tokens)
    kept = [0, 1, 2, 4]
    torch.testing.assert_close(after[:, :, kept], before[:, :, kept])
    assert (after[:, :, 3] - before[:, :, 3]).abs().max() > 1e-3


def test_all_prefixes_at_once_are_asked_as_each_prefix_alone() -> None:
    model = make(METHODS["setrec"])
    tokens = model.tokens(items(METHODS["setrec"]))[torch.tensor([[1, 2, 3, 4]])]
    together = model.states(tokens)
    for length in range(5):
        torch.testing.assert_close(model.states(tokens[:, :length])[:, length], together[:, length], atol=1e-5, rtol=1e-5)


def test_heads_begin_as_the_state_plus_a_bias_and_differ_once_trained() -> None:
    torch.manual_seed(0)
    model = OnePassModel(shape_of(METHODS["rpg"]))
    state = torch.randn(4, 1, 16)
    expected = state + torch.nn.functional.silu(model.head_biases)
    told = model.code_queries(state) * model.shape.config.temperature
    torch.testing.assert_close(told, torch.nn.functional.normalize(expected, dim=-1))
    trained = make(METHODS["rpg"]).code_queries(state)
    assert (trained[:, 0] - trained[:, 1]).abs().max() > 1e-2


@given(st.permutations(range(3)))
def test_codes_in_another_order_with_their_heads_give_the_same_scores(order: list[int]) -> None:
    config = METHODS["rpg"]
    model, known = make(config), items(config)
    other = make(config, sizes=tuple(SIZES[level] for level in order))
    assert model.codes is not None
    assert other.codes is not None
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["head_weights"], state["head_biases"] = state["head_weights"][order], state["head_biases"][order]
    state["codes.rows.weight"] = torch.cat([model.codes.level(level) for level in order]).detach()
    other.load_state_dict(state)
    moved = replace(known, codes=known.codes[:, order])

    def scores(of: OnePassModel, what: Items) -> Tensor:
        log_probs = asked(of, of.states(of.tokens(what)[torch.tensor([[1, 2, 3]])])[:, -1])
        starts = torch.tensor([0, *np.cumsum(of.shape.sizes)[:-1]])
        return log_probs[:, what.codes + starts].sum(dim=-1)

    torch.testing.assert_close(scores(other, moved), scores(model, known), atol=1e-4, rtol=1e-4)


def test_probabilities_of_the_codes_of_each_level_sum_to_one() -> None:
    model = make(METHODS["rpg"])
    log_probs = model.code_log_probs(model.code_queries(torch.randn(3, 1, 16)))
    assert log_probs.shape == (3, sum(SIZES))
    for part in log_probs.split(SIZES, dim=1):
        torch.testing.assert_close(part.exp().sum(dim=1), torch.ones(3))


def test_a_shared_vocabulary_has_one_embedding_per_code() -> None:
    config = OnePassConfig(identifier="codes", loss="codes", shared_codes=True)
    model = make(config, sizes=(5, 5, 5))
    assert model.codes is not None
    assert model.codes.rows.weight.shape == (5, 16)
    assert torch.equal(model.codes(torch.tensor([[3, 3, 3]]))[0, 0], model.codes(torch.tensor([[3, 3, 3]]))[0, 2])


def test_a_composed_item_is_the_sum_of_its_parts_and_codes_weigh_as_one_of_them() -> None:
    model, known = make(METHODS["composed"]), items(METHODS["composed"])
    assert model.codes is not None
    codes = model.codes(known.codes)
    ids = model.identifier.ids(known.ids)
    by_hand = codes.sum(dim=1) / codes.shape[1] ** 0.5 + ids + known.vectors @ model.identifier.project.weight.T
    torch.testing.assert_close(model.tokens(known)[:, 0], by_hand)


@pytest.mark.parametrize("method", ["composed", "h2rec"])
def test_the_id_of_a_cold_item_is_zero_and_stays_zero(method: str) -> None:
    model = make(METHODS[method])
    table = model.identifier.ids
    known = replace(items(METHODS[method]), ids=torch.full((COUNT,), COUNT))
    model.tokens(known).square().sum().backward()
    assert not table.weight[COUNT].any()
    assert not table.weight.grad[COUNT].any()


def test_a_shared_cold_id_is_learned_from_hidden_ids() -> None:
    config = OnePassConfig(cold_id="shared", id_dropout=0.5)
    model = make(config).train()
    torch.manual_seed(0)
    model.tokens(items(config)).square().sum().backward()
    assert model.identifier.ids.weight.grad[COUNT].any()
    model.eval()
    assert torch.equal(model.tokens(items(config)), model.tokens(items(config))), "nothing is hidden when it ranks"


def test_the_collaborative_token_of_a_cold_item_is_zero_and_the_others_are_not() -> None:
    model = make(METHODS["setrec"])
    known = items(METHODS["setrec"])
    cold = model.tokens(replace(known, ids=torch.full((COUNT,), COUNT)))
    warm = model.tokens(known)
    assert not cold[:, 0].any()
    assert warm[:, 0].any()
    assert torch.equal(cold[:, 1:], warm[:, 1:])


def test_the_next_items_loss_reaches_the_auto_encoder() -> None:
    model = make(METHODS["setrec"])
    model.keys(model.tokens(items(METHODS["setrec"]))).sum().backward()
    assert isinstance(model.identifier, ContinuousSet)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.identifier.encoder.parameters())


def test_an_id_of_dual_changes_its_own_item_alone() -> None:
    model, known = make(METHODS["h2rec"]), items(METHODS["h2rec"])
    before = model.tokens(known)
    with torch.no_grad():
        model.identifier.ids.weight[4] += 1.0
    after = model.tokens(known)
    changed = (after - before).abs().amax(dim=(1, 2)) > 0
    assert changed.nonzero().flatten().tolist() == [4]
    assert torch.equal(after[4, 0], before[4, 0]), "the side of its codes stays"


def test_items_with_the_same_codes_have_the_same_side_of_codes_and_weights_that_sum_to_one() -> None:
    model, known = make(METHODS["h2rec"]), items(METHODS["h2rec"])
    assert isinstance(model.identifier, Dual)
    assert model.codes is not None
    twins = replace(known, codes=known.codes.clone())
    twins.codes[7] = twins.codes[2]
    tokens = model.tokens(twins)
    assert torch.equal(tokens[7, 0], tokens[2, 0])
    assert not torch.equal(tokens[7, 1], tokens[2, 1])
    weights = model.identifier.weights(model.codes(twins.codes))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(COUNT))
    assert weights.std(dim=0).max() > 1e-3, "not the same for all items"


def test_a_hidden_code_changes_the_side_of_codes() -> None:
    model, known = make(METHODS["h2rec"]), items(METHODS["h2rec"])
    assert isinstance(model.identifier, Dual)
    assert model.codes is not None
    hidden = torch.zeros(COUNT, len(SIZES), dtype=torch.bool)
    hidden[3, 1] = True
    before, after = (model.identifier.semantic(known.codes, model.codes, mask) for mask in (None, hidden))
    assert ((before - after).abs().amax(dim=1) > 1e-6).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("method", METHODS)
def test_a_model_survives_being_saved_and_loaded(method: str, tmp_path: Path) -> None:
    model = make(replace(METHODS[method], mixture=3))
    model.mixture.copy_(torch.tensor([1, 0.5, 0.25]))
    model.save(tmp_path)
    again = OnePassModel.load(tmp_path)
    assert torch.equal(again.mixture, model.mixture)
    assert again.shape == model.shape
    tokens = model.tokens(items(METHODS[method]))
    assert torch.equal(again.tokens(items(METHODS[method])), tokens)
    assert torch.equal(again.states(tokens[torch.tensor([[1, 2]])]), model.states(tokens[torch.tensor([[1, 2]])]))


def test_a_model_without_a_mixture_has_no_weight_for_it() -> None:
    """So that models that were saved before there were mixtures can be loaded."""
    assert "mixture" not in make(METHODS["composed"]).state_dict()
    assert make(METHODS["composed"]).mixture.tolist() == [1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"identifier": "sum"}, "one_pass.identifier must be"),
        ({"identifier": "dual", "parts": ("codes", "vectors")}, "parts of the identifier 'dual'"),
        ({"identifier": "codes", "parts": ("vectors",)}, "must name 'codes'"),
        ({"identifier": "dual", "parts": ("codes",)}, "needs codes and id"),
        ({"identifier": "set", "loss": "codes"}, "the identifier must be 'pooled' or 'codes', got 'set'"),
        ({"loss": "slots"}, "the identifier 'pooled' has one"),
        ({"loss": "codes", "sampled": 8}, "one_pass.sampled draws items"),
        ({"cold_id": "shared"}, "Set one_pass.id_dropout above 0"),
        ({"item_alignment": 0.1}, "are of the identifier 'dual'"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"id_dropout": 1.0}, "id_dropout must be from 0 to below 1"),
        ({"semantic_weight": 1.5}, "semantic_weight must be 'auto' or from 0 to 1"),
        ({"sampled": -1}, "one_pass.sampled must be"),
        ({"widths": (0,)}, "one_pass.widths"),
        ({"mixture": 0}, "one_pass.mixture must be"),
        ({"mixture": 3, "mixture_decay": 1.5}, "mixture_decay must be 'auto' or from 0 to 1, got 1.5"),
        ({"mixture_decay": 0.5}, "Set one_pass.mixture above 1"),
        ({"widths": (8,), "loss": "codes"}, "one_pass.widths cut vectors of items"),
        ({"filter_weight": 1.0}, "filter_weight must be from 0 to below 1, got 1.0"),
        ({"frequencies": 0}, "one_pass.frequencies must be"),
        ({"filter_weight": 0.5, "identifier": "codes"}, "one state per item.*got 'codes' with 'hybrid'"),
        ({"filter_weight": 0.5, "attention": "blocked"}, "one state per item.*got 'pooled' with 'blocked'"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        OnePassConfig(**settings)


def test_widths_are_sorted_below_the_whole_and_end_with_it() -> None:
    assert Shape(OnePassConfig(widths=(8, 4, 8)), SIZES, COUNT, 6, 4, HISTORY, 16).widths == (4, 8, 16)
    with pytest.raises(SettingError, match="must be below model.hidden_size, 16, which is always trained, got 16"):
        Shape(OnePassConfig(widths=(4, 16)), SIZES, COUNT, 6, 4, HISTORY, 16)


def test_a_filter_has_no_more_frequencies_than_the_history() -> None:
    Shape(OnePassConfig(filter_weight=0.5, frequencies=4), SIZES, COUNT, 6, 4, HISTORY, 16)
    with pytest.raises(SettingError, match="frequencies must be at most 4 where training.max_history is 6, got 5"):
        Shape(OnePassConfig(filter_weight=0.5, frequencies=5), SIZES, COUNT, 6, 4, HISTORY, 16)


def test_a_filter_lets_old_items_count_where_attention_is_off() -> None:
    model = make(METHODS["filtered"])
    tokens = model.tokens(items(METHODS["filtered"]))
    with torch.no_grad():
        for block in model.encoders[0].blocks:
            block.out.weight.zero_()
            block.out.bias.zero_()
    one, other = model.states(tokens[torch.tensor([[1, 2, 3, 4]])]), model.states(tokens[torch.tensor([[9, 2, 3, 4]])])
    assert (one[0, 4] - other[0, 4]).abs().max() > 1e-3


def test_a_set_needs_both_kinds_of_vectors() -> None:
    with pytest.raises(SettingError, match="Set text.collaborative_width above 0"):
        Shape(METHODS["setrec"], SIZES, COUNT, 6, 0, HISTORY)
