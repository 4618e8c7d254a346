"""Bugs found while reading other systems of this field. Each has a test here that fails if genrec ever has it too."""

import argparse
import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from genrec import Recommender
from genrec.data.interactions import Histories
from genrec.data.splits import leave_one_out
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Rules, Snapshot
from genrec.errors import DataError, SettingError
from genrec.evaluation.metrics import hit_positions, recall_at
from genrec.models.tokens import TokenLayout

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "genrec").rglob("*.py"))
NOBODY = Histories.from_lists([[]])


class Stubborn(torch.nn.Module):
    """Stands in for an output layer: the same wish list of tokens whatever came before."""

    def __init__(self, vocabulary: int, wishes: dict[int, float]) -> None:
        super().__init__()
        self.weight = torch.zeros(vocabulary, 1)
        self.logits = torch.zeros(vocabulary)
        for token, logit in wishes.items():
            self.logits[token] = logit

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(*hidden.shape[:2], -1)


def stubborn_ranker(
    codes: np.ndarray, sizes: tuple[int, ...], wishes: dict[tuple[int, int], float], extra: dict[int, float] | None = None
) -> BeamRanker:
    """A model that wants certain (level, code) pairs, and of the words behind the codes those in `extra`, at every step."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    layout = TokenLayout.from_scratch(sizes)
    size = layout.vocabulary_size + 50  # a vocabulary padded beyond the codes, as those of LLMs are
    model = Qwen3ForCausalLM(
        Qwen3Config(vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                    intermediate_size=16, head_dim=8, max_position_embeddings=64, tie_word_embeddings=False)
    ).eval()  # fmt: skip
    tokens = {int(layout.offsets[level]) + code: logit for (level, code), logit in wishes.items()}
    tokens |= {layout.vocabulary_size + word: logit for word, logit in (extra or {}).items()}
    model.set_output_embeddings(Stubborn(size, tokens))
    return BeamRanker(model, layout, Snapshot.of(codes, sizes), 4, 4)


def test_a_constraint_on_position_alone_would_spell_items_that_do_not_exist() -> None:
    """Seen: any code of the right level is allowed at each step. Both codes of (0, 1) exist, but not together."""
    ranker = stubborn_ranker(np.array([[0, 0], [1, 1]]), (2, 2), {(0, 0): 9.0, (1, 1): 9.0})
    [rows], _ = ranker.rank(NOBODY, 2, False)
    assert sorted(rows.tolist()) == [0, 1]


def test_a_trie_of_pairs_would_join_halves_of_different_items() -> None:
    """Seen: a "trie" that only knows which code follows which. 0-0-0 and 1-0-1 must not make 0-0-1."""
    ranker = stubborn_ranker(np.array([[0, 0, 0], [1, 0, 1]]), (2, 1, 2), {(0, 0): 9.0, (2, 1): 9.0})
    [rows], [scores] = ranker.rank(NOBODY, 2, False)
    assert sorted(rows.tolist()) == [0, 1]
    assert len(rows[rows >= 0]) == 2
    assert scores[0] > scores[1] - 1


def test_where_nothing_is_allowed_nothing_wins() -> None:
    """Seen: a row without allowed token keeps one large negative number everywhere, so the softmax makes any token likely."""
    ranker = stubborn_ranker(np.array([[0, 0], [1, 1]]), (2, 2), {})
    nothing = Rules.of(ranker.snapshot, np.zeros(0, np.int64))
    rows, scores = ranker.rank(NOBODY, 2, False, nothing)
    assert rows.tolist() == [[-1, -1]]
    assert np.isneginf(scores).all()


def test_all_masks_together_may_leave_nothing_for_one_user_of_a_batch() -> None:
    """Seen: stacked masks that leave a row of minus infinities, whose softmax is NaN and spoils the batch."""
    ranker = stubborn_ranker(np.array([[0, 0], [1, 1]]), (2, 2), {})
    rows, scores = ranker.rank(Histories.from_lists([[0, 1], [0]]), 2, True)
    assert rows.tolist() == [[-1, -1], [1, -1]]
    assert not np.isnan(scores).any()


def test_the_constraint_keeps_no_count_between_calls() -> None:
    """Seen: the step is a counter inside the constraint, so the second request, or a batch of another size, goes wrong."""
    ranker = stubborn_ranker(np.array([[0, 0], [0, 1], [1, 1]]), (2, 2), {(0, 1): 1.0})
    first = ranker.rank(NOBODY, 2, False)
    ranker.rank(Histories.from_lists([[0], [1], [2]]), 1, False)
    again = ranker.rank(NOBODY, 2, False)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_beams_are_not_drawn() -> None:
    """Seen: candidates are sampled, so the same request has other answers. Nothing here looks at the random state."""
    ranker = stubborn_ranker(np.array([[a, b] for a in range(5) for b in range(5)]), (5, 5), {})
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = ranker.rank(NOBODY, 4, False)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    np.testing.assert_array_equal(first[0], ranker.rank(NOBODY, 4, False)[0])


def test_a_twin_with_the_same_codes_is_not_a_hit() -> None:
    """Seen: hits are counted on codes, so an item that shares them counts as the target."""
    codes = np.array([[0], [0], [0]])
    ranker = stubborn_ranker(codes, (1,), {})
    rows, _ = ranker.rank(NOBODY, 1, False)
    assert rows.tolist() == [[0]]
    assert recall_at(hit_positions(rows, np.array([2])), 1).tolist() == [0.0]


def test_no_item_is_lost_to_another_with_the_same_codes() -> None:
    """Seen: a dict from codes to item, in which the last of several items wins and the others can never be recommended."""
    ranker = stubborn_ranker(np.array([[0], [1], [0], [0]]), (2,), {})
    [rows], _ = ranker.rank(NOBODY, 4, False)
    assert sorted(rows.tolist()) == [0, 1, 2, 3]


def test_the_words_behind_the_codes_are_never_written() -> None:
    """Seen: a vocabulary padded wider than the mask, whose last tokens stay free. Scores still count their probability."""
    codes = np.array([[0, 0], [1, 1]])
    plain = stubborn_ranker(codes, (2, 2), {})
    loud = stubborn_ranker(codes, (2, 2), {}, extra={49: 30.0})
    [rows], [scores] = loud.rank(NOBODY, 2, False)
    assert sorted(rows.tolist()) == [0, 1]
    assert scores.max() < plain.rank(NOBODY, 2, False)[1].min() - 40, "two steps beside a word 30 more likely"


@pytest.mark.parametrize("codes", [[[0, 2]], [[-1, 0]], [[0, 10**6]]])
def test_codes_outside_the_vocabulary_are_refused_when_the_index_is_built(codes: list) -> None:
    """Seen: the ids are taken as they come and write into a neighbour's memory, or fail deep inside a kernel."""
    with pytest.raises(DataError, match="must be from 0 to 1"):
        CatalogueIndex.build(np.array(codes), (2, 2))


@pytest.mark.parametrize("codes", [[["a", "b"]], [[0.5, 1.0]], [[0]], [0, 1], [[[0, 1]]]])
def test_malformed_ids_are_refused_with_a_message(codes: list) -> None:
    """Seen: rows that do not parse are skipped or end the process."""
    with pytest.raises(DataError, match="codes must be whole numbers"):
        CatalogueIndex.build(np.array(codes), (2, 2))


def test_a_model_with_too_few_tokens_is_refused() -> None:
    """Seen: code tokens beyond the embedding matrix, found out by a crash in the middle of a request."""
    ranker = stubborn_ranker(np.array([[0, 0]]), (2, 2), {})
    large = Snapshot.of(np.array([[0, 0]]), (200, 200))
    with pytest.raises(SettingError, match="The codes need tokens up to"):
        BeamRanker(ranker.model, TokenLayout.from_scratch((200, 200)), large, 4, 4)


def test_scoring_does_not_write_into_the_logits() -> None:
    """Seen: a log-softmax in place, so that whoever shares the logits gets other numbers."""
    ranker = stubborn_ranker(np.array([[0, 0], [1, 1]]), (2, 2), {(0, 0): 2.0})
    logits = ranker.model.get_output_embeddings().logits
    before = logits.clone()
    hidden = torch.randn(1, 2, 16)
    kept = hidden.clone()
    ranker.head.log_probs(hidden, ranker.layout.base, 2)
    ranker.rank(NOBODY, 2, False)
    assert torch.equal(logits, before)
    assert torch.equal(hidden, kept)


def test_cold_is_decided_by_training_data_alone() -> None:
    """Seen: items are called cold by how often the evaluation asks for them. What training is told never holds a target."""
    split = leave_one_out(Histories.from_lists([[0, 1, 2, 3], [3, 2, 1, 4]]))
    trained = np.concatenate(split.train.to_lists())
    assert 4 not in trained
    assert sorted(trained.tolist()) == [0, 1, 2, 3]


def test_every_setting_and_flag_reaches_the_code_that_uses_it() -> None:
    """Seen: a documented flag whose variable was never defined. Here every field of every setting is read somewhere."""
    from genrec.recipe import settings

    source = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES if path.name != "recipe.py")
    fields = {name.rsplit(".", 1)[-1] for name, *_ in settings()}
    unread = {field for field in fields if not re.search(rf"\.{field}\b|\b{field}=|\"{field}\"", source)}
    assert not unread


def test_the_docs_name_only_methods_that_exist() -> None:
    """Seen: a README of calls that the code does not have."""
    names = {name for name, _ in inspect.getmembers(Recommender)} | {"catalogue", "bundle", "ranker"}
    from genrec.decoding.live import LiveCatalogue

    live = {name for name, _ in inspect.getmembers(LiveCatalogue)} | {"current"}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for method in re.findall(r"(?<!/)\brecommender\.(\w+)[(.`]", text):
            assert method in names | {"py"}, f"{page.name} names recommender.{method}"
        for method in re.findall(r"\brecommender\.catalogue\.(\w+)", text):
            assert method in live, f"{page.name} names recommender.catalogue.{method}"


def test_no_data_set_is_special() -> None:
    """Seen: data sets promised in a README that the code refuses, category names and home folders written into the code."""
    for path in set(SOURCES) - {ROOT / "genrec/data/synthetic.py"}:  # which makes up a shop of its own
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"/home/|/Users/|/root/|C:\\\\", node.value), f"{path.name}: a path of somebody"
                named = re.fullmatch(r"(?i)\W*(beauty|sports|toys|movielens|steam|yelp)\b.{0,12}", node.value)
                assert not named, f"{path.name}: {node.value!r}, the name of a data set"


def test_no_flag_is_of_type_bool() -> None:
    """Seen: `type=bool`, with which --flag False is true."""
    from genrec.cli import VERBS
    from genrec.recipe import from_text

    for _, add, _ in VERBS.values():
        parser = argparse.ArgumentParser()
        add(parser)
        assert all(action.type is not bool for action in parser._actions)
    assert from_text(bool, "false") is False
    assert from_text(bool, "true") is True
