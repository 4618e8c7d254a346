"""Recommending inside a dialogue: which names a message holds, what the ranker learns from turns, and what it refuses."""

import numpy as np
import pyarrow as pa
import pytest

from genrec.chat.dialogue_ranker import DialogueRanker, Turns, learn_weights
from genrec.chat.link import Linker
from genrec.chat.mentions import Mentions
from genrec.chat.vocabulary import Vocabulary
from genrec.errors import DataError, SettingError

PEOPLE = ["Ann Bell", "Carl Dorn", "Eva Frey", "Gus Hale"]
GENRES = ["Comedy", "Horror", "Western"]
ITEMS = 24
WORDS = ["Amber", "Basalt", "Cobalt", "Damask", "Ebony", "Fallow", "Garnet", "Hazel", "Indigo", "Jasper", "Khaki", "Lilac"]
TITLES = [f"{WORDS[item % 12]} {'Dawn' if item < 12 else 'Dusk'}" for item in range(ITEMS)]
TABLE = pa.table({
    "item_id": [f"i{item}" for item in range(ITEMS)],
    "title": [*TITLES[:-1], "Her"],
    "actors": [[PEOPLE[item % 4], PEOPLE[(item // 4) % 4]] for item in range(ITEMS)],
    "genre": [[GENRES[item % 3]] for item in range(ITEMS)],
})  # fmt: skip


def turns(seed: int, many: int, first: int = 0) -> Turns:
    """Half of the turns ask about a film by name, and it is the answer; half ask for films with somebody, and the first of
    theirs is."""
    random = np.random.default_rng(seed)
    contexts, targets = [], []
    for number in range(many):
        person, item = int(random.integers(4)), int(random.integers(ITEMS - 1))
        if number % 2:
            contexts.append(["Hello", "Hi", f"who directed {TITLES[item]}?"])
            targets.append(np.array([item]))
        else:
            contexts.append([f"I saw {TITLES[item]}", "Nice!", f"any films with {PEOPLE[person]}?"])
            targets.append(np.array([person]))
    return Turns(contexts, targets, np.arange(first, first + many))


@pytest.fixture(scope="module")
def ranker() -> DialogueRanker:
    return DialogueRanker(TABLE).fit(turns(0, 120), turns(1, 60, first=1000))


def found(message: str) -> list[tuple[list[str], list[str]]]:
    mentions = Mentions(Linker(TABLE, Vocabulary(TABLE))).find(message)
    return [([TABLE.column("title")[row].as_py() for row in m.rows], [value for _, value in m.values]) for m in mentions]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("I loved amber dawn and Basalt Dusk!", [(["Amber Dawn"], []), (["Basalt Dusk"], [])]),
        ("Anything with Ann Bell, a comedy?", [([], ["Ann Bell"]), ([], ["Comedy"])]),
        ("I told her about it. Her?", []),
        ("the the The Amber Dawn", [(["Amber Dawn"], [])]),
        ("", []),
    ],
)
def test_a_message_names_titles_and_values_and_words_of_every_sentence_name_nothing(message: str, expected: list) -> None:
    assert found(message) == expected


def test_a_title_with_a_note_in_brackets_is_called_by_its_name_and_never_by_the_note() -> None:
    table = pa.table(
        {"item_id": ["a", "b", "c"], "title": ["Thor (Action Film)", "The Visitor (Horror Film) #2", "The Visitor"]}
    )
    mentions = Mentions(Linker(table, Vocabulary(table)))
    assert [m.rows for m in mentions.find("Thor is no horror film, The Visitor is")] == [(0,), (2,)]


def test_it_learns_when_the_named_film_is_meant_and_when_another_one_is(ranker: DialogueRanker) -> None:
    test = turns(2, 60, first=2000)
    top, scores = ranker.rank(test.contexts, 1)
    right = top[:, 0] == np.concatenate(test.targets)
    assert right[1::2].mean() > 0.9, "who directed it?"
    assert right[::2].mean() > 0.9, "films with somebody"
    assert (scores <= 0).all()
    chances = ranker.chance_of_named(test.contexts)
    assert chances[1::2].min() > 0.8
    assert chances[::2].max() < 0.2
    assert ranker.chance_of_named([["Good evening"]]).tolist() == [0.0]


def test_scores_are_log_probabilities_over_the_whole_catalogue_and_the_same_in_any_batch(ranker: DialogueRanker) -> None:
    contexts = turns(3, 70).contexts
    scores = ranker.scores(contexts)
    assert scores.shape == (70, ITEMS)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(ranker.scores(contexts[5:6])[0], scores[5], atol=1e-4)
    assert ranker.scores([]).shape == (0, ITEMS)


def test_a_context_that_names_nothing_is_answered_by_popularity(ranker: DialogueRanker) -> None:
    [top], _ = ranker.rank([["Good evening"]], 4)
    assert set(top.tolist()) == {0, 1, 2, 3}, "what was recommended most in training"


def test_a_vote_from_outside_joins_with_the_weight_that_it_earns() -> None:
    secret = np.random.default_rng(4).permutation(ITEMS)
    train, validation = turns(0, 120), turns(1, 60, first=1000)
    answers = {messages[-1]: int(rows[0]) for part in (train, validation) for messages, rows in
               zip(part.contexts, part.targets, strict=True)}  # fmt: skip

    def knows(contexts: list) -> np.ndarray:
        return np.stack([np.arange(ITEMS) == answers.get(messages[-1], -1) for messages in contexts])

    def noise(contexts: list) -> np.ndarray:
        return np.tile(secret.astype(np.float32), (len(contexts), 1))

    learned = DialogueRanker(TABLE, votes={"knows": knows, "noise": noise}).fit(train, validation)
    weights = dict(zip(learned.names, learned.weights["not named"], strict=True))
    assert weights["knows"] > 1
    assert abs(weights["noise"] * secret.std()) < 0.5


def test_weights_are_those_of_the_likeliest_model() -> None:
    """Targets drawn from known weights, among some of the items: they are found again, in the units of the signals."""
    random = np.random.default_rng(5)
    signals = random.normal(size=(4000, 6, 2)).astype(np.float32) * np.array([1, 10], np.float32)
    scores = signals @ np.array([1.5, -0.1]) + random.gumbel(size=(4000, 6))
    among = random.random((4000, 6)) < 0.7
    among[:, 0] = True
    best = np.where(among, scores, -np.inf).argmax(axis=1)
    targets = [np.array([row]) if turn % 10 else np.zeros(0, np.int64) for turn, row in enumerate(best)]
    np.testing.assert_allclose(learn_weights(signals, targets, among), [1.5, -0.1], rtol=0.1)


def test_what_cannot_be_learned_from_is_refused(ranker: DialogueRanker) -> None:
    some = turns(0, 20)
    with pytest.raises(DataError, match="20 dialogues are in training and validation .* Split by dialogue, not by turn"):
        DialogueRanker(TABLE).fit(some, turns(1, 20))
    with pytest.raises(DataError, match="needs training turns and others"):
        DialogueRanker(TABLE).fit(some, Turns([], [], np.zeros(0, np.int64)))
    with pytest.raises(DataError, match="Turn 1 recommends no item"):
        Turns([["a"], ["b"]], [np.array([1]), np.zeros(0, np.int64)], np.arange(2))
    with pytest.raises(DataError, match="got 1, 1 and 2 of them"):
        Turns([["a"]], [np.array([1])], np.arange(2))
    with pytest.raises(SettingError, match="k must be 1 to 24, the number of items, got 25"):
        ranker.rank([["Hello"]], 25)
