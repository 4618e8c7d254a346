"""The built-in reader: a deterministic grammar over the catalogue's own columns and values.

In: a message and its `Context`. Out: a `Reading`. Nothing is guessed: what no part of the grammar takes, and is no word that
carries no meaning here, is given back in `Reading.unknown`, in the user's own words.

    read(Context(vocabulary, linker), "something funny like Home Alone, a comedy under $20, not by Acme")

A message is worked through in passes (`PASSES`); each takes the characters that it understood, so that no word counts twice:
rules taken back, comparisons with items, items shown, titles, numbers, values, the rest.
"""

import re
from collections.abc import Iterator, Sequence

from genrec.chat.link import Link
from genrec.chat.read_back import HAD, read_flags, read_taken_back
from genrec.chat.read_compare import TITLE_END, read_judged, read_same, read_than, read_too
from genrec.chat.read_numbers import in_digits, read_numbers
from genrec.chat.reading import LONGEST_MESSAGE, Context, Reading, like_rule
from genrec.chat.rules import Rule
from genrec.chat.scan import COUNTS, FILLERS, INTENT, REFS, Scan, places_of
from genrec.chat.vocabulary import Column
from genrec.chat.words import key, straight
from genrec.errors import MissingDependencyError

MOST_PARTS = 20  # rules, and parts not understood, of one message
MOST_CUES, MOST_WORDS = 16, 40  # places of a message in which titles are looked for, and words of each

Choices = dict[str, tuple[str, ...]]  # column -> spellings
Found = tuple[int, int, Choices, str]  # where a value stands, what it means, the word that joins it to the one before

_SEEN_CUE = (
    rf"\b(?:i\s+(?:have\s+|already\s+|just\s+)*|i've\s+(?:already\s+"
    rf"|just\s+)*|(?:we\s+)?already\s+(?:have\s+)?){HAD}(?:\s+(?:already|got))?\b|"
    r"(?<!n't )(?<!not )(?<!never )\b(?:seen|(?:we\s+)?watched)\b"
)
_LOVED_CUE = (
    r"\b(?:i\s+)?(?:really\s+|also\s+|absolutely\s+|just\s+)*(?:love[sd]?"
    r"|adored?|enjoyed|lovd)\b|\bi\s+(?:really\s+|also\s+)*(?:liked|enjoy)\b"
    r"|\bmy\s+favou?rites?\s+(?:\w+\s+)?(?:is|are|was|were)\b|\bfans?\s+of\b"
)
_WEAK_CUE = r"\bi\s+(?:really\s+|also\s+)*like\b"
_LIKE_CUE = (
    r"\b(?:more|something|anything|others?|movies?|films?|books?|games?|products?|items?"
    r"|ones?|stuff|things?)?\s*\b(?:similar\s+to|in\s+the\s+style\s+of|along\s+the\s+lines\s+of"
    r"|(?<!\bi )(?<!really )(?<!also )(?<!n't )(?<!not )like)\b"
)
_NOT_LIKE_CUE = r"\b(?:not|nothing|no)\s+(?:similar\s+to|in\s+the\s+style\s+of|like)\b"
_HATED_CUE = (
    r"\b(?:i\s+)?(?:really\s+)?(?:hated?|disliked?|(?:did\s+not|didn't|do\s+not"
    r"|don't|never)\s+(?:like|enjoy|love|want|show(?:\s+me)?|recommend)"
    r"|(?:i'm\s+)?not\s+(?:really\s+|exactly\s+)?(?:a\s+|much\s+of\s+a\s+)?(?:big\s+|huge\s+|great\s+)?fans?\s+of)\b"
)
_NOT_CUE = r"\b(?:not|no|without|except|skip|drop|hide|remove|nothing\s+like|no\s+more\s+of|anything\s+but)\b"
# What stands before a value that is not wanted, with the small words between.
_NEGATED = re.compile(
    r"(?:\bas\s+long\s+as\s+(?:it|this|that)(?:'s)?\s*)?(?:\b(?:not?|without|except|excluding|exclude|nothing|never|avoid|hate|dislike|skip|hide|nor|non|neither|other\s+than|"
    r"apart\s+from|aside\s+from|instead\s+of|rather\s+than|sick\s+of|tired\s+of|fed\s+up\s+with|enough(?:\s+of)?|leave\s+out|"
    r"stop|boycott(?:ing)?|(?:do|wo|ca|does|is)nt|cannot|"
    r"(?:all|every\w*|any\w*|any\s+(?!of\b)\w+|every\s+\w+)\s+(?:but|except))|(?:ca|wo|do|does|is|did|should|must|are|was)n't)"
    r"(?:[\s-]+(?:any|a|an|the|too|by|from|in|with|more|made|directed|written|starring|of|for|like|want|need|really|be|is|it|"
    r"show|showing|recommend|recommending|suggest|suggesting|give|giving|see|me|us|much|have|stand|trust|care|into|interested|"
    r"fan|buy|bought|big|genre|category|brand|kind|type|language|director|actor|movies?|films?|items?|products?|another|set|on))*"
    r"[\s:\"'-]*$",
    re.I,
)
# "Leave horror out", "horror is out of the question".
_REFUSED_AFTER = re.compile(r"^\s+(?:(?:is|are)\s+out\s+of\s+the\s+question|is\s+out|out)\b", re.I)
_KEPT = re.compile(r"(?:\bnot|\bnever|\bdont|n't)\s+leave\s+(?:the\s+)?$", re.I)
_JOIN = re.compile(
    r"^[\s\"']*(?P<by>,?\s*\bor\b|,?\s*\band\b|,?\s*\bnor\b"
    r"|[,/&+])?[\s\"']*(?:\b(?:a|an|the|any|no|not|in|by|with|from|maybe|perhaps)\b\s*)*[\"']?$",
    re.I,
)


def read(message: str, context: Context) -> Reading:
    """What a message means here. See `Reading`."""
    out = Reading()
    text = straight(message).strip()
    if len(text) > LONGEST_MESSAGE:
        out.unknown.append(f"a message of {len(text)} characters: I read {LONGEST_MESSAGE} at most")
        return out
    text = in_digits(text)
    scan = Scan(text)
    if greeting := _GREETING.fullmatch(text):
        out.greeting = "hello" if greeting[1] else "thanks"
        return out
    out.wants = any(word in INTENT for word in re.findall(r"[a-z']+", text.lower()))
    if text and context.linker.exact(text) and not context.vocabulary.values(text):
        out.liked.append(context.linker.link(text))
        return out
    for read_part in PASSES:
        read_part(scan, context, out)
    out.unknown = [*out.unknown, *_left(scan, context)][:MOST_PARTS]
    out.add = list({rule.text(): rule for rule in out.add}.values())[:MOST_PARTS]
    if not out.understood and not out.wants and len(text.split()) <= 8:
        link = context.linker.link(text)  # a title alone, misspelled
        if link.how == "fuzzy" and link.sure >= 0.8:
            out.liked, out.unknown = [link], []
    return out


_GREETING = re.compile(
    r"(?:(hi|hello|hey|good\s+(?:morning|evening|afternoon|day))|(?:(?:great|perfect|ok(?:ay)?|cool|nice)[\s,!.]*)*"
    r"(?:thanks?|thank\s+you|great|perfect|ok(?:ay)?|cool|cheers|nice))"
    r"(?:\s+(?:there|all|again|you|very|so|much|a\s+lot|mate|everybody|everyone|cool|great))*[\s!.,:;)(-]*",
    re.I,
)


def _shown(scan: Scan, context: Context, out: Reading) -> None:
    """What is said of items shown, by their numbers."""
    cues = ((_HATED_CUE, out.rejected), (_NOT_CUE, out.rejected), (_LOVED_CUE, out.liked), (_WEAK_CUE, out.liked),
            (_SEEN_CUE, out.seen))  # fmt: skip
    for cue, into in ((_NOT_LIKE_CUE, out.rejected), (_LIKE_CUE, None), *cues):
        for match in scan.find(
            rf"(?:{cue})\s+(?P<refs>{REFS})(?=\s*(?:$|[.,;:!?]|\b(?:but|and"
            rf"|please|again|or|too|already|with|under|over|from|in|is|was)\b))",
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
    out.alike.append(link.item_id)
    rule = like_rule(context, link.item_id)
    if rule is None:
        out.notes.append(f"I look for items that go with {link.title}; no column says which are alike.")
    else:
        out.add.append(rule)


def _titles(scan: Scan, context: Context, out: Reading) -> None:
    """Items named by their titles."""
    cues: list[tuple[str, list[Link] | None, bool]] = [
        (_HATED_CUE, out.rejected, True), (_NOT_LIKE_CUE, out.rejected, False),
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
            end = TITLE_END.search(scan.text, match.end())
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
        end = group[-1][1]
        negative = _NEGATED.search(scan.text[:first])
        if (kept := _KEPT.search(scan.text[:first])) and re.match(r"\s+out\b", scan.text[end:], re.I):
            scan.take(kept.start(), end + re.match(r"\s+out", scan.text[end:], re.I).end())  # type: ignore[union-attr]
            out.unknown.append(scan.text[kept.start() : end] + " out")
            continue
        after = _REFUSED_AFTER.match(scan.text[group[-1][1] :])
        refused = bool(negative or after)
        clusters = [(choices,) for _, _, choices, _ in group] if refused else _clusters(group, context)
        out.add += [Rule("values", _union(cluster), refused) for cluster in clusters]
        if after:
            scan.take(group[-1][1], group[-1][1] + after.end())
            if leave := re.search(r"\bleave\s+(?:the\s+)?$", scan.text[:first], re.I):
                scan.take(leave.start(), first)
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


PASSES = (
    read_taken_back, read_flags, read_than, read_same, read_judged, _shown, _titles, read_numbers, read_too, _values,
    _misspelled,
)  # fmt: skip


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
