"""Decoding in child processes: spawned ahead of need, reused, killed by the clock, replaced when they die.

The parent never decodes. What a child answers is checked against what was asked and against its own numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import multiprocessing
import queue
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from pvc import media
from pvc.errors import ConfigError, MediaError
from pvc.server.child import main as child_main
from pvc.server.settings import Settings

START_SECONDS = 60.0
LEAVE_SECONDS = 0.3  # what a child may still take when nobody waits for it any more
REUSES = 200  # requests until a child is replaced: whatever leaks, leaks no further


class _Dead(Exception):
    """The child died, or was killed because its time was up."""


class _Child:
    def __init__(self, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=child_main, args=(theirs, settings.decode_bytes), daemon=True)
        # A terminal's Ctrl-C goes to the whole group, and what is being answered then is to be finished first.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.served = 0
        self.network: str | None = None
        self.ready = False

    def wait_ready(self) -> None:
        """Wait until it has cut itself off; raises _Dead."""
        if not self.ready:
            with self._clock(START_SECONDS):
                self.network = json.loads(self.connection.recv_bytes(2**10))["network"]
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

    def ask(self, asked: dict[str, Any], data: bytes, seconds: float, most: int) -> tuple[dict[str, Any], bytes | None]:
        """Raises _Dead where no answer comes in time, or one that is longer than `most` bytes."""
        with self._clock(seconds):
            self.connection.send_bytes(json.dumps(asked).encode())
            self.connection.send_bytes(data)
            told = json.loads(self.connection.recv_bytes(2**20))
            if not isinstance(told, dict):
                raise ValueError("not an answer")
            self.served += 1
            return told, None if "error" in told else self.connection.recv_bytes(most)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join(5)
        with contextlib.suppress(OSError):
            self.connection.close()


class _Asking:
    """Who waits for a child's answer, and the child while there is one."""

    def __init__(self) -> None:
        self.left = False
        self._child: _Child | None = None
        self._lock = threading.Lock()

    def take(self, child: _Child | None) -> bool:
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


class Decoders:
    """A few children; `decode` may be called from several tasks at once.

    `counts`: how often a child was used, killed by the clock, killed because nobody waited for it, or died by itself.
    `busy`: media that are being decoded now.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.free: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self.counts: Counter[str] = Counter()
        self.network: str | None = None
        self.busy = 0
        self._gate = asyncio.Semaphore(settings.decoders)
        self._all: set[_Child] = set()
        self._closed = False
        # Threads of its own: waiting for children must not take those that everything else runs in.
        self._threads = ThreadPoolExecutor(settings.decoders, "pvc-decode")

    def start(self) -> None:
        """Start the children and wait for one; raises ConfigError where they cannot be cut off from the network."""
        for _ in range(self.settings.decoders + 1):  # one is ready when another has to be replaced
            self._spawn()
        first = self.free.get()
        try:
            first.wait_ready()
        except _Dead as error:
            raise ConfigError("a decoder did not start") from error
        self.network = first.network
        self.free.put(first)
        if self.network is None and not self.settings.unsafe_decode:
            self.close()
            raise ConfigError(
                "decoders cannot be cut off from the network on this system (neither a user namespace nor seccomp); "
                "with --unsafe-decode they run all the same"
            )

    def close(self) -> None:
        """End all children."""
        self._closed = True
        for child in list(self._all):
            child.kill()
        self._all.clear()
        self._threads.shutdown(wait=False)

    def _spawn(self) -> None:
        child = _Child(self.settings)
        self._all.add(child)
        self.free.put(child)

    def _replace(self, child: _Child) -> None:
        child.kill()
        self._all.discard(child)
        if not self._closed:
            self._spawn()

    def _living(self) -> _Child:
        """A child that is free; one that died while it had nothing to do is nobody's fault who asks now."""
        while not (child := self.free.get()).process.is_alive():
            self.counts["died"] += 1
            self._replace(child)
        return child

    async def decode(
        self, data: bytes, kind: str, *, sampling: dict[str, Any] | None = None, size: tuple[int, int] | None = None
    ) -> media.Picture | media.Video:
        """The picture or video in bytes.

        Raises:
            MediaError: as the loaders do; `corrupt_media` where the child died of it, `too_many_frames` where its time
                was up.

        Cancelled, it kills the child unless that is done at once: nobody's picture keeps others waiting.
        """
        async with self._gate:
            self.busy += 1
            asking = _Asking()
            work = asyncio.wrap_future(self._threads.submit(self._decode, asking, data, kind, sampling, size))
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

    def _decode(
        self, asking: _Asking, data: bytes, kind: str, sampling: dict[str, Any] | None, size: tuple[int, int] | None
    ) -> media.Picture | media.Video:
        limits = self.settings.media
        asked = {"kind": kind, "sampling": sampling, "size": size, "limits": dataclasses.asdict(limits)}
        most = limits.max_pixels * 3 if kind == "image" else limits.max_frames * (size or (4096, 4096))[0] ** 2 * 3
        child = self._living()
        self.counts["used"] += 1
        try:
            if not asking.take(child):
                raise _Dead("left")
            child.wait_ready()
            told, pixels = child.ask(asked, data, self.settings.decode_seconds, most)
        except (_Dead, ValueError, RecursionError) as error:
            timed_out = str(error) == "time"
            asking.take(None)
            self.counts["left" if asking.left else "killed" if timed_out else "died"] += 1
            self._replace(child)
            code = "too_many_frames" if timed_out else "corrupt_media"
            raise MediaError(f"the {kind} could not be decoded", code=code) from None
        if not asking.take(None) or child.served >= REUSES:  # one that was left may have been killed just now
            self._replace(child)
        else:
            self.free.put(child)
        if pixels is None:
            raise MediaError(f"the {kind} is refused", code=str(told.get("error", "corrupt_media"))[:40])
        return _made(told, pixels, kind)


def _made(told: dict[str, Any], pixels: bytes, kind: str) -> media.Picture | media.Video:
    """What a child told, checked as anything hostile is."""
    try:
        shape = tuple(int(side) for side in told["shape"])
        if any(side < 1 for side in shape) or int(np.prod(shape, dtype=np.float64)) != len(pixels):
            raise ValueError("shape")
        array = np.frombuffer(pixels, np.uint8).reshape(shape)
        warnings = tuple(str(text)[:200] for text in told["warnings"])[:20]
        if kind == "image":
            return media.Picture(Image.fromarray(array, "RGB"), name="image", warnings=warnings)
        times = tuple(float(time) for time in told["timestamps"])
        duration = None if told["duration"] is None else float(told["duration"])
        return media.Video(array, times, duration, name="video", warnings=warnings)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise MediaError(f"the {kind} could not be decoded") from None


__all__ = ["Decoders"]
