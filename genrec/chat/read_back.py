"""What a message takes back, and what it says of everything that the user had or was shown: no new rules about columns.

In: a `Scan` and its `Context`. Out: changes of a `Reading`: rules to remove ("any price is fine", "forget rule 2"), "nothing I
already have" as a rule, others than those shown.
"""

import re

from genrec.chat.reading import Context, Reading
from genrec.chat.rules import Rule
from genrec.chat.scan import ORDINALS, Scan

HAD = r"(?:seen|watched|read|bought|own(?:ed)?|played|tried|finished|used|heard|know|have|had|got)"
_END = r"(?=\s*(?:$|[.,;!?]|\b(?:and|but|instead)\b))"
_COLUMN = r"(?P<what>[\w' -]{2,40}?)"
_RULE = r"(?:rules?|filters?|limits?|conditions?)"
_FINE = r"(?:fine|ok(?:ay)?|good|allowed|possible)"
_DROP = r"(?:remove|drop|forget|delete|cancel|undo|clear)"

_ALL = (
    r"\b(?:start(?:ing)?\s+(?:over|again|afresh|from\s+scratch)|reset|forget\s+(?:everything|all(?:\s+(?:the\s+)?rules)?"
    rf"|the\s+rules)|(?:remove|clear|drop|forget|delete)\s+(?:all|every|the)(?:\s+(?:of\s+)?(?:the|my))?\s+{_RULE})\b"
)
_NUMBERED = (
    r"\b(?:remove|drop|forget|delete|cancel|undo)\s+(?:the\s+)?(?:(?:rules?|number|#)\s*#?\s*"
    rf"(\d{{1,3}})(?:(?:\s*,\s*|\s+and\s+)(\d{{1,3}}))*\b|(?P<place>{'|'.join(ORDINALS)}|last)\s+(?:rule|filter|condition)\b)"
)
# What is no more asked for, by the name of a column or a value.
_WAYS = (
    rf"\bany\s+{_COLUMN}\s+(?:is|would\s+be|will)\s+(?:be\s+)?(?:also\s+)?(?:{_FINE}|do)\b",
    rf"\b(?:any|whatever|no\s+matter(?:\s+(?:what|which))?)\s+{_COLUMN}{_END}",
    rf"(?:\bthe\s+)?\b{_COLUMN}\s+(?:does\s+not|doesn't|do\s+not|don't)\s+matter\b(?:\s+any\s*more)?",
    rf"(?:\bthe\s+)?\b{_COLUMN}\s+(?:is|are)(?:n't|\s+not)\s+(?:so\s+|that\s+)?important\b(?:\s+any\s*more)?",
    r"\b(?:i\s+)?(?:do\s+not|don't)\s+(?:really\s+)?(?:care|worry|mind)\s+"
    rf"(?:about\s+|which\s+|what\s+)?(?:the\s+)?{_COLUMN}{_END}",
    rf"\b(?:{_DROP}|never\s*mind|ignore)\s+(?:about\s+)?(?:the\s+)?{_COLUMN}(?:\s+{_RULE})?{_END}",
    rf"\bno\s+{_COLUMN}\s+{_RULE}\b",
    r"\b(?:it\s+)?(?:(?:does\s+not|doesn't)\s+(?:have|need)\s+to|need\s+not|needn't|no\s+longer\s+has\s+to)\s+be\s+"
    rf"(?:by\s+|from\s+|in\s+)?{_COLUMN}(?:\s+any\s*more)?{_END}",
)
# What was refused, and is no longer.
_AGAIN = rf"\b{_COLUMN}\s+(?:is|are)\s+{_FINE}(?:\s+(?:again|after\s+all|now|too)){{0,2}}{_END}"

_INCLUDE = (
    r"\b(?:include|also|even|(?:i\s+)?(?:do\s+not|don't)\s+mind|may\s+show|(?:okay|ok|fine)\s+if)\b[^.;,!?]{0,40}"
    rf"\b(?:i\s+have|i've|already|i)\s+(?:already\s+)?{HAD}(?:\s+(?:it|them|before|already)){{0,2}}\b(?=\s*(?:$|[.,;!?]))"
)
_I_HAVE = r"(?:i\s+have\s+|i've\s+|i\s+)"
_UNSEEN = (
    r"\b(?:nothing|not?|none|without|except|hide|exclude|no\s+\w+)\s+(?:that\s+|things?\s+|everything\s+"
    rf"|any(?:thing)?\s+|\w+s\s+)?(?:{_I_HAVE}|what\s+{_I_HAVE}?)?(?:already\s+){HAD}\b(?=\s*(?:$|[.,;!?]))"
    r"|\b(?:nothing|none|hide\s+what|not\s+what|exclude\s+what|exclude\s+everything)\s+(?:that\s+)?"
    rf"{_I_HAVE}(?:already\s+)?{HAD}(?:\s+before)?\b(?=\s*(?:$|[.,;!?]))"
    r"|\b(?:that\s+|which\s+)?i\s+(?:have\s+not|haven't|did\s+not|didn't|do\s+not|don't)\s+"
    rf"(?:already\s+)?{HAD}(?:\s+(?:already|yet|before))?\b(?=\s*(?:$|[.,;!?]))"
    r"|\b(?:that\s+(?:is|are)\s+)?new\s+to\s+me\b"
)
_OTHERS = (
    r"\b(?:(?:show|give|tell)\s+me\s+)?(?:some(?:thing)?\s+|any(?:thing)?\s+)?(?:(?<!nothing )(?<!one )else"
    r"|others|different\s+ones|more\s+(?:of\s+these|please)|next\s+ones?|other\s+(?:ones|items|movies|films|books|products"
    r"|suggestions|options|ideas|recommendations|choices))\b|^\s*(?:(?:show|give)\s+me\s+)?(?:more|next|again)[\s.!?]*$"
    r"|^\s*(?:please\s+)?try\s+again\b|\bnone\s+of\s+(?:these|those|them)\b"
)


_KEEP = re.compile(r"(?:\b(?:not|never|dont)|n't)\s+(?:ever\s+)?$", re.I)


def read_taken_back(scan: Scan, context: Context, out: Reading) -> None:
    """Rules that are no more wanted: all, by number, by column, by value."""
    for match in scan.find(_ALL, take=False):
        if scan.give_back(match, _KEEP, out.unknown):
            continue
        scan.take(*match.span())
        out.clear = True
    for match in scan.find(_NUMBERED, take=False):
        if scan.give_back(match, _KEEP, out.unknown):
            continue
        scan.take(*match.span())
        place = (match["place"] or "").lower()
        named = [len(context.rules) if place == "last" else ORDINALS.index(place) + 1] if place else []
        for number in named or map(int, re.findall(r"\d+", match[0])):
            if 1 <= number <= len(context.rules):
                out.remove.append(number - 1)
            else:
                out.notes.append(f"There is no rule {number}.")
    for way in (*_WAYS, _AGAIN):
        for match in scan.find(way, take=False):
            if scan.give_back(match, _KEEP, out.unknown):
                continue
            what = match["what"].strip()
            places = [
                place for place, rule in enumerate(context.rules)
                if _about(rule, what, context) and (way is not _AGAIN or rule.negative)
            ]  # fmt: skip
            if places:
                out.remove += places
            elif what and way in _WAYS[2:6] and context.vocabulary.called(what.split()[-1]):
                out.notes.append(f"There was no rule about {what}.")
            else:
                continue
            scan.take(*match.span())


def _about(rule: Rule, what: str, context: Context) -> bool:
    names = {column.name for word in what.split() for column in context.vocabulary.called(word)}
    if names & set(rule.columns):
        return True
    return any(set(spellings) & set(rule.choices.get(name, ())) for name, spellings in context.vocabulary.values(what).items())


def read_flags(scan: Scan, context: Context, out: Reading) -> None:
    """What the user had, and others than those shown."""
    for _ in scan.find(_INCLUDE):
        out.include_seen = True
    for match in scan.find(_UNSEEN, take=False):
        twice = re.search(r"\b(?:nothing|none|not\s+anything)\s+$", scan.text[: match.start()], re.I)
        scan.take(twice.start() if twice else match.start(), match.end())
        if twice:  # "nothing I haven't seen" wants what was had, and no rule says so
            out.unknown.append(scan.text[twice.start() : match.end()].strip())
        else:
            out.add.append(Rule("seen"))
    for _ in scan.find(_OTHERS):
        out.more = True
