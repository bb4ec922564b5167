"""The application and its routes. `create_app` builds it; called by `pvc serve` and by users of the library.

POST /v1/chat/completions, GET /v1/models            as in OpenAI's API
POST /v1/streams, .../{id}/frames, DELETE .../{id}    live videos
GET /health, /ready, /metrics                         for the operator
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
from pvc.server.app_state import AppState
from pvc.server.chat_completions import ChatReply, begin_reply, build_completion, check_limits, read_tokens
from pvc.server.errors import ApiError, build_busy_error, build_shutdown_error
from pvc.server.guard import RequestGuard
from pvc.server.handlers import add_handlers
from pvc.server.live_sessions import LiveSessions, StreamSession
from pvc.server.metrics import Metrics
from pvc.server.route import BoundedRoute
from pvc.server.sandbox.pool import WorkerPool
from pvc.server.scheduler import Scheduler
from pvc.server.schemas import ChatRequest, StreamRequest
from pvc.server.settings import Settings
from pvc.server.sse import PrefetchedStream, generate_events
from pvc.server.visual_cache import VisualCache

UNLIMITED_SECONDS = 1e6
POLL_SECONDS = 0.25  # interval of the check whether the client of a request is still connected


def create_app(engine: Engine, settings: Settings | None = None) -> FastAPI:
    """Create an application that serves one model.

    Args:
        engine: the engine with the model.
        settings: limits of the server.

    Returns:
        The application. `app.state.parts` is its `AppState`, `app.state.name` the name of the model.
    """
    settings = settings or Settings()
    metrics = Metrics()
    state = AppState(
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
        await asyncio.to_thread(state.workers.start)
        state.scheduler.start()
        app.state.ready = True
        try:
            yield
        finally:
            app.state.ready = False
            await asyncio.to_thread(state.scheduler.close)
            state.workers.close()

    app = FastAPI(title="PVC", version=pvc.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.router.route_class = BoundedRoute
    app.state.parts, app.state.name, app.state.ready = state, _get_model_name(state), False
    app.add_middleware(RequestGuard, settings=settings, metrics=metrics)
    add_handlers(app)
    _add_operator_routes(app, state)
    _add_model_routes(app, state)
    _add_chat_route(app, state)
    _add_stream_routes(app, state)
    return app


def _add_operator_routes(app: FastAPI, state: AppState) -> None:
    @app.get("/health")
    async def get_health() -> Response:
        """Report whether the scheduler's thread runs."""
        is_alive = state.scheduler.is_alive
        return JSONResponse({"status": "ok" if is_alive else "dead"}, 200 if is_alive else 503)

    @app.get("/ready")
    async def get_readiness() -> Response:
        """Report whether a request would be accepted now."""
        is_full = state.scheduler.load >= state.settings.queue + state.settings.batch
        is_dead = not (state.scheduler.is_alive and state.workers.is_alive)
        status = "starting" if not app.state.ready else "dead" if is_dead else "busy" if is_full else "ready"
        return JSONResponse({"status": status}, 200 if status == "ready" else 503)

    @app.get("/metrics")
    async def get_metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        metrics = state.metrics
        metrics.open_streams.set(len(state.live_sessions))
        metrics.open_answers.set(len(state.scheduler.batch.rows))
        metrics.cache_bytes.set(state.visual_cache.nbytes)
        metrics.decoding_media.set(state.workers.num_decoding)
        for fate in ("killed", "left", "died"):
            metrics.workers.labels(fate).set(state.workers.counts[fate])
        return Response(metrics.render(), media_type="text/plain; version=0.0.4")


def _add_model_routes(app: FastAPI, state: AppState) -> None:
    card = {"id": _get_model_name(state), "object": "model", "created": int(time.time()), "owned_by": "pvc"}

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """List the one model of the server."""
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{model:path}")
    async def get_model(model: str) -> dict[str, Any]:
        """Return the model of this name."""
        if model != card["id"]:
            raise ApiError(404, "model_not_found", f"This server has the model {card['id']!r} and no other.", "model")
        return card


def _get_model_name(state: AppState) -> str:
    """Return the model's name for clients: the name in the settings, else the name of its directory.

    `pvc train` writes every model to a directory `model`; then the name of its parent is used.
    """
    directory = state.engine.directory
    if state.settings.name or directory is None:
        return state.settings.name or "pvc-nano"
    path = directory.resolve()
    return (path.parent if path.name == "model" else path).name or "pvc"


def _add_chat_route(app: FastAPI, state: AppState) -> None:
    model_name = _get_model_name(state)

    @app.post("/v1/chat/completions")
    async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
        """Answer the last message of a conversation."""
        check_limits(body, state.settings, model_name)
        tenant, tokenizer = request.state.tenant, state.engine.processor.tokenizer
        if not state.scheduler.reserve(tenant):
            raise build_busy_error()
        is_released = False

        def release(reply: ChatReply | None) -> None:
            nonlocal is_released
            if not is_released:
                is_released = True
                state.scheduler.release(tenant)
            if reply is not None:
                reply.job.is_cancelled = True  # has no effect on a job that has ended
                reply.permit.release()

        reply: ChatReply | None = None
        try:
            reply = await _run_while_connected(request, state, begin_reply(body, tenant, state, model_name))
            if not body.stream:
                await _run_while_connected(request, state, _read_all_tokens(reply, state.metrics))
                return JSONResponse(build_completion(reply, tokenizer))
            tokens = read_tokens(reply, state.metrics)
            # Before the response begins: an error of the prompt gets a matching HTTP status.
            first = await _run_while_connected(request, state, anext(tokens))
        except BaseException:
            release(reply)
            raise
        finally:
            if not body.stream:
                release(reply)
        events = generate_events(reply, first, tokens, body, tokenizer, release)
        # Take the first event here: if the client leaves now, the response is never read, and a generator that was not
        # started does not run its `finally`. `Server` decides how long answers may finish after a signal, so
        # sse-starlette must not cut them off.
        return EventSourceResponse(
            PrefetchedStream(await anext(events), events),
            ping=15,
            send_timeout=30,
            shutdown_event=anyio.Event(),
            shutdown_grace_period=UNLIMITED_SECONDS,
        )


async def _read_all_tokens(reply: ChatReply, metrics: Metrics) -> None:
    async for _ in read_tokens(reply, metrics):
        pass


async def _run_while_connected(request: Request, state: AppState, work: Any) -> Any:
    """Return the result of an awaitable, which is cancelled when the client disconnects or the server stops."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=POLL_SECONDS)
            # The task may finish during `is_disconnected()`; then use its result.
            if not task.done() and await request.is_disconnected() and not task.done():
                raise ApiError(499, "client_gone", "The client has gone.")
            if not task.done() and state.is_stopping:
                raise build_shutdown_error()
        return task.result()
    finally:
        if not task.done():
            task.cancel()


async def _push_frame(state: AppState, live: StreamSession, data: bytes, timestamp: float) -> None:
    """Decode a frame and push it to a live video, in a place of the scheduler's queue."""
    if not state.scheduler.reserve(live.tenant):
        raise build_busy_error()
    processor = state.engine.processor.video_processor
    side = int(dict(processor.size)["height"])
    try:
        picture = await state.workers.decode(data, "image", size=(side, side), resample=int(processor.resample))
        assert isinstance(picture, Picture)
        await asyncio.wrap_future(state.scheduler.run(lambda: live.session.push(picture.image, timestamp)))
    finally:
        state.scheduler.release(live.tenant)


def _add_stream_routes(app: FastAPI, state: AppState) -> None:
    sessions = state.live_sessions

    @app.post("/v1/streams", status_code=201)
    async def open_stream(request: Request, body: StreamRequest | None = None) -> dict[str, Any]:
        """Open a live video and return its id."""
        name, live = sessions.open(request.state.tenant, body.window if body else None)
        return sessions.describe(name, live)

    @app.get("/v1/streams")
    async def list_streams(request: Request) -> dict[str, Any]:
        """List the live videos of the tenant."""
        streams = sessions.list_sessions(request.state.tenant)
        return {"object": "list", "data": [sessions.describe(*stream) for stream in streams]}

    @app.get("/v1/streams/{name}")
    async def get_stream(name: str, request: Request) -> dict[str, Any]:
        """Return how many frames a live video was given, how many it retains, and its size in bytes."""
        return sessions.describe(name, sessions.get(name, request.state.tenant))

    @app.post("/v1/streams/{name}/frames")
    async def push_frame(name: str, timestamp: float, request: Request) -> dict[str, Any]:
        """Add a frame to a live video: a picture as the body, with its time `timestamp` in seconds."""
        live = sessions.get(name, request.state.tenant)
        if not (math.isfinite(timestamp) and 0 <= timestamp <= MAX_TIME_S):
            text = f"timestamp: seconds since the video began, 0 to {MAX_TIME_S:.0f}"
            raise ApiError(400, "invalid_request", text, "timestamp")
        data = await request.body()
        live.num_pushing += 1
        try:
            async with live.push_lock:  # frames are pushed in the order of their arrival
                sessions.check_timestamp(live, timestamp)
                await _push_frame(state, live, data, timestamp)
                live.last_timestamp = timestamp
        finally:
            live.num_pushing -= 1
            live.last_used = time.monotonic()
        return sessions.describe(name, live)

    @app.delete("/v1/streams/{name}")
    async def close_stream(name: str, request: Request) -> dict[str, Any]:
        """Close a live video and discard its state."""
        sessions.close(name, request.state.tenant)
        return {"id": name, "object": "stream.deleted", "deleted": True}


__all__ = ["create_app"]
