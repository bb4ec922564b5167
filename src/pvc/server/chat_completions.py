"""From a checked request to a job, and from what the scheduler says to OpenAI's objects. Leaves out transport."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from tokenizers.decoders import ByteLevel
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pvc.engine.batch import Token
from pvc.engine.encode import EncodedMedia, PreparedPicture
from pvc.engine.engine import Engine, MediaOptions
from pvc.engine.sampling import SamplingParams
from pvc.errors import MediaError
from pvc.media import Picture, Video
from pvc.server.errors import ApiError, api_error
from pvc.server.live_sessions import LiveSessions
from pvc.server.media_fetch import read_source
from pvc.server.media_options import Preparation
from pvc.server.metrics import Metrics
from pvc.server.sandbox.pool import WorkerPool
from pvc.server.scheduler import ErrorEvent, Job, MediaInput, Scheduler, StartedEvent, TokenEvent
from pvc.server.schemas import ChatRequest
from pvc.server.settings import Settings
from pvc.server.visual_cache import VisualCache


class LoopBridge:
    """From the scheduler's thread to the event loop, which is woken once for all that has come since it looked."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._woken = False

    def put(self, loop: asyncio.AbstractEventLoop, call: Callable[[Any], None], event: Any) -> None:
        """Have `call(event)` called in the loop."""
        self._waiting.append((call, event))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._woken = False  # before looking: what comes from now on wakes the loop again
        while self._waiting:
            call, event = self._waiting.popleft()
            call(event)


BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}


@dataclass
class AppState:
    """What a server is made of."""

    engine: Engine
    settings: Settings
    metrics: Metrics
    scheduler: Scheduler
    decoders: WorkerPool
    cache: VisualCache
    streams: LiveSessions
    holding: asyncio.Semaphore
    post: LoopBridge = field(default_factory=LoopBridge)
    stopping: bool = False


@dataclass
class ChatReply:
    """An answer that is coming: what is known so far, and where the rest will be put."""

    id: str
    model: str
    created: int
    job: Job
    events: asyncio.Queue[StartedEvent | TokenEvent | ErrorEvent]
    hits: list[bool]
    hold: DecodePermit
    started: StartedEvent | None = None
    texts: list[str] = field(default_factory=list)
    tokens: list[list[Token]] = field(default_factory=list)
    finishes: list[str | None] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def usage(self) -> dict[str, Any]:
        """Tokens of the prompt, with its media, and of all answers."""
        return self._usage(sum(len(tokens) for tokens in self.tokens))

    def usage_of(self, index: int) -> dict[str, Any]:
        """Tokens of the prompt and of one answer, so far."""
        return self._usage(len(self.tokens[index]))

    def _usage(self, completion: int) -> dict[str, Any]:
        prompt = self.started.prompt_tokens if self.started else 0
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    @property
    def used(self) -> dict[str, Any]:
        """The `pvc` object: what was shown, and time by phase."""
        media = []
        for item, hit in zip(self.started.media if self.started else [], self.hits, strict=False):
            told = item.describe()
            del told["path"]
            media.append({**told, "cached": hit})
        timing = {key: round(value, 4) for key, value in self.job.timing.items()}
        timing["total_s"] = round(time.monotonic() - self.began, 4)
        return {"media": media, "visual_tokens": sum(one["tokens"] for one in media), "timing": timing}


def check_ceilings(request: ChatRequest, settings: Settings, model: str) -> None:
    """Raise ApiError for a request that asks for more than this server gives, before anything is read."""
    parts = [part for message in request.messages for part in message.parts]
    texts = sum(len(part.text) for part in parts if part.type == "text")
    asked, fields = request.preparation, request.media_fields
    steps = asked.image_steps if isinstance(asked.image_steps, int) else None
    bounds = [
        ("messages", len(parts), settings.max_parts, "parts"),
        ("messages", sum(part.type != "text" for part in parts), settings.max_media, "pictures and videos"),
        ("messages", texts, settings.max_text, "characters"),
        ("n", request.n, settings.max_answers, "answers"),
        (_place(fields.frames, asked.frames), asked.frames or 0, settings.max_frames, "frames"),
        (_place(fields.max_tiles, asked.max_tiles), asked.max_tiles or 0, settings.max_tiles, "tiles"),
        (_place(fields.image_steps, steps), steps or 0, settings.max_steps, "steps"),
    ]
    for param, count, most, what in bounds:
        if count > most:
            text = f"{param}: {count} {what} were asked for; this server allows {most}."
            raise ApiError(400, "too_many", text, param)
    if request.model not in (None, "", model, "pvc"):
        raise ApiError(404, "model_not_found", f"This server has the model {model!r} and no other.", "model")


def _place(values: dict[str, Any], value: Any) -> str:
    """Return the name of the field that a value came from."""
    return next((place for place, sent in values.items() if sent == value), next(iter(values)))


async def begin(request: ChatRequest, tenant: str, parts: AppState, model: str) -> ChatReply:
    """Read and decode what a request shows, and put it into the queue. Raises ApiError."""
    settings, began = parts.settings, time.monotonic()
    default = parts.engine.model.generation_config.max_new_tokens or 512
    params = SamplingParams(
        max_new_tokens=request.answer_tokens(default, settings.max_new_tokens),
        temperature=0.0 if request.greedy else request.temperature,
        top_p=request.top_p or 1.0,
        seed=request.seed,
        stop=request.stops,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        ignore_eos=request.ignore_eos,
    )
    hold = DecodePermit(parts, request)
    try:
        messages, shown, hits = await _messages(request, tenant, parts, hold)
    except BaseException:
        hold.free()
        raise
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[StartedEvent | TokenEvent | ErrorEvent] = asyncio.Queue()

    def arrived(event: StartedEvent | TokenEvent | ErrorEvent) -> None:
        hold.free()  # whatever it is, decoded media are tokens by now
        events.put_nowait(event)

    def emit(event: StartedEvent | TokenEvent | ErrorEvent) -> None:
        parts.post.put(loop, arrived, event)

    job = Job(messages, shown, params, request.n, emit)
    reply = ChatReply(f"chatcmpl-{secrets.token_hex(12)}", model, int(time.time()), job, events, hits, hold)
    reply.began = began
    reply.texts, reply.tokens = [""] * request.n, [[] for _ in range(request.n)]
    reply.finishes = [None] * request.n
    parts.scheduler.submit(job)
    return reply


class DecodePermit:
    """A request's right to hold decoded media, and how many pixels of them it has."""

    def __init__(self, parts: AppState, request: ChatRequest) -> None:
        shows = any(part.type in ("image_url", "video_url") for message in request.messages for part in message.parts)
        self.gate = parts.holding if shows else None
        self.most, self.pixels, self.held = parts.settings.max_pixels, 0, False

    async def wait(self) -> None:
        """Wait for the right."""
        if self.gate is not None:
            await self.gate.acquire()
            self.held = True

    def count(self, opened: Picture | Video) -> None:
        """Raise ApiError when there are more pixels than one request may hold."""
        self.pixels += (
            opened.image.width * opened.image.height if isinstance(opened, Picture) else opened.frames.size // 3
        )
        if self.pixels > self.most:
            raise ApiError(413, "too_many_pixels", "The pictures and videos have too many pixels together.")

    def free(self) -> None:
        """Give it back; may be called again."""
        if self.held and self.gate is not None:
            self.held = False
            self.gate.release()


async def _messages(
    request: ChatRequest, tenant: str, parts: AppState, hold: DecodePermit
) -> tuple[list[dict[str, Any]], list[MediaInput], list[bool]]:
    messages: list[dict[str, Any]] = []
    reading = []
    for turn, message in enumerate(request.messages):
        content: list[dict[str, Any]] = []
        for number, part in enumerate(message.parts):
            if part.type == "text":
                content.append({"type": "text", "text": part.text})
                continue
            kind = "image" if part.type == "image_url" else "video"
            content.append({"type": kind, kind: kind})
            reading.append((part, kind, f"messages.{turn}.content.{number}"))
        role = "system" if message.role == "developer" else message.role
        messages.append({"role": role, "content": content})
    await hold.wait()
    tasks = [
        asyncio.ensure_future(_shown(part, kind, request, tenant, parts, hold, place)) for part, kind, place in reading
    ]
    try:
        found = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:  # what is left of them is of no use to anybody
            task.cancel()
        raise
    return messages, [shown for shown, _ in found], [hit for _, hit in found]


async def _shown(
    part: Any, kind: str, request: ChatRequest, tenant: str, parts: AppState, hold: DecodePermit, place: str
) -> tuple[MediaInput, bool]:
    """One medium: of a live stream, from the cache, or read and decoded. Raises ApiError that names its `place`."""
    settings = parts.settings
    if part.type == "stream":
        live = parts.streams.of(part.stream_id, tenant)
        encoded = await asyncio.wrap_future(parts.scheduler.run(lambda: parts.streams.shown(live)))
        return MediaInput(None, MediaOptions(), encoded), True  # encoded when its frames came
    address = part.image_url if kind == "image" else part.video_url
    options = _options(request.preparation, kind, address.detail, settings)
    try:
        started = time.perf_counter()
        data = await read_source(address.url, settings)
        parts.metrics.phase("read", time.perf_counter() - started)
        salted = f"{tenant}\0{request.cache_salt or ''}\0{request.extra_key or ''}"
        key = await asyncio.to_thread(VisualCache.key, salted, data, kind, options)
        encoded_before = parts.cache.get(key)
        parts.metrics.cache.labels("miss" if encoded_before is None else "hit").inc()
        if encoded_before is not None:
            return MediaInput(None, options, encoded_before), True
        started = time.perf_counter()
        opened = await parts.decoders.decode(data, kind, **_decoding(kind, options, parts.engine))
        parts.metrics.phase("decode", time.perf_counter() - started)
        hold.count(opened)
        ready: PreparedPicture | Video
        if isinstance(opened, Picture):
            ready = await asyncio.to_thread(parts.engine.prepare, opened, options)
        else:
            within = parts.engine.open(opened, options)
            assert isinstance(within, Video)
            ready = within
    except (ApiError, MediaError) as error:
        told = api_error(error)
        told.param = told.param or place
        parts.metrics.refused.labels(told.code).inc()
        raise told from None

    def keep(encoded: EncodedMedia) -> None:
        parts.cache.put(key, encoded)

    return MediaInput(ready, options, None, keep), False


def _options(asked: Preparation, kind: str, detail: str | None, settings: Settings) -> MediaOptions:
    """Return the engine's options of one medium; OpenAI's `detail: low` is one tile."""
    if kind == "image":
        return MediaOptions(
            image_steps=asked.image_steps, max_tiles=asked.max_tiles or (1 if detail == "low" else None)
        )
    most = min(asked.most_frames or settings.max_frames, settings.max_frames)
    return MediaOptions(frames=asked.frames, fps=asked.fps, max_frames=most)


def _decoding(kind: str, options: MediaOptions, engine: Engine) -> dict[str, Any]:
    if kind == "image":
        return {}
    side = int(dict(engine.processor.video_processor.size)["height"])
    usual = engine.processor.video_processor.num_frames
    sampling = {"fps": options.fps} if options.fps is not None else {"frames": options.frames or usual}
    return {"sampling": sampling, "size": (side, side)}


async def follow(reply: ChatReply, metrics: Metrics) -> AsyncGenerator[TokenEvent, None]:
    """What is said, until all answers have ended; fills the reply in. Raises ApiError."""
    first = True
    while any(finish is None for finish in reply.finishes):
        event = await reply.events.get()
        if isinstance(event, ErrorEvent):
            raise api_error(event.error)
        if isinstance(event, StartedEvent):
            reply.started = event
            continue
        if first:
            metrics.first.observe(time.monotonic() - reply.began)
            first = False
        reply.texts[event.index] += event.token.text
        reply.tokens[event.index].append(event.token)
        reply.finishes[event.index] = event.finish
        yield event


def completion(reply: ChatReply, tokenizer: Any) -> dict[str, Any]:
    """The object of a whole answer."""
    choices = []
    for number, text in enumerate(reply.texts):
        choice: dict[str, Any] = {"index": number, "message": {"role": "assistant", "content": text, "refusal": None}}
        choice["logprobs"] = logprobs(reply.tokens[number], tokenizer, reply.job.params.logprobs)
        choice["finish_reason"] = reply.finishes[number]
        choices.append(choice)
    base = {"id": reply.id, "object": "chat.completion", "created": reply.created, "model": reply.model}
    return {**base, "choices": choices, "usage": reply.usage, "pvc": reply.used}


def chunk(reply: ChatReply, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The object of a piece of an answer."""
    base = {"id": reply.id, "object": "chat.completion.chunk", "created": reply.created, "model": reply.model}
    return {**base, "choices": choices, **more}


def logprobs(tokens: list[Token], tokenizer: Any, wanted: int | None) -> dict[str, Any] | None:
    """How likely tokens were, as OpenAI has it: without the end, with the bytes of tokens that are half a letter."""
    if wanted is None:
        return None

    def told(token: int, value: float) -> dict[str, Any]:
        raw = token_bytes(tokenizer, token)
        return {"token": raw.decode(errors="replace"), "logprob": max(value, -9999.0), "bytes": list(raw)}

    content = []
    for token in tokens:
        if token.end:
            continue
        best = [told(other, value) for other, value in token.top]
        content.append({**told(token.id, token.logprob or 0.0), "top_logprobs": best})
    return {"content": content, "refusal": None}


def token_bytes(tokenizer: Any, token: int) -> bytes:
    """What a token stands for. Byte-level tokenizers write each byte as a letter of their own."""
    name = tokenizer.convert_ids_to_tokens(token)
    byte_level = isinstance(tokenizer.backend_tokenizer.decoder, ByteLevel)
    if name is None or not byte_level or token in tokenizer.added_tokens_decoder:
        return str(tokenizer.decode([token])).encode()
    return bytes(BYTES[letter] for letter in name if letter in BYTES)


__all__ = ["AppState", "ChatReply", "begin", "check_ceilings", "chunk", "completion", "follow", "logprobs"]
