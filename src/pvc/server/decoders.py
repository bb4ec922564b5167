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
import time
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from pvc import media
from pvc.errors import ConfigError, MediaError
from pvc.server.child import main as child_main
from pvc.server.settings import Settings

START_SECONDS = 60.0
REUSES = 200  # requests until a child is replaced: whatever leaks, leaks no further


class _Dead(Exception):
    """The child died, or was killed because its time was up."""


class _Child:
    def __init__(self, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=child_main, args=(theirs, settings.decode_bytes), daemon=True)
        self.process.start()
        theirs.close()
        self.served = 0
        self.network: str | None = None
        self.ready = False

    def wait_ready(self) -> None:
        """Wait until it has cut itself off; raises _Dead."""
        if not self.ready:
            self.network = json.loads(self._receive(time.monotonic() + START_SECONDS))["network"]
            self.ready = True

    def _receive(self, until: float, most: int | None = None) -> bytes:
        try:
            if not self.connection.poll(max(0.0, until - time.monotonic())):
                raise _Dead("time")
            return self.connection.recv_bytes(most)
        except (EOFError, OSError) as error:
            raise _Dead("gone") from error

    def ask(self, asked: dict[str, Any], data: bytes, seconds: float, most: int) -> tuple[dict[str, Any], bytes | None]:
        """Raises _Dead where no answer comes in time, or one that is longer than `most` bytes."""
        until = time.monotonic() + seconds
        try:
            self.connection.send_bytes(json.dumps(asked).encode())
            self.connection.send_bytes(data)
        except OSError as error:
            raise _Dead("gone") from error
        told = json.loads(self._receive(until, 2**20))
        self.served += 1
        return told, None if "error" in told else self._receive(until, most)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join(5)
        with contextlib.suppress(OSError):
            self.connection.close()


class Decoders:
    """A few children; `decode` may be called from several tasks at once.

    `counts`: how often a child was used, killed by the clock, or died by itself.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.free: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self.counts: Counter[str] = Counter()
        self.network: str | None = None
        self._gate = asyncio.Semaphore(settings.decoders)
        self._all: set[_Child] = set()

    def start(self) -> None:
        """Start the children and wait for one; raises ConfigError where they cannot be cut off from the network."""
        for _ in range(self.settings.decoders):
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
        for child in list(self._all):
            child.kill()
        self._all.clear()

    def _spawn(self) -> None:
        child = _Child(self.settings)
        self._all.add(child)
        self.free.put(child)

    def _replace(self, child: _Child) -> None:
        child.kill()
        self._all.discard(child)
        self._spawn()

    async def decode(
        self, data: bytes, kind: str, *, sampling: dict[str, Any] | None = None, size: tuple[int, int] | None = None
    ) -> media.Picture | media.Video:
        """The picture or video in bytes.

        Raises:
            MediaError: as the loaders do; `corrupt_media` where the child died of it, `too_many_frames` where its time
                was up.
        """
        async with self._gate:
            return await asyncio.to_thread(self._decode, data, kind, sampling, size)

    def _decode(
        self, data: bytes, kind: str, sampling: dict[str, Any] | None, size: tuple[int, int] | None
    ) -> media.Picture | media.Video:
        limits = self.settings.media
        asked = {"kind": kind, "sampling": sampling, "size": size, "limits": dataclasses.asdict(limits)}
        most = limits.max_pixels * 3 if kind == "image" else limits.max_frames * (size or (4096, 4096))[0] ** 2 * 3
        child = self.free.get()
        self.counts["used"] += 1
        try:
            child.wait_ready()
            told, pixels = child.ask(asked, data, self.settings.decode_seconds, most)
        except (_Dead, ValueError) as error:
            timed_out = str(error) == "time"
            self.counts["killed" if timed_out else "died"] += 1
            self._replace(child)
            code = "too_many_frames" if timed_out else "corrupt_media"
            raise MediaError(f"the {kind} could not be decoded", code=code) from None
        if child.served >= REUSES:
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
