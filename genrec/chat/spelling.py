"""Messages of a dialogue as token ids: what a language model learns from and what it is asked with, in one format.

In: messages as `Parts`, words and items in their order. Out: token ids: who speaks, words by the model's own tokenizer, items
as codes by arithmetic. A person's words never become codes: an item is one that the catalogue's names found in the message
(`parts_of`), or that was linked before.

    \\nUser: I liked<c0_3><c1_7><c2_1> . Anything like it?\\nAssistant: You may like<c0_3><c1_2><c2_0> .

Legend: `N` items, `L` levels, `M` contexts.
"""

import re
from collections.abc import Collection, Sequence

import numpy as np

from genrec.chat.mentions import Mentions
from genrec.models.tokens import TokenLayout
from genrec.models.words import Texts, Words

MOST_CONTEXT = 192  # tokens of a context; its earliest messages are left out beyond
MOST_RESERVED = MOST_CONTEXT // 2  # of them, for what the user had before: earlier messages yield to it so far
MOST_ANSWER = 96  # tokens of an answer that is learned; what is longer is left out, for a cut could go through an item
USER, ASSISTANT, RECOMMENDS = "\nUser:", "\nAssistant:", "\nAssistant recommends:"
HAD = "I have had"  # what the user had before the dialogue, as the tasks tell it
UNITS = r"dollars?|bucks?|euros?|pounds?|cents?|usd|eur|gbp|stars?|%|€|£|\$"

Parts = Sequence[str | int]  # of a message, in order: words, and catalogue rows of items


def parts_of(message: str, mentions: Mentions, among: Collection[int] = ()) -> list[str | int]:
    """The message with each item that its words clearly name in the place of its title. among: of several items of one name,
    the only one in here is meant."""
    parts: list[str | int] = []
    place = 0
    for mention in mentions.find(message):
        rows = mention.rows if len(mention.rows) == 1 else [row for row in mention.rows if row in among]
        if len(rows) == 1:
            parts += [message[place : mention.start], rows[0]]
            place = mention.end
    return [*parts, message[place:]]


def join(first: Parts, second: Parts) -> list[str | int]:
    """Two messages, each beginning and ending with words, as one."""
    return [*first[:-1], f"{first[-1]} {second[0]}", *second[1:]]


def link_parts(message: str, links: Sequence[tuple[str, int]], mentions: Mentions) -> list[str | int]:
    """As `parts_of`, where some names were linked to rows before, however they are spelled."""
    for name, row in links:
        # A whole word and no amount: the "2" of "more like 2" stands neither in "$25" nor in "2 dollars".
        amount = rf"(?![.,]\d)(?!\s*(?:{UNITS}))" if name.isdigit() else ""
        found = re.search(rf"(?<![\w$€£])(?<![$€£]\s)(?<!\d[.,]){re.escape(name)}(?!\w){amount}", message) if name else None
        if found:
            rest = [link for link in links if link != (name, row)]
            before, after = message[: found.start()], message[found.end() :]
            return [*link_parts(before, rest, mentions), row, *link_parts(after, rest, mentions)]
    return parts_of(message, mentions)


def spell_contexts(
    contexts: Sequence[Sequence[Parts]], codes: np.ndarray, layout: TokenLayout, words: Words, before: Sequence[int] = ()
) -> Texts:
    """Contexts [M] as token ids, each message with who says it. The user speaks last. codes: of the items, int [N, L].

    The newest message comes first, its end where it is too long; then earlier ones, as far as there is room. before: rows that
    the user had before, oldest first: the newest of them, as many as fit, are told at the beginning of what is kept."""
    speakers = words.literal(USER), words.literal(ASSISTANT)
    opening, closing = words.texts([HAD])[0], words.texts(["."])[0]
    had = layout.to_tokens(codes[np.asarray(before, np.int64)]).reshape(len(before), layout.levels)
    around = len(speakers[0]) + len(opening) + len(closing)
    spelled = iter(_spelled([parts for context in contexts for parts in context], codes, layout, words))
    flat, lengths = [np.zeros(0, np.int64)], [0]
    for context in contexts:
        lines = [next(spelled) for _ in context]
        kept = [[speakers[0], *_end_of(lines[-1], context[-1], MOST_CONTEXT - len(speakers[0]))]]  # newest first
        room = MOST_CONTEXT - sum(map(len, kept[0]))
        reserved = min(around + had.size, room, MOST_RESERVED) if len(had) else 0
        for age, line in enumerate(reversed(lines[:-1]), 1):
            whole = [speakers[age % 2], *line]
            room -= sum(map(len, whole))
            if room < reserved:
                room += sum(map(len, whole))
                break
            kept.append(whole)
        items = min(len(had), max(0, room - around) // layout.levels)
        if items:
            told = [opening, had[len(had) - items :].ravel(), closing]
            if len(kept) % 2:  # the user's
                kept[-1][1:1] = told
            else:
                kept.append([speakers[0], *told])
        pieces = [piece for line in reversed(kept) for piece in line]
        flat += pieces
        lengths.append(sum(map(len, pieces)))
    return Texts(np.concatenate(flat).astype(np.int32), np.cumsum(lengths))


def _end_of(pieces: Sequence[np.ndarray], parts: Parts, most: int) -> list[np.ndarray]:
    """The last tokens of a message, at most `most`; no item is cut in two."""
    kept: list[np.ndarray] = []
    for piece, part in zip(reversed(pieces), reversed(parts), strict=True):
        if len(piece) > most:
            return [piece[len(piece) - most :], *kept] if isinstance(part, str) else kept
        kept.insert(0, piece)
        most -= len(piece)
    return kept


def spell_answers(answers: Sequence[Parts], codes: np.ndarray, layout: TokenLayout, words: Words) -> Texts:
    """Answers as token ids, without who says them; one that names no item or is longer than `MOST_ANSWER` becomes empty."""
    lines = [np.concatenate([np.zeros(0, np.int64), *line]) for line in _spelled(answers, codes, layout, words)]
    spelled = [
        line if any(isinstance(part, int) for part in parts) and len(line) <= MOST_ANSWER else line[:0]
        for parts, line in zip(answers, lines, strict=True)
    ]
    lengths = np.cumsum([0, *map(len, spelled)])
    return Texts(np.concatenate([np.zeros(0, np.int64), *spelled]).astype(np.int32), lengths)


def _spelled(messages: Sequence[Parts], codes: np.ndarray, layout: TokenLayout, words: Words) -> list[list[np.ndarray]]:
    """Token ids of each part of each message: int64 [n] each."""
    texts = words.texts([part for parts in messages for part in parts if isinstance(part, str)])
    numbers = iter(range(len(texts)))
    return [
        [texts[next(numbers)] if isinstance(part, str) else layout.to_tokens(codes[part]) for part in parts]
        for parts in messages
    ]  # fmt: skip
