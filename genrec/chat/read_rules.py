"""The built-in reader: a deterministic grammar over the catalogue's own columns and values.

In: a message and its `Context`. Out: a `Reading`. Nothing is guessed: what no part of the grammar takes, and is no word that
carries no meaning here, is given back in `Reading.unknown`, in the user's own words.

    read(Context(vocabulary, linker), "something funny like Home Alone, a comedy under $20, not by Acme")

A message is worked through in passes; each takes the characters that it understood, so that no word counts twice: rules taken
back, comparisons with items shown, items shown, titles, numbers, values, the rest.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from genrec.chat.link import Link
from genrec.chat.read_numbers import read_numbers
from genrec.chat.reading import LONGEST_MESSAGE, Context, Reading, like_rule
from genrec.chat.rules import Rule
from genrec.chat.scan import ADJECTIVES, COUNTS, FILLERS, INTENT, ORDINALS, REF, REFS, Scan, places_of
from genrec.chat.vocabulary import Column
from genrec.chat.words import key, straight
from genrec.errors import MissingDependencyError

MOST_PARTS = 20  # rules, and parts not understood, of one message
MOST_CUES, MOST_WORDS = 16, 40  # places of a message in which titles are looked for, and words of each

Choices = dict[str, tuple[str, ...]]  # column -> spellings
Found = tuple[int, int, Choices, str]  # where a value stands, what it means, the word that joins it to the one before

_HAD = r"(?:seen|watched|read|bought|owned?|played|tried|finished|used|heard|know|have|had|got)"
_SEEN_CUE = (
    rf"\b(?:i\s+(?:have\s+|already\s+|just\s+)*|i've\s+(?:already\s+"
    rf"|just\s+)*|already\s+(?:have\s+)?){_HAD}\b|\b(?:seen|watched)\b"
)
_LOVED_CUE = (
    r"\b(?:i\s+)?(?:really\s+|also\s+|absolutely\s+|just\s+)*(?:loved?"
    r"|adored?|enjoyed)\b|\bi\s+(?:really\s+|also\s+)*(?:liked|enjoy)\b"
    r"|\bmy\s+favou?rites?\s+(?:\w+\s+)?(?:is|are|was|were)\b|\bfans?\s+of\b"
)
_WEAK_CUE = r"\bi\s+(?:really\s+|also\s+)*like\b"
_LIKE_CUE = (
    r"\b(?:more|something|anything|others?|movies?|films?|books?|games?|products?|items?"
    r"|ones?|stuff|things?)?\s*\b(?:similar\s+to|in\s+the\s+style\s+of|along\s+the\s+lines\s+of|like)\b"
)
_HATED_CUE = (
    r"\b(?:i\s+)?(?:really\s+)?(?:hated?|disliked?|(?:did\s+not|didn't|do\s+not"
    r"|don't|never)\s+(?:like|enjoy|love|want|show(?:\s+me)?|recommend))\b"
)
_NOT_CUE = r"\b(?:not|no|without|except|skip|drop|hide|nothing\s+like|no\s+more\s+of|anything\s+but)\b"
_TITLE_END = re.compile(
    r"[.;!?\n](?:\s|$)|,?\s+\b(?:but|however|though|because|so|please|something|anything|show|recommend|suggest|give|can|could|"
    r"which|i\s+want|i\s+need|i'd|i\s+(?:loved?|liked?|hated?|have|already)|i've)\b"
    r"|\s+\b(?:under|below|over|above|before|after|since|until|less|more|cheaper|newer"
    r"|older|at\s+most|at\s+least|up\s+to|between|around)\s+(?:than\s+)?[$€£]?\d"
    r"|\s+from\s+(?:the\s+)?(?:\d{2,4}'?s|\w+ties)\b|,\s*(?:not?|nothing|without|except|only|a|an|in|from|with)\b",
    re.I,
)
_NEGATED = re.compile(
    r"(?:\b(?:not?|without|except|excluding|exclude|nothing|never|avoid|hate|dislike|skip|nor|non|neither|other\s+than|"
    r"apart\s+from|instead\s+of|sick\s+of|tired\s+of|anything\s+but)|n't)"
    r"(?:[\s-]+(?:any|a|an|the|too|by|from|in|with|more|made|directed|written"
    r"|starring|of|for|like|want|really|be|is|it|show|me|much|have|"
    r"genre|category|brand|kind|type|language|director|actor|movies?|films?|items?|products?|another|set|on))*[\s:\"'-]*$",
    re.I,
)
_JOIN = re.compile(
    r"^[\s\"']*(?P<by>,?\s*\bor\b|,?\s*\band\b|,?\s*\bnor\b"
    r"|[,/&+])?[\s\"']*(?:\b(?:a|an|the|any|no|not|in|by|with|from)\b\s*)*[\"']?$",
    re.I,
)


def read(message: str, context: Context) -> Reading:
    """What a message means here. See `Reading`."""
    out = Reading()
    text = straight(message).strip()
    if len(text) > LONGEST_MESSAGE:
        out.unknown.append(f"a message of {len(text)} characters: I read {LONGEST_MESSAGE} at most")
        return out
    scan = Scan(text)
    if greeting := re.fullmatch(
        r"(?:(hi|hello|hey|good \w+)|(thanks?|thank you|great|perfect|ok(?:ay)?|cool))\b[\s\w]{0,12}[!.]*", text, re.I
    ):
        out.greeting = "hello" if greeting[1] else "thanks"
        if len(text.split()) <= 3:
            return out
    out.wants = any(word in INTENT for word in re.findall(r"[a-z']+", text.lower()))
    if text and context.linker.exact(text) and not context.vocabulary.values(text):
        out.liked.append(context.linker.link(text))
        return out
    for read_part in (_taken_back, _flags, _than_shown, _same_as, _shown, _titles, read_numbers, _values, _misspelled):
        read_part(scan, context, out)
    out.unknown = [*out.unknown, *_left(scan, context)][:MOST_PARTS]
    out.add = list({rule.text(): rule for rule in out.add}.values())[:MOST_PARTS]
    if not out.understood and not out.wants and len(text.split()) <= 8:
        link = context.linker.link(text)  # a title alone, misspelled
        if link.how == "fuzzy" and link.sure >= 0.8:
            out.liked, out.unknown = [link], []
    return out


def _taken_back(scan: Scan, context: Context, out: Reading) -> None:
    """Rules that are no more wanted: all, by number, by column, by value."""
    for _ in scan.find(
        r"\b(?:start\s+over|reset|forget\s+(?:everything|all(?:\s+(?:the\s+)?rules)?"
        r"|the\s+rules)|(?:remove|clear|drop)\s+(?:all|every|the)\s+rules?)\b"
    ):
        out.clear = True
    for match in scan.find(
        r"\b(?:remove|drop|forget|delete|cancel|undo)\s+(?:the\s+)?(?:rules?"
        r"|number|#)\s*#?\s*(\d{1,3})(?:(?:\s*,\s*|\s+and\s+)(\d{1,3}))*\b"
    ):
        for number in map(int, re.findall(r"\d+", match[0])):
            if 1 <= number <= len(context.rules):
                out.remove.append(number - 1)
            else:
                out.notes.append(f"There is no rule {number}.")
    column = r"(?P<what>[\w' -]{2,40}?)"
    ways = (
        rf"\bany\s+{column}\s+(?:is|would\s+be|will)\s+(?:be\s+)?(?:also\s+)?(?:fine|ok(?:ay)?|good|do)\b",
        rf"(?:\bthe\s+)?\b{column}\s+(?:does\s+not|doesn't|do\s+not|don't)\s+matter\b(?:\s+any\s*more)?",
        rf"\b(?:forget|never\s*mind|ignore|drop"
        rf"|remove)\s+(?:about\s+)?(?:the\s+)?{column}(?:\s+(?:rule|limit|filter))?(?=\s*(?:$|[.,;!?]|\band\b))",
    )
    for way in ways:
        for match in scan.find(way, take=False):
            what = match["what"].strip()
            places = [place for place, rule in enumerate(context.rules) if _about(rule, what, context)]
            if places:
                out.remove += places
            elif context.vocabulary.called(what.split()[-1]):
                out.notes.append(f"There was no rule about {what}.")
            else:
                continue
            scan.take(*match.span())


def _about(rule: Rule, what: str, context: Context) -> bool:
    names = {column.name for word in what.split() for column in context.vocabulary.called(word)}
    if names & set(rule.columns):
        return True
    return any(set(spellings) & set(rule.choices.get(name, ())) for name, spellings in context.vocabulary.values(what).items())


def _flags(scan: Scan, context: Context, out: Reading) -> None:
    for _ in scan.find(
        rf"\b(?:include|also|even|okay\s+if|ok\s+if"
        rf"|fine\s+if)\b[^.;,!?]{{0,30}}\b(?:i\s+have|i've|already|i)\s+{_HAD}\b(?=\s*(?:$|[.,;!?]))"
    ):
        out.include_seen = True
    unseen = (
        rf"\b(?:nothing|not?|none|without|except|hide|no\s+\w+)\s+(?:that\s+|things?\s+"
        rf"|any(?:thing)?\s+|\w+s\s+)?(?:i\s+have\s+|i've\s+|i\s+|what\s+)?(?:already\s+){_HAD}\b(?=\s*(?:$|[.,;!?]))"
        rf"|\b(?:nothing|none|hide\s+what"
        rf"|not\s+what)\s+(?:that\s+)?(?:i\s+have\s+|i've\s+|i\s+)(?:already\s+)?{_HAD}\b(?=\s*(?:$|[.,;!?]))"
        rf"|\b(?:that\s+|which\s+)?i\s+(?:have\s+not|haven't|did\s+not"
        rf"|didn't)\s+(?:already\s+)?{_HAD}(?:\s+yet|\s+before)?\b(?=\s*(?:$|[.,;!?]))"
    )
    for _ in scan.find(unseen):
        out.add.append(Rule("seen"))
    others = (
        r"\b(?:(?:show|give|tell)\s+me\s+)?(?:some(?:thing)?\s+|any(?:thing)?\s+)?(?:else"
        r"|others|different\s+ones|more\s+(?:of\s+these|please)|next\s+ones?|other\s+(?:ones"
        r"|items|movies|films|books|products|suggestions))\b|^\s*(?:show\s+me\s+|give\s+me\s+)?(?:more|next|again)[\s.!?]*$"
    )
    for _ in scan.find(others):
        out.more = True


def _than_shown(scan: Scan, context: Context, out: Reading) -> None:
    """ "Cheaper than the second", "newer than Home Alone"; "it" is the item that the message named last."""
    for match in scan.find(rf"\b(?P<how>{'|'.join(ADJECTIVES)})\s+than\s+(?P<ref>{REF})(?![\d$€£])", take=False):
        named = re.findall(rf"\b(?:{'|'.join(ORDINALS)}|last)\b", scan.text[: match.start()], re.I)
        it = re.fullmatch(r"it|(?:that|this)(?:\s+one)?", match["ref"], re.I)
        places = places_of(named[-1] if it and named else match["ref"], context)
        if not places:
            if not re.search(r"\d", match["ref"]):
                scan.take(*match.span())
                out.unknown.append(match[0].strip())
            continue
        scan.take(*match.span())
        _compare(match["how"], context.shown[places[0]], match[0], context, out)
    for match in scan.find(rf"\b(?P<how>{'|'.join(ADJECTIVES)})\s+than\s+(?P<title>(?![$€£\d])[^.;,!?\n]+)", take=False):
        end = _TITLE_END.search(match["title"])
        title = match["title"][: end.start()] if end else match["title"]
        link = context.linker.link(title)
        if link.item_id is not None:
            scan.take(match.start(), match.start("title") + len(title))
            out.notes.append(str(link))
            _compare(match["how"], link.item_id, match[0], context, out)


def _compare(how: str, item_id: str, said: str, context: Context, out: Reading) -> None:
    what, lower = ADJECTIVES[re.sub(r"\s+", " ", how.lower())]
    column = context.vocabulary.year if what == "year" else context.vocabulary.money
    value = None if column is None else context.value(item_id, column.name)
    if column is not None and column.kind == "date" and value is not None:
        value = value.year
    if column is None or value is None or (column.numbers is not None and value not in column.numbers):
        out.unknown.append(said.strip())
        return
    number = column.numbers[value] if column.numbers is not None else float(value)
    note = f"{how.lower()} than {context.title(item_id)}"
    bounds: dict[str, Any] = {"high": number, "high_open": True} if lower else {"low": number, "low_open": True}
    out.add.append(Rule("range", column=column.name, note=note, **bounds))


def _same_as(scan: Scan, context: Context, out: Reading) -> None:
    """ "Not this brand", "the same director as the second"."""
    pattern = (
        rf"(?P<not>\b(?:not?|without|other\s+than|another\s+\w+\s+than|never)\s+)?\b(?:from\s+"
        rf"|of\s+|by\s+|in\s+)?(?:this|that|the\s+same|same)\s+(?P<what>[a-z]+)(?:\s+(?:as|of)\s+(?P<ref>{REF}))?"
    )
    for match in scan.find(pattern, take=False):
        columns = [column for column in context.vocabulary.called(match["what"]) if column.kind == "values"]
        if not columns:
            continue
        scan.take(*match.span())
        column = columns[0]
        ids = [context.shown[place] for place in places_of(match["ref"] or "that one", context)]
        if not match["ref"] and not ids and len({str(context.value(item, column.name)) for item in context.shown}) == 1:
            ids = list(context.shown[:1])  # all that was shown agrees
        found = context.value(ids[0], column.name) if len(ids) == 1 else None
        values = [value for value in (found if isinstance(found, list) else [found]) if value in column.counts]
        if values:
            note = f"{match[0].strip()}: {context.title(ids[0])}"
            out.add.append(Rule("values", {column.name: values}, bool(match["not"]), note=note))
        else:
            out.unknown.append(f"{match[0].strip()} (say which item by its number)")


def _shown(scan: Scan, context: Context, out: Reading) -> None:
    """What is said of items shown, by their numbers."""
    cues = ((_HATED_CUE, out.rejected), (_NOT_CUE, out.rejected), (_LOVED_CUE, out.liked), (_WEAK_CUE, out.liked),
            (_SEEN_CUE, out.seen))  # fmt: skip
    negated = rf"\b(?:not|nothing|no)\s+(?:{_LIKE_CUE.lstrip()})"
    for cue, into in ((negated, out.rejected), (_LIKE_CUE, None), *cues):
        for match in scan.find(
            rf"(?:{cue})\s+(?P<refs>{REFS})(?=\s*(?:$|[.,;:!?]|\b(?:but|and"
            rf"|please|or|too|already|with|under|over|from|in|is|was)\b))",
            take=False,
        ):
            places = places_of(match["refs"], context)
            if not places:
                scan.take(*match.span())
                hint = "which of them? say its number" if context.shown else "nothing was shown yet"
                out.unknown.append(f"{match[0].strip()} ({hint})")
                continue
            scan.take(*match.span())
            for place in places:
                item_id = context.shown[place]
                link = Link(match["refs"].strip(), item_id, context.title(item_id), "exact", 1.0)
                if into is not None:
                    into.append(link)
                    continue
                _alike(link, context, out)


def _alike(link: Link, context: Context, out: Reading) -> None:
    out.liked.append(link)
    if link.item_id is None:
        return
    rule = like_rule(context, link.item_id)
    if rule is None:
        out.notes.append(f"I look for items that go with {link.title}; no column says which are alike.")
    else:
        out.add.append(rule)


def _titles(scan: Scan, context: Context, out: Reading) -> None:
    """Items named by their titles."""
    cues: list[tuple[str, list[Link] | None, bool]] = [
        (_HATED_CUE, out.rejected, True), (rf"\b(?:not|nothing|no)\s+(?:{_LIKE_CUE.lstrip()})", out.rejected, False),
        (_LOVED_CUE, out.liked, True), (_SEEN_CUE, out.seen, True), (_WEAK_CUE, out.liked, False), (_LIKE_CUE, None, True),
        (_NOT_CUE, out.rejected, False),
    ]  # fmt: skip
    for match in scan.find(r'"(?P<title>[^"]{1,120})"|(?<![\w\'])\'(?P<other>[^\']{2,120})\'(?!\w)', take=False):
        link = context.linker.link(match["title"] or match["other"])
        if link.item_id is None and not link.candidates:
            continue
        before = scan.text[: match.start()].rstrip()
        cue, into, _ = next(
            (c for c in cues if re.search(rf"(?:{c[0]})\s*(?:the\s+\w+\s+)?$", before, re.I)), ("", out.liked, True)
        )
        scan.take(*match.span())
        if cue:
            said = re.search(rf"(?:{cue})\s*(?:the\s+\w+\s+)?$", before, re.I)
            scan.take(said.start() if said else match.start(), match.start())
        _alike(link, context, out) if into is None else into.append(link)
    tried = 0
    for cue, into, strong in cues:
        for match in scan.find(rf"(?:{cue})(?=\s)", take=False):
            tried += 1
            if tried > MOST_CUES:
                return
            end = _TITLE_END.search(scan.text, match.end())
            span = scan.free(match.end(), end.start() if end else len(scan.text))
            links = list(_named(scan, span, context, strong))
            for link, a, b in links:
                scan.take(a, b)
                _alike(link, context, out) if into is None else into.append(link)
            if links:
                scan.take(*match.span())


def _named(scan: Scan, span: tuple[int, int], context: Context, strong: bool) -> Iterator[tuple[Link, int, int]]:
    """Titles in a part of the message with their places: whole titles first, then what stands between commas and "and"."""
    linker, words = context.linker, scan.words(*span)[:MOST_WORDS]
    if not words:
        return
    span = (span[0], words[-1][1])
    place, left = 0, []
    while place < len(words):
        for end in range(min(len(words), place + linker.longest + 3), place, -1):
            a, b = words[place][0], words[end - 1][1]
            said = scan.text[a:b]
            if _is_title(said, context) and (place == 0 or _may_start(scan.text[:a], strong)):
                tail = re.match(r"\s*\(\d{4}\)|\s+(?:\(\s*)?(?:from|of)\s+\d{4}\b", scan.text[b : span[1]])
                if not _ends(scan.text[b + (tail.end() if tail else 0) : span[1]]):
                    continue
                if tail:
                    said, b = said + tail[0], b + tail.end()
                yield linker.link(said), a, b
                place = next((n for n, word in enumerate(words) if word[0] >= b), len(words))
                break
        else:
            left.append(words[place])
            place += 1
    if not left:
        return
    for part in re.finditer(r"(?:(?!,|\band\b|\bor\b).)+", scan.text[span[0] : span[1]], re.I):
        inside = [w for w in left if span[0] + part.start() <= w[0] and w[1] <= span[0] + part.end()]
        said_words = [scan.text[a:b] for a, b in inside]
        if not any(_has_meaning(word, context) for word in said_words):
            continue
        a, b = inside[0][0], inside[-1][1]
        if not scan.is_free(a, b) or len(inside) > 12 or ((a, b) != (words[0][0], b) and not _may_start(scan.text[:a], strong)):
            continue
        if all(not _has_meaning(word, context) or context.vocabulary.values(word) for word in said_words):
            continue  # "I like comedies": values, not a title
        link = linker.link(scan.text[a:b])
        if (link.how in ("exact", "fuzzy") and (strong or (link.item_id is not None and link.sure >= 0.95))) or (
            strong and link.candidates
        ):
            yield link, a, b


def _ends(rest: str) -> bool:
    """Whether a title may end before `rest`: what follows is another one, or says nothing."""
    part = re.split(r"[,;:.!?)]|\band\b|\bor\b|&", rest, maxsplit=1)[0]
    return all(word in FILLERS or word == "too" for word in re.findall(r"[^\W_']+(?:'\w+)?", part.lower()))


def _is_title(said: str, context: Context) -> bool:
    if not context.linker.exact(said):
        return False
    words = key(said).split()
    one_known = len(words) == 1 and (words[0] in FILLERS or bool(context.vocabulary.values(said)))
    return bool(words) and not one_known


def _may_start(before: str, strong: bool) -> bool:
    return bool(re.search(r"(?:,|\band|\bor|\bthe (?:movie|film|book|game|one)|\bof|&)\s*$", before, re.I)) and strong


def _has_meaning(word: str, context: Context) -> bool:
    return key(word) not in FILLERS and word.lower() not in FILLERS and not word.isdigit()


def _values(scan: Scan, context: Context, out: Reading) -> None:
    """Values of columns, joined by "or" and "and", with "not" before them."""
    groups: list[list[Found]] = []
    end = -1
    for a, b, choices in _matches(scan, context):
        between = scan.text[end:a] if groups else ""
        # "sci-fi, not Acme": a "not" between two values is about the second alone.
        join = _JOIN.match(between) if groups and not re.search(r"\b(?:not?|nor)\b", between, re.I) else None
        word = (join["by"] or "").strip(" ,").lower() if join is not None else ""
        # "not coffee, by Ember": a comma joins values of one column alone.
        if join is not None and (word in ("or", "and") or set(groups[-1][-1][2]) == set(choices)):
            groups[-1].append((a, b, choices, word or ("," if join["by"] else "")))
        else:
            groups.append([(a, b, choices, "")])
        end = b
    for group in groups:
        first = group[0][0]
        negative = _NEGATED.search(scan.text[:first])
        clusters = [(choices,) for _, _, choices, _ in group] if negative else _clusters(group, context)
        out.add += [Rule("values", _union(cluster), bool(negative)) for cluster in clusters]
        for a, b, _, _ in group:
            scan.take(a, b)
        if negative:
            scan.take(negative.start(), first)


def _clusters(group: list[Found], context: Context) -> list[tuple[Choices, ...]]:
    """Values of which one is enough: those joined by "or", and those of a column that has one value per item. The others
    must all hold. "A, B or C" is joined by "or" throughout."""
    clusters: list[tuple[Choices, ...]] = []
    for place, (_, _, choices, join) in enumerate(group):
        same = bool(clusters) and set(clusters[-1][-1]) == set(choices)
        later = {other[3] for other in group[place + 1 :] if set(other[2]) == set(choices)}
        single = not any(context.vocabulary.columns[name].many for name in choices)
        either = join == "or" or (same and join == "," and "or" in later) or (same and join in (",", "and", "/") and single)
        if clusters and (either or (same and join == "/")):
            clusters[-1] += (choices,)
        else:
            clusters.append((choices,))
    return clusters


def _matches(scan: Scan, context: Context) -> Iterator[tuple[int, int, Choices]]:
    """Where values stand in the message, longest first from the left, and what they mean."""
    vocabulary, words = context.vocabulary, scan.words(0, len(scan.text))
    place = 0
    while place < len(words):
        for end in range(min(len(words), place + vocabulary.longest + 1), place, -1):
            a, b = words[place][0], words[end - 1][1]
            said = scan.text[a:b]
            if re.search(r"[,.;!?]\s", said) or not scan.is_free(a, b):
                continue
            choices = vocabulary.values(said)
            if not choices or (end == place + 1 and (said.lower() in FILLERS or key(said) in FILLERS)):
                continue
            last = scan.text[words[end - 1][0] : b].lower()
            if end > place + 1 and last in FILLERS and vocabulary.values(scan.text[a : words[end - 2][1]]):
                continue  # "action films": all that is action, not the value "Action Film" alone
            yield a, b, _told_apart(choices, scan.text[max(0, a - 30) : a], scan.text[b : b + 20], context)
            place = end
            break
        else:
            place += 1


def _told_apart(choices: Choices, before: str, after: str, context: Context) -> Choices:
    """The columns that a word next to the value names ("directed by ..."), else all."""
    near = re.findall(r"[a-z]+", re.split(r"[.;!?,]", before.lower())[-1])[-3:] + re.findall(r"^\s+([a-z]+)", after.lower())
    columns: list[Column] = [column for word in near for column in context.vocabulary.called(word)]
    kept = {column.name: choices[column.name] for column in columns if column.name in choices}
    return kept or dict(choices)


def _union(parts: Sequence[Choices]) -> Choices:
    names = dict.fromkeys(name for choices in parts for name in choices)
    return {name: tuple(dict.fromkeys(v for choices in parts for v in choices.get(name, ()))) for name in names}


def _misspelled(scan: Scan, context: Context, out: Reading) -> None:
    """Single words one letter away from a value, shown as such."""
    words = [(a, b) for a, b in scan.words(0, len(scan.text)) if scan.is_free(a, b)]
    words = [(a, b) for a, b in words if b - a >= 5 and _has_meaning(scan.text[a:b], context)]
    if not words:
        return
    try:
        from rapidfuzz import process
        from rapidfuzz.distance import OSA
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "Conversation needs the extra `chat` (rapidfuzz is missing): pip install 'genrec[chat]'"
        ) from None
    known = [name for name in context.vocabulary.by_key if len(name) >= 5]
    for a, b in words:
        said = scan.text[a:b]
        if context.vocabulary.called(said):
            continue
        found = process.extractOne(key(said), known, scorer=OSA.distance, score_cutoff=1)
        if found is None or found[0][0] != key(said)[:1] or (len(found[0]) == len(key(said)) < 6):
            continue
        negative = _NEGATED.search(scan.text[:a])
        choices = _told_apart(
            context.vocabulary.by_key[found[0]], scan.text[max(0, a - 30) : a], scan.text[b : b + 20], context
        )
        out.add.append(Rule("values", choices, bool(negative), note=f'you wrote "{said}"'))
        scan.take(negative.start() if negative else a, b)


def _left(scan: Scan, context: Context) -> list[str]:
    """What nothing took and carries meaning, in the user's words: neighbours together, with the "not" before them."""
    parts: list[tuple[int, int]] = []
    for a, b in scan.words(0, len(scan.text)):
        word = scan.text[a:b]
        if not scan.is_free(a, b) or (not word[0].isdigit() and not _has_meaning(word, context)) or word.lower() in COUNTS:
            continue
        if context.vocabulary.called(word):
            continue
        if (
            parts
            and re.fullmatch(r"[\s-]+(?:(?:of|and|in|the|a|for|to)\s+)?", scan.text[parts[-1][1] : a])
            and scan.is_free(parts[-1][1], a)
        ):
            parts[-1] = (parts[-1][0], b)
        else:
            before = _NEGATED.search(scan.text[:a])
            start = before.start() if before and scan.is_free(before.start(), a) else a
            if scan.text[a - 1 : a] in "$€£#" and a:
                start = min(start, a - 1)
            parts.append((start, b))
    return [scan.text[a:b].strip() for a, b in parts]
