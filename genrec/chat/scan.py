"""The words of the grammar, and a message of which parts are taken as they are understood."""

import re
from collections.abc import Iterator

from genrec.chat.reading import Context

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_NOUN = r"(?:\s+(?:one|item|movie|film|book|game|product|result|suggestion))?"
_ONE = (
    rf"(?:(?:(?:the|this|that)\s+)?(?:{'|'.join(ORDINALS)}|last|\d{{1,2}}(?:st|nd|rd|th)"
    rf"|(?:number|no\.?|item|\#)\s*\d{{1,2}}|\d{{1,2}}){_NOUN}\b)"
)
_THAT = r"(?:(?:that|this)\s+one|it|that|this|these|those|them(?:\s+all)?|(?:all|any)\s+of\s+(?:them|these|those)|both)\b"
REF = rf"(?:{_ONE}|{_THAT})"
REFS = rf"(?:{REF}(?:(?:\s*,\s*(?:and\s+|or\s+)?|\s+and\s+|\s+or\s+){REF})*)"
# How items are compared: by what, and whether the item must have less of it.
ADJECTIVES: dict[str, tuple[str, bool]] = {
    "cheaper": ("money", True), "less expensive": ("money", True),
    "pricier": ("money", False), "more expensive": ("money", False),
    "newer": ("year", False), "more recent": ("year", False), "later": ("year", False),
    "older": ("year", True), "earlier": ("year", True), "less recent": ("year", True),
}  # fmt: skip
# "Too expensive" wishes for something cheaper.
TOO = {
    "expensive": "cheaper", "pricey": "cheaper", "costly": "cheaper", "dear": "cheaper", "cheap": "pricier",
    "old": "newer", "new": "older", "recent": "older", "modern": "older",
}  # fmt: skip
COUNTS = {"one", "two", "three", "four", "five", "ten", "few", "couple", "several"}
# Words by which something is asked for.
_INTENT = """
recommend recommendation recommendations suggest suggestion suggestions show find want need look looking something anything
give search get more another else surprise watch read buy like prefer love loved
"""
INTENT = frozenset(_INTENT.split())
# Words that carry no rule of their own: they are not reported when nothing took them.
_FILLERS = """
a an the and or but nor so to of in on at by for from with without as is are was were be been being am it its it's this that
these those there here i i'm i'd i've i'll im ive me my mine we us our you your he she they them their his her hers who
which what when where how any some all both either each every no not only also just too very really quite please thanks
thank hi hello hey can could would will should shall may might must do does did don't doesn't didn't have has had having let
lets let's make go now then again maybe perhaps ok okay yes yeah well oh hmm um movie movies film films book books game
games product products item items title titles one ones thing things stuff kind kinds sort sorts type types series show
shows good nice great best today tonight tomorrow time evening weekend day new rather instead actually still yet already
than if because about into over other others different same similar however though i'am fine sure able kindly help 
looking made starring directed written released rule rules s t re ve d ll m wanna gonna feel feeling mood think know said say
tell see seen watched idea ideas fan fans favourite favorite enjoy enjoyed liked would-like lot lots bit much many most
least set nothing none got pick offer spend spending spent pay paying willing afford keep cost costs costing everything everyone
everybody anyone anywhere fancy big u pls plz meant mean wait sorry thinking hmm says out came range goes next morning mind
"""
FILLERS = INTENT | frozenset(_FILLERS.split())


class Scan:
    """A message. What was understood is taken, character by character, and found no more."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._taken = [False] * len(text)

    def find(self, pattern: str, take: bool = True) -> Iterator[re.Match[str]]:
        """Matches in what is not taken."""
        for match in re.finditer(pattern, self.text, re.I):
            if self.is_free(*match.span()) and match[0].strip():
                if take:
                    self.take(*match.span())
                yield match

    def take(self, start: int, end: int) -> None:
        self._taken[start:end] = [True] * (end - start)

    def is_free(self, start: int, end: int) -> bool:
        return not any(self._taken[start:end])

    def give_back(self, match: re.Match[str], refusal: re.Pattern[str], unknown: list[str]) -> bool:
        """Whether `refusal` stands right before `match`. What is wished for then is not clear: both are taken and put into
        `unknown`, to be said, and nothing is turned round."""
        before = refusal.search(self.text[: match.start()])
        if before is None:
            return False
        start = before.start() if self.is_free(before.start(), match.start()) else match.start()
        self.take(start, match.end())
        unknown.append(self.text[start : match.end()].strip())
        return True

    def free(self, start: int, end: int) -> tuple[int, int]:
        """The part from `start` on that is not taken."""
        taken = next((place for place in range(start, end) if self._taken[place]), end)
        return start, taken

    def words(self, start: int, end: int) -> list[tuple[int, int]]:
        """Places of the words in a part."""
        found = re.finditer(r"[^\W_](?:[^\W_]|[.'&](?=[^\W_]))*", self.text[start:end])
        return [(start + match.start(), start + match.end()) for match in found]


def places_of(said: str, context: Context) -> list[int]:
    """Which of the items shown are meant: places from 0; empty where that is not clear."""
    shown, found = len(context.shown), []
    text = said.lower()
    if re.search(r"\b(?:these|those|them|both)\b", text):
        return list(range(shown))
    for match in re.finditer(rf"{'|'.join(ORDINALS)}|\blast\b|\d{{1,2}}", text):
        word = match[0]
        place = shown - 1 if word == "last" else ORDINALS.index(word) if word in ORDINALS else int(word) - 1
        if not 0 <= place < shown:
            return []
        found.append(place)
    if found:
        return list(dict.fromkeys(found))
    if context.focus is not None and context.focus in context.shown:
        return [list(context.shown).index(context.focus)]
    return [0] if shown == 1 else []
