"""Chat completions: from a checked request to a job of the scheduler, and from its events to OpenAI's objects.

Reads and decodes the media in between. Called by the routes in `app.py`, and by `sse.py` for streamed answers.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from tokenizers.decoders import ByteLevel
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pvc.engine.batch import Token
from pvc.engine.encode import EncodedMedia, PreparedPicture
from pvc.engine.engine import Engine
from pvc.engine.options import MediaOptions, SamplingParams
from pvc.errors import MediaError
from pvc.media import Picture, Video
from pvc.server.app_state import AppState
from pvc.server.errors import ApiError, to_api_error
from pvc.server.media_fetch import fetch_media
from pvc.server.media_options import Preparation
from pvc.server.metrics import Metrics
from pvc.server.scheduler import ErrorEvent, Job, MediaInput, StartedEvent, TokenEvent
from pvc.server.schemas import ChatRequest
from pvc.server.settings import Settings
from pvc.server.visual_cache import VisualCache

DEFAULT_MAX_NEW_TOKENS = 512  # if neither the request nor the checkpoint says a number
MIN_LOGPROB = -9999.0  # OpenAI's stand-in for minus infinity, which JSON does not have
BYTE_OF_CHARACTER = {character: byte for byte, character in bytes_to_unicode().items()}


@dataclass
class ChatReply:
    """The answers to one request, filled in while they are generated.

    Attributes:
        id: id of the completion.
        model: name of the model.
        created: creation time, in seconds since 1970.
        job: the job in the scheduler.
        events: events of the job that have not been read.
        cache_hits: for every medium, whether its visual tokens were computed before.
        permit: the request's permit to hold decoded media.
        started: event with the prompt; None before it has been prefilled.
        texts: text of every answer so far.
        tokens: tokens of every answer so far.
        finish_reasons: reason of every answer's end, or None while it is generated.
        started_at: arrival of the request, in seconds of `time.monotonic`.
    """

    id: str
    model: str
    created: int
    job: Job
    events: asyncio.Queue[StartedEvent | TokenEvent | ErrorEvent]
    cache_hits: list[bool]
    permit: DecodePermit
    started: StartedEvent | None = None
    texts: list[str] = field(default_factory=list)
    tokens: list[list[Token]] = field(default_factory=list)
    finish_reasons: list[str | None] = field(default_factory=list)
    started_at: float = field(default_factory=time.monotonic)

    @property
    def usage(self) -> dict[str, Any]:
        """Numbers of tokens of the prompt, with its media, and of all answers."""
        return self._build_usage(sum(len(tokens) for tokens in self.tokens))

    def get_choice_usage(self, index: int) -> dict[str, Any]:
        """Return the numbers of tokens of the prompt and of one answer so far."""
        return self._build_usage(len(self.tokens[index]))

    def _build_usage(self, completion: int) -> dict[str, Any]:
        prompt = self.started.prompt_tokens if self.started else 0
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    @property
    def details(self) -> dict[str, Any]:
        """The `pvc` object of the response: the media in the prompt, and seconds by phase."""
        media = []
        for encoded, is_hit in zip(self.started.media if self.started else [], self.cache_hits, strict=False):
            description = encoded.describe()
            del description["path"]
            media.append({**description, "cached": is_hit})
        timing = {key: round(value, 4) for key, value in self.job.timing.items()}
        timing["total_s"] = round(time.monotonic() - self.started_at, 4)
        return {"media": media, "visual_tokens": sum(item["tokens"] for item in media), "timing": timing}


class DecodePermit:
    """A request's permit to hold decoded media, and the number of pixels that it holds.

    Args:
        state: the application's state.
        request: the request; without pictures and videos it needs no permit.
    """

    def __init__(self, state: AppState, request: ChatRequest) -> None:
        has_media = not request.part_types.isdisjoint(("image_url", "video_url"))
        self._slots = state.decode_slots if has_media else None
        self._max_pixels, self._pixels, self._is_held = state.settings.max_pixels, 0, False

    async def acquire(self) -> None:
        """Wait for a slot."""
        if self._slots is not None:
            await self._slots.acquire()
            self._is_held = True

    def add(self, opened: Picture | Video) -> None:
        """Count a medium's pixels. Raises ApiError 413 if the request holds too many."""
        if isinstance(opened, Picture):
            self._pixels += opened.image.width * opened.image.height
        else:
            self._pixels += opened.frames.size // 3
        if self._pixels > self._max_pixels:
            raise ApiError(413, "too_many_pixels", "The pictures and videos have too many pixels together.")

    def release(self) -> None:
        """Return the slot. Further calls have no effect."""
        if self._is_held and self._slots is not None:
            self._is_held = False
            self._slots.release()


def check_limits(request: ChatRequest, settings: Settings, model: str) -> None:
    """Check a request against the server's limits, before any of its media are read.

    Args:
        request: the request.
        settings: the limits.
        model: name of the model that is served.

    Raises:
        ApiError: 400 for more than a limit, 404 for another model.
    """
    parts = [part for message in request.messages for part in message.parts]
    num_characters = sum(len(part.text) for part in parts if part.type == "text")
    prep, fields = request.preparation, request.media_fields
    steps = prep.image_steps
    limits = [
        ("messages", len(parts), settings.max_parts, "parts"),
        ("messages", sum(part.type != "text" for part in parts), settings.max_media, "pictures and videos"),
        ("messages", num_characters, settings.max_text, "characters"),
        ("n", request.n, settings.max_answers, "answers"),
        (_get_field_path(fields.frames, prep.frames), prep.frames or 0, settings.max_frames, "frames"),
        (_get_field_path(fields.max_tiles, prep.max_tiles), prep.max_tiles or 0, settings.max_tiles, "tiles"),
        (_get_field_path(fields.image_steps, steps), steps or 0, settings.max_steps, "steps"),
    ]
    for param, count, limit, unit in limits:
        if count > limit:
            text = f"{param}: {count} {unit} were asked for; this server allows {limit}."
            raise ApiError(400, "too_many", text, param)
    if request.model not in (None, "", model, "pvc"):
        raise ApiError(404, "model_not_found", f"This server has the model {model!r} and no other.", "model")


def _get_field_path(values: dict[str, Any], value: Any) -> str:
    """Return the path of the field that a value came from."""
    return next((path for path, sent in values.items() if sent == value), next(iter(values)))


async def begin_reply(request: ChatRequest, tenant: str, state: AppState, model: str) -> ChatReply:
    """Read and decode the media of a request, then add it to the scheduler's queue.

    Args:
        request: a request that `check_limits` accepts.
        tenant: the tenant that sent it.
        state: the application's state.
        model: name of the model in the response.

    Returns:
        The reply, whose events `read_tokens` reads.

    Raises:
        ApiError: a medium is malformed, not allowed, too large or cannot be decoded.
    """
    settings, started_at = state.settings, time.monotonic()
    default = state.engine.model.generation_config.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
    params = SamplingParams(
        max_new_tokens=request.get_max_tokens(default, settings.max_new_tokens),
        temperature=0.0 if request.is_greedy else request.temperature,
        top_p=request.top_p or 1.0,
        seed=request.seed,
        stop=request.stop_texts,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        ignore_eos=request.ignore_eos,
    )
    permit = DecodePermit(state, request)
    try:
        messages, media, cache_hits = await _read_messages(request, tenant, state, permit)
    except BaseException:
        permit.release()
        raise
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[StartedEvent | TokenEvent | ErrorEvent] = asyncio.Queue()

    def receive(event: StartedEvent | TokenEvent | ErrorEvent) -> None:
        permit.release()  # by the first event the media have been encoded, or the job has failed
        events.put_nowait(event)

    def emit(event: StartedEvent | TokenEvent | ErrorEvent) -> None:
        state.loop_bridge.put(loop, receive, event)

    job = Job(messages, media, params, request.n, emit)
    reply = ChatReply(f"chatcmpl-{secrets.token_hex(12)}", model, int(time.time()), job, events, cache_hits, permit)
    reply.started_at = started_at
    reply.texts, reply.tokens = [""] * request.n, [[] for _ in range(request.n)]
    reply.finish_reasons = [None] * request.n
    state.scheduler.submit(job)
    return reply


async def _read_messages(
    request: ChatRequest, tenant: str, state: AppState, permit: DecodePermit
) -> tuple[list[dict[str, Any]], list[MediaInput], list[bool]]:
    """Return messages as a chat template takes them, their media, and whether each medium was in the visual cache."""
    messages: list[dict[str, Any]] = []
    media_parts = []
    for turn, message in enumerate(request.messages):
        content: list[dict[str, Any]] = []
        for number, part in enumerate(message.parts):
            if part.type == "text":
                content.append({"type": "text", "text": part.text})
                continue
            kind = "image" if part.type == "image_url" else "video"
            content.append({"type": kind, kind: kind})
            media_parts.append((part, kind, f"messages.{turn}.content.{number}"))
        role = "system" if message.role == "developer" else message.role
        messages.append({"role": role, "content": content})
    await permit.acquire()
    tasks = [
        asyncio.ensure_future(_read_medium(part, kind, request, tenant, state, permit, path))
        for part, kind, path in media_parts
    ]
    try:
        results = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:  # the request has failed, so the other media are not needed
            task.cancel()
        raise
    return messages, [medium for medium, _ in results], [is_hit for _, is_hit in results]


async def _read_medium(
    part: Any, kind: str, request: ChatRequest, tenant: str, state: AppState, permit: DecodePermit, path: str
) -> tuple[MediaInput, bool]:
    """Get one medium from a live video or the visual cache, or read and decode it. An ApiError names its `path`."""
    settings = state.settings
    if part.type == "stream":
        sessions = state.live_sessions
        live = sessions.get(part.stream_id, tenant)
        encoded = await asyncio.wrap_future(state.scheduler.run(lambda: sessions.get_encoded(live)))
        return MediaInput(None, MediaOptions(), encoded), True  # its frames were encoded when they arrived
    media_url = part.image_url if kind == "image" else part.video_url
    options = _build_media_options(request.preparation, kind, media_url.detail, settings)
    try:
        started_at = time.perf_counter()
        data = await fetch_media(media_url.url, settings)
        state.metrics.observe_phase("read", time.perf_counter() - started_at)
        salted_tenant = f"{tenant}\0{request.cache_salt or ''}\0{request.extra_key or ''}"
        key = await asyncio.to_thread(VisualCache.compute_key, salted_tenant, data, kind, options)
        cached = state.visual_cache.get(key)
        state.metrics.cache_lookups.labels("miss" if cached is None else "hit").inc()
        if cached is not None:
            return MediaInput(None, options, cached), True
        started_at = time.perf_counter()
        opened = await state.workers.decode(data, kind, **_build_decode_options(kind, options, state.engine))
        state.metrics.observe_phase("decode", time.perf_counter() - started_at)
        permit.add(opened)
        prepared: PreparedPicture | Video
        if isinstance(opened, Picture):
            prepared = await asyncio.to_thread(state.engine.prepare, opened, options)
        else:
            video = state.engine.open(opened, options)
            assert isinstance(video, Video)
            prepared = video
    except (ApiError, MediaError) as error:
        api_error = to_api_error(error)
        api_error.param = api_error.param or path
        state.metrics.rejected_media.labels(api_error.code).inc()
        raise api_error from None

    def store(encoded: EncodedMedia) -> None:
        state.visual_cache.put(key, encoded)

    return MediaInput(prepared, options, None, store), False


def _build_media_options(prep: Preparation, kind: str, detail: str | None, settings: Settings) -> MediaOptions:
    """Build the engine's options of one medium. OpenAI's `detail: low` stands for one tile."""
    if kind == "image":
        return MediaOptions(image_steps=prep.image_steps, max_tiles=prep.max_tiles or (1 if detail == "low" else None))
    max_frames = min(prep.max_frames or settings.max_frames, settings.max_frames)
    return MediaOptions(frames=prep.frames, fps=prep.fps, max_frames=max_frames)


def _build_decode_options(kind: str, options: MediaOptions, engine: Engine) -> dict[str, Any]:
    if kind == "image":
        return {}
    side = int(dict(engine.processor.video_processor.size)["height"])
    default_frames = engine.processor.video_processor.num_frames
    sampling = {"fps": options.fps} if options.fps is not None else {"frames": options.frames or default_frames}
    return {"sampling": sampling, "size": (side, side)}


async def read_tokens(reply: ChatReply, metrics: Metrics) -> AsyncGenerator[TokenEvent, None]:
    """Yield the tokens of all answers until they have ended, and fill in the reply.

    Args:
        reply: result of `begin_reply`.
        metrics: records the time of the first token.

    Raises:
        ApiError: the job has failed.
    """
    is_first = True
    while any(finish is None for finish in reply.finish_reasons):
        event = await reply.events.get()
        if isinstance(event, ErrorEvent):
            raise to_api_error(event.error)
        if isinstance(event, StartedEvent):
            reply.started = event
            continue
        if is_first:
            metrics.first_token_seconds.observe(time.monotonic() - reply.started_at)
            is_first = False
        reply.texts[event.index] += event.token.text
        reply.tokens[event.index].append(event.token)
        reply.finish_reasons[event.index] = event.finish
        yield event


def build_completion(reply: ChatReply, tokenizer: Any) -> dict[str, Any]:
    """Build OpenAI's object of complete answers.

    Args:
        reply: a reply whose answers have ended.
        tokenizer: the engine's tokenizer.
    """
    choices = []
    for index, text in enumerate(reply.texts):
        choice: dict[str, Any] = {"index": index, "message": {"role": "assistant", "content": text, "refusal": None}}
        choice["logprobs"] = build_logprobs(reply.tokens[index], tokenizer, reply.job.params.logprobs)
        choice["finish_reason"] = reply.finish_reasons[index]
        choices.append(choice)
    base = {"id": reply.id, "object": "chat.completion", "created": reply.created, "model": reply.model}
    return {**base, "choices": choices, "usage": reply.usage, "pvc": reply.details}


def build_chunk(reply: ChatReply, choices: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """Build OpenAI's object of one piece of a streamed answer.

    Args:
        reply: the reply.
        choices: what is added to the answers.
        **fields: further fields of the object.
    """
    base = {"id": reply.id, "object": "chat.completion.chunk", "created": reply.created, "model": reply.model}
    return {**base, "choices": choices, **fields}


def build_logprobs(tokens: list[Token], tokenizer: Any, num_alternatives: int | None) -> dict[str, Any] | None:
    """Build OpenAI's object of the tokens' log probabilities.

    The end-of-turn token is left out. A token that is a part of a character has its bytes.

    Args:
        tokens: tokens with their log probabilities and alternatives.
        tokenizer: the engine's tokenizer.
        num_alternatives: number of alternatives that were requested; None if no log probabilities were.

    Returns:
        The object, or None if no log probabilities were requested.
    """
    if num_alternatives is None:
        return None

    def describe(token: int, logprob: float) -> dict[str, Any]:
        data = get_token_bytes(tokenizer, token)
        return {"token": data.decode(errors="replace"), "logprob": max(logprob, MIN_LOGPROB), "bytes": list(data)}

    content = []
    for token in tokens:
        if token.end:
            continue
        alternatives = [describe(other, logprob) for other, logprob in token.top]
        content.append({**describe(token.id, token.logprob or 0.0), "top_logprobs": alternatives})
    return {"content": content, "refusal": None}


def get_token_bytes(tokenizer: Any, token: int) -> bytes:
    """Return the bytes of a token. A byte-level tokenizer writes each byte as one character.

    Args:
        tokenizer: the engine's tokenizer.
        token: id of the token.
    """
    name = tokenizer.convert_ids_to_tokens(token)
    is_byte_level = isinstance(tokenizer.backend_tokenizer.decoder, ByteLevel)
    if name is None or not is_byte_level or token in tokenizer.added_tokens_decoder:
        return str(tokenizer.decode([token])).encode()
    return bytes(BYTE_OF_CHARACTER[character] for character in name if character in BYTE_OF_CHARACTER)


__all__ = [
    "ChatReply",
    "begin_reply",
    "build_chunk",
    "build_completion",
    "build_logprobs",
    "check_limits",
    "read_tokens",
]
