"""Runs an application under uvicorn, with deadlines for slow clients. Called by `pvc serve`."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from pvc.errors import UsageError
from pvc.server.answers import Parts
from pvc.server.errors import stopping

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


class Server(uvicorn.Server):
    """uvicorn's server, which says what it does: when it is ready, what it still finishes, and what it gives up."""

    def __init__(self, config: uvicorn.Config, parts: Parts, say: Callable[[str], None], ready: str) -> None:
        super().__init__(config)
        self.parts, self.say, self.ready = parts, say, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            self.say(self.ready)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets answers be finished, the second ends them, a third one ends the process."""
        if not self.should_exit:
            super().handle_exit(sig, frame)
            if self.parts.scheduler.load:
                self.say(
                    f"finishing {self.parts.scheduler.load} requests, at most {DRAIN_SECONDS} s (again: ends them)"
                )
        elif not self.parts.stopping:
            self._give_up()
        else:
            self.force_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is being answered, for so long."""
        late = asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._give_up)
        await super().shutdown(sockets)
        late.cancel()

    def _give_up(self) -> None:
        if self.parts.scheduler.load:
            self.say(f"ending {self.parts.scheduler.load} requests")
        self.parts.stopping = True
        self.parts.scheduler.abandon(stopping())


def listener(host: str, port: int) -> socket.socket:
    """A socket at an address, bound and not yet listening. Raises UsageError where it cannot be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, proto)
    except OSError as error:
        raise UsageError(f"cannot listen at {host}: {error.strerror}") from error
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} is in use; choose another with --port") from error
        raise UsageError(f"cannot listen at {host}, port {port}: {error.strerror}") from error
    return made


def configuration(app: FastAPI) -> uvicorn.Config:
    """How uvicorn runs it."""
    return uvicorn.Config(
        app,
        http=Deadlines,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS + 5,
        limit_concurrency=1000,
        h11_max_incomplete_event_size=32 * 1024,
    )


def serve(app: FastAPI, at: socket.socket, say: Callable[[str], None], ready: str) -> None:
    """Serve until a signal; `say` is told what goes on, and `ready` once requests are answered.

    A line of every request goes to stderr, unless the environment's PVC_LOG_LEVEL is WARNING.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("pvc.server").setLevel(os.environ.get("PVC_LOG_LEVEL", "INFO").upper())
    try:
        Server(configuration(app), app.state.parts, say, ready).run(sockets=[at])
    except OSError as error:
        raise UsageError(f"cannot listen: {error.strerror}") from error


__all__ = ["Deadlines", "Server", "configuration", "listener", "serve"]
