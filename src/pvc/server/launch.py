"""Running an application under uvicorn, with deadlines for slow clients. Called by `pvc serve`."""

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
from pvc.server.app_state import AppState
from pvc.server.errors import ApiError, build_shutdown_error

HEADER_SECONDS = 10.0
IDLE_SECONDS = 10
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # parameters of glibc's mallopt
MMAP_THRESHOLD_BYTES, MAX_ARENAS = 1 << 20, 2
TRIM_SECONDS = 20.0
WRITE_SECONDS = 30.0
MAX_CONNECTIONS = 1000
DRAIN_SECONDS = 20


class TimeoutProtocol(H11Protocol):
    """uvicorn's HTTP protocol with two deadlines.

    The headers of every request must arrive in `HEADER_SECONDS`. The client must take what is sent to it in
    `WRITE_SECONDS`.
    """

    _header_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the deadline for the headers. Abort the connection if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=0)  # calls `pause_writing` as soon as bytes are not taken at once
        self._start_header_timer()

    def pause_writing(self) -> None:
        """Start the deadline for a client that does not read."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the deadline for a client that does not read."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def send_400_response(self, msg: str) -> None:
        """Send an error in OpenAI's form for bytes that are not HTTP, and close the connection."""
        error = ApiError(400, "malformed_http", "The request is not HTTP as it is read here.")
        data = json.dumps(error.body(f"req-{secrets.token_hex(8)}")).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        headers.append((b"content-length", str(len(data)).encode()))
        start = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (start, h11.Data(data=data), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def _start_header_timer(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._close_if_waiting)

    def _close_if_waiting(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Process bytes of a request, and stop or restart the deadline for its headers."""
        cycle_before = self.cycle
        super().data_received(data)
        if self.cycle is not cycle_before and self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        elif self._header_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._start_header_timer()  # another request begins on the same connection

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop both deadlines."""
        for timer in (self._header_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """uvicorn's server, which also reports that it is ready, what it still finishes, and what it abandons.

    Args:
        config: uvicorn's configuration.
        state: the application's state.
        print_line: called with every line for the operator.
        ready_line: the line that is printed once requests are answered.
    """

    def __init__(
        self, config: uvicorn.Config, state: AppState, print_line: Callable[[str], None], ready_line: str
    ) -> None:
        super().__init__(config)
        self.app_state, self.print_line, self.ready_line = state, print_line, ready_line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        if self.started:
            self.print_line(self.ready_line)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: the first one lets answers finish, the second ends them, the third ends the process.

        Args:
            sig: number of the signal.
            frame: the interrupted stack frame.
        """
        load = self.app_state.scheduler.load
        if not self.should_exit:
            super().handle_exit(sig, frame)
            if load:
                self.print_line(f"finishing {load} requests, at most {DRAIN_SECONDS} s (again: ends them)")
        elif not self.app_state.is_stopping:
            self._abandon_requests()
        else:
            self.force_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the answers, for at most `DRAIN_SECONDS`."""
        timer = asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._abandon_requests)
        await super().shutdown(sockets)
        timer.cancel()

    def _abandon_requests(self) -> None:
        load = self.app_state.scheduler.load
        if load:
            self.print_line(f"ending {load} requests")
        self.app_state.is_stopping = True
        self.app_state.scheduler.abandon(build_shutdown_error())


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address and does not listen yet.

    Args:
        host: name or address.
        port: port; 0 for any free one.

    Raises:
        UsageError: the address cannot be resolved or bound.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound_socket = socket.socket(family, kind, proto)
    except OSError as error:
        raise UsageError(f"cannot listen at {host}: {error.strerror}") from error
    bound_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound_socket.bind(address)
    except OSError as error:
        bound_socket.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} is in use; choose another with --port") from error
        raise UsageError(f"cannot listen at {host}, port {port}: {error.strerror}") from error
    return bound_socket


def build_uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """Build uvicorn's configuration of an application."""
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


def limit_heap_growth() -> None:
    """Make the C library return memory to the system, and trim its heaps regularly.

    By default glibc raises its mmap threshold when large blocks are freed, so that later ones stay in its heaps, one
    for every few threads. Under a mixed load these heaps grow for hours.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        libc.mallopt(M_ARENA_MAX, MAX_ARENAS)
        trim = libc.malloc_trim

        def trim_regularly() -> None:
            while True:
                time.sleep(TRIM_SECONDS)
                trim(0)

        threading.Thread(target=trim_regularly, name="pvc-trim", daemon=True).start()


def serve(app: FastAPI, bound_socket: socket.socket, print_line: Callable[[str], None], ready_line: str) -> None:
    """Serve an application until a signal ends it.

    One line for every request goes to stderr, unless the environment variable PVC_LOG_LEVEL is WARNING.

    Args:
        app: result of `create_app`.
        bound_socket: result of `listener`.
        print_line: called with every line for the operator.
        ready_line: the line that is printed once requests are answered.

    Raises:
        UsageError: the socket cannot listen.
    """
    limit_heap_growth()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("pvc.server").setLevel(os.environ.get("PVC_LOG_LEVEL", "INFO").upper())
    try:
        Server(build_uvicorn_config(app), app.state.parts, print_line, ready_line).run(sockets=[bound_socket])
    except OSError as error:
        raise UsageError(f"cannot listen: {error.strerror}") from error


__all__ = ["Server", "TimeoutProtocol", "build_uvicorn_config", "listener", "serve"]
