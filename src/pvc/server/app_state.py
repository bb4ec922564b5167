"""State of one application: its components, and the bridge from the scheduler's thread to the event loop.

Built by `app.py`, passed to all that serve a request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pvc.engine.engine import Engine
from pvc.server.live_sessions import LiveSessions
from pvc.server.metrics import Metrics
from pvc.server.sandbox.pool import WorkerPool
from pvc.server.scheduler import Scheduler
from pvc.server.settings import Settings
from pvc.server.visual_cache import VisualCache


class LoopBridge:
    """Passes events from the scheduler's thread to the event loop, with one wake-up for all pending events."""

    def __init__(self) -> None:
        self._pending: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._is_scheduled = False

    def put(self, loop: asyncio.AbstractEventLoop, callback: Callable[[Any], None], event: Any) -> None:
        """Schedule `callback(event)` in the loop.

        Args:
            loop: the event loop.
            callback: called in the loop.
            event: its argument.
        """
        self._pending.append((callback, event))
        if not self._is_scheduled:
            self._is_scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, so no client waits
                loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._is_scheduled = False  # before reading: an event that comes now wakes the loop again
        while self._pending:
            callback, event = self._pending.popleft()
            callback(event)


@dataclass
class AppState:
    """The components of one application.

    Attributes:
        engine: the engine; only the scheduler's thread runs its model.
        settings: limits of the server.
        metrics: Prometheus metrics.
        scheduler: the thread that owns the model.
        workers: processes that decode media.
        visual_cache: visual tokens of recent media.
        live_sessions: live videos.
        decode_slots: one slot for every request that may hold decoded media.
        loop_bridge: passes events from the scheduler to the event loop.
        is_stopping: whether the requests that remain are ended now.
    """

    engine: Engine
    settings: Settings
    metrics: Metrics
    scheduler: Scheduler
    workers: WorkerPool
    visual_cache: VisualCache
    live_sessions: LiveSessions
    decode_slots: asyncio.Semaphore
    loop_bridge: LoopBridge = field(default_factory=LoopBridge)
    is_stopping: bool = False


__all__ = ["AppState", "LoopBridge"]
