"""The dialogue ranker inside a conversation: rules hold, the order is the ranker's, and a saved ranker says the same."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.chat.dialogue import Conversation, State
from genrec.chat.dialogue_ranker import DialogueRanker
from genrec.chat.messages import text_of
from genrec.chat.saved_ranker import fit_ranker, load_ranker, save_ranker
from genrec.chat.terminal import run as run_terminal
from genrec.data.catalogue import Catalogue
from genrec.data.where import where_mask
from genrec.errors import BundleError, DataError, SettingError
from genrec.recommender import Recommender


def dialogues(catalogue: Catalogue, many: int = 120, seed: int = 0) -> pa.Table:
    """Half ask about a product by name, and it is the answer; half ask for a brand after naming a product, and an item of the
    brand is. Some turns only talk."""
    random, rows = np.random.default_rng(seed), catalogue.table.to_pylist()
    told: dict[str, list] = {"dialogue_id": [], "context": [], "response": [], "item_ids": []}
    for number in range(many):
        named, meant = (rows[place] for place in random.choice(len(rows), 2, replace=False))
        if number % 2:
            context, item = ["Hello", "Hi", f"how much is the {named['title']}?"], named
        else:
            context, item = [f"I have the {named['title']}", "Nice!", f"anything by {meant['brand']}?"], meant
        for column, value in zip(told, (f"d{number}", context, "Take this.", [item["item_id"]]), strict=True):
            told[column] += [value, [*context, "Take this.", "Thanks"] if column == "context" else value]
        told["item_ids"][-1] = []
    return pa.table(told)


@pytest.fixture(scope="module")
def ranker(recommender: Recommender) -> DialogueRanker:
    catalogue = recommender.bundle.catalogue
    return fit_ranker(catalogue, dialogues(catalogue))


@pytest.fixture(scope="module")
def saved(ranker: DialogueRanker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranker") / "saved"
    save_ranker(ranker, folder)
    return folder


@pytest.fixture(scope="module")
def conversation(recommender: Recommender, ranker: DialogueRanker) -> Conversation:
    return Conversation(recommender, ranker=ranker, vectors=False)


def told(state: State, conversation: Conversation) -> list[str]:
    """What has been said up to the user's last message."""
    version = conversation.recommender.catalogue.current
    return [text_of(message, version, "title") for message in state.messages[:-1]]


WISHES = ["under $40", "over $10", "not {brand}", "by {brand}", "{kind}", "no {kind}", "not the first", "something else",
          "more like the second", "nothing I have already seen", "any price is fine", "I loved {title}", "hello"]  # fmt: skip


@settings(max_examples=30)
@given(data=st.data())
def test_every_item_obeys_the_rules_and_the_order_is_the_rankers_among_the_allowed(
    conversation: Conversation, ranker: DialogueRanker, data: st.DataObject
) -> None:
    table = conversation.recommender.bundle.catalogue.table
    rows = table.to_pylist()
    state, before = State(), [rows[place]["item_id"] for place in data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=3))]
    for wish in data.draw(st.lists(st.sampled_from(WISHES), min_size=1, max_size=4)):
        row = rows[data.draw(st.integers(0, len(rows) - 1))]
        message = wish.format(brand=row["brand"], kind=row["category"].split(" > ")[-1].lower(), title=row["title"])
        heard = conversation.listen(message, state, before)
        turn = conversation.turn(message, state, before)
        state = State.from_json(turn.state.to_json(), conversation.context(turn.state).vocabulary)
        assert state.messages == turn.state.messages
        if not heard.search:
            continue
        where, gone = heard.request.where, set(heard.request.exclude_item_ids)
        if heard.request.exclude_seen or (
            heard.request.exclude_seen is None and conversation.recommender.bundle.serving.exclude_seen
        ):
            gone |= set(heard.history)
        allowed = np.ones(len(rows), bool) if where is None else where_mask(table, where)
        allowed &= [one["item_id"] not in gone for one in rows]
        order, scores = ranker.rank([told(state, conversation)], len(rows))
        wanted = [(place, score) for place, score in zip(order[0], scores[0], strict=True) if allowed[place]][: conversation.k]
        assert [item.item_id for item in turn.items] == [rows[place]["item_id"] for place, _ in wanted]
        assert [item.score for item in turn.items] == pytest.approx([score for _, score in wanted])
        assert [item.rank for item in turn.items] == list(range(1, len(wanted) + 1))


def test_what_was_said_before_counts_and_every_item_says_what_of_it_spoke(
    conversation: Conversation, recommender: Recommender
) -> None:
    row = recommender.bundle.catalogue.table.to_pylist()[7]
    first = conversation.turn(f"something by {row['brand']}", State())
    assert {item.fields["brand"] for item in first.items} == {row["brand"]}
    for item in first.items:
        assert "(rule 1)" in item.why()
        assert "dialogue ranker: " in item.why()
        assert item.because is None, "the model's reasons did not order it"
    assert "other values (+" in first.items[0].why(), "the brand that was said"
    why = conversation.turn("why the first?", first.state)
    assert first.items[0].ordered in why.text
    assert why.state.messages == first.state.messages
    second = conversation.turn("any brand is fine", first.state)
    assert len(second.state.messages) == 4
    assert second.state.messages[1][1::2] == [item.item_id for item in first.items]
    fresh = conversation.turn("any brand is fine, over $1", State())
    assert [item.item_id for item in second.items] != [item.item_id for item in fresh.items]
    json.loads(second.state.to_json())
    assert conversation.turn("start over", second.state).state.messages[0] == ["start over"]


def test_a_conversation_without_a_ranker_remembers_no_messages(recommender: Recommender) -> None:
    turn = Conversation(recommender, vectors=False).turn("under $40", State())
    assert turn.state.messages == ()
    assert not any(item.ordered for item in turn.items)


def test_items_that_came_later_stand_behind_and_removed_ones_are_gone(bundle: Path, ranker: DialogueRanker) -> None:
    own = Recommender.load(bundle)
    [row] = own.bundle.catalogue.fields([0])
    own.catalogue.add(pa.table({name: [value] for name, value in row.items()} | {"item_id": ["new"], "title": ["Brand New"]}))
    own.catalogue.remove([own.bundle.catalogue.item_ids[1]])
    everything = Conversation(own, ranker=ranker, vectors=False, k=own.bundle.serving.beam_width)
    turn = everything.turn(f"by {row['brand']}", State())
    same = sum(one["brand"] == row["brand"] for one in own.bundle.catalogue.table.to_pylist()[2:]) + 2
    assert len(turn.items) == same
    assert turn.items[-1].item_id == "new"
    assert "not yet in any dialogue" in turn.items[-1].why()
    assert own.bundle.catalogue.item_ids[1] not in {item.item_id for item in turn.items}


def test_a_saved_ranker_gives_the_same_scores_and_a_second_fit_too(
    ranker: DialogueRanker, saved: Path, recommender: Recommender
) -> None:
    catalogue = recommender.bundle.catalogue
    asked = [*dialogues(catalogue, 20, seed=1).column("context").to_pylist(), ["Good evening"], []]
    loaded = load_ranker(saved, catalogue)
    np.testing.assert_array_equal(loaded.scores(asked), ranker.scores(asked))
    np.testing.assert_array_equal(fit_ranker(catalogue, dialogues(catalogue)).scores(asked), ranker.scores(asked))
    assert loaded.about == ranker.about
    assert ranker.about["turns"] == [96, 24]
    assert sorted(path.suffix for path in saved.iterdir()) == [".json", ".json", ".safetensors"]


def test_a_folder_that_is_not_whole_and_another_catalogue_are_refused(
    ranker: DialogueRanker, saved: Path, recommender: Recommender, tmp_path: Path
) -> None:
    catalogue = recommender.bundle.catalogue
    other = Catalogue.from_table(catalogue.table.slice(1))
    with pytest.raises(BundleError, match="was fitted on catalogue .* this one is"):
        load_ranker(saved, other)
    with pytest.raises(BundleError, match="was fitted on catalogue"):
        Conversation(recommender, ranker=fit_ranker(other, dialogues(other)))
    with pytest.raises(BundleError, match=r"is not a dialogue ranker: it does not exist. `genrec.*save_ranker"):
        load_ranker(tmp_path / "nothing", catalogue)
    with pytest.raises(BundleError, match="is a bundle, not a dialogue ranker"):
        load_ranker(recommender.bundle.folder, catalogue)
    for name, spoil in (("ranker.json", Path.unlink), ("ranker.safetensors", lambda path: path.write_bytes(b"x"))):
        folder = tmp_path / name
        shutil.copytree(saved, folder)
        spoil(folder / name)
        with pytest.raises(BundleError, match=f"{name} .*(missing|truncated)"):
            load_ranker(folder, catalogue)


def test_what_cannot_be_fitted_saved_or_used_is_refused(
    ranker: DialogueRanker, recommender: Recommender, saved: Path, tmp_path: Path
) -> None:
    catalogue = recommender.bundle.catalogue
    table = dialogues(catalogue, 10)
    with pytest.raises(DataError, match="must have a column 'dialogue_id'"):
        fit_ranker(catalogue, table.drop_columns(["dialogue_id"]))
    with pytest.raises(DataError, match="at least 2 dialogues that recommend items, got 1"):
        fit_ranker(catalogue, table.slice(0, 2))
    with pytest.raises(SettingError, match="share must be above 0 and below 1, got 1"):
        fit_ranker(catalogue, table, share=1)
    with pytest.raises(SettingError, match="not an empty folder"):
        save_ranker(ranker, saved)
    unfitted = DialogueRanker(catalogue.table)
    with pytest.raises(SettingError, match="Fit it before"):
        save_ranker(unfitted, tmp_path / "unfitted")
    with pytest.raises(SettingError, match="learned nothing yet"):
        Conversation(recommender, ranker=unfitted)
    with pytest.raises(SettingError, match="Leave --dialogues out"):
        run_terminal(recommender.bundle.folder, [], 5, None, None, "model", saved)


def test_the_terminal_loads_a_ranker_and_says_why(
    recommender: Recommender, saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from genrec.chat import terminal

    monkeypatch.setattr(terminal, "typed", lambda: iter(["under $40", "/why 1", "/quit"]))
    run_terminal(recommender.bundle.folder, [], 5, None, None, dialogues=saved)
    shown = capsys.readouterr().out
    assert shown.count("dialogue ranker: ") == 6, "five items and one why"
