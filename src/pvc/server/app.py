"""The application: routes, and what is around them. `create_app` makes one; nothing is global.

POST /v1/chat/completions, GET /v1/models            as OpenAI has them
POST /v1/streams, .../{id}/frames, DELETE .../{id}    live videos
GET /health, /ready, /metrics                         for whoever runs it
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse

import pvc
from pvc.engine.engine import Engine
from pvc.engine.live import MAX_TIME_S
from pvc.media import Picture
from pvc.server.chat_completions import AppState, ChatReply, begin, check_ceilings, completion, follow
from pvc.server.errors import ApiError, busy, stopping
from pvc.server.guard import RequestGuard
from pvc.server.handlers import add_handlers
from pvc.server.live_sessions import LiveSessions, StreamSession
from pvc.server.metrics import Metrics
from pvc.server.route import BoundedRoute
from pvc.server.sandbox.pool import WorkerPool
from pvc.server.scheduler import Scheduler
from pvc.server.schemas import ChatRequest, StreamRequest
from pvc.server.settings import Settings
from pvc.server.sse import PrefetchedStream, events
from pvc.server.visual_cache import VisualCache

FOR_EVER = 1e6  # seconds
POLL_SECONDS = 0.25  # how often a client is looked after that waits without a stream


def create_app(engine: Engine, settings: Settings | None = None) -> FastAPI:
    """An application that serves one model. What it runs on is in `app.state.parts`."""
    settings = settings or Settings()
    metrics = Metrics()
    parts = AppState(
        engine,
        settings,
        metrics,
        Scheduler(engine, settings, metrics),
        WorkerPool(settings),
        VisualCache(settings.cache_bytes),
        LiveSessions(engine, settings),
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
    app.router.route_class = BoundedRoute
    app.state.parts, app.state.name, app.state.ready = parts, _name(parts), False
    app.add_middleware(RequestGuard, settings=settings, metrics=metrics)
    add_handlers(app)
    _operations(app, parts)
    _chat(app, parts)
    _streams(app, parts)
    return app


def _operations(app: FastAPI, parts: AppState) -> None:
    @app.get("/health")
    async def health() -> Response:
        """Whether the process and its worker live."""
        alive = parts.scheduler.alive
        return JSONResponse({"status": "ok" if alive else "dead"}, 200 if alive else 503)

    @app.get("/ready")
    async def ready() -> Response:
        """Whether a request would be answered now."""
        full = parts.scheduler.load >= parts.settings.queue + parts.settings.batch
        dead = not (parts.scheduler.alive and parts.decoders.alive)
        told = "starting" if not app.state.ready else "dead" if dead else "busy" if full else "ready"
        return JSONResponse({"status": told}, 200 if told == "ready" else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        parts.metrics.streams.set(len(parts.streams))
        parts.metrics.answers.set(len(parts.scheduler.batch.rows))
        parts.metrics.kept.set(parts.cache.nbytes)
        parts.metrics.decoding.set(parts.decoders.busy)
        for fate in ("killed", "left", "died"):
            parts.metrics.children.labels(fate).set(parts.decoders.counts[fate])
        return Response(parts.metrics.text(), media_type="text/plain; version=0.0.4")

    one = {"id": _name(parts), "object": "model", "created": int(time.time()), "owned_by": "pvc"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model."""
        return {"object": "list", "data": [one]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        """The same, by its name."""
        if model != one["id"]:
            raise ApiError(404, "model_not_found", f"This server has the model {one['id']!r} and no other.", "model")
        return one


def _name(parts: AppState) -> str:
    """What clients call the model: what the settings say, else its directory; `model` is what trainings call theirs."""
    directory = parts.engine.directory
    if parts.settings.name or directory is None:
        return parts.settings.name or "pvc-nano"
    whole = directory.resolve()
    return (whole.parent if whole.name == "model" else whole).name or "pvc"


def _chat(app: FastAPI, parts: AppState) -> None:
    name = _name(parts)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answer the last message of a conversation."""
        check_ceilings(body, parts.settings, name)
        tenant = request.state.tenant
        if not parts.scheduler.reserve(tenant):
            raise busy()
        released = False

        def release(reply: ChatReply | None) -> None:
            nonlocal released
            if not released:
                released = True
                parts.scheduler.release(tenant)
            if reply is not None:
                reply.job.cancelled = True  # of no effect on one that has ended
                reply.hold.free()

        reply: ChatReply | None = None
        try:
            reply = await _unless_gone(request, parts, begin(body, request.state.tenant, parts, name))
            if not body.stream:
                await _unless_gone(request, parts, _drain(reply, parts.metrics))
                return JSONResponse(completion(reply, parts.engine.processor.tokenizer))
            pieces = follow(reply, parts.metrics)
            first = await _unless_gone(
                request, parts, anext(pieces)
            )  # an error of the prompt still has a status of its own
        except BaseException:
            release(reply)
            raise
        finally:
            if not body.stream:
                release(reply)
        told = events(reply, first, pieces, body, parts.engine.processor.tokenizer, release)
        # Begun here: a client that leaves now may never have it read, and what was not begun is not ended either.
        # At a signal sse-starlette would cut it short; what is to be finished and for how long is `Server`'s to say.
        return EventSourceResponse(
            PrefetchedStream(await anext(told), told),
            ping=15,
            send_timeout=30,
            shutdown_event=anyio.Event(),
            shutdown_grace_period=FOR_EVER,
        )


async def _drain(reply: ChatReply, metrics: Metrics) -> None:
    async for _ in follow(reply, metrics):
        pass


async def _unless_gone(request: Request, parts: AppState, work: Any) -> Any:
    """The result of `work`, which is cancelled when the client goes, or the server."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=POLL_SECONDS)
            # What was done while this was asked is a result all the same, and whoever gets it looks for the client too.
            if not task.done() and await request.is_disconnected() and not task.done():
                raise ApiError(499, "client_gone", "The client has gone.")
            if not task.done() and parts.stopping:
                raise stopping()
        return task.result()
    finally:
        if not task.done():
            task.cancel()


async def _push(parts: AppState, live: StreamSession, data: bytes, timestamp: float) -> None:
    if not parts.scheduler.reserve(live.tenant):
        raise busy()
    processor = parts.engine.processor.video_processor
    side = int(dict(processor.size)["height"])
    try:
        picture = await parts.decoders.decode(data, "image", size=(side, side), resample=int(processor.resample))
        assert isinstance(picture, Picture)
        await asyncio.wrap_future(parts.scheduler.run(lambda: live.stream.push(picture.image, timestamp)))
    finally:
        parts.scheduler.release(live.tenant)


def _streams(app: FastAPI, parts: AppState) -> None:
    streams = parts.streams

    @app.post("/v1/streams", status_code=201)
    async def opened(request: Request, body: StreamRequest | None = None) -> dict[str, Any]:
        """Open a live video."""
        name, live = streams.open(request.state.tenant, body.window if body else None)
        return streams.describe(name, live)

    @app.get("/v1/streams")
    async def owned(request: Request) -> dict[str, Any]:
        """One's own."""
        return {"object": "list", "data": [streams.describe(*one) for one in streams.owned(request.state.tenant)]}

    @app.get("/v1/streams/{name}")
    async def described(name: str, request: Request) -> dict[str, Any]:
        """How much it has seen, and what it keeps."""
        return streams.describe(name, streams.of(name, request.state.tenant))

    @app.post("/v1/streams/{name}/frames")
    async def pushed(name: str, timestamp: float, request: Request) -> dict[str, Any]:
        """Show it a frame, a picture as the body, at `timestamp` seconds."""
        live = streams.of(name, request.state.tenant)
        if not (math.isfinite(timestamp) and 0 <= timestamp <= MAX_TIME_S):
            text = f"timestamp: seconds since the video began, 0 to {MAX_TIME_S:.0f}"
            raise ApiError(400, "invalid_request", text, "timestamp")
        data = await request.body()
        live.busy += 1
        try:
            async with live.lock:  # frames are shown in the order in which they came
                streams.check(live, timestamp)
                await _push(parts, live, data, timestamp)
                live.last = timestamp
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
