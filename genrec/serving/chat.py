"""`POST /v1/chat/completions`: a conversation for any OpenAI client, with the items as a structured attachment.

In: OpenAI's request: model, messages, stream, user. Out: OpenAI's answer, whole or as server-sent events, with a field `genrec`
beside it: items, rules in force, links, what was not understood.

Nothing need be kept by the client but the messages, as OpenAI's clients do: the state of a conversation is kept in the store
under a digest of key, model, user and all messages up to the answer, so it is found again by whoever sends the same messages
back, and by nobody else.

Where the server speaks with the bundle's own model (`--voice model`), the lines of the items stand between its words.

A conversation with `session` is found by that name instead, among those of the same API key and user. Messages that the server
never answered are read again without searching.
"""

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from genrec.chat.dialogue import Conversation, Heard, State, Turn
from genrec.chat.rules import Rule
from genrec.chat.speaker import Speech
from genrec.errors import SettingError
from genrec.recommender import Prepared, Recommendation, Request
from genrec.serving.engine import ClosedError, TorchEngine
from genrec.serving.models import ServedModel
from genrec.serving.schemas import Id, Ids, Where
from genrec.serving.shared import Server, check_known, in_time, plain

MOST_MESSAGES = 400
MOST_REPLAYED = 20  # user messages read again where no state is kept
Text = Annotated[str, StringConstraints(max_length=20_000)]
Search = Callable[[Server, ServedModel, Prepared, bool], Awaitable[list[list[Recommendation]]]]


class TextPart(BaseModel):
    type: Literal["text"]
    text: Text


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore")  # clients send back what they were given, `refusal` and the like

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=50)] | None = None

    @property
    def text(self) -> str:
        parts = self.content or ""
        return parts if isinstance(parts, str) else "\n".join(part.text for part in parts)


class ChatIn(BaseModel):
    """Fields that would change the answer and are not known here are refused, those of sampling have no effect."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="Which model; may be left out where there is one.", examples=[None])
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)] = Field(
        examples=[[{"role": "user", "content": "something under $20, not from Acme"}]]
    )
    stream: bool = False
    n: Literal[1] | None = None
    user: Id | None = Field(None, description="Whose history to begin with: the events sent before.", examples=[None])
    session: Id | None = Field(
        None, description="Names the conversation; then the last message alone is enough.", examples=[None]
    )
    history: Ids | None = Field(
        None, description="What the user had before, item ids, oldest first; instead of `user`.", examples=[None]
    )
    where: Where | None = Field(None, description="A rule beside those that are said, as in recommendations.", examples=[None])
    filters: Annotated[list[str], Field(max_length=20)] = Field([], description="Names of prepared filters.")
    # What OpenAI's clients may send and a conversation without sampling has no use for.
    temperature: Any = None
    top_p: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    seed: Any = None
    stop: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    stream_options: Any = None
    metadata: Any = None
    store: Any = None

    @model_validator(mode="after")
    def _one_of(self) -> "ChatIn":
        if self.user is not None and self.history is not None:
            raise ValueError("give either user or history")
        return self


class ChatItem(BaseModel):
    item_id: str
    rank: int
    title: str
    score: float
    fields: dict[str, Any]
    reasons: list[str] = Field(description="What of the item obeys which rule, and what of the history speaks for it.")


class Attachment(BaseModel):
    said: str = Field(description="The answer as plain text, not Markdown, without the lines of the items.")
    items: list[ChatItem]
    rules: list[dict[str, Any]] = Field(description="In force: number, text, and the rule itself.")
    links: list[dict[str, Any]] = Field(description="Items that the message named, and how sure that is.")
    not_understood: list[str]
    question: list[dict[str, str]] = Field(description="Items that a name may mean, where the answer asks.")
    catalogue: int = Field(description="The version of the catalogue that it was answered from.")


class ChatMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    index: int = 0
    message: ChatMessage
    finish_reason: Literal["stop"] = "stop"


class Usage(BaseModel):
    """Tokens that the bundle's own model read and wrote for this answer, codes included; 0 where the template answers."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class ChatOut(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage = Usage()
    genrec: Attachment


def add_chat(router: APIRouter, server: Server, enter: Any, search: Search) -> None:
    """Add the route. enter: lets a key in. search: how the server searches."""

    streamed: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

    @router.post("/v1/chat/completions", dependencies=[enter], responses=streamed)
    async def chat_completions(body: ChatIn, request: HttpRequest) -> ChatOut:
        """Talk: rules and items in words in, items of the catalogue out. With `stream` as server-sent events."""
        if body.messages[-1].role != "user":
            raise SettingError(f"The last message must be the user's, got one of role {body.messages[-1].role!r}.")
        for attempt in (1, 2):
            model = server.models.get(body.model)
            try:
                turn, version, usage = await _turn(server, model, body, request.state.key, search)
                break
            except ClosedError:
                if attempt == 2 or server.draining.is_set():
                    raise  # else the model was swapped between two lines: ask the new one
        answer = ChatOut(
            id=f"chatcmpl-{uuid.uuid4().hex}", created=int(time.time()), model=model.name,
            choices=[Choice(message=ChatMessage(content=for_markdown(turn.text)))], genrec=_attachment(turn, version),
            usage=usage,
        )  # fmt: skip
        if body.stream:
            return StreamingResponse(_events(answer), media_type="text/event-stream")  # type: ignore[return-value]
        return answer


async def _turn(server: Server, model: ServedModel, body: ChatIn, key: str, search: Search) -> tuple[Turn, int, Usage]:
    conversation = Conversation(model.recommender, vectors=False, speaker=model.speaker)

    def listen() -> Heard:
        before = server.store.histories(model.name, [body.user])[0] if body.user is not None else body.history or []
        if body.history is not None:
            check_known("history", body.history, model.live.current)
        state = _state(server, model.name, conversation, body, key)
        heard = conversation.listen(body.messages[-1].text, state, before)
        if body.where is None and not body.filters:
            return heard
        # Alone first: what is wrong with it is said, also where nothing is searched, and no bracket of it closes one of ours.
        model.recommender.prepare([[]], Request(where=body.where, filters=body.filters))
        both = [f"({where})" for where in (body.where, heard.request.where) if where is not None]
        return replace(heard, request=replace(heard.request, where=" and ".join(both) or None, filters=body.filters))

    heard = await run_in_threadpool(listen)
    items: list[Recommendation] = []
    speech: Speech | None = None
    if heard.search:
        prepared = await run_in_threadpool(model.recommender.prepare, [heard.history], heard.request, body.user and [body.user])
        if model.speaker is None:
            [items] = await search(server, model, prepared, True)
        else:
            assert isinstance(model.engine, TorchEngine)  # no other has the model in this process
            work = model.engine.call(lambda: conversation.speak(heard, prepared))
            items, speech = await in_time(server, asyncio.wrap_future(work))
            server.metrics.count_items(model.name, speech.rows)
    turn = await run_in_threadpool(conversation.answer, heard, items, speech)
    digest = _digest(key, body.user, body.session, [*body.messages, _reply(turn)])
    await run_in_threadpool(server.store.save_session, model.name, digest, turn.state.to_json(), body.user)
    read, said = (speech.prompt_tokens, speech.said_tokens) if speech is not None else (0, 0)
    return turn, heard.version.number, Usage(prompt_tokens=read, completion_tokens=said, total_tokens=read + said)


def _reply(turn: Turn) -> Message:
    return Message(role="assistant", content=for_markdown(turn.text))


def _state(server: Server, model: str, conversation: Conversation, body: ChatIn, key: str) -> State:
    """The state before the last message: as it was kept, else read again from the messages."""
    vocabulary = conversation.context(State()).vocabulary
    earlier = body.messages[:-1]
    kept = server.store.session(model, _digest(key, body.user, body.session, earlier))
    if kept is not None:
        return State.from_json(kept, vocabulary)
    state = State()
    for message in [one for one in earlier if one.role == "user"][-MOST_REPLAYED:]:
        state = conversation.listen(message.text, state).state
    return state


def _digest(key: str, user: str | None, session: str | None, messages: list[Message]) -> str:
    """What a conversation is found by. Instructions of the client's own (system) are no part of it."""
    said = [[message.role, message.text] for message in messages if message.role in ("user", "assistant")]
    named = ["session", session] if session is not None else ["messages", said]
    return hashlib.sha256(json.dumps([key, user, named]).encode()).hexdigest()


def for_markdown(text: str) -> str:
    """Chat pages show answers as Markdown: words of a title or a user make no link, picture, tag or heading there."""
    escaped = "".join({"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(c, f"\\{c}" if c in "\\`*_[]~|" else c) for c in text)
    return "\n".join(f"\\{line}" if line[:1] in "#+-=!" else line for line in escaped.split("\n"))


def _attachment(turn: Turn, version: int) -> Attachment:
    items = [
        ChatItem(
            item_id=offer.item_id, rank=offer.rank, title=offer.title, score=offer.score, fields=plain(offer.fields),
            reasons=[part for part in offer.why().split("; ") if part],
        )
        for offer in turn.items
    ]  # fmt: skip
    asked = turn.state.asked
    return Attachment(
        said=turn.said,
        items=items,
        rules=[_rule(number, rule) for number, rule in enumerate(turn.state.rules, 1)],
        links=[link.to_json() for link in turn.links],
        not_understood=turn.unknown,
        question=[{"item_id": item_id, "title": title} for item_id, title in (asked.candidates if asked else ())],
        catalogue=version,
    )


def _rule(number: int, rule: Rule) -> dict[str, Any]:
    return {"number": number, "text": str(rule), "rule": rule.to_json()}


async def _events(answer: ChatOut) -> AsyncIterator[str]:
    """The answer in pieces, as OpenAI sends them; the attachment comes with the last one."""
    head = {"id": answer.id, "object": "chat.completion.chunk", "created": answer.created, "model": answer.model}

    def event(delta: dict[str, str], finish: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps(head | {'choices': [choice]} | more, ensure_ascii=False)}\n\n"

    yield event({"role": "assistant", "content": ""})
    for line in answer.choices[0].message.content.splitlines(keepends=True):
        yield event({"content": line})
    yield event({}, "stop", genrec=answer.genrec.model_dump(mode="json"))
    yield "data: [DONE]\n\n"
