"""DiscRec: places inside items, a branch that looks at one item at a time, a gate; and a plain T5 where the gate is shut."""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
import torch
from quick import QUICK
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoModelForSeq2SeqLM, T5ForConditionalGeneration
from worlds import ALL, MAX_HISTORY, assert_same_ranking, brute_force

from genrec.bundle import read_bundle
from genrec.data.interactions import Histories
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Snapshot
from genrec.errors import SettingError
from genrec.evaluate_bundle import evaluate_bundle
from genrec.fit import fit
from genrec.models.config import ModelConfig
from genrec.models.discrec import Branches, DiscRecForConditionalGeneration, places_of_answer, places_of_history
from genrec.models.encoder_decoder import build_encoder_decoder
from genrec.models.tokens import write_histories
from genrec.recipe import load_recipe
from genrec.recommender import Recommender

SIZES = (5, 4, 3, 3)
CODES = np.random.default_rng(0).integers(0, SIZES, (14, 4))
SMALL = {"hidden_size": 32, "layers": 2, "heads": 2, "feed_forward": 64, "dropout": 0.0}


def made(**more: object) -> DiscRecForConditionalGeneration:
    torch.manual_seed(0)
    model, _ = build_encoder_decoder(ModelConfig("encoder-decoder", discrec=True, **SMALL, **more), SIZES)  # type: ignore[arg-type]
    with torch.no_grad():  # a gate that says something
        for stack in (model.encoder, model.decoder):
            stack.branches.gate.normal_(std=0.05)
            stack.branches.places.weight.normal_()
    return model.eval()


def written(model: DiscRecForConditionalGeneration, histories: list[list[int]]) -> tuple[Tensor, Tensor]:
    layout = build_encoder_decoder(ModelConfig("encoder-decoder", **SMALL), SIZES)[1]  # type: ignore[arg-type]
    tokens, mask = write_histories([np.array(history, np.int64) for history in histories], CODES, layout)
    return torch.from_numpy(tokens), torch.from_numpy(mask).long()


def collaborative(model: DiscRecForConditionalGeneration, tokens: Tensor, mask: Tensor) -> Tensor:
    branches, semantic = model.encoder.branches, model.get_input_embeddings()(tokens)
    return branches.collaborative(semantic, *places_of_history(mask, 4, 1))


def test_padding_on_either_side_changes_nothing() -> None:
    model = made()
    tokens, mask = written(model, [[1, 2]])
    plain = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=torch.zeros(1, 1, dtype=torch.int64)).logits
    for sides in ((3, 0), (0, 3)):
        told = {"input_ids": pad(tokens, sides), "attention_mask": pad(mask, sides)}
        found = model(**told, decoder_input_ids=torch.zeros(1, 1, dtype=torch.int64)).logits
        torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)


def test_generate_reads_whole_answers_and_a_cache_is_refused() -> None:
    model = made()
    tokens, mask = written(model, [[1, 2]])
    answer = torch.zeros(1, 1, dtype=torch.int64)
    for _ in range(4):
        logits = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=answer).logits
        answer = torch.cat([answer, logits[:, -1:].argmax(-1)], dim=1)
    more = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    assert model.generate(input_ids=tokens, attention_mask=mask, **more).tolist() == answer.tolist()
    with pytest.raises(SettingError, match="use_cache=False"):
        model.generate(input_ids=tokens, attention_mask=mask, use_cache=True, **more)
    with pytest.raises(SettingError, match=r"\[1, 4\]"):
        model(input_ids=tokens, attention_mask=mask, decoder_input_ids=answer[:, :4], decoder_attention_mask=torch.ones(1, 4))


def test_places_are_counted_inside_items() -> None:
    mask = torch.tensor([[1] * 9, [0] * 4 + [1] * 5])
    places, _ = places_of_history(mask, levels=4, lead=1)
    assert places[0].tolist() == [5, 1, 2, 3, 4, 1, 2, 3, 4]
    assert places[1, 4:].tolist() == [5, 1, 2, 3, 4]
    assert places_of_answer(torch.zeros(1, 5, 8), None)[0].tolist() == [[0, 1, 2, 3, 4]]
    block = torch.ones(3, 3).tril()
    side_by_side = torch.where(torch.block_diag(block, block) > 0, 0.0, -1e9)[None, None]
    assert places_of_answer(torch.zeros(1, 6, 8), side_by_side)[0].tolist() == [[0, 1, 2, 0, 1, 2]]


def test_the_mask_holds_one_block_an_item_and_one_for_what_stands_before() -> None:
    mask = torch.tensor([[1] * 14, [0] * 8 + [1] * 6])
    _, visible = places_of_history(mask, levels=4, lead=2)
    items = torch.kron(torch.eye(3), torch.ones(4, 4)).bool()
    assert torch.equal(visible[0], torch.block_diag(torch.ones(2, 2), items).bool())
    assert torch.equal(visible[1, 8:, 8:], torch.block_diag(torch.ones(2, 2), torch.ones(4, 4)).bool())
    assert not visible[1, 8:, :8].any(), "nobody looks at padding"


def test_a_code_changes_the_collaborative_branch_of_its_own_item_alone() -> None:
    model = made()
    tokens, mask = written(model, [[0, 1, 2]])
    other = tokens.clone()
    other[0, 6] = tokens[0, 6] % 5 + 2 if tokens[0, 6] != tokens[0, 6] % 5 + 2 else tokens[0, 6] + 1  # in the second item
    with torch.no_grad():
        moved = (collaborative(model, tokens, mask) - collaborative(model, other, mask)).abs().amax(-1)[0] > 1e-6
    assert moved.tolist() == [False] * 5 + [True] * 4 + [False] * 4


def test_the_gate_shares_out_one_and_a_shut_gate_is_a_plain_t5() -> None:
    model = made()
    tokens, mask = written(model, [[0, 1, 2], [3]])
    answer = torch.tensor([[0, 3, 8], [0, 4, 9]])
    seen: list[Tensor] = []
    weights = Branches.weights
    with mock.patch.object(Branches, "weights", lambda *given: seen.append(weights(*given)) or seen[-1]), torch.no_grad():
        mixed = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=answer).logits
    assert len(seen) == 2
    for counts in seen:
        assert (counts > 0).all()
        torch.testing.assert_close(counts.sum(-1), torch.ones(counts.shape[:2]))
    plain = T5ForConditionalGeneration(model.config).eval()
    plain.load_state_dict({name: weight for name, weight in model.state_dict().items() if "branches" not in name})
    shut = lambda _, semantic, __: torch.tensor([1.0, 0.0]).expand(*semantic.shape[:2], 2)  # noqa: E731
    with torch.no_grad(), mock.patch.object(Branches, "weights", shut):
        found = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=answer).logits
    with torch.no_grad():
        wanted = plain(input_ids=tokens, attention_mask=mask, decoder_input_ids=answer).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert not torch.allclose(mixed, wanted)


def test_weights_begin_as_those_of_a_t5_and_branches_as_small() -> None:
    """With a spread of 1 in all layers it learned next to nothing, and said so nowhere."""
    shape = ModelConfig("encoder-decoder", hidden_size=64, layers=2, heads=2, feed_forward=256)
    torch.manual_seed(0)
    spread = [
        {name: weight.std().item() for name, weight in build_encoder_decoder(shaped, SIZES)[0].named_parameters()}
        for shaped in (shape, replace(shape, discrec=True))
    ]
    layers = [name for name in spread[0] if "block" in name and "norm" not in name]
    assert len(layers) == 34
    np.testing.assert_allclose([spread[1][name] for name in layers], [spread[0][name] for name in layers], rtol=0.25)
    for stack in ("encoder", "decoder"):
        for name, wanted in (("query", 64**-0.5), ("value", 64**-0.5), ("inner", 64**-0.5), ("outer", 256**-0.5)):
            assert spread[1][f"{stack}.branches.{name}.weight"] == pytest.approx(wanted, rel=0.1)
        assert spread[1][f"{stack}.branches.gate"] == pytest.approx(0.02, rel=0.3)


def test_without_the_option_the_model_is_the_t5_of_before() -> None:
    torch.manual_seed(0)
    model, _ = build_encoder_decoder(ModelConfig("encoder-decoder", **SMALL), SIZES)  # type: ignore[arg-type]
    assert type(model) is T5ForConditionalGeneration
    assert not any("branches" in name for name in model.state_dict())


def test_what_is_written_later_changes_nothing_before_and_padding_changes_nothing() -> None:
    model = made()
    tokens, mask = written(model, [[0, 1, 2]])
    with torch.no_grad():
        one = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=torch.tensor([[0, 3, 8, 12]])).logits
        other = model(input_ids=tokens, attention_mask=mask, decoder_input_ids=torch.tensor([[0, 3, 9, 13]])).logits
        torch.testing.assert_close(one[:, :2], other[:, :2])
        padded, more = written(model, [[0, 1, 2], list(range(10))])
        same = model(input_ids=padded, attention_mask=more, decoder_input_ids=torch.tensor([[0, 3, 8, 12]] * 2)).logits
    torch.testing.assert_close(same[:1], one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("index", [(), (3, 2)])
def test_the_beam_search_is_exact(index: tuple[int, ...]) -> None:
    model = made(user_index=index)
    layout = build_encoder_decoder(ModelConfig("encoder-decoder", user_index=index, **SMALL), SIZES)[1]  # type: ignore[arg-type]
    told = mock.Mock(sizes=index, codes=lambda histories, vectors: np.array([[2, 1]] * len(histories))) if index else None
    vectors = np.ones((len(CODES), 2), np.float32)
    snapshot = replace(Snapshot.of(CODES, SIZES), vectors=vectors)
    ranker = BeamRanker(model, layout, snapshot, ALL, MAX_HISTORY, user_index=told)
    first = [layout.start, *layout.index_tokens(np.array([2, 1] if index else [])).tolist()]
    histories = [np.array([3, 1]), np.array([], np.int64), np.arange(6)]
    rows, scores = ranker.rank(Histories.from_lists(histories), len(CODES), exclude_seen=False)
    for history, found, its_scores in zip(histories, rows, scores, strict=True):
        assert_same_ranking(found, its_scores, brute_force(ranker, history, first=first), set(range(len(CODES))))


def test_it_is_fitted_saved_loaded_and_measured_again_to_the_same_numbers(shop: tuple, tmp_path: Path) -> None:
    recipe = load_recipe(
        overrides=QUICK | {"model.architecture": "encoder-decoder", "model.discrec": True, "evaluation.baselines": []}
    )
    out = fit(shop[0].table, shop[1].table, tmp_path / "out", recipe)
    model = read_bundle(out).load_model("cpu")
    assert type(model) is DiscRecForConditionalGeneration
    assert (model.config.levels, model.config.lead) == (len(read_bundle(out).settings.sizes), 1)
    assert type(AutoModelForSeq2SeqLM.from_pretrained(out)) is DiscRecForConditionalGeneration
    [result] = evaluate_bundle(out, shop[1].table, max_questions=60, baselines=False).evaluation.results
    assert result.to_dict()["metrics"] == read_bundle(out).metrics["test"][0]["metrics"]
    recommender = Recommender.load(out, "cpu")
    recommender.catalogue.add(pa.table({"item_id": ["new"], "title": ["a new one"]}))
    [items] = recommender.recommend([shop[0].item_ids[:3].tolist()], k=5, explain=True)
    for item in items:
        assert item.explanation.score == pytest.approx(item.score, abs=1e-4)


@pytest.mark.parametrize(
    "settings",
    [{}, {"model.architecture": "encoder-decoder", "model.pretrained": "t5"}, {"model.architecture": "one-pass"}],
)
def test_it_is_of_a_t5_from_scratch(settings: dict) -> None:
    with pytest.raises(SettingError, match=r"model\.discrec is of a T5 from scratch"):
        load_recipe(overrides={"model.discrec": True} | settings)
