"""Runs an application under uvicorn, with deadlines for slow clients. Called by `pvc serve`."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from pvc.errors import UsageError
from pvc.server.chat_completions import AppState
from pvc.server.errors import ApiError, stopping

HEADER_SECONDS = 10.0
IDLE_SECONDS = 10
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # glibc's numbers
TRIM_SECONDS = 20.0
WRITE_SECONDS = 30.0
MOST_CONNECTIONS = 1000
DRAIN_SECONDS = 20


class TimeoutProtocol(H11Protocol):
    """uvicorn's HTTP, with deadlines: for the headers of every request on a connection, and for taking what is sent."""

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=0)  # told as soon as anything is not taken at once
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def send_400_response(self, msg: str) -> None:
        error = ApiError(400, "malformed_http", "The request is not HTTP as it is read here.")
        data = json.dumps(error.body(f"req-{secrets.token_hex(8)}")).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        headers.append((b"content-length", str(len(data)).encode()))
        start = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (start, h11.Data(data=data), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()

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
        for timer in (self._deadline, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """uvicorn's server, which says what it does: when it is ready, what it still finishes, and what it gives up."""

    def __init__(self, config: uvicorn.Config, parts: AppState, say: Callable[[str], None], ready: str) -> None:
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
        http=TimeoutProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS + 5,
        h11_max_incomplete_event_size=32 * 1024,
    )


def steady_memory() -> None:
    """Have the C library give memory back to the system, from time to time also what lies between things that stay.

    Left to itself glibc learns from the first large blocks that are freed to keep such blocks in its heaps, one for
    every few threads; under a load of many kinds they grow for hours.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 20)
        libc.mallopt(M_ARENA_MAX, 2)
        trim = libc.malloc_trim

        def again() -> None:
            while True:
                time.sleep(TRIM_SECONDS)
                trim(0)

        threading.Thread(target=again, name="pvc-trim", daemon=True).start()


def serve(app: FastAPI, at: socket.socket, say: Callable[[str], None], ready: str) -> None:
    """Serve until a signal; `say` is told what goes on, and `ready` once requests are answered.

    A line of every request goes to stderr, unless the environment's PVC_LOG_LEVEL is WARNING.
    """
    steady_memory()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("pvc.server").setLevel(os.environ.get("PVC_LOG_LEVEL", "INFO").upper())
    try:
        Server(configuration(app), app.state.parts, say, ready).run(sockets=[at])
    except OSError as error:
        raise UsageError(f"cannot listen: {error.strerror}") from error


__all__ = ["Server", "TimeoutProtocol", "configuration", "listener", "serve"]
