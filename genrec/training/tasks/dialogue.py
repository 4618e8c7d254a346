"""Dialogue tasks: what an assistant says and recommends, learned as prompts of words and codes.

In: the training part of the histories, the catalogue, and perhaps `Dialogues`. Out: `DIALOGUE_TASKS`, and the places that their
sentences have. By default everything is made from templates: what a user had is what they tell, what they took next is what is
recommended, and how it differs from an item of others is what they criticise. With a table of dialogues, its turns are learned
too: the messages with the items that they name as codes, then the codes of what was recommended, or the words that were said,
with the items that they name as codes.

A user's words never become codes: the items of a message are those whose titles stand in it (`genrec.chat.mentions`), written
by arithmetic. Templates and answers are our own; nothing is written by another model.

Legend: `E` training events, `M` examples, `N` items, `L` levels.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from genrec.chat.link import Linker
from genrec.chat.mentions import Mentions
from genrec.chat.spelling import Parts, parts_of, spell_answers, spell_contexts
from genrec.chat.vocabulary import Column, Vocabulary
from genrec.data.dialogues import Dialogues
from genrec.data.interactions import Histories
from genrec.models.tokens import TokenLayout
from genrec.models.words import Words
from genrec.training.tasks.families import FIELDS, Given, Task, every_next_item, every_user, sentences, unmet
from genrec.training.tasks.places import MANY, Examples, Place, joined, prevailing, text_of
from genrec.training.tasks.prompts import Template


def recommended(given: Given) -> Examples:
    """Every next item of the histories, and every item recommended in a dialogue, after its context."""
    told = every_next_item(given)
    if given.dialogues is None:
        return told
    turns = np.repeat(np.arange(len(given.dialogues)), [len(rows) for rows in given.dialogues.items])
    return _both(told, _of_turns(turns, np.concatenate([np.zeros(0, np.int64), *given.dialogues.items])))


def turned_down(given: Given) -> Examples:
    """Every next item of the histories, and an item that the user had not had, as one that was shown before and is not it."""
    taken = every_next_item(given)
    shown = unmet(given, taken)
    return replace(taken, shown=shown).select(np.flatnonzero(shown >= 0))


def talk(given: Given) -> Examples:
    """One example about nothing, for greetings; and every turn of a dialogue that recommends no item."""
    none, zero = np.full(1, -1, np.int64), np.zeros(1, np.int64)
    one = Examples(none, zero, zero, none, np.ones(1, bool))
    if given.dialogues is None:
        return one
    turns = np.flatnonzero([not len(rows) for rows in given.dialogues.items])
    return _both(one, _of_turns(turns, np.full(len(turns), -1, np.int64)))


DIALOGUE_TASKS = (
    Task("recommendation_turn", "histories", recommended, (
        *sentences(
            "{item}",
            "{context}\nAssistant recommends:",
            "User: I have had {history}. What would you recommend next?\nAssistant recommends:",
            "User: Hello! I liked {history}. Anything like that?\nAssistant recommends:",
            "User: I liked {history} and want something by {brand} now.\nAssistant recommends:",
            "User: {category}, please. I have had {history}.\nAssistant recommends:",
        ),
        # Words and items in one answer, as `genrec.chat.speaker` asks for them.
        Template("{context}\nAssistant:", "{spoken}"),
        Template("\nUser: I have had {history}. What next?\nAssistant:", " You may like {item} and {after}."),
        Template("\nUser: Hello! I liked {history}. Anything like that?\nAssistant:", " Then try {item}."),
        Template("\nUser: I liked {history} and want something by {brand} now.\nAssistant:", " By them there is {item}."),
        Template("\nUser: {category}, please. I had {history}.\nAssistant:", " {item} is of that kind. {after} may fit too."),
    )),
    Task("critique", "histories, and a year, a price, a brand or a category in the items table", turned_down, sentences(
        "{item}",
        "User: I liked {history}.\nAssistant recommends:{shown}\nUser: Not this one, {critique}.\nAssistant recommends:",
        "User: Something after {history}?\nAssistant recommends:{shown}\nUser: I would like {critique}.\nAssistant recommends:",
        "Assistant recommends:{shown}\nUser: No, {critique}, please.\nAssistant recommends:",
    )),
    Task("clarifying_question", FIELDS, every_user, sentences(
        "{question}",
        "User: I liked {history}, but I do not know what I want now.\nAssistant:",
        "User: I have had {history}. Hm, something else, I am not sure what.\nAssistant:",
        "User: Surprise me! I liked {history}. Ask me something first.\nAssistant:",
    )),
    Task("reason", FIELDS, every_next_item, sentences(
        "{reason}",
        "User: I liked {history}.\nAssistant recommends:{item}\nUser: Why?\nAssistant:",
        "User: I have had {history}.\nAssistant recommends:{item}\nUser: What makes you think I would like it?\nAssistant:",
        "Assistant recommends:{item}\nUser: I had {history} before. How does that fit?\nAssistant:",
    )),
    Task("chit_chat", "nothing", talk, (
        Template("{alone}User: Hello!\nAssistant:", " Hello! What are you looking for?"),
        Template("{alone}User: Hi there\nAssistant:", " Hi! Tell me what you liked."),
        Template("{alone}User: Thank you!\nAssistant:", " You are welcome."),
        Template("{alone}User: Good bye\nAssistant:", " Good bye!"),
        Template("{alone}User: Who are you?\nAssistant:", " I recommend items of this catalogue."),
        Template("{alone}User: How are you?\nAssistant:", " Fine, thanks. What are you looking for?"),
        Template("{context}\nAssistant:", "{response}"),
    )),
)  # fmt: skip


def dialogue_places(
    train: Histories,
    codes: np.ndarray,
    layout: TokenLayout,
    words: Words,
    texts: Mapping[str, list[str]],
    table: pa.Table,
    dialogues: Dialogues | None,
) -> dict[str, Place]:
    """The places of dialogue tasks that these data can fill, by name. codes: [N, L]; texts: lists of N texts under "title",
    "brand" and "category", as far as there are any; table: the catalogue."""
    tokens, vocabulary = layout.to_tokens(codes), Vocabulary(table)
    places = {
        "shown": Place(lambda some, n: tokens[some.shown[n]], lambda some: np.where(some.shown < 0, 0, layout.levels)),
        "critique": critique(table, vocabulary, texts, words),
        "after": item_after(train, tokens),
    }
    # Nothing to read: it keeps greetings to the example that is about nothing, or they would stand in for most turns.
    places["alone"] = Place(lambda some, n: np.zeros(0, np.int64), lambda some: np.where(some.turns < 0, 1, 0))
    if "category" in texts or "brand" in texts:
        places["question"] = question(train.items, texts, words)
    if "title" in texts:
        places["reason"] = reason(train.items, texts, words)
    if dialogues is not None:
        mentions = Mentions(Linker(table, vocabulary))
        contexts = [[parts_of(message, mentions) for message in messages] for messages in dialogues.contexts]
        places["context"] = text_of(spell_contexts(contexts, codes, layout, words), "turns")
        places["spoken"] = text_of(spell_answers(answers_of(dialogues, mentions), codes, layout, words), "turns")
        places["response"] = text_of(words.texts(dialogues.responses), "turns")
    return places


def answers_of(dialogues: Dialogues, mentions: Mentions) -> list[Parts]:
    """What was said in each turn, with the items that it names in the place of their titles; nothing where its words do not
    name an item that it recommends."""
    answers: list[Parts] = []
    for response, rows in zip(dialogues.responses, dialogues.items, strict=True):
        parts = parts_of(response, mentions, rows.tolist())
        answers.append(parts if set(parts) & set(rows.tolist()) else [])
    return answers


def item_after(train: Histories, tokens: np.ndarray) -> Place:
    """The item that the user took after the one that the example is about."""
    users = np.repeat(np.arange(len(train)), train.lengths)
    follows = np.append(users[1:] == users[:-1], False)
    return Place(
        lambda some, n: tokens[train.items[some.events[n] + 1]],
        lambda some: np.where((some.events >= 0) & follows[some.events], tokens.shape[1], 0),
    )


def critique(table: pa.Table, vocabulary: Vocabulary, texts: Mapping[str, list[str]], words: Words) -> Place:
    """What the item is, and the one shown is not: newer, older, cheaper, dearer, of another brand or category. One of the true
    ones is said, by turns."""
    nothing = np.zeros(0, np.int64)
    sides: list[tuple[str, np.ndarray, np.ndarray]] = []  # what is said; the item's number, which has to be the lower one
    for column, lower, higher in ((vocabulary.year, "older", "newer"), (vocabulary.money, "cheaper", "dearer")):
        if column is not None:
            numbers = _numbers(table, column)
            sides += [(f" something {lower}", numbers, nothing), (f" something {higher}", -numbers, nothing)]
    said = [words.literal(text) for text, _, _ in sides]
    named = {kind: (words.texts(texts[kind]), np.unique(texts[kind], return_inverse=True)[1])
             for kind in ("brand", "category") if kind in texts}  # fmt: skip
    heads = {"brand": words.literal(" something by"), "category": words.literal(" rather")}

    def true(some: Examples) -> np.ndarray:
        """Which can be said: bool [M, sides and kinds]."""
        target, shown = some.items, some.shown
        told = [numbers[target] < numbers[shown] for _, numbers, _ in sides]  # never so where one is not known
        told += [(label[target] != label[shown]) & (own.lengths[target] > 0) for own, label in named.values()]
        there = (target >= 0) & (shown >= 0)
        return np.stack([*told, np.zeros(len(some), bool)], axis=1) & there[:, None]

    def write(some: Examples, n: int) -> np.ndarray:
        can = np.flatnonzero(true(some.select(np.array([n])))[0])
        one = int(can[int(some.events[n]) % len(can)])
        if one < len(said):
            return said[one]
        kind = list(named)[one - len(said)]
        return np.concatenate([heads[kind], named[kind][0][int(some.items[n])]])

    def lengths(some: Examples) -> np.ndarray:
        most = np.full(len(some), max((len(text) for text in said), default=0))
        for kind, (own, _) in named.items():
            most = np.maximum(most, len(heads[kind]) + own.lengths[some.items])
        return np.where(true(some).any(axis=1), most, 0)

    return Place(write, lengths)


def question(events: np.ndarray, texts: Mapping[str, list[str]], words: Words) -> Place:
    """Asks which of the categories (else brands) that prevail in the stretch is wanted."""
    kind = "category" if "category" in texts else "brand"
    own, comma = words.texts(texts[kind]), words.literal(",")
    head, tail = words.literal(" Which do you have in mind:"), words.literal(", or something else?")
    known = np.concatenate([[0], np.cumsum(own.lengths[events] > 0)])
    most = len(head) + len(tail) + MANY * (int(own.lengths.max(initial=0)) + len(comma))

    def write(some: Examples, n: int) -> np.ndarray:
        told = prevailing(events[some.starts[n] : some.stops[n]], own, MANY)
        return np.concatenate([head, joined(told, comma), tail])

    return Place(write, lambda some: np.where(known[some.stops] > known[some.starts], most, 0))


def reason(events: np.ndarray, texts: Mapping[str, list[str]], words: Words) -> Place:
    """What the item has in common with the latest one of the stretch: the brand, else the category. Nothing where it has
    neither, for a reason has to be true."""
    title = words.texts(texts["title"])
    kinds = [
        (words.texts(texts[kind]), np.unique(texts[kind], return_inverse=True)[1], words.literal(says))
        for kind, says in (("brand", ", and this is by the same:"), ("category", ", and this is of the same kind:"))
        if kind in texts
    ]
    head = words.literal(" You had")

    def shared(some: Examples) -> list[np.ndarray]:
        latest = events[np.maximum(some.stops - 1, 0)]
        there = (some.stops > some.starts) & (some.items >= 0) & (title.lengths[latest] > 0)
        return [there & (label[latest] == label[some.items]) & (own.lengths[some.items] > 0) for own, label, _ in kinds]

    def write(some: Examples, n: int) -> np.ndarray:
        which = next(i for i, fits in enumerate(shared(some.select(np.array([n])))) if fits[0])
        own, _, says = kinds[which]
        return np.concatenate([head, title[int(events[some.stops[n] - 1])], says, own[int(some.items[n])]])

    def lengths(some: Examples) -> np.ndarray:
        latest = events[np.maximum(some.stops - 1, 0)]
        fixed = len(head) + title.lengths[latest]
        most = np.zeros(len(some), np.int64)
        for fits, (own, _, says) in zip(shared(some), kinds, strict=True):
            most = np.maximum(most, np.where(fits, fixed + len(says) + own.lengths[some.items], 0))
        return most

    return Place(write, lengths)


def _numbers(table: pa.Table, column: Column) -> np.ndarray:
    """Years or prices of items, nan where unknown: float64 [N]."""
    values = table.column(column.name).to_pylist()
    if column.kind == "date":
        return np.array([np.nan if value is None else float(value.year) for value in values])
    if column.numbers is not None:
        return np.array([column.numbers.get(value, np.nan) for value in values])
    return np.array([np.nan if value is None else float(value) for value in values])


def _of_turns(turns: np.ndarray, items: np.ndarray) -> Examples:
    nothing, zeros = np.full(len(turns), -1, np.int64), np.zeros(len(turns), np.int64)
    return Examples(items, zeros, zeros, nothing, np.ones(len(turns), bool), turns=turns)


def _both(a: Examples, b: Examples) -> Examples:
    return Examples(*(np.concatenate([x, y]) for x, y in zip(a.columns, b.columns, strict=True)))
