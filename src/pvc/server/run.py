"""Runs an application under uvicorn, with deadlines for slow clients. Called by `pvc serve`."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
IDLE_SECONDS = 10
DRAIN_SECONDS = 20


class Deadlines(H11Protocol):
    """uvicorn's HTTP, and a deadline for the headers of every request on a connection."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def _watch(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._slow)

    def _slow(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._watch()  # the beginning of another request on the same connection

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)


def serve(app: FastAPI, host: str, port: int, level: str = "warning") -> None:
    """Serve until a signal; requests that are answered then are finished first."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=Deadlines,
        ws="none",
        log_level=level,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        limit_concurrency=1000,
        h11_max_incomplete_event_size=32 * 1024,
    )


__all__ = ["Deadlines", "serve"]
