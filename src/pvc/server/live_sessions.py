"""Live videos of a server: frames are pushed to them, and chat messages ask about them.

State is bounded by the window, the number of streams and idle time; a stream belongs to who opened it.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from pvc.engine.encode import EncodedMedia
from pvc.engine.engine import Engine
from pvc.engine.live import FrameRetention, LiveSession
from pvc.server.errors import ApiError
from pvc.server.settings import Settings


@dataclass
class StreamSession:
    """One live video."""

    tenant: str
    stream: LiveSession
    used: float
    last: float = -math.inf
    busy: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def window(self) -> int:
        """The most frames that it keeps."""
        return self.stream.keep.most if self.stream.keep is not None else 0


def keep_within(window: int) -> FrameRetention:
    """What a stream keeps so that there are never more than `window` frames, those included that go next."""
    batch = max(1, window // 4)
    rest = window - (batch - 1) - 2
    return FrameRetention(first=2, recent=(rest + 1) // 2, middle=rest // 2, batch=batch)


class LiveSessions:
    """All live videos. Its methods are called in the event loop, `push` and `shown` in the model's thread."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.most, self.own = engine, settings.max_streams, settings.share(settings.max_streams)
        self.window, self.idle_s = settings.stream_window, settings.stream_idle_s
        self._live: dict[str, StreamSession] = {}

    def __len__(self) -> int:
        return len(self._live)

    def sweep(self) -> None:
        """Close what nobody has used for too long."""
        now = time.monotonic()
        for name in [name for name, live in self._live.items() if not live.busy and now - live.used > self.idle_s]:
            del self._live[name]

    def _keep(self, window: int) -> FrameRetention:
        """Return what a stream keeps: what the checkpoint was trained for, as far as `window` frames allow it."""
        frames = self.engine.processor.video_processor.live_frames
        if frames is not None and (own := FrameRetention.latest(frames)).most <= window:
            return own
        return keep_within(window)

    def _steps(self, window: int) -> int:
        """Return the steps that the tower remembers: at most those that the checkpoint was trained with."""
        own = self.engine.model.config.vision_config.temporal_window
        return window if own is None else min(own, window)

    def open(self, tenant: str, window: int | None = None) -> tuple[str, StreamSession]:
        """A new one that keeps at most `window` frames. Raises ApiError 429 when there are too many, 400."""
        self.sweep()
        window = window or self.window
        if window > self.window:
            text = f"window: {window} frames were asked for; this server allows {self.window}"
            raise ApiError(400, "too_many", text, "window")
        if len(self._live) >= self.most or len(self.owned(tenant)) >= self.own:
            text = f"{min(self.most, self.own)} live streams may be open; DELETE one, or wait."
            raise ApiError(429, "too_many_streams", text, headers={"Retry-After": "30"})
        live = StreamSession(
            tenant, LiveSession(self.engine, window=self._steps(window), keep=self._keep(window)), time.monotonic()
        )
        name = f"stream-{secrets.token_urlsafe(18)}"
        self._live[name] = live
        return name, live

    def of(self, name: str, tenant: str) -> StreamSession:
        """One's own. Raises ApiError 404 for what is not there or someone else's."""
        self.sweep()
        live = self._live.get(name)
        if live is None or live.tenant != tenant:
            raise ApiError(404, "no_such_stream", "There is no such stream.")
        live.used = time.monotonic()
        return live

    def owned(self, tenant: str) -> list[tuple[str, StreamSession]]:
        """One's own, the oldest first."""
        self.sweep()
        return [(name, live) for name, live in self._live.items() if live.tenant == tenant]

    def close(self, name: str, tenant: str) -> None:
        """Forget one's own."""
        self.of(name, tenant)
        del self._live[name]

    @staticmethod
    def check(live: StreamSession, timestamp: float) -> None:
        """Raise ApiError 409 for a frame that is not later than the last one."""
        if timestamp <= live.last:
            raise ApiError(
                409, "out_of_order", f"A frame's timestamp must be later than the last one's, {live.last:g} seconds."
            )

    @staticmethod
    def shown(live: StreamSession) -> EncodedMedia:
        """What a question about it is shown: the frames that are kept, with their times."""
        stream = live.stream
        if not stream.timestamps:
            raise ApiError(409, "empty_stream", "The stream has no frames yet.")
        return EncodedMedia(
            "video", "stream", stream.tokens.flatten(0, 1), tuple(stream.timestamps), steps=len(stream.timestamps)
        )

    def describe(self, name: str, live: StreamSession) -> dict[str, Any]:
        """The object that clients see."""
        return {
            "id": name,
            "object": "stream",
            "frames": live.stream.pushed,
            "kept": len(live.stream.timestamps),
            "window": live.window,
            "last_timestamp": None if live.last == -math.inf else live.last,
            "bytes": live.stream.nbytes,
        }


__all__ = ["LiveSessions", "StreamSession"]
