"""Mentions: the items and the values of the catalogue that a message names, wherever they stand in it.

In: a message and the catalogue's linker. Out: `Mention`s. Unlike a reader (`read_rules.py`), which must not take a word for a
title that is none, this looks for evidence: nothing is asked back, and who names a film to ask about it names it all the same.

The longest name wins: "Iron Man 3" is not also "Iron Man". A title of one word counts where it is written as a name, with a
capital letter, and is neither a word of every sentence ("Her") nor a value ("Drama"): better to miss some than to meet them
everywhere.

    [Mention(rows=(17,), values=())] = Mentions(linker).find("I loved Home Alone")
"""

import re
from dataclasses import dataclass

from genrec.chat.link import Linker
from genrec.chat.scan import FILLERS
from genrec.chat.words import key

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
AFTER_TITLE = re.compile(r"\s*[(\[][^)\]]*[)\]].*$")  # "Thor (Science Fiction Film) #2" is called "Thor"


@dataclass(frozen=True)
class Mention:
    """rows: catalogue rows of the items that are so called, several where a title is not unique. values: (column, spelling) of
    what the words mean besides ("Comedy", a person). start, end: characters of the message."""

    rows: tuple[int, ...]
    values: tuple[tuple[str, str], ...]
    start: int
    end: int


class Mentions:
    """The names of a catalogue, ready to be found in messages."""

    def __init__(self, linker: Linker) -> None:
        self.values = linker.vocabulary.by_key
        whole: dict[str, list[int]] = {}
        short: dict[str, list[int]] = {}
        for row, title in enumerate(linker.titles):
            if title and self._known(linker, row):
                whole.setdefault(linker.keys[row], []).append(row)
                short.setdefault(key(AFTER_TITLE.sub("", title)), []).append(row)
        self.rows = short | whole  # "Thor" is the item of that title where there is one, else all whose titles begin so
        self.rows.pop("", None)
        self.longest = max((name.count(" ") + 2 for name in (*self.rows, *self.values)), default=0)  # an article may lead
        self.first = {name.split(" ", 1)[0] for name in (*self.rows, *self.values)} | {"the", "a", "an"}

    def _known(self, linker: Linker, row: int) -> bool:
        return linker.live is None or bool(linker.live[row])

    def find(self, message: str) -> list[Mention]:
        """What a message names, in its order."""
        words = [match.span() for match in WORD.finditer(message)]
        found, place = [], 0
        while place < len(words):
            start, most = words[place][0], min(len(words), place + self.longest)
            if key(message[slice(*words[place])]) not in self.first and message[slice(*words[place])].lower() not in self.first:
                most = place
            for stop in range(most, place, -1):
                mention = self._mention(message, start, words[stop - 1][1])
                if mention is not None:
                    found.append(mention)
                    place = stop
                    break
            else:
                place += 1
        return found

    def _mention(self, message: str, start: int, end: int) -> Mention | None:
        said = message[start:end]
        name = key(said)
        parts = name.split()
        if not parts or name.isdigit() or all(part in FILLERS for part in parts):
            return None
        values = self.values.get(name, {})
        rows = self.rows.get(name, [])
        if len(parts) == 1 and (values or not said.split()[-1][0].isupper()):
            rows = []
        if not rows and not values:
            return None
        return Mention(tuple(rows), tuple((column, value) for column, some in values.items() for value in some), start, end)


class Spelled(Mentions):
    """Finds what a model must not spell: titles alone, so that none hides behind a longer value; of all rows, also of items
    that were removed; also those of numbers ("1984") and of everyday words ("You and Me"). As above, a title of one word counts
    where it is written as a name and is no word of every sentence: nothing could be said of a catalogue with "It" and "You"."""

    def __init__(self, linker: Linker) -> None:
        super().__init__(linker)
        self.values = {}
        self.longest = max((name.count(" ") + 2 for name in self.rows), default=0)
        self.first = {name.split(" ", 1)[0] for name in self.rows} | {"the", "a", "an"}

    def _known(self, linker: Linker, row: int) -> bool:
        return True

    def _mention(self, message: str, start: int, end: int) -> Mention | None:
        name, last = key(message[start:end]), message[start:end].split()[-1]
        one = " " not in name
        if name not in self.rows or (one and (name in FILLERS or not (last[0].isupper() or last[0].isdigit()))):
            return None
        return Mention(tuple(self.rows[name]), (), start, end)
