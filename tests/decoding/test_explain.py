"""Explanations add up to the score, and the unconstrained switch counts what it says."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import FAMILIES, brute_force, make_ranker

import genrec
from genrec import Recommender
from genrec.data.interactions import Histories
from genrec.decoding.unconstrained import illegal_rate, unconstrained_search
from genrec.errors import SettingError, UnknownItemError


@pytest.fixture(scope="module")
def recommender(bundle: Path) -> Recommender:
    return Recommender.load(bundle)


def test_the_levels_multiply_to_the_score_and_the_history_to_its_changes(recommender: Recommender) -> None:
    ids = recommender.bundle.catalogue.item_ids.tolist()
    history = ids[3:8]
    [items] = recommender.recommend([history], k=3, explain=True)
    for item in items:
        why = item.explanation
        assert why is not None
        assert why.item_id == item.item_id
        assert why.title == item.fields["title"]
        assert why.score == pytest.approx(item.score, abs=1e-3)
        assert sum(np.log(level.probability) for level in why.levels) == pytest.approx(item.score, abs=1e-3)
        counts = [level.items for level in why.levels]
        assert counts == sorted(counts, reverse=True), "each code narrows what is left"
        assert counts[-1] == 1
        for influence in why.history:
            without = [i for i in history if i != influence.item_id]
            assert influence.change == pytest.approx(item.score - recommender.explain(without, item.item_id).score, abs=1e-3)
        strengths = [abs(influence.change) for influence in why.history]
        assert strengths == sorted(strengths, reverse=True)


def test_a_code_means_the_titles_below_it(recommender: Recommender) -> None:
    catalogue = recommender.bundle.catalogue
    item_id = catalogue.item_ids[5]
    why = recommender.explain([], item_id)
    codes, own = recommender.bundle.codes.codes, recommender.bundle.codes.codes[5]
    titles = np.array(catalogue.table.column("title").to_pylist())
    for level, meaning in enumerate(why.levels, 1):
        below = titles[(codes[:, :level] == own[:level]).all(axis=1)]
        assert meaning.items == len(below)
        assert set(meaning.titles) <= set(below)
        assert all(any(word in re.findall(r"\w+", title.lower()) for title in below) for word in meaning.words)
    assert why.history == []
    text = str(why)
    assert item_id in text
    assert why.levels[0].name in text


def test_explaining_follows_the_live_catalogue(bundle: Path) -> None:
    recommender = Recommender.load(bundle)
    ids = recommender.bundle.catalogue.item_ids.tolist()
    before = recommender.explain(ids[:2], ids[5]).levels[0].items
    below = recommender.catalogue.current.snapshot.codes[:, 0] == recommender.catalogue.current.snapshot.codes[5, 0]
    other = next(row for row in np.flatnonzero(below) if row != 5)
    recommender.catalogue.remove([ids[other]])
    assert recommender.explain(ids[:2], ids[5]).levels[0].items == before - 1
    assert recommender.explain(ids[:2], ids[other]).item_id == ids[other], "what was removed can still be asked about"
    with pytest.raises(UnknownItemError, match="item_id"):
        recommender.explain([], "nothing")


@pytest.mark.parametrize("family", FAMILIES)
def test_code_probabilities_are_those_of_the_model(family: str) -> None:
    codes = np.random.default_rng(0).integers(0, 4, (30, 3))
    ranker = make_ranker((4, 4, 4), codes, 3, family)
    histories = [np.array([1, 2]), np.array([], int), np.arange(9)]
    found = ranker.code_log_probs(histories, np.array([4, 5, 6]), ranker.snapshot).sum(axis=1)
    np.testing.assert_allclose(
        found, [brute_force(ranker, h)[row] for h, row in zip(histories, (4, 5, 6), strict=True)], atol=2e-4
    )


def test_the_illegal_rate_is_what_counting_by_hand_gives() -> None:
    codes = np.random.default_rng(0).integers(0, 4, (20, 2))
    ranker = make_ranker((4, 4), codes, 2, "llama")
    histories = Histories.from_lists([[1, 2], [], [5]])
    result = illegal_rate(ranker, histories, k=12, beam_width=30)
    legal = {tuple(item) for item in ranker.layout.to_tokens(codes).tolist()}
    illegal = 0
    for history in histories.to_lists():
        past = [ranker.layout.start, *ranker.layout.to_tokens(codes[history]).reshape(-1)]
        vocabulary = ranker.model.get_output_embeddings().weight.shape[0]
        with torch.no_grad():
            first = ranker.model(torch.tensor([past])).logits[0, -1].log_softmax(-1)
            pairs = torch.tensor([[*past, token] for token in range(vocabulary)])
            both = first[:, None] + ranker.model(pairs).logits[:, -1].log_softmax(-1)
        best = both.flatten().topk(12).indices.tolist()
        illegal += sum((place // vocabulary, place % vocabulary) not in legal for place in best)
    assert result.sequences == 36
    assert 0 < result.illegal < 36
    assert result.illegal == illegal


def test_a_catalogue_of_everything_with_no_other_tokens_has_few_illegal_sequences() -> None:
    codes = np.array([[a, b] for a in range(4) for b in range(4)])
    ranker = make_ranker((4, 4), codes, 1)
    tokens = unconstrained_search(ranker, Histories.from_lists([[3]]), 5, 9)
    assert tokens.shape == (1, 5, 2)
    with pytest.raises(SettingError, match="k must be at most the vocabulary"):
        illegal_rate(ranker, Histories.from_lists([[0]]), k=1000, beam_width=2000)


def test_nothing_that_answers_users_can_reach_the_unconstrained_search() -> None:
    root = Path(genrec.__file__).parent
    importing = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "genrec.decoding.unconstrained":
                importing.add(path.relative_to(root).as_posix())
    assert importing <= {"evaluate_bundle.py"}
