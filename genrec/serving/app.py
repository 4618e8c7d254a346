"""The HTTP API: requests in, recommendations out. `genrec serve` runs it; the OpenAPI page is at /docs.

In: `Models`, a `Store`, a `Gate`. Out: a FastAPI app. A request goes prepare (ids and rules, in a worker thread) -> engine (its
turn, the search) -> finish (items, in a worker thread); while it waits, the event loop is free.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from genrec import __version__
from genrec.columns import ITEM_ID
from genrec.decoding.live import CatalogueVersion, LiveCatalogue
from genrec.errors import BundleError, DataError, GenrecError, SettingError, UnknownItemError
from genrec.recommender import Prepared, Recommendation
from genrec.recommender import Request as Rules
from genrec.serving.assistants import Assistants
from genrec.serving.browse import add_browsing, search_rows
from genrec.serving.chat import add_chat
from genrec.serving.engine import BusyError, ClosedError, Found, Weights
from genrec.serving.files import add_page
from genrec.serving.hosts import HostsMiddleware
from genrec.serving.limits import LimitsMiddleware
from genrec.serving.models import ServedModel, UnknownModelError
from genrec.serving.schemas import (
    MOST_IN_QUERY,
    Answer,
    ErrorOut,
    EventsIn,
    EventsOut,
    Id,
    Item,
    ItemsIn,
    ItemsOut,
    ModelOut,
    RecommendationsIn,
    RecommendationsOut,
    RemoveIn,
    RollbackIn,
    VersionOut,
)
from genrec.serving.security import DeniedError, TooFastError
from genrec.serving.shared import Server, check_known, in_time, plain
from genrec.serving.store import ConflictError, Event, StoreError

log = logging.getLogger(__name__)

STATUS: list[tuple[type[Exception], int]] = [
    (UnknownModelError, 404),
    (ConflictError, 409),
    (BusyError, 429),
    (TooFastError, 429),
    (ClosedError, 503),
    (StoreError, 503),
    (BundleError, 409),
    (UnknownItemError, 422),
    (SettingError, 422),
    (DataError, 422),
]
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorOut} for status in (400, 401, 403, 404, 409, 413, 421, 422, 429, 500, 503, 504)
}
FOLLOW_SECONDS = 2.0  # how often changes of other servers are looked for
MOST_EXPLAINED = 200  # items of one request
AWAY_SECONDS = 5  # when to come back while an engine or a database is being started


def make_app(server: Server, most_bytes: int = 4 * 2**20, allow_hosts: Sequence[str] = ()) -> FastAPI:
    """most_bytes: largest request body. allow_hosts: see `hosts.py`; where there are keys, any name will do."""
    assistants = Assistants(server, _search, most_bytes)

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        follower = asyncio.create_task(follow(server))
        async with assistants.running():
            yield
        server.draining.set()
        follower.cancel()
        await run_in_threadpool(server.models.close)
        server.store.close()

    app = FastAPI(title="genrec", version=__version__, lifespan=life, summary="Recommendations that never leave the catalogue.")
    app.state.server = server
    app.include_router(_router(server))
    app.router.routes.extend(assistants.routes())
    add_page(app)
    if server.gate.keys is None:
        app.add_middleware(HostsMiddleware, allowed=allow_hosts)
    app.add_middleware(LimitsMiddleware, most_bytes=most_bytes, metrics=server.metrics)
    app.add_exception_handler(GenrecError, _known_error)
    app.add_exception_handler(RequestValidationError, _wrong_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    return app


def _router(server: Server) -> APIRouter:
    router = APIRouter(responses=ERRORS)
    models, store, metrics = server.models, server.store, server.metrics

    def needs(scope: str) -> Any:
        async def enter(request: Request, authorization: str | None = Header(None, description="Bearer gr-...")) -> None:
            try:
                request.state.key = server.gate.enter(authorization, scope)
            except TooFastError as error:
                request.state.key = error.name
                raise

        return Depends(enter)

    def change(name: str | None, make: Callable[[LiveCatalogue], CatalogueVersion]) -> VersionOut:
        try:
            return _version(models.get(name).change(make))
        except ClosedError:
            if server.draining.is_set():
                raise
            return _version(models.get(name).change(make))  # the model was swapped between two lines: the new one's turn

    @router.post("/v1/recommendations", dependencies=[needs("recommend")], response_model_exclude_none=True)
    async def recommendations(body: RecommendationsIn) -> RecommendationsOut:
        """The best items for each history, under the rules given. Exactly min(k, allowed items) per history."""
        if body.user_ids is not None:
            model = models.get(body.model)
            histories: list[list[str]] = await run_in_threadpool(store.histories, model.name, body.user_ids)
        else:
            histories = body.histories or []
        for attempt in (1, 2):
            model = models.get(body.model)
            try:
                prepared = await run_in_threadpool(_prepare, server, model, body, histories)
                answers = await _search(server, model, prepared, body.explain)
                break
            except ClosedError:
                if attempt == 2 or server.draining.is_set():
                    raise  # else the model was swapped between two lines: ask the new one
        users: list[str | None] = [*body.user_ids] if body.user_ids is not None else [None] * len(answers)
        out = [Answer(user_id=u, items=[_item(i, body.fields) for i in items]) for u, items in zip(users, answers, strict=True)]
        bundle = model.recommender.bundle.hash
        return RecommendationsOut(model=model.name, bundle=bundle, catalogue=_version(prepared.version), answers=out)

    @router.post("/v1/events", status_code=201, dependencies=[needs("events")])
    def events(body: EventsIn) -> EventsOut:
        """Append to histories. What is answered with 201 is on disk, and the next recommendation by user id reads it."""
        model = models.get(body.model)
        version = model.live.current
        item_ids = [event.item_id for event in body.events]
        if body.unknown_items == "raise":
            check_known("events", item_ids, version)
        known = version.rows(item_ids) >= 0
        kept = [Event(**event.model_dump()) for event, is_known in zip(body.events, known, strict=True) if is_known]
        new = store.add_events(model.name, kept)
        metrics.events.labels(model.name).inc(new)
        return EventsOut(new=new)

    @router.delete("/v1/events", dependencies=[needs("events")])
    def forget(user_id: Id, model: str | None = None) -> dict[str, int]:
        """Delete all events and conversations of a user."""
        return {"deleted": store.forget(models.get(model).name, user_id)}

    @router.get("/v1/catalog/items", dependencies=[needs("recommend")])
    def items(
        model: str | None = None,
        item_id: Annotated[list[str], Query(max_length=MOST_IN_QUERY)] = [],  # noqa: B006  # FastAPI copies it
        query: Annotated[str | None, Query(max_length=200, description="Words of a title, or an id; best match first.")] = None,
        after: Annotated[int, Query(ge=0, le=2**40)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> ItemsOut:
        """Items by id, or by words of their titles, or a page of all that can be found, in catalogue order."""
        version = models.get(model).live.current
        if query is not None:
            if item_id or after:
                raise SettingError("query finds items by their titles: give no item_id and no after with it.")
            return ItemsOut(items=_fields(version, search_rows(version, query, limit)), next=None)
        if item_id:
            rows = version.rows(item_id)
            return ItemsOut(items=_fields(version, rows[(rows >= 0) & version.live[np.maximum(rows, 0)]]), next=None)
        # By row, which an item keeps until it is replaced: then it comes again at the end, and none is passed over.
        rows = after + np.flatnonzero(version.live[after:])[: limit + 1]
        return ItemsOut(items=_fields(version, rows[:limit]), next=int(rows[limit]) if len(rows) > limit else None)

    @router.post("/v1/catalog/items", status_code=201, dependencies=[needs("catalog")])
    def put_items(body: ItemsIn) -> VersionOut:
        """Add items, or replace fields of items. They can be found when this answers, and after a crash too."""
        model = models.get(body.model)
        if body.replace:
            return change(body.model, lambda live: live.replace(model.table(_filled(body.items, live))))
        table, encoded_for = model.table(body.items), model.live
        vectors = encoded_for.vectors(table)  # before it is this change's turn: nobody need wait for a text encoder
        return change(body.model, lambda live: live.add(table, vectors if live is encoded_for else None))

    @router.delete("/v1/catalog/items", dependencies=[needs("catalog")])
    def remove_items(
        item_id: Annotated[list[str], Query(min_length=1, max_length=MOST_IN_QUERY)], model: str | None = None
    ) -> VersionOut:
        """Never recommend these items again. Histories may still hold them. For many at once: /v1/catalog/items/remove."""
        return change(model, lambda live: live.remove(item_id))

    @router.post("/v1/catalog/items/remove", status_code=201, dependencies=[needs("catalog")])
    def remove_many(body: RemoveIn) -> VersionOut:
        """As DELETE, for more ids than a URL holds; one version for all."""
        return change(body.model, lambda live: live.remove(body.item_ids))

    @router.get("/v1/catalog/versions", dependencies=[needs("recommend")])
    def versions(model: str | None = None) -> list[VersionOut]:
        """The versions that can be rolled back to, the current one last."""
        return [_version(version) for version in models.get(model).live.versions()]

    @router.post("/v1/catalog/versions/rollback", status_code=201, dependencies=[needs("catalog")])
    def rollback(body: RollbackIn) -> VersionOut:
        """Bring the content of an earlier version back, as a new version."""
        return change(body.model, lambda live: live.rollback(body.to))

    add_browsing(router, server, needs("recommend"))
    add_chat(router, server, needs("recommend"), _search)

    @router.get("/v1/models", dependencies=[needs("recommend")])
    def list_models() -> list[ModelOut]:
        return [_model(model) for model in models]

    @router.post("/v1/models/{name}/reload", dependencies=[needs("admin")])
    def reload(name: str) -> ModelOut:
        """Load the bundle's folder again, and swap it in when it is ready. Nothing is refused meanwhile."""
        return _model(models.reload(name))

    @router.get("/healthz", responses={})
    async def healthz() -> dict[Literal["status"], str]:
        """The process runs."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """Models are loaded, their engines run, and the server is not shutting down."""
        if server.draining.is_set():
            raise ClosedError("The server is shutting down.")
        for model in models:
            if not model.engine.ready:
                raise ClosedError(f"The engine of {model.name} is being started again.")
        return {"status": "ready", "models": [model.name for model in models]}

    @router.get("/metrics", response_class=Response, dependencies=[needs("recommend")])
    async def prometheus() -> Response:
        """Counts and times for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return router


def _prepare(server: Server, model: ServedModel, body: RecommendationsIn, histories: list[list[str]]) -> Prepared:
    started = time.perf_counter()
    prefixes = None if body.max_per_prefix is None else {int(length): most for length, most in body.max_per_prefix.items()}
    rules = Rules(
        body.k, body.beam_width, body.exclude_seen, body.where, body.exclude_item_ids, body.only_item_ids, body.filters,
        body.max_per, prefixes, "ignore" if body.user_ids is not None else body.unknown_items,
    )  # fmt: skip
    if body.fields is not None:
        _check_fields(body.fields, model.live.current)
    prepared = model.recommender.prepare(histories, rules, body.user_ids)
    metrics, name = server.metrics, model.name
    for query in prepared.queries:
        metrics.beam.labels(name).observe(max(query.widths))
        bitmap = query.rules.bitmap
        metrics.allowed.labels(name).observe(len(prepared.version) if bitmap is None else len(bitmap))
    metrics.observe(name, "prepare_seconds", time.perf_counter() - started)
    return prepared


async def _search(server: Server, model: ServedModel, prepared: Prepared, explain: bool) -> list[list[Recommendation]]:
    future = model.engine.submit(prepared.queries, prepared.version)
    found: Found = await in_time(server, asyncio.wrap_future(future))
    started = time.perf_counter()
    for query, (rows, _) in zip(prepared.queries, found, strict=True):
        server.metrics.count_items(model.name, rows)
        server.metrics.short.labels(model.name).inc(len(rows) < query.k)
    weights = await in_time(server, _weights(model, prepared, found)) if explain else None
    answers = await run_in_threadpool(model.recommender.finish, prepared, found, weights)
    server.metrics.observe(model.name, "finish_seconds", time.perf_counter() - started)
    return answers


async def _weights(model: ServedModel, prepared: Prepared, found: Found) -> Weights:
    """History by history, so that others get their turn between, and nothing goes on after the time is over."""
    wanted = sum(len(rows) for rows, _ in found)
    if wanted > MOST_EXPLAINED:
        raise SettingError(f"explain takes {MOST_EXPLAINED} items in one request at most, got {wanted}. Ask for fewer.")
    weights: Weights = []
    for query, one in zip(prepared.queries, found, strict=True):
        of_one: Weights = await asyncio.wrap_future(model.engine.weigh([query], [one], prepared.version))
        weights += of_one
    return weights


async def follow(server: Server) -> None:
    """Do what other servers wrote to the same store."""
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        for model in server.models:
            try:
                await run_in_threadpool(model.catch_up)
            except Exception:
                log.exception("The changes of other servers could not be read")


def _filled(items: list[dict[str, Any]], live: LiveCatalogue) -> list[dict[str, Any]]:
    """Items that all name the same columns: what one does not name, and another does, stays as it is."""
    named = {name for item in items for name in item}
    version = live.current
    ids = [str(item.get(ITEM_ID)) for item in items]
    rows = version.rows(ids)
    now = dict(zip(ids, version.fields(np.maximum(rows, 0)), strict=True))
    return [{name: value for name, value in now[i].items() if name in named} | item for i, item in zip(ids, items, strict=True)]


def _check_fields(fields: list[str], version: CatalogueVersion) -> None:
    for field in fields:
        if field not in version.table.column_names:
            raise SettingError(f"fields names {field!r}. The catalogue has {', '.join(version.table.column_names)}.")


def _item(item: Recommendation, fields: list[str] | None) -> Item:
    kept = item.fields if fields is None else {name: value for name, value in item.fields.items() if name in fields}
    why = None if item.explanation is None else asdict(item.explanation)
    return Item(item_id=item.item_id, rank=item.rank, score=item.score, fields=plain(kept), explanation=why)


def _fields(version: CatalogueVersion, rows: np.ndarray) -> list[dict[str, Any]]:
    return [plain(fields) for fields in version.fields(rows)]


def _version(version: CatalogueVersion) -> VersionOut:
    return VersionOut(
        number=version.number, hash=version.hash, items=len(version), about=version.about, time=version.time
    )  # fmt: skip


def _model(model: ServedModel) -> ModelOut:
    recommender = model.recommender
    bundle = recommender.bundle
    return ModelOut(
        name=model.name,
        bundle=bundle.hash,
        architecture=model.architecture,
        weights=model.weights,
        levels=list(model.live.sizes),
        codes=model.base,
        k=bundle.serving.k,
        beam_width=bundle.serving.beam_width,
        exclude_seen=bundle.serving.exclude_seen,
        filters=sorted(recommender.prepared),
        catalogue=_version(model.live.current),
    )


def _problem(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"type": kind, "message": message}}, status, headers)


def _known_error(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, DeniedError):
        headers = None if error.known else {"WWW-Authenticate": "Bearer"}
        return _problem(403 if error.known else 401, "DeniedError", str(error), headers)
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
    headers = None
    if isinstance(error, (BusyError, TooFastError)):
        headers = {"Retry-After": str(max(1, round(error.retry_after + 0.5)))}
    elif status == 503:
        headers = {"Retry-After": str(AWAY_SECONDS)}
    if status == 500:
        log.error("Unexpected %s", type(error).__name__, exc_info=error)
    return _problem(status, type(error).__name__, str(error), headers)


def _unexpected(_: Request, error: Exception) -> JSONResponse:
    return _problem(500, "InternalError", "Something went wrong here; the server's log says what.")


def _wrong_request(_: Request, error: Exception) -> JSONResponse:
    """Where in the request what is wrong, without repeating what was sent."""
    assert isinstance(error, RequestValidationError)
    parts = [f"{'.'.join(map(str, one['loc'][1:])) or one['loc'][0]}: {one['msg']}" for one in error.errors()[:5]]
    return _problem(422, "InvalidRequest", "; ".join(parts))


def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, "HTTPError", str(error.detail), dict(error.headers or {}))
