"""A conversation: a message and a state in, a new state and an answer out. The state is plain JSON.

In: a loaded `Recommender`, what a user writes, and the `State` so far. Out: a `Turn`: what was understood, the rules in
force, what was not understood, a question where a name is not clear, and items, each with reasons that can be checked in
the catalogue.

    conversation = Conversation(recommender)
    turn = conversation.turn("I loved Home Alone, a comedy from the 90s, not a sequel", State())
    print(turn.text)
    turn = conversation.turn("more like the second, but newer than it", turn.state)

Where another process searches: `listen` -> `Heard.history`, `Heard.request` -> search -> `answer`. With a speaker
(`speaker.py`) the recommender's own model says words and items in one generation: `listen` -> `speak` -> `answer`. With a
dialogue ranker (`dialogue_order.py`) allowed items come in the order of what has been said: `listen` -> `rank` -> `answer`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from genrec.chat import messages
from genrec.chat.dialogue_order import DialogueOrder, Ordered, listed
from genrec.chat.dialogue_ranker import DialogueRanker
from genrec.chat.link import Encode, Link, Linker
from genrec.chat.mentions import Mentions, Spelled
from genrec.chat.offers import Offer, offer_of
from genrec.chat.read_rules import read
from genrec.chat.reading import LONGEST_MESSAGE, Context, Reader, Reading
from genrec.chat.rules import Rule, where_of, with_rule
from genrec.chat.scan import REF, places_of
from genrec.chat.speaker import Speaker, Speech
from genrec.chat.vocabulary import Vocabulary
from genrec.chat.voice import HELP, Said, TemplateVoice, Voice, interleaved, written
from genrec.chat.words import printable, straight
from genrec.data.catalogue import Catalogue
from genrec.decoding.explain import weigh_all
from genrec.decoding.live import CatalogueVersion
from genrec.errors import SettingError, check_integer
from genrec.recommender import Prepared, Recommendation, Recommender, Request

USUAL = 5  # items of an answer
MOST_KEPT = 500  # items of each list of a state
Feeling = Literal["liked", "seen", "rejected"]
FEELINGS: tuple[Feeling, ...] = ("liked", "seen", "rejected")


@dataclass(frozen=True)
class Question:
    """A name that may be several items, waiting for an answer. candidates: (item_id, title). feeling: what was said of it."""

    mention: str
    candidates: tuple[tuple[str, str], ...]
    feeling: Feeling


@dataclass(frozen=True)
class State:
    """All that a conversation remembers. liked, seen: items that the user named, oldest first; both join the history. rejected,
    skipped: never shown again. shown: the last items, best first, with their reasons. include_seen: what the user had may
    come again. messages: for speaker or dialogue ranker, the user's and the assistant's by turns: words, item id, words ..."""

    liked: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    shown: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    focus: str | None = None
    asked: Question | None = None
    include_seen: bool = False
    turns: int = 0
    messages: tuple[list[str], ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"rules": [rule.to_json() for rule in self.rules]}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, vocabulary: Vocabulary) -> "State":
        """A state that `to_json` wrote, without rules that the catalogue no longer has words for. Raises `SettingError`."""
        try:
            data = json.loads(text)
            rules = data.pop("rules")
            asked = data.pop("asked")
            lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
            state = cls(**data | lists)
            if asked is not None:
                candidates = tuple((str(item_id), str(title)) for item_id, title in asked["candidates"])
                state = replace(state, asked=Question(asked["mention"], candidates, asked["feeling"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SettingError(f"This is no state of a conversation ({type(error).__name__}: {error}).") from None
        messages.check(state.messages)
        kept = []
        for rule in rules:
            try:
                kept.append(Rule.from_json(rule, vocabulary))
            except SettingError:
                continue  # the column or value went with a change of the catalogue
        return replace(state, rules=tuple(kept))


@dataclass(frozen=True, eq=False)
class Heard:
    """A message understood, before the search. search: whether items are to be looked for. before: what the user had before
    the conversation."""

    state: State
    reading: Reading
    version: CatalogueVersion
    context: Context
    search: bool
    history: list[str]
    request: Request
    removed: tuple[Rule, ...] = ()
    problems: tuple[str, ...] = ()
    why: str | None = None
    before: tuple[str, ...] = ()

    @property
    def links(self) -> list[Link]:
        return [*self.reading.liked, *self.reading.seen, *self.reading.rejected]


@dataclass(frozen=True, eq=False)
class Turn:
    """What one message led to. text: the whole answer. said: the same without the items. rules: those in force, in words."""

    state: State
    text: str
    said: str
    items: list[Offer]
    rules: list[str]
    links: list[Link] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


class Conversation:
    """Turns over one recommender. Holds no user's state, so many users may share one."""

    def __init__(
        self,
        recommender: Recommender,
        reader: Reader = read,
        voice: Voice | None = None,
        k: int | None = None,
        vectors: bool = True,
        speaker: Speaker | None = None,
        ranker: DialogueRanker | None = None,
    ) -> None:
        """reader: what reads rules (default: the built-in grammar). voice: what speaks around the items. k: items per answer
        (default: five, or as many as the beam finds). speaker: the recommender's own model, which then says which items, at
        most k, and the words between them; the voice says what was understood before that. ranker: orders the items that the
        rules allow by what has been said, in the place of the recommender's model. Raises `SettingError` for both at once.
        vectors: whether names that no title resembles are looked for by the bundle's item vectors."""
        most = recommender.bundle.serving.beam_width
        k = min(USUAL, most) if k is None else k
        check_integer("k", k, 1, most)
        self.recommender, self.reader, self.voice, self.k = recommender, reader, voice or TemplateVoice(), k
        if speaker is not None and ranker is not None:
            raise SettingError("Either the bundle's own model says the items or a dialogue ranker orders them. Leave one out.")
        self.speaker = speaker
        self.order = DialogueOrder(ranker, recommender.bundle.catalogue) if ranker is not None else None
        self._encode: Encode | None = self._vectors if vectors and not recommender.bundle.one_pass else None

    def _vectors(self, table: pa.Table) -> Any:
        if not hasattr(self, "_embedder"):
            self._embedder, _ = self.recommender.bundle.load_encoders()
        return self._embedder.encode(Catalogue(table))

    def vocabulary(self, version: CatalogueVersion) -> Vocabulary:
        """What the columns of a version of the catalogue let people say."""
        return version.kept("vocabulary", lambda: Vocabulary(version.table))

    def linker(self, version: CatalogueVersion) -> Linker:
        """Titles and words of a version of the catalogue."""
        return version.kept("chat", lambda: Linker(version.table, self.vocabulary(version), self._encode, version.live))

    def mentions(self, version: CatalogueVersion) -> Mentions:
        """The names of a version of the catalogue."""
        return version.kept("mentions", lambda: Mentions(self.linker(version)))

    def spelled(self, version: CatalogueVersion) -> Spelled:
        """The titles that a speaker must not spell."""
        return version.kept("spelled", lambda: Spelled(self.linker(version)))

    def context(self, state: State, version: CatalogueVersion | None = None) -> Context:
        linker = self.linker(version or self.recommender.catalogue.current)
        return Context(linker.vocabulary, linker, state.rules, state.shown, state.focus)

    def turn(self, message: str, state: State, before: Sequence[str] = (), explain: bool = True) -> Turn:
        """Answer a message. before: what the user had before the conversation. explain: weigh the history for each item."""
        heard = self.listen(message, state, before)
        if not heard.search:
            return self.answer(heard, [])
        if self.speaker is not None or self.order is not None:
            prepared = self.recommender.prepare([heard.history], heard.request)
            if self.order is not None:
                return self.answer(heard, *self.rank(heard, prepared))
            return self.answer(heard, *self.speak(heard, prepared, explain))
        [items] = self.recommender.recommend([heard.history], explain=explain, **keywords(heard.request))
        return self.answer(heard, items)

    def listen(self, message: str, state: State, before: Sequence[str] = ()) -> Heard:
        """Understand a message; no model is needed."""
        version = self.recommender.catalogue.current
        context = self.context(state, version)
        problems: list[str] = []
        # What is too long is for the reader to refuse: these two would look at every character many times.
        short = len(message) <= LONGEST_MESSAGE
        why = _why(message, state, context) if short else None
        answered = _answered(message, state, context) if short else None
        reading = Reading(notes=[why]) if why else answered or self.reader(message, context)
        after, removed = _applied(state, reading, context, problems)
        asks = after.asked is not None and not _changes(reading)  # first the answer, then items
        kept = short and why is None and bool(message.strip()) and (self.order is not None or not reading.greeting)
        talks = self.speaker is not None and kept
        search = why is None and not asks and (reading.wants or _changes(reading) or talks)
        if talks or (self.order is not None and kept):
            links = [*reading.liked, *reading.seen, *reading.rejected]
            after = replace(after, messages=messages.heard(after.messages, message, links, self.mentions(version), version))
        history = [*before, *(item for item in after.history if item not in before)]
        gone = [*after.rejected, *after.skipped, *([] if after.include_seen else after.history)]
        had = any(rule.kind == "seen" for rule in after.rules)
        request = Request(
            self.k, None, False if after.include_seen else True if had else None,
            where_of(after.rules, context.vocabulary), list(dict.fromkeys(gone)), unsupported="ignore",
        )  # fmt: skip
        return Heard(
            after, reading, version, context, search, history, request, tuple(removed), tuple(problems), why, tuple(before)
        )

    def speak(self, heard: Heard, prepared: Prepared, explain: bool = True) -> tuple[list[Recommendation], Speech]:
        """What the speaker says: its items, and all of it. prepared: of `heard`. Raises as `Recommender.recommend`."""
        assert self.speaker is not None
        version, [query] = prepared.version, prepared.queries
        told = [messages.rows_in(message, version) for message in heard.state.messages]
        before = version.rows(heard.before)
        speech = self.speaker.say(told, before[before >= 0].tolist(), query, version, self.spelled(version))
        found = [(speech.rows, speech.scores)]
        weights = weigh_all(self.speaker.ranker, version.snapshot, prepared.queries, found) if explain else None
        [items] = self.recommender.finish(prepared, found, weights)
        return items, speech

    def rank(self, heard: Heard, prepared: Prepared) -> tuple[list[Recommendation], None, list[str]]:
        """The allowed items in the dialogue ranker's order, and why each stands there. prepared: of `heard`."""
        assert self.order is not None
        version, [query] = prepared.version, prepared.queries
        told = [messages.text_of(message, version, self.vocabulary(version).title) for message in heard.state.messages]
        found: Ordered = self.order.best(told, query, version)
        [items] = self.recommender.finish(prepared, [(found.rows, found.scores)])
        return items, None, found.reasons

    def answer(
        self, heard: Heard, items: Sequence[Recommendation], speech: Speech | None = None, ordered: Sequence[str] = ()
    ) -> Turn:
        """What to say, given what the search found, or what the speaker said of the items. ordered: why each stands where it
        does, where a dialogue ranker put it there."""
        vocabulary, reading = heard.context.vocabulary, heard.reading
        reasons_of_order = ordered or [""] * len(items)
        offers = [offer_of(item, heard.state.rules, vocabulary, why) for item, why in zip(items, reasons_of_order, strict=True)]
        state = replace(heard.state, turns=heard.state.turns + 1)
        understood = reading.understood or bool(heard.problems)
        searched = heard.search
        if speech is not None:
            if not offers and not understood and not reading.wants:
                speech = None  # nothing was said about items on either side: the refusal is enough
            searched = bool(offers) or (speech is not None and not speech.anything)
        said_items = speech.parts if speech is not None else listed(offers) if self.order is not None and searched else None
        if said_items is not None and len(state.messages) % 2:
            state = replace(state, messages=messages.answered(state.messages, said_items, [offer.item_id for offer in offers]))
        if searched:
            shown, reasons = tuple(offer.item_id for offer in offers), tuple(offer.why() for offer in offers)
            state = replace(state, shown=shown, reasons=reasons, focus=None)
        rules = [str(rule) for rule in state.rules]
        said = Said(
            links=[str(link) for link in heard.links], rules=rules, removed=[str(rule) for rule in heard.removed],
            notes=[*reading.notes, *heard.problems], unknown=reading.unknown, question=_question(state.asked),
            searched=searched, found=len(offers), greeting=reading.greeting, changed=_changes(reading),
            understood=understood or speech is not None,
        )  # fmt: skip
        before, after = self.voice(said)
        if speech is not None:
            lines = iter(offers)
            spoken: list[str | Offer] = [part if isinstance(part, str) else next(lines) for part in speech.parts]
            text, words = (interleaved(before, some, after) for some in (spoken, [p for p in spoken if isinstance(p, str)]))
            text = text or HELP
        else:
            text, words = written(before, offers, after), written(before, [], after)
        return Turn(state, text, words, offers, rules, heard.links, reading.unknown)


def keywords(request: Request) -> dict[str, Any]:
    """What of a request is to be said to `Recommender.recommend`."""
    return {name: value for name, value in vars(request).items() if value not in (None, ())}


def _changes(reading: Reading) -> bool:
    """Whether other items may come than before."""
    sure = [link for link in (*reading.liked, *reading.seen, *reading.rejected) if link.item_id is not None]
    return bool(reading.add or reading.remove or reading.clear or sure or reading.more or reading.include_seen)


def _applied(state: State, reading: Reading, context: Context, problems: list[str]) -> tuple[State, list[Rule]]:
    """The state after a reading, and the rules that went."""
    rules = list(state.rules)
    removed = rules if reading.clear else [rules[place] for place in sorted(set(reading.remove))]
    rules = [rule for rule in rules if rule not in removed]
    for rule in reading.add:
        try:
            rules, replaced = with_rule(rules, rule, context.vocabulary)
            removed = [*removed, *(old for old in replaced if old.text() != rule.text())]
        except SettingError as error:
            problems.append(f"I cannot follow {rule}: {error}")
    named: dict[Feeling, list[str]] = {
        feeling: [link.item_id for link in getattr(reading, feeling) if link.item_id is not None] for feeling in FEELINGS
    }
    open_links = [(link, feeling) for feeling in named for link in getattr(reading, feeling) if link.item_id is None]
    asked = next((Question(link.mention, link.candidates, feeling) for link, feeling in open_links if link.candidates), None)
    focus = next((items[-1] for items in named.values() if items), state.focus)
    new = State(turns=state.turns) if reading.clear else state
    had = [*named["liked"], *named["seen"]]
    return replace(
        new,
        liked=_grown(new.liked, named["liked"], named["rejected"]),
        seen=_grown(new.seen, named["seen"], named["rejected"]),
        rejected=_grown(new.rejected, named["rejected"], had),
        skipped=_grown(new.skipped, state.shown if reading.more else (), had),
        history=_grown(new.history, had, named["rejected"]),
        rules=tuple(rules), asked=asked, focus=focus, include_seen=new.include_seen or reading.include_seen,
    ), removed  # fmt: skip


def _grown(old: Sequence[str], new: Sequence[str], without: Sequence[str]) -> tuple[str, ...]:
    """`old` and then `new`, which moves to the end what was there."""
    return tuple(item for item in dict.fromkeys([*(i for i in old if i not in new), *new]) if item not in without)[-MOST_KEPT:]


def _answered(message: str, state: State, context: Context) -> Reading | None:
    """What a message says to the question that is open; None where it says something else."""
    if state.asked is None:
        return None
    text, ids = straight(message).strip(), [item_id for item_id, _ in state.asked.candidates]
    if re.fullmatch(r"(?:none|neither|no)(?:\s+of\s+(?:them|these|those))?[.!]?", text, re.I):
        return Reading(notes=[f'Then I leave "{printable(state.asked.mention)}" out.'])
    chosen: str | None = None
    if re.fullmatch(rf"(?:i\s+mean(?:t)?\s+|the\s+)?{REF}[.!]?", text, re.I):
        places = places_of(text, replace(context, shown=ids, focus=None))
        chosen = ids[places[0]] if len(places) == 1 else None
    elif re.fullmatch(r"(?:yes|yeah|yep|right|correct)[.!]?", text, re.I) and len(ids) == 1:
        chosen = ids[0]
    chosen = chosen or context.linker.choose(ids, text)
    if chosen is None:
        return None
    link = Link(state.asked.mention, chosen, context.title(chosen), "exact", 1.0)
    reading = Reading()
    getattr(reading, state.asked.feeling).append(link)
    return reading


def _why(message: str, state: State, context: Context) -> str | None:
    """ "Why the third?": the reasons that were given with the items."""
    match = re.fullmatch(
        (
            rf"\s*why\s+(?:is\s+|did\s+you\s+(?:show|recommend"
            rf"|choose)\s+)?({REF})(?:\s+\w+){{0,3}}[\s?.]*"
        ),
        message,
        re.I,
    )
    places = places_of(match[1], context) if match else []
    if not places:
        return None
    place = places[0]
    reason = state.reasons[place] if place < len(state.reasons) else ""
    return (
        f"{printable(context.title(state.shown[place]))}: "
        f"{reason or 'the model ranks it highest; no rule was set and you named no items'}."
    )


def _question(asked: Question | None) -> str:
    if asked is None:
        return ""
    options = "; ".join(f"{number}. {printable(title)}" for number, (_, title) in enumerate(asked.candidates, 1))
    return f'Which one do you mean by "{printable(asked.mention)}"? {options}'
