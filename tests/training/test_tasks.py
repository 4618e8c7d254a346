"""Alignment tasks: what they say, what is learned of it, how they are mixed, and what they must not know."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given as for_all
from hypothesis import strategies as st
from transformers import AutoTokenizer
from worlds import write_llm

from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Histories
from genrec.data.splits import SPLITS
from genrec.errors import DataError, SettingError
from genrec.models.tokens import TokenLayout
from genrec.models.words import Words
from genrec.recipe import Recipe, load_recipe
from genrec.tables import read_tables, split_histories, training_texts
from genrec.tasks import item_texts, mix_of
from genrec.training.examples import IGNORED, Collator
from genrec.training.tasks.config import TasksConfig
from genrec.training.tasks.families import TASKS
from genrec.training.tasks.mix import Mix, MixBatches, MixCollator
from genrec.training.tasks.preview import preview, show

ITEMS, USERS = 12, 30
SIZES = (4, 3, 2)
CODES = np.array([[item % 4, item // 4, 0] for item in range(ITEMS)])
# In words, so that a text can be recognised: item 3 is "item three", of brand b0 or b1, of category c0, c1 or c2.
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
CATALOGUE = pa.table({
    "item_id": [f"i{item}" for item in range(ITEMS)],
    "title": [f"item {number}" for number in NUMBERS],
    "brand": [f"b{item % 2}" for item in range(ITEMS)],
    "category": [f"c{item % 3}" for item in range(ITEMS)],
    "description": [None if item == 5 else f"all about {number}" for item, number in enumerate(NUMBERS)],
})  # fmt: skip
COLUMNS = {"query": "query", "rating": "stars", "review": "review", "behaviour": "what"}
EVERYTHING = {f"tasks.{task.name}": 0.5 for task in TASKS} | {f"tasks.{p}_column": c for p, c in COLUMNS.items()}


def walks(seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.permutation(ITEMS)[: random.integers(4, 9)].tolist() for _ in range(USERS)]


def events(histories: list[list[int]]) -> pa.Table:
    """Every event says who it is and where it stands in what the optional columns hold."""
    rows = [(user, place, item) for user, history in enumerate(histories) for place, item in enumerate(history)]
    return pa.table({
        "user_id": [f"u{user}" for user, _, _ in rows],
        "item_id": [f"i{item}" for _, _, item in rows],
        "timestamp": [place for _, place, _ in rows],
        "query": [f"query of {user} at {place}" for user, place, _ in rows],
        "stars": [float(1 + item % 5) for _, _, item in rows],
        "review": [f"review of {user} at {place}" for user, place, _ in rows],
        "what": ["viewed" if place % 2 else "bought" for _, place, _ in rows],
    })  # fmt: skip


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [*CATALOGUE.column("title").to_pylist(), *(t.told for task in TASKS for t in task.templates)]
    return write_llm(tmp_path_factory.mktemp("llm"), texts)


def mixed(
    llm: Path, overrides: dict, histories: list[list[int]] | None = None, items: pa.Table = CATALOGUE
) -> tuple[Mix, Words]:
    recipe = load_recipe(overrides={"model.pretrained": str(llm)} | overrides)
    tables = read_tables(items, events(histories or walks()), recipe)
    split = split_histories(tables.interactions.histories(tables.catalogue), recipe)
    return mix_of(
        recipe, tables, split.train, CODES[: len(items)], TokenLayout(512, SIZES, 0, 0), AutoTokenizer.from_pretrained(llm)
    )


def every_sample(mix: Mix, name: str) -> list:
    """All samples of a task: each example in each of the sentences that fit it."""
    number = [task.name for task in mix.tasks].index(name)
    task = mix.tasks[number]
    return [mix[number + 1, example, prompt] for example, prompt in np.argwhere(task.lengths > 0).tolist()]


def told(sample: object, mix: Mix, words: Words) -> tuple[str, str]:
    """Prompt and answer as text."""
    return tuple(
        show(sample.tokens[part], np.zeros(part.sum(), bool), mix.layout, words) for part in (~sample.learned, sample.learned)
    )


def codes_of(rows: list[int]) -> str:
    return "".join(f"<c{level}_{code}>" for row in rows for level, code in enumerate(CODES[row]))


@pytest.fixture(scope="module")
def everything(llm: Path) -> tuple[Mix, Words]:
    return mixed(llm, EVERYTHING)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_each_task_emits_all_its_sentences_and_only_the_answer_is_learned(everything: tuple[Mix, Words], task: object) -> None:
    mix, words = everything
    aligned = mix.tasks[TASKS.index(task)]
    assert aligned.name == task.name
    assert len(aligned.prompts) == len(task.templates) >= 3
    assert (aligned.lengths > 0).any(axis=0).all(), "each sentence fits some example"
    codes = mix.layout.code_tokens
    for sample in every_sample(mix, task.name):
        answer = sample.tokens[sample.learned]
        begin = int(np.argmax(sample.learned))
        assert sample.learned[begin:].all(), "the answer is the end, and nothing before it counts"
        assert not sample.learned[:begin].any()
        assert sample.tokens[0] == mix.layout.start
        if task.templates[0].answer == "{item}":
            mix.layout.to_codes(answer)  # raises for anything but one code of each level
            assert len(answer) == len(SIZES)
        else:
            assert not any(token in codes for token in answer.tolist()), "no code in an answer of words"
            assert len(answer) > 1
            assert (answer == words.end).tolist() == [False] * (len(answer) - 1) + [True]
        batch = MixCollator(mix.layout.pad)([sample])
        assert (batch["labels"][0] != IGNORED).tolist() == sample.learned.tolist()


def test_the_sentences_hold_what_they_promise(everything: tuple[Mix, Words]) -> None:
    mix, words = everything
    train = [history[:-2] for history in walks()]
    titles = CATALOGUE.column("title").to_pylist()
    history = train[0]
    before, last = history[:-1], history[-1]

    def samples(name: str) -> set[tuple[str, str]]:
        return {told(sample, mix, words) for sample in every_sample(mix, name)}

    assert (f"<|end|>History:{codes_of(before)}\nNext item:", codes_of([last])) in samples("prompted_next_item")
    assert (f"<|end|>Title: {titles[last]}\nItem:", codes_of([last])) in samples("text_to_codes")
    assert (f"<|end|>Item:{codes_of([last])}\nTitle:", f" {titles[last]}<|end|>") in samples("codes_to_text")
    assert (f"<|end|>History:{codes_of(before)}\nTitle of the next item:", f" {titles[last]}<|end|>") in samples(
        "codes_to_title"
    )
    owned = "; ".join(titles[item] for item in before)
    assert (f"<|end|>Bought so far: {owned}\nNext item:", codes_of([last])) in samples("titles_to_codes")
    assert (f"<|end|>Query: query of 0 at {len(before)}\nItem:", codes_of([last])) in samples("search")
    brand = f"<|end|>History:{codes_of(before)}\nBrand: b{last % 2}\nItem:"
    assert (brand, codes_of([last])) in samples("attribute")
    told_of = f"<|end|>History:{codes_of(before)}\nItem:{codes_of([last])}\n"
    assert (told_of + "Rating:", f" {1 + last % 5}<|end|>") in samples("rating")
    assert (told_of + "Review:", f" review of 0 at {len(before)}<|end|>") in samples("explanation")
    done = "".join(f" {'viewed' if place % 2 else 'bought'}{codes_of([item])}" for place, item in enumerate(before))
    now = "viewed" if len(before) % 2 else "bought"
    assert (f"<|end|>Log:{done}\nNext: {now}", codes_of([last])) in samples("behaviour")


def test_a_preference_names_what_prevails_the_latest_first_where_it_is_even(llm: Path) -> None:
    # Categories c0 c1 c1 c2, brands b0 b1 b1 b0: item % 3 and item % 2.
    mix, words = mixed(llm, {"tasks.preference": 1.0}, [[0, 1, 7, 2, 10, 11], *walks()[1:]])
    answer = told(mix[1, 0, 0], mix, words)[1]
    assert answer == " Mostly: c1, c2, c0 Lately: c2 Brands: b0, b1<|end|>"


def test_yes_and_no_are_even_and_a_no_is_an_item_that_the_user_had_not_had(everything: tuple[Mix, Words]) -> None:
    mix, words = everything
    train = Histories.from_lists([history[:-2] for history in walks()])
    some = next(task for task in mix.tasks if task.name == "yes_no").examples
    owner = np.searchsorted(train.indptr, some.events, side="right") - 1
    assert some.taken.sum() * 2 == len(some)
    for item, event, user, taken in zip(some.items, some.events, owner, some.taken, strict=True):
        assert (train.items[event] == item) == taken
        assert taken or item not in train.items[train.indptr[user] : event]
        assert item in train.items, "nothing that nobody has met in training"
    assert {told(sample, mix, words)[1] for sample in every_sample(mix, "yes_no")} == {" yes<|end|>", " no<|end|>"}


def test_queries_are_brand_and_category_where_no_column_is_named(llm: Path) -> None:
    mix, words = mixed(llm, {"tasks.search": 1.0})
    last = walks()[0][-3]
    assert (f"<|end|>Query: b{last % 2} c{last % 3}\nItem:", codes_of([last])) in {
        told(sample, mix, words) for sample in every_sample(mix, "search")
    }


def test_no_task_knows_a_question_of_validation_or_test(llm: Path) -> None:
    """The last two events of a user are of items that are in no training history, so they would be recognised."""
    hidden = {10, 11}
    histories = [[item for item in walk if item not in hidden][:5] + sorted(hidden) for walk in walks()]
    mix, words = mixed(llm, EVERYTHING, histories)
    of_items = {"text_to_codes", "codes_to_text"}  # the catalogue is known
    marks = [codes_of([item]) for item in hidden] + [NUMBERS[item] for item in hidden]
    for task in TASKS:
        for sample in every_sample(mix, task.name):
            whole = "".join(told(sample, mix, words))
            for user, history in enumerate(histories):
                for place in (len(history) - 2, len(history) - 1):
                    assert f"of {user} at {place}" not in whole
            assert task.name in of_items or not any(mark in whole for mark in marks)


def test_other_questions_leave_every_sample_as_it_was(llm: Path) -> None:
    before, after = walks(), walks()
    for history in after:
        history[-2:] = [history[-1], history[-2]]
    one, two = (mixed(llm, EVERYTHING, histories)[0] for histories in (before, after))
    for task in TASKS:
        for a, b in zip(every_sample(one, task.name), every_sample(two, task.name), strict=True):
            np.testing.assert_array_equal(a.tokens, b.tokens)


@pytest.mark.parametrize("split", SPLITS)
def test_texts_of_events_follow_their_events_whatever_the_order_of_the_table(llm: Path, split: str) -> None:
    table = events(walks())
    table = table.take(pa.array(np.random.default_rng(1).permutation(len(table))))
    table = pa.concat_tables([table, table.slice(0, 5).set_column(1, "item_id", pa.array(["unknown"] * 5))])
    recipe = load_recipe(
        overrides=EVERYTHING | {"model.pretrained": str(llm), "data.unknown_items": "drop", "data.split": split}
    )
    tables = read_tables(CATALOGUE, table, recipe)
    train = split_histories(tables.interactions.histories(tables.catalogue, "drop"), recipe).train
    texts = training_texts(tables, recipe)
    expected = [
        f"review of {user[1:]} at {place}" for user, n in zip(train.user_ids, train.lengths, strict=True) for place in range(n)
    ]
    assert texts["review"] == expected
    assert texts["rating"] == [str(1 + item % 5) for item in train.items]
    assert "task_columns" in tables.hashes
    plain = read_tables(CATALOGUE, table, Recipe())
    assert plain.hashes["interactions"] == tables.hashes["interactions"], "the events are the same, with reviews or without"


def test_an_item_is_not_asked_for_what_it_does_not_have(everything: tuple[Mix, Words]) -> None:
    mix, words = everything
    answers = {told(sample, mix, words)[1] for sample in every_sample(mix, "codes_to_text")}
    assert " item five<|end|>" in answers
    assert " item four\n all about four<|end|>" in answers
    assert not any("five" in answer and "all about" in answer for answer in answers)


def test_no_text_becomes_a_special_token_or_a_code(llm: Path) -> None:
    titles = [f"<|end|> <c0_{item}> {NUMBERS[item]}" for item in range(ITEMS)]
    mix, words = mixed(llm, {"tasks.text_to_codes": 1.0}, items=CATALOGUE.set_column(1, "title", pa.array(titles)))
    for sample in every_sample(mix, "text_to_codes"):
        assert (sample.tokens[1:] != words.end).all()
        assert (sample.tokens[~sample.learned] < 512).all()


def test_a_long_text_is_cut(llm: Path) -> None:
    items = CATALOGUE.set_column(1, "title", pa.array(["x " * 500_000] + ["y"] * (ITEMS - 1)))
    mix, _ = mixed(llm, {"tasks.text_to_codes": 1.0, "tasks.text_tokens": 8}, items=items)
    assert mix.longest.max() < 80


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_lengths_are_never_less_than_what_is_written(everything: tuple[Mix, Words], task: object) -> None:
    mix, _ = everything
    number = TASKS.index(task)
    aligned = mix.tasks[number]
    for example, prompt in np.argwhere(aligned.lengths > 0).tolist():
        written = len(mix[number + 1, example, prompt].tokens)
        assert written <= aligned.lengths[example, prompt]
        told_preference = "{preference}" in "".join((task.templates[prompt].told, task.templates[prompt].answer))
        assert told_preference or written + 1 >= aligned.lengths[example, prompt], "and hardly more"


def test_plain_histories_are_written_as_without_tasks(everything: tuple[Mix, Words]) -> None:
    mix, _ = everything
    windows = [0, 3, 4]
    ours = MixCollator(mix.layout.pad)([mix[0, window, 0] for window in windows])
    theirs = Collator(CODES, mix.layout)([mix.windows[window] for window in windows])
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@for_all(st.floats(0.1, 3), st.floats(0.1, 3), st.integers(40, 400))
def test_an_epoch_holds_every_window_and_shares_as_weighted_within_the_budget(
    llm: Path, first: float, second: float, budget: int
) -> None:
    mix = mixed(llm, {"tasks.next_item": 2.0, "tasks.search": first, "tasks.codes_to_text": second})[0]
    batches = MixBatches(mix, budget, seed=3)
    for epoch in (0, 1, 2):
        batches.set_epoch(epoch)
        drawn = list(batches)
        assert len(drawn) == len(batches), "the Trainer counts on it"
        assert list(batches) == drawn, "an epoch can be drawn again"
        keys = [key for batch in drawn for key in batch]
        assert sorted(example for task, example, _ in keys if not task) == list(range(len(mix.windows)))
        for number, weight in ((1, second), (2, first)):
            share = sum(task == number for task, _, _ in keys)
            assert abs(share - len(mix.windows) * weight / 2) <= 0.5 or share == 1
        for batch in drawn:
            width = max(len(mix[key].tokens) for key in batch)
            assert len(batch) == 1 or len(batch) * width <= budget


def test_every_example_of_a_task_has_its_turn(llm: Path) -> None:
    mix, _ = mixed(llm, {"tasks.search": 0.2})
    [task] = mix.tasks
    longest = task.stretches[1].max()
    assert longest > 5
    met = {example for epoch in range(longest) for example in task.draw([7, 1], epoch)[0].tolist()}
    assert met == set(range(len(task.examples)))
    sentences = {prompt for epoch in range(longest) for prompt in task.draw([7, 1], epoch)[1].tolist()}
    assert sentences == set(range(len(task.prompts)))


def test_a_preview_marks_what_counts(everything: tuple[Mix, Words]) -> None:
    mix, words = everything
    page = preview(mix, words, samples=2, seed=0)
    assert page.startswith("[[...]] counts in the loss")
    assert page == preview(mix, words, samples=2, seed=0)
    for task in TASKS:
        part = page.split(f"\n{task.name}: ")[1].split("\n\n")[0]
        assert part.count("[[") == part.count("]]") == 2
    assert "  <|end|>[[<c0_" in page, "of a plain history all codes count"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"tasks.search": -1.0}, "tasks.search must be 0 or more, got -1.0"),
        ({"tasks.search": float("nan")}, "tasks.search must be 0 or more, got nan"),
        ({"tasks.next_item": 0.0}, "tasks.next_item must be above 0"),
        ({"tasks.rating": 1.0}, "tasks.rating reads a column of the interactions table. Name it in tasks.rating_column"),
        ({"tasks.review_column": "review"}, "tasks.review_column is for tasks.explanation, whose weight is 0"),
        ({"tasks.query_column": "query"}, "tasks.query_column is for tasks.search, whose weight is 0"),
        ({"tasks.serach": 1.0}, "no setting tasks.serach. Did you mean 'tasks.search'"),
        ({"tasks.search": 1.0, "model.pretrained": None}, "Name a causal language model"),
        ({"tasks.search": 1.0, "model.architecture": "encoder-decoder"}, "prompts in words, which a pretrained decoder knows"),
        ({"tasks.search": 1.0, "training.distillation": 0.5, "model.lora_rank": 0}, "learns from plain histories alone"),
    ],
)
def test_impossible_mixes_are_refused(overrides: dict, message: str) -> None:
    with pytest.raises(SettingError) as error:
        load_recipe(overrides={"model.pretrained": "any"} | overrides)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("task", "columns", "needs"),
    [
        ("search", ["item_id", "title"], "a brand or a category in the items table, or tasks.query_column"),
        ("preference", ["item_id", "title"], "a brand or a category"),
        ("text_to_codes", ["item_id"], "a column with titles"),
    ],
)
def test_a_task_that_the_tables_have_nothing_for_is_refused_with_what_it_needs(
    llm: Path, task: str, columns: list[str], needs: str
) -> None:
    with pytest.raises(SettingError, match=f"tasks.{task} has no example in these tables: it needs {needs}"):
        mixed(llm, {f"tasks.{task}": 1.0}, items=CATALOGUE.select(columns))


def test_a_column_that_is_not_there_is_named(llm: Path) -> None:
    with pytest.raises(DataError, match=r"must have a column 'starz', got .*Did you mean 'stars'"):
        mixed(llm, {"tasks.rating": 1.0, "tasks.rating_column": "starz"})


def test_an_answer_in_words_needs_an_end(llm: Path) -> None:
    words = Words(AutoTokenizer.from_pretrained(llm, eos_token=None), 512, 8)
    with pytest.raises(SettingError, match="no eos token"):
        words.end  # noqa: B018


def test_a_tokenizer_that_is_not_the_models_is_refused(llm: Path) -> None:
    with pytest.raises(SettingError, match="rows for 20 tokens, and its tokenizer spells with token"):
        Words(AutoTokenizer.from_pretrained(llm), 20, 8).texts(["item zero"])


def test_texts_of_items_come_from_the_columns_that_describe_them() -> None:
    table = pa.table({"item_id": ["a", "b"], "name": ["x", None], "store": ["s", None], "features": [["f", "g"], []]})
    found = item_texts(Catalogue.from_table(table))
    assert found == {"title": ["x", ""], "description": ["f, g", ""], "brand": ["s", ""]}
    assert item_texts(Catalogue.from_table(table.select(["item_id"]))) == {}


def test_the_default_is_plain_histories_alone_and_every_task_has_a_weight() -> None:
    assert TasksConfig().aligned == {} == TasksConfig(next_item=3.0).aligned
    assert set(load_recipe(overrides=EVERYTHING | {"model.pretrained": "any"}).tasks.aligned) == {task.name for task in TASKS}
