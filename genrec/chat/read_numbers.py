"""Numbers in a message: "under $20", "from the 90s", "after 2000", "rating of at least 4".

In: a `Scan` and its `Context`. Out: rules of ranges, added to a `Reading`. Which column a number is about: the one that is
named beside it, else years for what looks like a year, else the price (or the only column of numbers). A number that fits
none is said.
"""

import re
from dataclasses import replace
from typing import Any

from genrec.chat.reading import Context, Reading
from genrec.chat.rules import Rule
from genrec.chat.scan import FILLERS, Scan
from genrec.chat.vocabulary import Column

_MONEY = r"(?:usd|eur|gbp|dollars?|bucks?|euros?|pounds?|quid)\b"
_CURRENCY = rf"[$€£]|\b{_MONEY}"
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_NUMBER = rf"(?:(?:[$€£]|\b(?:usd|eur|gbp)\b)\s*)?{_PLAIN}(?:\s*[$€£]|\s*{_MONEY})?"
_PRICE = rf"(?:(?:[$€£]|\b(?:usd|eur|gbp)\b)\s*{_PLAIN}|\b{_PLAIN}\s*(?:[$€£]|{_MONEY}))"
# Words before a number: which bound it is, whether the bound itself is left out, and whether they are said of years alone.
_BEFORE: tuple[tuple[str, str, bool, bool], ...] = (
    (
        r"no\s+more\s+than|not\s+more\s+than|not\s+over|not\s+above|at\s+most"
        r"|up\s+to|max(?:imum)?(?:\s+of)?|within|<=|not\s+exceeding",
        "high",
        False,
        False,
    ),
    # What people can spend is the most that they can spend.
    (
        r"\bbudget(?:\s+is|\s+of|'s|\s*:|\s+would\s+be)?|\blimit(?:\s+is|\s+of|'s|\s*:)?"
        rf"|(?:\bspend(?:ing)?|\bpay(?:ing)?|\bafford|\bi(?:'ve|\s+have)?(?:\s+only)?(?:\s+(?:have|got))(?:\s+only)?)\s+(?={_PRICE})",
        "high",
        False,
        False,
    ),
    (
        r"no\s+less\s+than|not\s+less\s+than|not\s+under|not\s+below"
        r"|at\s+least|min(?:imum)?(?:\s+of)?|>=|starting\s+(?:at|from)",
        "low",
        False,
        False,
    ),
    (
        r"under|below|less\s+(?:expensive\s+)?than|lower\s+than|cheaper\s+than|fewer\s+than|smaller\s+than|shorter\s+than|<",
        "high",
        True,
        False,
    ),
    (
        r"over|above|more\s+than|greater\s+than|higher\s+than|longer\s+than|pricier\s+than|more\s+expensive\s+than|>",
        "low",
        True,
        False,
    ),
    (r"not\s+before|since|from\s+(?=\d{4}\s+on)", "low", False, True),
    (r"not\s+after|until|till|through", "high", False, True),
    (r"before|earlier\s+than|older\s+than|prior\s+to|pre-?", "high", True, True),
    (r"after|later\s+than|newer\s+than|more\s+recent\s+than|post-?", "low", True, True),
)
_AFTER: tuple[tuple[str, str], ...] = (
    (
        r"(?:or|and)\s+(?:less|under|below|cheaper|fewer|lower|earlier|older|before)|at\s+(?:the\s+)?most|max(?:imum)?|tops"
        r"|(?:is|are)\s+(?:my|the|our)\s+(?:limit|budget|maximum|max)|limit",
        "high",
    ),
    (
        r"(?:or|and)\s+(?:more|above|over|up|higher|later|newer|after)|onwards?|and\s+on|up(?!\s+to)(?:wards?)?|minimum|at\s+least|\+",
        "low",
    ),
)
_TENS = {
    "twenties": 20,
    "thirties": 30,
    "forties": 40,
    "fifties": 50,
    "sixties": 60,
    "seventies": 70,
    "eighties": 80,
    "nineties": 90,
}
_PARTS = {"early": (0, 4), "mid": (3, 6), "late": (5, 9)}
_OTHER = {"high": "low", "low": "high"}
_UNLESS = re.compile(
    r"(?:\b(?:not?|nothing|none|never|cannot|dont)|n't)\s+(?:(?:any|movies?|films?|items?|products?|ones?|anything|something|that"
    r"|which|it|is|are|was|be|made|released|costs?|costing|to|spend|pay|afford|go|want|show|recommend|me|for)\s+)*$",
    re.I,
)
_NOT = r"(?P<not>\b(?:(?:any|every)(?:thing|one)?\s+(?:but|except)|not?|nothing|without|except)\s+(?:\w+\s+)?)?"
_ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_FULL = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: number for number, word in enumerate([*_ONES, *_TEENS], 1)} | {word: 10 * n for n, word in enumerate(_FULL, 2)}
_WORD = "|".join(sorted(_WORDS, key=len, reverse=True))
_SPELLED = rf"(?:(?:(?:a|one)\s+)?hundred|(?:{_WORD})(?:[\s-](?:{'|'.join(_ONES)}))?)"
# Only beside a currency: "Ocean's Eleven" stays a title.
_AMOUNT = re.compile(rf"\b(?P<first>{_SPELLED})(?=(?:\s+(?:and|to|or)\s+{_SPELLED})?\s+{_MONEY})", re.I)
# What makes a number that was found a part of a longer one: "two hundred", "a hundred and twenty".
_PART_BEFORE = re.compile(rf"(?:\b(?:hundred|thousand|million|{_WORD})|\d)[\s-]+$|\b(?:hundred|thousand)\s+and\s+$", re.I)
_PART_AFTER = re.compile(rf"(?:(?:a|one)\s+)?hundred\s+and\s+(?:{_WORD})\b", re.I)


def in_digits(text: str) -> str:
    """ "Under twenty-five dollars" -> "under 25 dollars"."""

    def digits(match: re.Match[str]) -> str:
        if _PART_BEFORE.search(text[: match.start()]) or _PART_AFTER.match(text, match.start()):
            return match[0]  # a part of "two hundred": said as not understood
        words = [word for word in re.split(r"[\s-]+", match["first"].lower()) if word != "a"]
        return "100" if words[-1] == "hundred" else str(sum(_WORDS[word] for word in words))

    return _AMOUNT.sub(digits, text)


def read_numbers(scan: Scan, context: Context, out: Reading) -> None:
    """Add the ranges that a message names."""
    _decades(scan, context, out)
    for pattern in (
        rf"\b(?:between|from)\s+(?P<a>{_NUMBER})\s*(?:and|to|until|till|-)\s*(?P<b>{_NUMBER})",
        rf"(?<![\w.])(?P<a>[$€£]\s*{_PLAIN}|\b(?:1[5-9]|20)\d\d)\s*(?:-|to)\s*(?P<b>{_NUMBER})",
        rf"(?<![\w.-])(?P<a>{_NUMBER})\s*(?:-|to)\s*(?P<b>{_PRICE})",
        rf"(?<=\brange )(?:of\s+|from\s+)?(?P<a>{_NUMBER})\s*(?:-|to)\s*(?P<b>{_NUMBER})",
    ):
        for match in scan.find(_NOT + pattern, take=False):
            low, high = sorted((_number(match["a"]), _number(match["b"])))
            _add(scan, match, context, out, {"low": low, "high": high}, match["a"] + match["b"], years_only=False)
    _bounds(scan, context, out)
    for words, side in _AFTER:
        for match in scan.find(rf"(?<![\w.])(?:from\s+)?(?P<a>{_NUMBER})\s*(?:{words})(?!\w)", take=False):
            _add(scan, match, context, out, {side: _number(match["a"])}, match["a"], years_only=False)
    for match in scan.find(
        rf"{_NOT}\b(?:in|from|of|year|made\s+in|released\s+in|came\s+out\s+in)\s+(?:the\s+year\s+)?(?P<a>(?:1[5-9]|20)\d\d)\b(?!\s*-)",
        take=False,
    ):
        _add(scan, match, context, out, {"low": float(match["a"]), "high": float(match["a"])}, match["a"], years_only=True)
    for match in scan.find(rf"\b(?:exactly|precisely)\s+(?P<a>{_NUMBER})", take=False):
        number = _number(match["a"])
        _add(scan, match, context, out, {"low": number, "high": number}, match["a"], years_only=False)
    for match in scan.find(
        r"\b(?P<name>[a-z]+)\s*(?:is|of|=|:|equals|(?:should|must|has\s+to)\s+be)?\s*(?P<a>\d+(?:\.\d+)?)\b", take=False
    ):
        if any(column.kind != "values" for column in context.vocabulary.called(match["name"])):
            number = float(match["a"])
            _add(scan, match, context, out, {"low": number, "high": number}, match["a"], years_only=False)


def _bounds(scan: Scan, context: Context, out: Reading) -> None:
    """Numbers with a bound before them, from left to right. A "not" before one turns it round, and one joined to it by "or"."""
    found = []
    for words, side, is_open, years_only in _BEFORE:
        pattern = rf"(?<![\w<>=])(?:{words})\s*(?:from\s+)?(?:the\s+(?:year\s+)?)?(?P<a>{_NUMBER})(?:\s*\b(?:on|onwards?)\b)?"
        found += [(match, side, is_open, years_only) for match in scan.find(pattern, take=False)]
    turned = -1  # where the last one that was turned round ends
    for match, side, is_open, years_only in sorted(found, key=lambda one: one[0].start()):
        if not scan.is_free(*match.span()):
            continue
        before = _UNLESS.search(scan.text[: match.start()])
        also = turned >= 0 and re.fullmatch(r",?\s*(?:or|nor)\s+", scan.text[turned : match.start()], re.I)
        bound: dict[str, Any] = {side: _number(match["a"]), f"{side}_open": is_open}
        if also or (before is not None and scan.is_free(before.start(), match.start())):  # "no later than 1990": up to 1990
            scan.take(before.start() if before and not also else match.start(), match.start())
            bound = {_OTHER[side]: _number(match["a"]), f"{_OTHER[side]}_open": not is_open}
            turned = match.end()
        _add(scan, match, context, out, bound, match["a"], years_only)


def _decades(scan: Scan, context: Context, out: Reading) -> None:
    names, end = "|".join(_TENS), -1
    pattern = (
        rf"{_NOT}(?:\b(?:from|in|out\s+of|of|during)\s+)?(?:\bthe\s+)?(?:\b(?P<part>early|mid"
        rf"|late)[\s-]+)?(?:(?<![\d$])(?P<year>(?:1[5-9]|20)\d0|'?\d0)'?s\b|\b(?P<name>{names})\b)"
    )
    for match in scan.find(pattern, take=False):
        digits = match["year"].strip("'") if match["year"] else str(_TENS[match["name"].lower()])
        year = int(digits) if len(digits) == 4 else int(digits) + (2000 if int(digits) < 30 else 1900)
        first, last = _PARTS.get((match["part"] or "").lower(), (0, 9))
        before = out.add[-1] if out.add else None
        _add(scan, match, context, out, {"low": year + first, "high": year + last}, "", years_only=True)
        joined = end >= 0 and re.fullmatch(r"\s*(?:,|or|and|/|,?\s*(?:or|and))\s*", scan.text[end : match.start()], re.I)
        if joined and before and out.add[-1] is not before:  # "the 60s or 70s": one range, where nothing lies between
            first_of, last_of = before, out.add[-1]
            if (first_of.high, first_of.negative) == ((last_of.low or 0) - 1, last_of.negative):
                out.add[-2:] = [replace(first_of, high=last_of.high)]
                scan.take(end, match.start())
        end = match.end()


def _add(scan: Scan, match: re.Match[str], context: Context, out: Reading, bounds: dict, said: str, years_only: bool) -> None:
    if not scan.is_free(*match.span()):
        return
    column, start = _column(scan, match, context, bounds, said, years_only)
    scan.take(start, match.end())
    if column is None:
        out.unknown.append(scan.text[start : match.end()].strip())
        return
    negative = bool(match.groupdict().get("not"))
    out.add.append(Rule("range", column=column.name, negative=negative, **bounds))


def _column(
    scan: Scan, match: re.Match[str], context: Context, bounds: dict, said: str, years_only: bool
) -> tuple[Column | None, int]:
    """The column that a number is about, and where what is said of it begins."""
    vocabulary = context.vocabulary
    before = re.search(
        r"(?:\b([a-z]+)\b\s*(?:is|of|must\s+be|should\s+be|:)?\s*(?:the\s+)?)$", scan.text[: match.start()], re.I
    )
    after = re.match(r"\s*([a-z]+)", scan.text[match.end() :], re.I)
    inside = match.groupdict().get("name")
    for word, start in (
        (before and before[1], before and before.start()),
        (after and after[1], match.start()),
        (inside, match.start()),
    ):
        named = [column for column in vocabulary.called(word) if column.kind != "values"] if word else []
        if named:
            return named[0], int(start or 0) if scan.is_free(int(start or 0), match.start()) else match.start()
    if re.search(_CURRENCY, said, re.I):
        return vocabulary.money, match.start()
    numbers = [bounds[side] for side in ("low", "high") if side in bounds]
    like_years = all(1500 <= number <= 2100 and number == int(number) for number in numbers)
    if years_only:
        return (vocabulary.year if like_years else None), match.start()
    if like_years and vocabulary.year is not None and (vocabulary.money is None or vocabulary.money.high < 1500):
        return vocabulary.year, match.start()
    return (None if _unit(scan, match.end(), context) else vocabulary.money), match.start()


def _unit(scan: Scan, end: int, context: Context) -> bool:
    """Whether a number is followed by what it counts, and that is no money: "4 stars", "90 minutes", "30 %"."""
    word = re.match(r"\s*(%|[a-z]+)", scan.text[end:], re.I)
    if word is None or word[1].lower() in FILLERS or context.vocabulary.values(word[1]):
        return False
    longer = re.match(r"\s*([a-z&' -]+)", scan.text[end:], re.I)  # "under 20 skin care" counts nothing
    words = longer[1].split() if longer else []
    return not any(context.vocabulary.values(" ".join(words[:many])) for many in range(2, len(words) + 1))


def _number(said: str) -> float:
    return float(re.sub(r"[^\d.]", "", said).rstrip("."))
