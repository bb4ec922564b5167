"""The application: routes, and what is around them. `create_app` makes one; nothing is global.

POST /v1/chat/completions, GET /v1/models            as OpenAI has them
POST /v1/streams, .../{id}/frames, DELETE .../{id}    live videos
GET /health, /ready, /metrics                         for whoever runs it
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse
from starlette.exceptions import HTTPException

import pvc
from pvc.engine.engine import Engine
from pvc.errors import PVCError
from pvc.media import Picture
from pvc.server.answers import Parts, Reply, begin, check_ceilings, chunk, completion, follow, logprobs
from pvc.server.cache import VisualCache
from pvc.server.decoders import Decoders
from pvc.server.errors import ApiError, api_error
from pvc.server.guard import Guard
from pvc.server.metrics import Metrics
from pvc.server.scheduler import Said, Scheduler
from pvc.server.schemas import ChatRequest
from pvc.server.settings import Settings
from pvc.server.streams import Streams

POLL_SECONDS = 0.25  # how often a client is looked after that waits without a stream


def create_app(engine: Engine, settings: Settings | None = None) -> FastAPI:
    """An application that serves one model. What it runs on is in `app.state.parts`."""
    settings = settings or Settings()
    metrics = Metrics()
    parts = Parts(
        engine,
        settings,
        metrics,
        Scheduler(engine, settings.batch, settings.queue, metrics),
        Decoders(settings),
        VisualCache(settings.cache_bytes),
        Streams(engine, settings.max_streams, settings.stream_window, settings.stream_idle_s),
        asyncio.Semaphore(settings.holding),
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(parts.decoders.start)
        parts.scheduler.start()
        app.state.ready = True
        try:
            yield
        finally:
            app.state.ready = False
            await asyncio.to_thread(parts.scheduler.close)
            parts.decoders.close()

    app = FastAPI(title="PVC", version=pvc.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.parts, app.state.ready = parts, False
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    _errors(app)
    _operations(app, parts)
    _chat(app, parts)
    _streams(app, parts)
    return app


def _errors(app: FastAPI) -> None:
    def told(request: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(request.state.request_id), error.status, error.headers)

    @app.exception_handler(ApiError)
    async def known(request: Request, error: ApiError) -> JSONResponse:
        return told(request, error)

    @app.exception_handler(PVCError)
    async def ours(request: Request, error: PVCError) -> JSONResponse:
        return told(request, api_error(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))[:100]
        message = "The body is not JSON." if first["type"] == "json_invalid" else str(first["msg"])[:200]
        return told(request, ApiError(400, "invalid_request", message, place or None))

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
        headers = dict(error.headers or {})
        status = error.status_code
        text = "There is no such route." if status in (404, 405) else "The request cannot be read."
        return told(request, ApiError(status, codes.get(status, "invalid_request"), text, headers=headers))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return told(request, api_error(error))


def _operations(app: FastAPI, parts: Parts) -> None:
    @app.get("/health")
    async def health() -> Response:
        """Whether the process and its worker live."""
        alive = parts.scheduler.alive
        return JSONResponse({"status": "ok" if alive else "dead"}, 200 if alive else 503)

    @app.get("/ready")
    async def ready() -> Response:
        """Whether a request would be answered now."""
        full = parts.scheduler.load >= parts.settings.queue + parts.settings.batch
        fine = app.state.ready and not full
        return JSONResponse(
            {"status": "ready" if fine else "busy" if app.state.ready else "starting"}, 200 if fine else 503
        )

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        parts.metrics.streams.set(len(parts.streams))
        parts.metrics.answers.set(len(parts.scheduler.batch.rows))
        parts.metrics.decoding.set(parts.decoders.busy)
        for fate in ("killed", "left", "died"):
            parts.metrics.children.labels(fate).set(parts.decoders.counts[fate])
        return Response(parts.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model."""
        one = {"id": _name(parts.engine), "object": "model", "created": 0, "owned_by": "pvc"}
        return {"object": "list", "data": [one]}


def _name(engine: Engine) -> str:
    return engine.name.partition(" ")[0]


def _chat(app: FastAPI, parts: Parts) -> None:
    name = _name(parts.engine)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answer the last message of a conversation."""
        check_ceilings(body, parts.settings, name)
        if not parts.scheduler.reserve():
            raise ApiError(429, "busy", "Too many requests are waiting.", headers={"Retry-After": "2"})
        released = False

        def release(reply: Reply | None) -> None:
            nonlocal released
            if not released:
                released = True
                parts.scheduler.release()
            if reply is not None:
                reply.job.cancelled = True  # of no effect on one that has ended
                reply.hold.free()

        reply: Reply | None = None
        try:
            reply = await _unless_gone(request, begin(body, request.state.tenant, parts, name))
            if not body.stream:
                await _unless_gone(request, _drain(reply, parts.metrics))
                return JSONResponse(completion(reply, parts.engine.processor.tokenizer))
            pieces = follow(reply, parts.metrics)
            first = await _unless_gone(request, anext(pieces))  # an error of the prompt still has a status of its own
        except BaseException:
            release(reply)
            raise
        finally:
            if not body.stream:
                release(reply)
        events = _events(reply, first, pieces, body, parts, release)
        # Begun here: a client that leaves now may never have it read, and what was not begun is not ended either.
        return EventSourceResponse(_Begun(await anext(events), events), ping=15, send_timeout=30)


class _Begun:
    """An asynchronous generator of which the first piece has been taken, from its beginning."""

    def __init__(self, first: dict[str, str], rest: AsyncGenerator[dict[str, str], None]) -> None:
        self.first: dict[str, str] | None = first
        self.rest = rest

    def __aiter__(self) -> _Begun:
        return self

    async def __anext__(self) -> dict[str, str]:
        first, self.first = self.first, None
        return first if first is not None else await anext(self.rest)

    async def aclose(self) -> None:
        """End it; the event loop does the same for one that nobody reads any more."""
        await self.rest.aclose()


async def _drain(reply: Reply, metrics: Metrics) -> None:
    async for _ in follow(reply, metrics):
        pass


async def _unless_gone(request: Request, work: Any) -> Any:
    """The result of `work`, which is cancelled when the client goes."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=POLL_SECONDS)
            if not task.done() and await request.is_disconnected():
                raise ApiError(499, "client_gone", "The client has gone.")
        return task.result()
    finally:
        if not task.done():
            task.cancel()


async def _events(
    reply: Reply, first: Said, pieces: AsyncGenerator[Said, None], body: ChatRequest, parts: Parts, release: Any
) -> AsyncGenerator[dict[str, str], None]:
    tokenizer, wanted = parts.engine.processor.tokenizer, reply.job.drawing.logprobs

    def event(data: dict[str, Any]) -> dict[str, str]:
        return {"data": json.dumps(data)}

    def delta(index: int, what: dict[str, Any], finish: str | None = None, likely: Any = None) -> dict[str, str]:
        choice = {"index": index, "delta": what, "logprobs": likely, "finish_reason": finish}
        return event(chunk(reply, [choice]))

    def said(one: Said) -> list[dict[str, str]]:
        told = []
        likely = logprobs([one.token], tokenizer, wanted)
        if one.token.text or likely:
            told.append(delta(one.index, {"content": one.token.text}, None, likely))
        if one.finish:
            told.append(delta(one.index, {}, one.finish))
        return told

    try:
        for number in range(body.n):
            yield delta(number, {"role": "assistant", "content": ""})
        for told in said(first):
            yield told
        async for one in pieces:
            for told in said(one):
                yield told
        options = body.stream_options
        usage = {"usage": reply.usage} if options is not None and options.include_usage else {}
        yield event(chunk(reply, [], **usage, pvc=reply.used))
        yield {"data": "[DONE]"}
    except ApiError as error:
        yield event(error.body(reply.id))
    finally:
        release(reply)


def _streams(app: FastAPI, parts: Parts) -> None:
    streams = parts.streams

    @app.post("/v1/streams", status_code=201)
    async def opened(request: Request) -> dict[str, Any]:
        """Open a live video."""
        name, live = streams.open(request.state.tenant)
        return streams.describe(name, live)

    @app.get("/v1/streams/{name}")
    async def described(name: str, request: Request) -> dict[str, Any]:
        """How much it has seen, and what it keeps."""
        return streams.describe(name, streams.of(name, request.state.tenant))

    @app.post("/v1/streams/{name}/frames")
    async def pushed(name: str, timestamp: float, request: Request) -> dict[str, Any]:
        """Show it a frame, a picture as the body, at `timestamp` seconds."""
        live = streams.of(name, request.state.tenant)
        if not (math.isfinite(timestamp) and 0 <= timestamp < 1e7):
            raise ApiError(400, "invalid_request", "timestamp must be 0 to 9999999 seconds.", "timestamp")
        data = await request.body()
        streams.take(live, timestamp)
        live.busy += 1
        try:
            if not parts.scheduler.reserve():
                raise ApiError(429, "busy", "Too many requests are waiting.", headers={"Retry-After": "2"})
            try:
                picture = await parts.decoders.decode(data, "image")
                assert isinstance(picture, Picture)
                await asyncio.wrap_future(parts.scheduler.run(lambda: live.stream.push(picture.image, timestamp)))
            finally:
                parts.scheduler.release()
        finally:
            live.busy -= 1
            live.used = time.monotonic()
        return streams.describe(name, live)

    @app.delete("/v1/streams/{name}")
    async def closed(name: str, request: Request) -> dict[str, Any]:
        """Forget it."""
        streams.close(name, request.state.tenant)
        return {"id": name, "object": "stream.deleted", "deleted": True}


__all__ = ["create_app"]
