"""Decoding in child processes: spawned ahead of need, reused, killed by the clock, replaced when they die.

The parent never decodes. What a child answers is checked against what was asked and against its own numbers.
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
LEAVE_SECONDS = 0.3  # what a child may still take when nobody waits for it any more
WARNINGS = {
    "partial_decode": "frames are missing or damaged",
    "size_changed": "some frames have another size than the first one; they were resized",
    "times_merged": "several times fall on one frame",
    "fps_reduced": "fewer frames than asked for: the limit is reached",
}
REUSES = 200  # requests until a child is replaced: whatever leaks, leaks no further


class _Dead(Exception):
    """The child died, or was killed because its time was up."""


class _Worker:
    """A process of its own session, so that a terminal's Ctrl-C is not for it, with nothing in its environment."""

    def __init__(self, settings: Settings) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        path = json.dumps([place or os.getcwd() for place in sys.path])
        arguments = [str(theirs.fileno()), path, str(settings.decode_bytes)]
        own = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", PROGRAM, *arguments],
                pass_fds=[theirs.fileno()],
                env={"LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **own},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # decoders' libraries have much to say
                start_new_session=True,
            )
        finally:
            theirs.close()
        self.served = 0
        self.network: str | None = None
        self.ready = False
        self.unsafe = settings.unsafe_decode

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def wait_ready(self) -> None:
        """Wait until it has cut itself off; raises _Dead, also where it could not."""
        if self.ready:
            return
        with self._clock(START_SECONDS):
            self.network = json.loads(self.connection.recv_bytes(2**10))["network"]
        if self.network is None and not self.unsafe:
            raise _Dead("open")
        self.ready = True

    @contextlib.contextmanager
    def _clock(self, seconds: float) -> Iterator[None]:
        """Kill it when time is up, wherever it stopped: it may take nothing of what it is sent, or send half of it."""
        over = threading.Event()

        def up() -> None:
            over.set()
            self.process.kill()

        timer = threading.Timer(seconds, up)
        timer.start()
        try:
            yield
        except (EOFError, OSError) as error:
            raise _Dead("time" if over.is_set() else "gone") from error
        finally:
            timer.cancel()

    def ask(
        self, asked: dict[str, Any], data: bytes | int, seconds: float, most: int
    ) -> tuple[dict[str, Any], bytes | None]:
        """Send a medium as bytes or as the descriptor of a file, and wait for the answer.

        Raises _Dead where no answer comes in time, or one that is longer than `most` bytes.
        """
        with self._clock(seconds):
            self.connection.send_bytes(json.dumps({**asked, "is_file": isinstance(data, int)}).encode())
            if isinstance(data, int):
                send_handle(self.connection, data, self.process.pid)
            else:
                self.connection.send_bytes(data)
            told = json.loads(self.connection.recv_bytes(2**20))
            if not isinstance(told, dict):
                raise ValueError("not an answer")
            self.served += 1
            return told, None if "error" in told else self.connection.recv_bytes(most)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        with contextlib.suppress(OSError):
            self.connection.close()


class DecodeTicket:
    """Who waits for a child's answer, and the child while there is one."""

    def __init__(self) -> None:
        self.left = False
        self._child: _Worker | None = None
        self._lock = threading.Lock()

    def take(self, child: _Worker | None) -> bool:
        """Say which child it is now; False when nobody waits any more."""
        with self._lock:
            self._child = child
            return not self.left

    def leave(self) -> None:
        """Nobody waits any more: kill it."""
        with self._lock:
            self.left = True
            if self._child is not None:
                self._child.process.kill()


class WorkerPool:
    """A few children; `decode` may be called from several tasks at once.

    `counts`: how often a child was used, killed by the clock, killed because nobody waited for it, or died by itself.
    `busy`: media that are being decoded now.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self.counts: Counter[str] = Counter()
        self.network: str | None = None
        self.busy = 0
        self._gate = asyncio.Semaphore(settings.decoders)
        self._all: set[_Worker] = set()
        self._closed = False
        self._filling = threading.Lock()
        # Threads of its own: waiting for children must not take those that everything else runs in.
        self._threads = ThreadPoolExecutor(settings.decoders, "pvc-decode")

    def start(self) -> None:
        """Start the children and wait for one; raises ConfigError where they cannot be cut off from the network."""
        self._complete()  # one more than are used at a time: it is ready when another has to be replaced
        if not self._all:
            raise ConfigError("a decoder did not start")
        first = self.free.get()
        try:
            first.wait_ready()
        except _Dead as error:
            self.close()
            if str(error) != "open":
                raise ConfigError("a decoder did not start") from error
            raise ConfigError(
                "decoders cannot be cut off from the network on this system (neither a user namespace nor seccomp); "
                "with --unsafe-decode they run all the same"
            ) from None
        self.network = first.network
        self.free.put(first)

    def close(self) -> None:
        """End all children."""
        self._closed = True
        for child in list(self._all):
            child.kill()
        self._all.clear()
        self._threads.shutdown(wait=False)

    def _spawn(self) -> None:
        child = _Worker(self.settings)
        self._all.add(child)
        self.free.put(child)

    def _replace(self, child: _Worker) -> None:
        child.kill()
        self._all.discard(child)
        self._complete()

    def _complete(self) -> None:
        """Start as many as are missing; where the system has no more to give now, the next request tries again."""
        with self._filling, contextlib.suppress(OSError):
            while not self._closed and len(self._all) < self.settings.decoders + 1:
                self._spawn()

    @property
    def alive(self) -> bool:
        """Whether there is one that runs."""
        return any(child.alive for child in list(self._all))

    def _living(self) -> _Worker:
        """A child that is free; one that died while it had nothing to do is nobody's fault who asks now."""
        while True:
            self._complete()
            try:
                child = self.free.get(timeout=self.settings.decode_seconds)
            except queue.Empty:
                raise MediaError("there is no decoder", code="no_decoder") from None
            if child.alive:
                return child
            self.counts["died"] += 1
            self._replace(child)

    async def decode(
        self,
        data: bytes | LocalFile,
        kind: str,
        *,
        sampling: dict[str, Any] | None = None,
        size: tuple[int, int] | None = None,
        resample: int = 3,
    ) -> media.Picture | media.Video:
        """The picture or video in bytes or a file.

        `size`: width and height of a video's frames, or of a picture that is one, resized by PIL's filter `resample`.
        Cancelled, it kills the child unless that is done at once: nobody's picture keeps others waiting.

        Raises:
            MediaError: as the loaders do; `corrupt_media` where the child died of it, `too_many_frames` where its time
                was up, `no_decoder` where the system gives no process.
        """
        asked = {"kind": kind, "sampling": sampling, "size": size, "resample": resample}
        async with self._gate:
            # A cancelled task may close the file while the thread sends it, so the thread gets a second descriptor.
            sent = os.dup(data.descriptor) if isinstance(data, LocalFile) else data
            self.busy += 1
            asking = DecodeTicket()
            work = asyncio.wrap_future(self._threads.submit(self._decode, asking, sent, asked))
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                try:
                    await asyncio.wait({work}, timeout=LEAVE_SECONDS)
                finally:
                    asking.leave()
                    work.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else looks at it
                raise
            finally:
                self.busy -= 1

    def _decode(self, asking: DecodeTicket, data: bytes | int, asked: dict[str, Any]) -> media.Picture | media.Video:
        try:
            return self._decode_open(asking, data, asked)
        finally:
            if isinstance(data, int):
                os.close(data)

    def _decode_open(
        self, asking: DecodeTicket, data: bytes | int, asked: dict[str, Any]
    ) -> media.Picture | media.Video:
        limits, kind = self.settings.media, asked["kind"]
        limits = dataclasses.replace(limits, max_frames=min(limits.max_frames, self.settings.max_frames))
        if isinstance(data, int):  # it came neither over the network nor as bytes in memory
            limits = dataclasses.replace(limits, max_bytes=max(limits.max_bytes, media.DEFAULT_LIMITS.max_bytes))
        side = (asked["size"] or (4096, 4096))[0]
        most = limits.max_pixels * 3 if kind == "image" else limits.max_frames * side**2 * 3
        child = self._living()
        self.counts["used"] += 1
        fine = False
        try:
            if not asking.take(child):
                raise _Dead("left")
            child.wait_ready()
            asked = {**asked, "limits": dataclasses.asdict(limits)}
            told, pixels = child.ask(asked, data, self.settings.decode_seconds, most)
            fine = True
        except Exception as error:  # whatever a child that read hostile bytes may answer
            timed_out = str(error) == "time"
            self.counts["left" if asking.left else "killed" if timed_out else "died"] += 1
            code = "too_many_frames" if timed_out else "corrupt_media"
            raise MediaError(f"the {kind} could not be decoded", code=code) from None
        finally:
            # One that was left may have been killed just now.
            if asking.take(None) and fine and child.served < REUSES:
                self.free.put(child)
            else:
                self._replace(child)
        if pixels is None:
            reason = told.get("error") if isinstance(told, dict) else None
            raise MediaError(f"the {kind} is refused", code=str(reason or "corrupt_media")[:40])
        return _made(told, pixels, kind)


def _made(told: dict[str, Any], pixels: bytes, kind: str) -> media.Picture | media.Video:
    """What a child told, checked as anything hostile is."""
    try:
        shape = tuple(int(side) for side in told["shape"])
        if any(side < 1 for side in shape) or int(np.prod(shape, dtype=np.float64)) != len(pixels):
            raise ValueError("shape")
        array = np.frombuffer(pixels, np.uint8).reshape(shape)
        # Fixed texts: a child's own words would be a way out for whatever it knows of others' media.
        found = {str(text).partition(":")[0] for text in told["warnings"]}
        warnings = tuple(f"{code}: {text}" for code, text in WARNINGS.items() if code in found)
        if kind == "image":
            return media.Picture(Image.fromarray(array, "RGB"), name="image", warnings=warnings)
        times = tuple(float(time) for time in told["timestamps"])
        duration = None if told["duration"] is None else float(told["duration"])
        return media.Video(array, times, duration, name="video", warnings=warnings)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise MediaError(f"the {kind} could not be decoded") from None


__all__ = ["WorkerPool"]
