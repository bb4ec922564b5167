"""Live videos of a server: clients push frames to them, and chat messages refer to them. Used by `app.py`.

Their state is bounded by the window, the number of sessions and the idle time. A session belongs to one tenant.
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
    """One live video of a tenant.

    Attributes:
        tenant: the tenant that opened it.
        session: the engine's live session.
        last_used: time of the last use, in seconds of `time.monotonic`.
        last_timestamp: timestamp of the last frame in seconds; `-inf` without frames.
        num_pushing: frames that are being pushed at present; above 0 the session is not idle.
        push_lock: held while a frame is decoded and encoded, so that frames keep their order.
    """

    tenant: str
    session: LiveSession
    last_used: float
    last_timestamp: float = -math.inf
    num_pushing: int = 0
    push_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def window(self) -> int:
        """The maximum number of frames that it retains."""
        return self.session.keep.most if self.session.keep is not None else 0


def build_retention(window: int) -> FrameRetention:
    """Build the rule by which a session never retains more than `window` frames.

    The count includes the frames that are removed next.
    """
    batch = max(1, window // 4)
    rest = window - (batch - 1) - 2
    return FrameRetention(first=2, recent=(rest + 1) // 2, middle=rest // 2, batch=batch)


class LiveSessions:
    """All live videos of a server.

    The methods run in the event loop, except `get_encoded`, which runs in the scheduler's thread. So does
    `LiveSession.push`.

    Args:
        engine: the engine that encodes the frames.
        settings: limits of the number of sessions, the window and the idle time.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.max_sessions = engine, settings.max_streams
        self.max_per_tenant = settings.get_tenant_share(settings.max_streams)
        self.window, self.idle_s = settings.stream_window, settings.stream_idle_s
        self._sessions: dict[str, StreamSession] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def close_idle(self) -> None:
        """Close the sessions that have not been used for too long."""
        now = time.monotonic()
        for name in [
            name for name, live in self._sessions.items() if not live.num_pushing and now - live.last_used > self.idle_s
        ]:
            del self._sessions[name]

    def _get_retention(self, window: int) -> FrameRetention:
        """Return the retention that the checkpoint was trained for, if `window` frames allow it."""
        frames = self.engine.processor.video_processor.live_frames
        if frames is not None and (trained := FrameRetention.latest(frames)).most <= window:
            return trained
        return build_retention(window)

    def _get_temporal_window(self, window: int) -> int:
        """Return the steps that the tower remembers: at most those that the checkpoint was trained with."""
        trained = self.engine.model.config.vision_config.temporal_window
        return window if trained is None else min(trained, window)

    def open(self, tenant: str, window: int | None = None) -> tuple[str, StreamSession]:
        """Open a session.

        Args:
            tenant: the tenant that it belongs to.
            window: maximum number of frames that it retains; by default the server's maximum.

        Returns:
            Its id and the session.

        Raises:
            ApiError: 400 for a window above the server's maximum, 429 for too many sessions.
        """
        self.close_idle()
        window = window or self.window
        if window > self.window:
            text = f"window: {window} frames were asked for; this server allows {self.window}"
            raise ApiError(400, "too_many", text, "window")
        if len(self._sessions) >= self.max_sessions or len(self.list_sessions(tenant)) >= self.max_per_tenant:
            limit = min(self.max_sessions, self.max_per_tenant)
            text = f"{limit} live streams may be open; DELETE one, or wait."
            raise ApiError(429, "too_many_streams", text, headers={"Retry-After": "30"})
        session = LiveSession(self.engine, window=self._get_temporal_window(window), keep=self._get_retention(window))
        live = StreamSession(tenant, session, time.monotonic())
        name = f"stream-{secrets.token_urlsafe(18)}"
        self._sessions[name] = live
        return name, live

    def get(self, name: str, tenant: str) -> StreamSession:
        """Return a session of a tenant and record that it is used.

        Args:
            name: id of the session.
            tenant: the tenant that requests it.

        Raises:
            ApiError: 404 for a session that does not exist or belongs to another tenant.
        """
        self.close_idle()
        live = self._sessions.get(name)
        if live is None or live.tenant != tenant:
            raise ApiError(404, "no_such_stream", "There is no such stream.")
        live.last_used = time.monotonic()
        return live

    def list_sessions(self, tenant: str) -> list[tuple[str, StreamSession]]:
        """Return ids and sessions of a tenant, the oldest first."""
        self.close_idle()
        return [(name, live) for name, live in self._sessions.items() if live.tenant == tenant]

    def close(self, name: str, tenant: str) -> None:
        """Close a session of a tenant.

        Args:
            name: id of the session.
            tenant: the tenant that requests it.

        Raises:
            ApiError: as `get`.
        """
        self.get(name, tenant)
        del self._sessions[name]

    @staticmethod
    def check_timestamp(live: StreamSession, timestamp: float) -> None:
        """Check that a frame is later than the last one.

        Args:
            live: the session.
            timestamp: time of the frame, in seconds.

        Raises:
            ApiError: 409 for a frame that is not later.
        """
        if timestamp <= live.last_timestamp:
            text = f"A frame's timestamp must be later than the last one's, {live.last_timestamp:g} seconds."
            raise ApiError(409, "out_of_order", text)

    @staticmethod
    def get_encoded(live: StreamSession) -> EncodedMedia:
        """Return the retained frames with their times, as one video. Raises ApiError 409 if there are none."""
        session = live.session
        if not session.timestamps:
            raise ApiError(409, "empty_stream", "The stream has no frames yet.")
        tokens = session.tokens.flatten(0, 1)
        return EncodedMedia("video", "stream", tokens, tuple(session.timestamps), steps=len(session.timestamps))

    def describe(self, name: str, live: StreamSession) -> dict[str, Any]:
        """Return the JSON object that clients get.

        Args:
            name: id of the session.
            live: the session.
        """
        return {
            "id": name,
            "object": "stream",
            "frames": live.session.pushed,
            "kept": len(live.session.timestamps),
            "window": live.window,
            "last_timestamp": None if live.last_timestamp == -math.inf else live.last_timestamp,
            "bytes": live.session.nbytes,
        }


__all__ = ["LiveSessions", "StreamSession", "build_retention"]
