"""Comparisons with items: "cheaper than the second", "cheaper", "too old", "not this brand", "the first one is great".

In: a `Scan` and its `Context`. Out: ranges and values taken from the catalogue's row of the item that is meant, and what was
liked or refused, added to a `Reading`. A comparison that names no item is with the one that the message asks to be alike, else
with all items shown: "cheaper" is cheaper than each of them.
"""

import re
from collections.abc import Sequence
from typing import Any

from genrec.chat.link import Link
from genrec.chat.reading import Context, Reading
from genrec.chat.rules import Rule
from genrec.chat.scan import ADJECTIVES, ORDINALS, REF, TOO, Scan, places_of
from genrec.chat.vocabulary import Column

# Where a title ends at the latest.
TITLE_END = re.compile(
    r"[.;!?\n](?:\s|$)|,?\s+\b(?:but|however|though|because|so|please|something|anything|show|recommend|suggest|give|can|could|"
    r"which|i\s+want|i\s+need|i'd|i\s+(?:loved?|liked?|hated?|have|already)|i've)\b"
    r"|\s+\b(?:under|below|over|above|before|after|since|until|less|more|cheaper|newer"
    r"|older|at\s+most|at\s+least|up\s+to|between|around)\s+(?:than\s+)?[$€£]?\d"
    r"|\s+from\s+(?:the\s+)?(?:\d{2,4}'?s|\w+ties)\b|,\s*(?:not?|nothing|without|except|only|a|an|in|from|with)\b",
    re.I,
)
_HOW = "|".join(sorted(ADJECTIVES, key=len, reverse=True))
_ALONE = "|".join(how for how in sorted(ADJECTIVES, key=len, reverse=True) if how not in ("later", "earlier"))  # "maybe later"
_VERY = r"(?:really|very|so|absolutely|just|quite|also|simply)\s+"
_GOOD = r"(?:great|good|amazing|awesome|fantastic|excellent|lovely|nice|perfect|wonderful|my\s+(?:all-time\s+)?favou?rite)"
_BAD = r"(?:terrible|awful|bad|horrible|boring|rubbish|disappointing|not\s+(?:for\s+me|good|great|my\s+(?:thing|taste)))"
_IS = r"(?:\s+(?:is|was|are|were|looks?|sounds?|seems?|seemed)|'s)"
_JUDGED = rf"{_IS}\s+(?:{_VERY})*(?:(?P<good>{_GOOD})|(?P<bad>{_BAD}))\b"
# What stands before a comparison that is not wished for. What is wished for then is not clear: it is said, not turned round.
_UNWANTED = re.compile(
    r"(?:\b(?:not?|nothing|none|never|without|dont|cannot)|n't)"
    r"(?:\s+(?:want|need|show|give|me|see|like|any|anything|something|a|an|the|one|ones|be|is|it|to|much|even))*\s+$",
    re.I,
)


def read_than(scan: Scan, context: Context, out: Reading) -> None:
    """ "Cheaper than the second", "newer than Home Alone"; "it" is the item that the message named last."""
    for match in scan.find(rf"\b(?P<how>{_HOW})\s+than\s+(?P<ref>{REF})(?![\d$€£])", take=False):
        if scan.give_back(match, _UNWANTED, out.unknown):
            continue
        named = re.findall(rf"\b(?:{'|'.join(ORDINALS)}|last)\b", scan.text[: match.start()], re.I)
        it = re.fullmatch(r"it|(?:that|this)(?:\s+one)?", match["ref"], re.I)
        places = places_of(named[-1] if it and named else match["ref"], context)
        if not places:
            if not re.search(r"\d", match["ref"]):
                scan.take(*match.span())
                out.unknown.append(match[0].strip())
            continue
        scan.take(*match.span())
        _compare(match["how"], [context.shown[place] for place in places], match[0], context, out)
    for match in scan.find(rf"\b(?P<how>{_HOW})\s+than\s+(?P<title>(?![$€£\d])[^.;,!?\n]+)", take=False):
        end = TITLE_END.search(match["title"])
        title = match["title"][: end.start()] if end else match["title"]
        link = _first_title(title, context) or context.linker.link(title)
        if link.item_id is not None:
            if scan.give_back(match, _UNWANTED, out.unknown):
                continue
            scan.take(match.start(), match.start("title") + len(link.mention if link.how == "exact" else title))
            out.notes.append(str(link))
            _compare(match["how"], [link.item_id], match[0], context, out)


def _first_title(text: str, context: Context) -> Link | None:
    """The longest title with which `text` begins, where that is one item."""
    words = list(re.finditer(r"\S+", text))[:20]
    for word in reversed(words):
        if context.linker.exact(text[: word.end()]):
            link = context.linker.link(text[: word.end()])
            return link if link.item_id is not None else None
    return None


def read_too(scan: Scan, context: Context, out: Reading) -> None:
    """ "The second is too expensive", "cheaper", "too old": with the item named, the one to be alike, or all shown. Read after
    the titles."""
    for match in scan.find(rf"\b(?P<ref>{REF}){_IS}\s+(?:{_VERY}|all\s+)*too\s+(?P<too>{'|'.join(TOO)})\b", take=False):
        places = places_of(match["ref"], context)
        if places:
            scan.take(*match.span())
            _compare(TOO[match["too"].lower()], [context.shown[place] for place in places], match[0], context, out)
    items: Sequence[str] = out.alike[-1:] or context.shown
    pattern = (
        r"\b(?:(?:they|these|those|it|that|all|are|is)(?:'re|'s)?\s+)*(?<!not )(?:all\s+)?"
        rf"too\s+(?P<too>{'|'.join(TOO)})\b(?:\s+for\s+me\b)?"
        rf"|\b(?:(?:a\s+(?:bit|little)|much|even|somewhat|slightly)\s+)?(?P<how>{_ALONE})\b(?!\s+than\b)"
    )
    for match in scan.find(pattern, take=False):
        if not items:
            continue  # than what? `_left` says it
        if match["how"] and scan.give_back(match, _UNWANTED, out.unknown):
            continue
        scan.take(*match.span())
        how = TOO[match["too"].lower()] if match["too"] else match["how"]
        _compare(how, items, match[0], context, out)


def _compare(how: str, item_ids: Sequence[str], said: str, context: Context, out: Reading) -> None:
    """A range beyond each of the items."""
    what, lower = ADJECTIVES[re.sub(r"\s+", " ", how.lower())]
    column = context.vocabulary.year if what == "year" else context.vocabulary.money
    numbers = [] if column is None else [_number(item_id, column, context) for item_id in item_ids]
    known = [number for number in numbers if number is not None]
    if column is None or not known:
        out.unknown.append(said.strip())
        return
    title = context.title(item_ids[0]) if len(item_ids) == 1 else "all shown"
    bounds: dict[str, Any] = {"high": min(known), "high_open": True} if lower else {"low": max(known), "low_open": True}
    out.add.append(Rule("range", column=column.name, note=f"{how.lower()} than {title}", **bounds))


def _number(item_id: str, column: Column, context: Context) -> float | None:
    value = context.value(item_id, column.name)
    if column.kind == "date" and value is not None:
        value = value.year
    if value is None or (column.numbers is not None and value not in column.numbers):
        return None
    return column.numbers[value] if column.numbers is not None else float(value)


def read_same(scan: Scan, context: Context, out: Reading) -> None:
    """ "Not this brand", "the same director as the second", "another brand than the first"."""
    pattern = (
        rf"(?:(?P<not>\b(?:not?|without|other\s+than|another\s+\w+\s+than|never)\s+)?\b(?:from\s+"
        rf"|of\s+|by\s+|in\s+)?(?:this|that|the\s+same|same)\s+(?P<what>[a-z]+)(?:\s+(?:as|of)\s+(?P<ref>{REF}))?"
        rf"|\b(?P<other>another|(?:a\s+|some\s+)?(?:different|other)|not\s+the)\s+(?P<kind>[a-z]+)\s+(?:than|from|to|of)\s+(?P<from>{REF}))"
    )
    for match in scan.find(pattern, take=False):
        what, ref, negative = (
            match["what"] or match["kind"],
            match["ref"] or match["from"],
            bool(match["not"] or match["other"]),
        )
        columns = [column for column in context.vocabulary.called(what) if column.kind == "values"]
        if not columns:
            continue
        scan.take(*match.span())
        column = columns[0]
        ids = [context.shown[place] for place in places_of(ref or "that one", context)]
        if not ref and not ids and len({str(context.value(item, column.name)) for item in context.shown}) == 1:
            ids = list(context.shown[:1])  # all that was shown agrees
        found = context.value(ids[0], column.name) if len(ids) == 1 else None
        values = [value for value in (found if isinstance(found, list) else [found]) if value in column.counts]
        if values:
            note = f"{match[0].strip()}: {context.title(ids[0])}"
            out.add.append(Rule("values", {column.name: values}, negative, note=note))
            out.alike += [] if negative else ids
        else:
            out.unknown.append(f"{match[0].strip()} (say which item by its number)")


def read_judged(scan: Scan, context: Context, out: Reading) -> None:
    """ "Home Alone was great", "the first one is not for me": what stands before the verdict, by number or exact title."""
    for match in scan.find(_JUDGED, take=False):
        before = scan.text[: match.start()]
        into = out.liked if match["good"] else out.rejected
        if ref := re.search(rf"\b(?P<ref>{REF})$", before, re.I):
            places = places_of(ref["ref"], context)
            if not re.fullmatch(r"it|that|this", ref["ref"], re.I) and places and scan.is_free(*ref.span()):
                scan.take(ref.start(), match.end())
                into += [Link(ref["ref"], context.shown[p], context.title(context.shown[p]), "exact", 1.0) for p in places]
            continue
        start = max((end.end() for end in re.finditer(r"[.;!?\n]\s|,\s|^", before)), default=0)
        for word in re.finditer(r"\S+", before[start:]):
            said = before[start + word.start() :]
            if context.linker.exact(said) and scan.is_free(start + word.start(), match.start()):
                scan.take(start + word.start(), match.end())
                into.append(context.linker.link(said))
                break
