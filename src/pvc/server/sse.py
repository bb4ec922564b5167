"""A streamed answer as server-sent events in OpenAI's form. What has come at once is sent at once."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from pvc.server.chat_completions import ChatReply, chunk, logprobs
from pvc.server.errors import ApiError
from pvc.server.scheduler import TokenEvent
from pvc.server.schemas import ChatRequest


class PrefetchedStream:
    """An asynchronous generator of which the first piece has been taken, from its beginning."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        self.first: bytes | None = first
        self.rest = rest

    def __aiter__(self) -> PrefetchedStream:
        return self

    async def __anext__(self) -> bytes:
        first, self.first = self.first, None
        return first if first is not None else await anext(self.rest)

    async def aclose(self) -> None:
        """End it; the event loop does the same for one that nobody reads any more."""
        await self.rest.aclose()


async def events(
    reply: ChatReply,
    first: TokenEvent,
    pieces: AsyncGenerator[TokenEvent, None],
    body: ChatRequest,
    tokenizer: Any,
    release: Callable[[ChatReply], None],
) -> AsyncGenerator[bytes, None]:
    """All events of an answer whose `first` token has come; `release` is called when it ends, however it does."""
    wanted = reply.job.params.logprobs
    wants_usage = body.stream_options is not None and body.stream_options.include_usage
    continuous = body.stream_options is not None and body.stream_options.continuous_usage_stats

    def delta(index: int, what: dict[str, Any], finish: str | None = None, likely: Any = None) -> bytes:
        choice = {"index": index, "delta": what, "logprobs": likely, "finish_reason": finish}
        last = None not in reply.finishes and finish is not None and not wants_usage
        usage = {"usage": reply.usage_of(index)} if continuous else {}
        return _event(chunk(reply, [choice], **usage, **({"pvc": reply.used} if last else {})))

    def said(one: TokenEvent) -> bytes:
        likely = None if one.token.end else logprobs([one.token], tokenizer, wanted)
        told = delta(one.index, {"content": one.token.text}, None, likely) if one.token.text or likely else b""
        return told + delta(one.index, {}, one.finish) if one.finish else told

    try:
        waiting = [delta(number, {"role": "assistant", "content": ""}) for number in range(body.n)]
        waiting.append(said(first))
        yield b"".join(waiting)
        waiting = []
        async for one in pieces:
            waiting.append(said(one))
            if reply.events.empty() and any(waiting):
                yield b"".join(waiting)
                waiting = []
        if wants_usage:  # a chunk without choices is for those who asked for it: others' loops do not expect one
            waiting.append(_event(chunk(reply, [], usage=reply.usage, pvc=reply.used)))
        yield b"".join([*waiting, b"data: [DONE]\r\n\r\n"])
    except ApiError as error:
        yield _event(error.body(reply.id))
    finally:
        release(reply)


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\r\n\r\n".encode()


__all__ = ["PrefetchedStream", "events"]
