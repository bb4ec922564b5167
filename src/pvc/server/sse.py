"""A streamed answer as server-sent events in OpenAI's form. Called by `app.py`.

Tokens that have arrived together are sent together.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from pvc.server.chat_completions import ChatReply, build_chunk, build_logprobs
from pvc.server.errors import ApiError
from pvc.server.scheduler import TokenEvent
from pvc.server.schemas import ChatRequest


class PrefetchedStream:
    """An asynchronous generator whose first item has been taken already. Iterates over all items.

    Args:
        first: the first item.
        rest: the generator, which yields the other items.
    """

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        self.first: bytes | None = first
        self.rest = rest

    def __aiter__(self) -> PrefetchedStream:
        return self

    async def __anext__(self) -> bytes:
        first, self.first = self.first, None
        return first if first is not None else await anext(self.rest)

    async def aclose(self) -> None:
        """Close the generator. If it is not closed, the event loop does it at garbage collection."""
        await self.rest.aclose()


async def generate_events(
    reply: ChatReply,
    first: TokenEvent,
    tokens: AsyncGenerator[TokenEvent, None],
    body: ChatRequest,
    tokenizer: Any,
    release: Callable[[ChatReply], None],
) -> AsyncGenerator[bytes, None]:
    """Yield all events of an answer whose first token has arrived.

    Args:
        reply: the answer.
        first: its first token.
        tokens: its other tokens.
        body: the request.
        tokenizer: the engine's tokenizer.
        release: called with `reply` when the stream ends, also if it fails or is cancelled.

    Yields:
        One or several encoded events. If the answer fails, the last event is the error.
    """
    top_logprobs = reply.job.params.logprobs
    has_usage = body.stream_options is not None and body.stream_options.include_usage
    has_continuous_usage = body.stream_options is not None and body.stream_options.continuous_usage_stats

    def encode_delta(index: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        is_last = None not in reply.finish_reasons and finish is not None and not has_usage
        usage = {"usage": reply.get_choice_usage(index)} if has_continuous_usage else {}
        return _encode_event(build_chunk(reply, [choice], **usage, **({"pvc": reply.details} if is_last else {})))

    def encode_token(event: TokenEvent) -> bytes:
        text = event.token.text
        logprobs = None if event.token.end else build_logprobs([event.token], tokenizer, top_logprobs)
        data = encode_delta(event.index, {"content": text}, None, logprobs) if text or logprobs else b""
        return data + encode_delta(event.index, {}, event.finish) if event.finish else data

    try:
        pending = [encode_delta(index, {"role": "assistant", "content": ""}) for index in range(body.n)]
        pending.append(encode_token(first))
        yield b"".join(pending)
        pending = []
        async for event in tokens:
            pending.append(encode_token(event))
            if reply.events.empty() and any(pending):
                yield b"".join(pending)
                pending = []
        if has_usage:  # clients that did not request the usage do not expect a chunk without choices
            pending.append(_encode_event(build_chunk(reply, [], usage=reply.usage, pvc=reply.details)))
        yield b"".join([*pending, b"data: [DONE]\r\n\r\n"])
    except ApiError as error:
        yield _encode_event(error.body(reply.id))
    finally:
        release(reply)


def _encode_event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\r\n\r\n".encode()


__all__ = ["PrefetchedStream", "generate_events"]
