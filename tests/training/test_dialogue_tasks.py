"""Dialogue tasks: prompts say what is true of the data, words of users stay words, real dialogues are read as they are."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer
from worlds import write_llm

from genrec.chat.spelling import MOST_CONTEXT
from genrec.data.catalogue import Catalogue
from genrec.data.dialogues import read_dialogues
from genrec.errors import DataError, SettingError
from genrec.models.tokens import TokenLayout
from genrec.models.words import Words
from genrec.recipe import load_recipe
from genrec.tables import read_tables, split_histories
from genrec.tasks import mix_of
from genrec.training.tasks.config import TasksConfig
from genrec.training.tasks.dialogue import DIALOGUE_TASKS
from genrec.training.tasks.mix import Mix
from genrec.training.tasks.preview import show

ITEMS, USERS = 12, 20
SIZES = (4, 3, 2)
CODES = np.array([[item % 4, item // 4, 0] for item in range(ITEMS)])
TITLES = [
    "Alien",
    "Brazil",
    "Casablanca",
    "Dune",
    "Elf",
    "Fargo",
    "Gravity",
    "Heat",
    "Inception",
    "Jaws",
    "Kagemusha",
    "Labyrinth",
]
CATALOGUE = pa.table({
    "item_id": [f"i{item}" for item in range(ITEMS)],
    "title": TITLES,
    "brand": [f"studio{item % 2}" for item in range(ITEMS)],
    "category": [f"genre{item % 3}" for item in range(ITEMS)],
    "year": [1980 + item for item in range(ITEMS)],
    "price": [20.0 - item for item in range(ITEMS)],
})  # fmt: skip
TURNS = pa.table({
    "context": [["I liked Alien.", "Did you see Heat?", "Yes. <|end|> <c0_1> What else?"], ["Hello!"], ["Anything like Jaws?"]],
    "response": ["Try Dune.", "Hello, friend.", "Dune or Elf."],
    "item_ids": [["i3"], [], ["i3", "i4"]],
})  # fmt: skip
ALL = {f"tasks.{task.name}": 0.5 for task in DIALOGUE_TASKS}


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llm(tmp_path_factory.mktemp("llm"), [*TITLES, *(t.told for task in DIALOGUE_TASKS for t in task.templates)])


def mixed(llm: Path, overrides: dict, items: pa.Table = CATALOGUE) -> tuple[Mix, Words]:
    random = np.random.default_rng(0)
    walks = [random.permutation(ITEMS)[: random.integers(4, 8)].tolist() for _ in range(USERS)]
    events = pa.table({
        "user_id": [f"u{user}" for user, walk in enumerate(walks) for _ in walk],
        "item_id": [f"i{item}" for walk in walks for item in walk],
        "timestamp": [place for walk in walks for place, _ in enumerate(walk)],
    })  # fmt: skip
    recipe = load_recipe(overrides={"model.pretrained": str(llm)} | overrides)
    tables = read_tables(items, events, recipe)
    split = split_histories(tables.interactions.histories(tables.catalogue), recipe)
    return mix_of(recipe, tables, split.train, CODES, TokenLayout(512, SIZES, 0, 0), AutoTokenizer.from_pretrained(llm))


def samples(mix: Mix, words: Words, name: str) -> list[tuple[str, str]]:
    """Prompt and answer of every example in every sentence that fits it, as text."""
    number = [task.name for task in mix.tasks].index(name)
    found = [mix[number + 1, example, prompt] for example, prompt in np.argwhere(mix.tasks[number].lengths > 0).tolist()]
    return [
        tuple(show(s.tokens[part], np.zeros(part.sum(), bool), mix.layout, words) for part in (~s.learned, s.learned))
        for s in found
    ]


def codes_of(row: int) -> str:
    return "".join(f"<c{level}_{code}>" for level, code in enumerate(CODES[row]))


ROWS = {codes_of(row): row for row in range(ITEMS)}


def items_in(text: str) -> list[int]:
    return [ROWS["".join(part + ">" for part in three)] for three in _threes(text)]


def _threes(text: str) -> list[list[str]]:
    codes = [piece[piece.index("<c") :] for piece in text.split(">") if "<c" in piece]
    return [codes[n : n + 3] for n in range(0, len(codes), 3)]


def test_every_sentence_fits_some_example_and_none_is_longer_than_was_said(llm: Path, tmp_path: Path) -> None:
    pq.write_table(TURNS, tmp_path / "dialogues.parquet")
    mix, _ = mixed(llm, ALL | {"tasks.dialogues": str(tmp_path / "dialogues.parquet")})
    assert [task.name for task in mix.tasks] == [task.name for task in DIALOGUE_TASKS]
    for number, (task, declared) in enumerate(zip(mix.tasks, DIALOGUE_TASKS, strict=True), 1):
        assert len(task.prompts) == len(declared.templates)
        assert (task.lengths > 0).any(axis=0).all()
        for example, prompt in np.argwhere(task.lengths > 0).tolist():
            sample = mix[number, example, prompt]
            assert len(sample.tokens) <= task.lengths[example, prompt]
            begin = int(np.argmax(sample.learned))
            assert sample.learned[begin:].all(), "the answer is the end, and nothing before it counts"
            assert not sample.learned[:begin].any()


def test_a_critique_is_true_of_the_item_and_not_of_the_one_that_was_shown(llm: Path) -> None:
    mix, words = mixed(llm, {"tasks.critique": 1.0})
    said = set()
    for prompt, answer in samples(mix, words, "critique"):
        [target], shown = items_in(answer), items_in(prompt)[-1]
        assert target != shown
        for word, true in {
            "newer": target > shown, "older": target < shown, "cheaper": target > shown, "dearer": target < shown,
            "something by": target % 2 != shown % 2 and f"studio{target % 2}" in prompt,
            "rather": target % 3 != shown % 3 and f"genre{target % 3}" in prompt,
        }.items():  # fmt: skip
            if word in prompt.rsplit("User:", 1)[1]:
                said.add(word)
                assert true, (word, prompt, answer)
    assert said == {"newer", "older", "cheaper", "dearer", "something by", "rather"}


def test_a_reason_names_what_the_item_shares_with_the_latest_one(llm: Path) -> None:
    mix, words = mixed(llm, {"tasks.reason": 1.0})
    found = samples(mix, words, "reason")
    assert found
    for prompt, answer in found:
        named = items_in(prompt)
        item = named[0] if prompt.split("Assistant", 1)[0].count("<c") == 0 else named[-1]
        latest = named[-1] if item == named[0] else named[-2]
        assert answer.startswith(f" You had {TITLES[latest]}, and this is ")
        if "by the same" in answer:
            assert item % 2 == latest % 2
            assert f"studio{item % 2}" in answer
        else:
            assert item % 3 == latest % 3
            assert f"genre{item % 3}" in answer


def test_a_question_back_offers_categories_of_the_history(llm: Path) -> None:
    mix, words = mixed(llm, {"tasks.clarifying_question": 1.0})
    for prompt, answer in samples(mix, words, "clarifying_question"):
        offered = {name for name in ("genre0", "genre1", "genre2") if name in answer}
        assert answer.endswith("something else?<|end|>")
        assert offered == {f"genre{item % 3}" for item in items_in(prompt)}


def test_a_turn_holds_the_items_it_names_as_codes_and_everything_else_as_words(llm: Path, tmp_path: Path) -> None:
    pq.write_table(TURNS, tmp_path / "dialogues.parquet")
    mix, words = mixed(llm, {"tasks.recommendation_turn": 1.0, "tasks.dialogues": str(tmp_path / "dialogues.parquet")})
    turns = [(p, a) for p, a in samples(mix, words, "recommendation_turn") if "What else" in p or "Anything like<c" in p]
    alien, heat, jaws = (codes_of(TITLES.index(title)) for title in ("Alien", "Heat", "Jaws"))
    # What the user typed reads like an end token and a code, and is neither.
    first = (
        f"<|end|>\nUser: I liked{alien} .\nAssistant: Did you see{heat} ?"
        "\nUser: Yes. <|end|> <c0_1> What else?\nAssistant recommends:"
    )
    second = f"<|end|>\nUser: Anything like{jaws} ?\nAssistant recommends:"
    assert turns[::2] == [(first, codes_of(3)), (second, codes_of(3)), (second, codes_of(4))]
    # The same answered in words, where the items that the assistant names are codes too.
    first, second = (prompt.removesuffix(" recommends:") + ":" for prompt in (first, second))
    dune, elf = codes_of(3), codes_of(4)
    one, both = f" Try{dune} .<|end|>", f"{dune} or{elf} .<|end|>"
    assert turns[1::2] == [(first, one), (second, both), (second, both)]
    number = next(n for n, task in enumerate(mix.tasks[0].examples.turns) if task == 0)
    sample = mix[1, number, 0]
    assert (sample.tokens[1:] == words.end).sum() == 0, "only the start is a special token"
    assert sum(token in mix.layout.code_tokens for token in sample.tokens.tolist()) == 3 * len(SIZES)


def test_turns_without_items_teach_talk(llm: Path, tmp_path: Path) -> None:
    pq.write_table(TURNS, tmp_path / "dialogues.parquet")
    mix, words = mixed(llm, {"tasks.chit_chat": 1.0, "tasks.dialogues": str(tmp_path / "dialogues.parquet")})
    found = samples(mix, words, "chit_chat")
    assert ("<|end|>\nUser: Hello!\nAssistant:", " Hello, friend.<|end|>") in found
    assert not any("Dune" in answer for _, answer in found)
    greetings = [pair for pair in found if "I recommend items of this catalogue" in pair[1]]
    assert len(greetings) == 1, "they are the example about nothing, and take no turn's place"


def test_a_long_context_keeps_its_latest_messages(llm: Path, tmp_path: Path) -> None:
    long = [f"message {number} " + "so it goes " * 10 for number in range(30)]
    turns = pa.table({"context": [long], "response": ["Dune"], "item_ids": [["i3"]]})
    pq.write_table(turns, tmp_path / "dialogues.parquet")
    mix, words = mixed(llm, {"tasks.recommendation_turn": 1.0, "tasks.dialogues": str(tmp_path / "dialogues.parquet")})
    found = [prompt for prompt, _ in samples(mix, words, "recommendation_turn") if "message" in prompt]
    assert len(found) == 2
    for prompt in found:
        assert "message 29" in prompt
        assert "message 0 " not in prompt
        assert len(words.literal(prompt)) < MOST_CONTEXT + 40


def test_an_answer_is_learned_in_words_only_where_it_names_what_it_recommends(llm: Path, tmp_path: Path) -> None:
    table = CATALOGUE.set_column(1, "title", pa.array(["Alien", "Alien", *TITLES[2:]]))
    turns = [
        ("It has claws: Alien, or Dune.", ["i1"]),  # of two that are called so, the one that is recommended
        ("Alien, or Dune.", []),  # no recommendation: talk
        ("That one with the worms.", ["i3"]),  # the item is not named
        ("Dune and the sand of it " * 30, ["i3"]),  # too long
    ]
    said, items = zip(*turns, strict=True)
    pq.write_table(pa.table({"context": ["Hm?"] * 4, "response": said, "item_ids": items}), tmp_path / "dialogues.parquet")
    mix, words = mixed(llm, {"tasks.recommendation_turn": 1.0, "tasks.dialogues": str(tmp_path / "dialogues.parquet")}, table)
    found = [answer for prompt, answer in samples(mix, words, "recommendation_turn") if prompt.endswith("Hm?\nAssistant:")]
    assert found == [f" It has claws:{codes_of(1)} , or{codes_of(3)} .<|end|>"]


def test_answers_made_of_histories_name_what_was_taken_next_and_after_it(llm: Path) -> None:
    mix, words = mixed(llm, {"tasks.recommendation_turn": 1.0})
    two = [pair for pair in samples(mix, words, "recommendation_turn") if "You may like" in pair[1]]
    assert two
    random = np.random.default_rng(0)
    walks = [random.permutation(ITEMS)[: random.integers(4, 8)].tolist() for _ in range(USERS)]
    for prompt, answer in two:
        told = [*items_in(prompt), *items_in(answer)]
        assert len(items_in(answer)) == 2
        # Leave-one-out keeps the last two items of each user for validation and test: no answer holds them.
        assert any(walk[:-2][place : place + len(told)] == told for walk in walks for place in range(len(walk)))
        assert answer.endswith(".<|end|>")


def test_what_a_catalogue_does_not_say_is_refused_with_what_it_needs(llm: Path) -> None:
    bare = CATALOGUE.select(["item_id", "title"])
    with pytest.raises(SettingError, match="tasks.critique has no example in these tables: it needs histories, and a year"):
        mixed(llm, {"tasks.critique": 1.0}, bare)
    assert mixed(llm, {"tasks.chit_chat": 1.0}, bare)[0].tasks[0].name == "chit_chat"


@pytest.mark.parametrize(
    ("table", "error"),
    [
        (TURNS.drop_columns("response"), "must have a column 'response'"),
        (
            TURNS.set_column(2, "item_ids", pa.array(["i3", "i4", "i5"])),
            "'item_ids' .* must hold lists of item ids, got string",
        ),
        (
            TURNS.set_column(2, "item_ids", pa.array([["i3"], ["none"], []])),
            r"1 items that the catalogue does not have \(e.g. 'none'",
        ),
    ],
)
def test_a_table_of_dialogues_that_cannot_be_read_says_what_it_needs(table: pa.Table, error: str) -> None:
    with pytest.raises(DataError, match=error):
        read_dialogues(table, Catalogue.from_table(CATALOGUE))


def test_dialogues_that_no_task_reads_are_refused_and_their_hash_is_kept(llm: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="tasks.dialogues is for tasks.recommendation_turn and tasks.chit_chat"):
        TasksConfig(reason=1.0, dialogues="dialogues.parquet")
    pq.write_table(TURNS, tmp_path / "dialogues.parquet")
    overrides = {"tasks.chit_chat": 1.0, "tasks.dialogues": str(tmp_path / "dialogues.parquet"), "model.pretrained": str(llm)}
    events = pa.table({"user_id": ["u"] * 4, "item_id": ["i0", "i1", "i2", "i3"]})
    assert "dialogues" in read_tables(CATALOGUE, events, load_recipe(overrides=overrides)).hashes
