"""Pool of worker processes that decode media. They are started ahead of need, reused, and replaced when they die.

The server's process never decodes. A worker's response is checked against the request and against its own numbers.
Called by `chat_completions.py` and `app.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import send_handle
from typing import Any

import numpy as np
from PIL import Image

from pvc import media
from pvc.errors import ConfigError, MediaError
from pvc.server.media_fetch import LocalFile
from pvc.server.settings import Settings

START_SECONDS = 60.0
PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); " + (
    "from pvc.server.sandbox.worker import main; main(int(sys.argv[1]), int(sys.argv[3]))"
)
ABANDON_SECONDS = 0.3  # time that a worker gets to finish when its client has left
WARNINGS = {
    "partial_decode": "frames are missing or damaged",
    "size_changed": "some frames have another size than the first one; they were resized",
    "times_merged": "several times fall on one frame",
    "fps_reduced": "fewer frames than asked for: the limit is reached",
}
MAX_REQUESTS_PER_WORKER = 200  # bounds what a worker can leak
MAX_HELLO_BYTES, MAX_RESPONSE_BYTES = 2**10, 2**20  # of a worker's JSON
DEFAULT_SIDE = 4096  # pixels, for the bound on a response whose size was not requested


class _WorkerDied(Exception):
    """The worker died, or was killed because its time was up."""


class _Worker:
    """A worker process. It has a separate session, so that a terminal's Ctrl-C does not reach it.

    Its environment has nothing of the server's except the paths of libraries.
    """

    def __init__(self, settings: Settings) -> None:
        self.connection, worker_connection = multiprocessing.Pipe()
        path = json.dumps([entry or os.getcwd() for entry in sys.path])
        arguments = [str(worker_connection.fileno()), path, str(settings.decode_bytes)]
        inherited = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", PROGRAM, *arguments],
                pass_fds=[worker_connection.fileno()],
                env={"LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **inherited},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # the decoders' libraries print a lot
                start_new_session=True,
            )
        finally:
            worker_connection.close()
        self.num_served = 0
        self.network: str | None = None
        self.is_ready = False
        self.is_unsafe_allowed = settings.unsafe_decode

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def wait_ready(self) -> None:
        """Wait until the worker has sandboxed itself. Raises _WorkerDied, also if the sandbox is incomplete."""
        if self.is_ready:
            return
        with self._kill_after(START_SECONDS):
            hello = json.loads(self.connection.recv_bytes(MAX_HELLO_BYTES))
        self.network = hello["network"]
        # A network namespace alone would leave the worker free to open files.
        if not (self.network and hello["sealed"]) and not self.is_unsafe_allowed:
            raise _WorkerDied("open")
        self.is_ready = True

    @contextlib.contextmanager
    def _kill_after(self, seconds: float) -> Iterator[None]:
        """Kill the worker when the time is up, whether it stopped while reading, decoding or responding."""
        is_over = threading.Event()

        def kill() -> None:
            is_over.set()
            self.process.kill()

        timer = threading.Timer(seconds, kill)
        timer.start()
        try:
            yield
        except (EOFError, OSError) as error:
            raise _WorkerDied("time" if is_over.is_set() else "gone") from error
        finally:
            timer.cancel()

    def request(
        self, params: dict[str, Any], data: bytes | int, seconds: float, max_bytes: int
    ) -> tuple[dict[str, Any], bytes | None]:
        """Send a medium to the worker and wait for its response.

        Args:
            params: what `WorkerPool.decode` was called with, as JSON.
            data: the medium's bytes, or the descriptor of its file.
            seconds: maximum time, in seconds.
            max_bytes: maximum size of the pixels, in bytes.

        Returns:
            The response as JSON, and the pixels or None.

        Raises:
            _WorkerDied: there is no response in time, or one with more than `max_bytes`.
            ValueError: the response is not a JSON object.
        """
        with self._kill_after(seconds):
            self.connection.send_bytes(json.dumps({**params, "is_file": isinstance(data, int)}).encode())
            if isinstance(data, int):
                send_handle(self.connection, data, self.process.pid)
            else:
                self.connection.send_bytes(data)
            response = json.loads(self.connection.recv_bytes(MAX_RESPONSE_BYTES))
            if not isinstance(response, dict):
                raise ValueError("the response is not a JSON object")
            self.num_served += 1
            return response, None if "error" in response else self.connection.recv_bytes(max_bytes)

    def kill(self) -> None:
        """Kill the process and close the connection."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        with contextlib.suppress(OSError):
            self.connection.close()


class DecodeTicket:
    """One request for decoding: whether it is abandoned, and the worker that serves it at present."""

    def __init__(self) -> None:
        self.is_abandoned = False
        self._worker: _Worker | None = None
        self._lock = threading.Lock()

    def assign(self, worker: _Worker | None) -> bool:
        """Set the worker that serves the request, or None. Return False if the request is abandoned."""
        with self._lock:
            self._worker = worker
            return not self.is_abandoned

    def abandon(self) -> None:
        """Mark the request as abandoned, and kill its worker if there is one."""
        with self._lock:
            self.is_abandoned = True
            if self._worker is not None:
                self._worker.process.kill()


class WorkerPool:
    """A few workers; `decode` may be called by several tasks at once.

    Args:
        settings: number of workers, their limits, and the limits of media.

    Attributes:
        counts: how often a worker was "used", "killed" because its time was up, killed because its client had "left",
            or "died" by itself.
        network: how workers are cut off from the network: "namespace", "seccomp", or None if they are not.
        num_decoding: media that are being decoded.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.network: str | None = None
        self.num_decoding = 0
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._slots = asyncio.Semaphore(settings.decoders)
        self._workers: set[_Worker] = set()
        self._is_closed = False
        self._fill_lock = threading.Lock()
        # Not asyncio's threads: waiting for workers must not block the other tasks that use those.
        self._threads = ThreadPoolExecutor(settings.decoders, "pvc-decode")

    def start(self) -> None:
        """Start the workers and wait for one. Raises ConfigError if they cannot be sandboxed."""
        self._fill()
        if not self._workers:
            raise ConfigError("no decoding worker could be started")
        first = self._idle.get()
        try:
            first.wait_ready()
        except _WorkerDied as error:
            self.close()
            if str(error) != "open":
                raise ConfigError("a decoding worker did not start") from error
            raise ConfigError(
                "decoding workers cannot be sandboxed on this system: it allows no seccomp filter; pass "
                "--unsafe-decode to run them anyway"
            ) from None
        self.network = first.network
        self._idle.put(first)

    def close(self) -> None:
        """Kill all workers."""
        self._is_closed = True
        for worker in list(self._workers):
            worker.kill()
        self._workers.clear()
        self._threads.shutdown(wait=False)

    def _spawn(self) -> None:
        worker = _Worker(self.settings)
        self._workers.add(worker)
        self._idle.put(worker)

    def _replace(self, worker: _Worker) -> None:
        worker.kill()
        self._workers.discard(worker)
        self._fill()

    def _fill(self) -> None:
        """Start the missing workers. If the system cannot start a process now, the next request tries again.

        There is one worker more than are used at a time. It is ready when another one must be replaced.
        """
        with self._fill_lock, contextlib.suppress(OSError):
            while not self._is_closed and len(self._workers) < self.settings.decoders + 1:
                self._spawn()

    @property
    def is_alive(self) -> bool:
        """Whether at least one worker runs."""
        return any(worker.is_alive for worker in list(self._workers))

    def _take_idle_worker(self) -> _Worker:
        """Take an idle worker. A worker that died while idle must not fail this request."""
        while True:
            self._fill()
            try:
                worker = self._idle.get(timeout=self.settings.decode_seconds)
            except queue.Empty:
                raise MediaError("there is no decoding worker", code="no_decoder") from None
            if worker.is_alive:
                return worker
            self.counts["died"] += 1
            self._replace(worker)

    async def decode(
        self,
        data: bytes | LocalFile,
        kind: str,
        *,
        sampling: dict[str, Any] | None = None,
        size: tuple[int, int] | None = None,
        resample: int = 3,
    ) -> media.Picture | media.Video:
        """Decode a picture or video.

        If the task is cancelled and the worker does not finish at once, the worker is killed, so that others need not
        wait for it.

        Args:
            data: its bytes or its file.
            kind: "image" or "video".
            sampling: arguments of `media.Sampling`, for a video.
            size: width and height in pixels of a video's frames, or of a picture that is a frame of a live video.
            resample: PIL's filter that resizes such a picture.

        Raises:
            MediaError: as the loaders raise it; code `corrupt_media` if the worker died, `too_many_frames` if its time
                was up, `no_decoder` if the system cannot start a process.
        """
        params = {"kind": kind, "sampling": sampling, "size": size, "resample": resample}
        async with self._slots:
            # A cancelled task may close the file while the thread sends it, so the thread gets a second descriptor.
            sent = os.dup(data.descriptor) if isinstance(data, LocalFile) else data
            self.num_decoding += 1
            ticket = DecodeTicket()
            future = asyncio.wrap_future(self._threads.submit(self._decode, ticket, sent, params))
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                try:
                    await asyncio.wait({future}, timeout=ABANDON_SECONDS)
                finally:
                    ticket.abandon()
                    # asyncio would report an exception that is never read.
                    future.add_done_callback(lambda done: done.cancelled() or done.exception())
                raise
            finally:
                self.num_decoding -= 1

    def _decode(self, ticket: DecodeTicket, data: bytes | int, params: dict[str, Any]) -> media.Picture | media.Video:
        try:
            return self._decode_in_worker(ticket, data, params)
        finally:
            if isinstance(data, int):
                os.close(data)

    def _decode_in_worker(
        self, ticket: DecodeTicket, data: bytes | int, params: dict[str, Any]
    ) -> media.Picture | media.Video:
        limits, kind = self.settings.media, params["kind"]
        limits = dataclasses.replace(limits, max_frames=min(limits.max_frames, self.settings.max_frames))
        if isinstance(data, int):  # a local file is not in the server's memory, so it may have more bytes
            limits = dataclasses.replace(limits, max_bytes=max(limits.max_bytes, media.DEFAULT_LIMITS.max_bytes))
        side = (params["size"] or (DEFAULT_SIDE, DEFAULT_SIDE))[0]
        max_bytes = limits.max_pixels * 3 if kind == "image" else limits.max_frames * side**2 * 3
        worker = self._take_idle_worker()
        self.counts["used"] += 1
        is_intact = False
        try:
            if not ticket.assign(worker):
                raise _WorkerDied("left")
            worker.wait_ready()
            params = {**params, "limits": dataclasses.asdict(limits)}
            response, pixels = worker.request(params, data, self.settings.decode_seconds, max_bytes)
            is_intact = True
        except Exception as error:  # a worker that has read hostile bytes may respond with anything
            is_timeout = str(error) == "time"
            self.counts["left" if ticket.is_abandoned else "killed" if is_timeout else "died"] += 1
            code = "too_many_frames" if is_timeout else "corrupt_media"
            raise MediaError(f"the {kind} could not be decoded", code=code) from None
        finally:
            # If the request was abandoned, its worker may have been killed just now.
            if ticket.assign(None) and is_intact and worker.num_served < MAX_REQUESTS_PER_WORKER:
                self._idle.put(worker)
            else:
                self._replace(worker)
        if pixels is None:
            reason = response.get("error") if isinstance(response, dict) else None
            raise MediaError(f"the {kind} is refused", code=str(reason or "corrupt_media")[:40])
        return _build_media(response, pixels, kind)


def _build_media(response: dict[str, Any], pixels: bytes, kind: str) -> media.Picture | media.Video:
    """Build a picture or video from a worker's response, which is checked like any hostile data."""
    try:
        shape = tuple(int(side) for side in response["shape"])
        if any(side < 1 for side in shape) or int(np.prod(shape, dtype=np.float64)) != len(pixels):
            raise ValueError("shape")
        array = np.frombuffer(pixels, np.uint8).reshape(shape)
        # Use fixed texts: a worker's text could carry what it knows of other clients' media.
        codes = {str(text).partition(":")[0] for text in response["warnings"]}
        warnings = tuple(f"{code}: {text}" for code, text in WARNINGS.items() if code in codes)
        if kind == "image":
            return media.Picture(Image.fromarray(array, "RGB"), name="image", warnings=warnings)
        times = tuple(float(time) for time in response["timestamps"])
        duration = None if response["duration"] is None else float(response["duration"])
        return media.Video(array, times, duration, name="video", warnings=warnings)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise MediaError(f"the {kind} could not be decoded") from None


__all__ = ["WorkerPool"]
