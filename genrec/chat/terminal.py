"""`genrec chat`: a conversation in the terminal.

In: a bundle, and lines as they are typed. Out: answers. `/rules` lists the rules in force, `/forget 2` takes one back,
`/why 3` says why the third item was shown, `/quit` ends. Whatever is printed went through `printable`: no title can steer
the terminal.

    genrec chat runs/shop
    genrec chat runs/shop --history B001,B002
    genrec chat runs/shop --voice model
    genrec chat runs/shop --dialogues runs/ranker
    genrec chat runs/shop --talker http://localhost:11434/v1 --talker-model qwen3

With `--voice model` the bundle's own language model says which items and the words between them (`speaker.py`). With
`--dialogues` a dialogue ranker orders the items (`saved_ranker.py`). With `--talker` a chat model speaks and calls the tools of
`tools.py`; the commands are then only `/quit`.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from genrec.chat.ask_rules import AskedReader
from genrec.chat.chat_model import ChatModel
from genrec.chat.dialogue import Conversation, State
from genrec.chat.read_rules import read
from genrec.chat.saved_ranker import load_ranker
from genrec.chat.speaker import Speaker
from genrec.chat.talker import Talker
from genrec.chat.tools import Toolbox
from genrec.chat.voice import HELP
from genrec.chat.words import printable
from genrec.errors import GenrecError, SettingError, UnknownItemError
from genrec.recommender import Recommender

COMMANDS = "/rules  /forget N  /why N  /quit"


def run(
    bundle: Path,
    history: Sequence[str],
    k: int,
    reader: ChatModel | None,
    talker: ChatModel | None,
    voice: Literal["template", "model"] = "template",
    dialogues: Path | None = None,
) -> None:
    """Load and talk. reader: a chat model that reads the rules (None: the built-in grammar). talker: one that speaks. voice:
    "model" for the bundle's own. dialogues: folder of a dialogue ranker. Raises `SettingError` where two would choose the
    items, `BundleError` for a ranker of another catalogue."""
    if talker is not None and voice == "model":
        raise SettingError("Either a chat model speaks (--talker) or the bundle's own (--voice model). Leave one of them out.")
    if dialogues is not None and (talker is not None or voice == "model"):
        raise SettingError("A dialogue ranker orders the template's items. Leave --dialogues out, or --talker and --voice.")
    recommender = Recommender.load(bundle)
    read_by = AskedReader(**vars(reader)) if reader else read
    if talker is not None:
        talk(Talker(talker, Toolbox(recommender, reader=read_by, before=history)), typed())
        return
    strange = [item for item, row in zip(history, recommender.catalogue.current.rows(history), strict=True) if row < 0]
    if strange:
        raise UnknownItemError(f"--history must name items of the catalogue, got {strange[0]!r}.")
    speaker = Speaker(recommender) if voice == "model" else None
    ranker = load_ranker(dialogues, recommender.bundle.catalogue) if dialogues is not None else None
    chat(Conversation(recommender, read_by, k=k, speaker=speaker, ranker=ranker), typed(), before=history)


def typed() -> Iterator[str]:
    """Lines of a person, with editing and memory of earlier lines; or of a file or pipe."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # input() edits lines with it
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return


def chat(
    conversation: Conversation, lines: Iterator[str], show: Callable[[str], None] = print, before: Sequence[str] = ()
) -> State:
    """Talk until `/quit` or the end of the lines. before: what the user had. Returns the last state."""
    state = State()
    show(f"{HELP}\n{COMMANDS}")
    for line in lines:
        command, _, rest = line.strip().partition(" ")
        if command in ("/quit", "/exit"):
            break
        if command.startswith("/"):
            state, text = _command(command, rest.strip(), state, conversation, before)
            show(text)
            continue
        if not line.strip():
            continue
        try:
            turn = conversation.turn(line, state, before)
        except GenrecError as error:
            show(printable(error, 500))
            continue
        state = turn.state
        show(turn.text)
    return state


def talk(talker: Talker, lines: Iterator[str], show: Callable[[str], None] = print) -> None:
    """Talk with a chat model that calls the tools, until `/quit` or the end of the lines."""
    messages: list[dict[str, Any]] = []
    show("A chat model answers; items, rules and reasons come from the catalogue.  /quit")
    for line in lines:
        if line.strip() in ("/quit", "/exit"):
            return
        if not line.strip():
            continue
        try:
            spoken = talker.turn(line, messages)
        except GenrecError as error:
            show(printable(error, 500))
            continue
        messages = spoken.messages
        show(spoken.text)


def _command(command: str, rest: str, state: State, conversation: Conversation, before: Sequence[str]) -> tuple[State, str]:
    if command == "/rules":
        rules = [f"{number}. {rule}" for number, rule in enumerate(state.rules, 1)]
        return state, "\n".join(rules) or "There is no rule."
    place = int(rest) - 1 if rest.isdecimal() and len(rest) < 4 else -1
    if command == "/forget":
        if not 0 <= place < len(state.rules):
            return state, (
                f"/forget takes the number of a rule, from 1 to {len(state.rules)}."
            ) if state.rules else "There is no rule."
        kept = tuple(rule for number, rule in enumerate(state.rules) if number != place)
        return replace(state, rules=kept), f"No longer a rule: {state.rules[place]}."
    if command == "/why":
        if not 0 <= place < len(state.shown):
            return state, (
                f"/why takes the number of an item shown, from 1 to {len(state.shown)}."
            ) if state.shown else "Nothing was shown yet."
        if conversation.order is not None:  # the model's probabilities put nothing into its place
            return state, printable(state.reasons[place], 500)
        history = [*before, *(item for item in state.history if item not in before)]
        explanation = conversation.recommender.explain(history, state.shown[place], unsupported="ignore")
        why = [state.reasons[place]] if state.reasons[place] else []
        return state, "\n".join(printable(line, 160) for line in (*why, *str(explanation).splitlines()))
    return state, f"There is no command {printable(command, 20)}. {COMMANDS}"
