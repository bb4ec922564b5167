"""One thread that owns the model: it prefills one request, moves every answer on by a token, and begins again.

While a long video is encoded, other answers move on after every chunk of it. Everything else talks to it through a
queue. Emits are called in its thread and must not block. Leaves out HTTP.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pvc.engine.batch import Batch, RunningSequence, Token
from pvc.engine.encode import EncodedMedia, PreparedPicture
from pvc.engine.engine import Engine, MediaOptions
from pvc.engine.sampling import SamplingParams
from pvc.media import Video
from pvc.server.metrics import Metrics
from pvc.server.settings import Settings


@dataclass(frozen=True)
class MediaInput:
    """One medium of a request: opened, or encoded before; `keep` is told of what it was encoded to."""

    opened: PreparedPicture | Video | None
    options: MediaOptions
    encoded: EncodedMedia | None = None
    keep: Callable[[EncodedMedia], None] | None = None


@dataclass(frozen=True)
class StartedEvent:
    """The prompt has been read: its media and tokens."""

    media: list[EncodedMedia]
    prompt_tokens: int


@dataclass(frozen=True)
class TokenEvent:
    """A token of answer `index`; `finish` with the last one."""

    index: int
    token: Token
    finish: str | None


@dataclass(frozen=True)
class ErrorEvent:
    """Nothing more comes."""

    error: Exception


@dataclass
class Job:
    """A request on its way. `emit` gets Started, then Said again and again, or Failed."""

    messages: Sequence[dict[str, Any]]
    media: list[MediaInput]
    params: SamplingParams
    count: int
    emit: Callable[[StartedEvent | TokenEvent | ErrorEvent], None]
    cancelled: bool = False
    queued_at: float = field(default_factory=time.monotonic)
    timing: dict[str, float] = field(default_factory=dict)
    open: int = 0


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


class Scheduler:
    """The thread and its queue."""

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self.engine, self.most, self.metrics = engine, settings.batch, metrics
        self.places = settings.batch + settings.queue
        self.own = settings.share(self.places)
        self.batch = Batch(engine)
        self._inbox: queue.SimpleQueue[Job | tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._rows: dict[int, tuple[Job, int]] = {}  # by id of the row: whose it is, and its number
        self._refusing: Exception | None = None
        self._count: Counter[str] = Counter()  # places that are taken, by tenant
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="pvc-scheduler", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the step that is being made."""
        self._inbox.put(None)
        self._thread.join(60)

    def abandon(self, error: Exception) -> None:
        """Fail everything that waits or is answered with `error`, and whatever comes."""
        self._refusing = error
        self.run(lambda: None)

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    @property
    def load(self) -> int:
        """Requests that wait or are answered."""
        return self._count.total()

    def reserve(self, tenant: str) -> bool:
        """Take a place among those that wait or are answered; False when all are taken. `release` gives it back."""
        with self._lock:
            if self._count.total() >= self.places or self._count[tenant] >= self.own:
                return False
            self._count[tenant] += 1
            self.metrics.waiting.set(self._count.total())
        return True

    def release(self, tenant: str) -> None:
        """Give a place back."""
        with self._lock:
            self._count[tenant] -= 1
            self.metrics.waiting.set(self._count.total())

    def submit(self, job: Job) -> None:
        """Have a request answered."""
        self._inbox.put(job)

    def run(self, call: Callable[[], Any]) -> Future[Any]:
        """Have something else done with the model, between two steps."""
        future: Future[Any] = Future()
        self._inbox.put((call, future))
        return future

    def _work(self) -> None:
        while self._take():
            try:
                if self._refusing is not None:
                    self._fail(self._refusing)
                self._drop_cancelled()
                if self._waiting and len(self.batch.rows) < self.most:
                    self._begin(self._waiting.popleft())
                self._move_on()
            except Exception as error:  # a bug: it costs the answers of this moment, not the server
                self._fail(error)

    def _move_on(self) -> None:
        """Every answer by a token."""
        started = time.perf_counter()
        told = self._guarded_step()
        if told:
            self.metrics.step(len(told), time.perf_counter() - started)
        for row, token in told:
            self._say(row, token)

    def _take(self) -> bool:
        """Look into the inbox, waiting only when there is nothing to do; False when it is over.

        All requests are taken, and of other work with the model one piece: answers move on between two of them.
        """
        idle = not self._waiting and not self.batch.rows
        while idle or not self._inbox.empty():
            found = self._inbox.get()
            idle = False
            if found is None:
                return False
            if isinstance(found, Job):
                self._waiting.append(found)
                continue
            call, future = found
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except Exception as error:
                    future.set_exception(error)
            break
        return True

    def _drop_cancelled(self) -> None:
        gone = [row for row in self.batch.rows if self._rows[id(row)][0].cancelled]
        for row in gone:
            del self._rows[id(row)]
        self.batch.remove(gone)
        self._waiting = deque(job for job in self._waiting if not job.cancelled)

    def _begin(self, job: Job) -> None:
        started = time.perf_counter()
        job.timing["queue_s"] = time.monotonic() - job.queued_at

        def on_chunk() -> None:
            self._drop_cancelled()
            self._move_on()
            if job.cancelled or self._refusing is not None:
                raise self._refusing or Cancelled()

        try:
            media: list[EncodedMedia] = []
            for shown in job.media:
                media.append(self._encoded(shown, on_chunk))
                self.batch.room(sum(len(one.tokens) for one in media))
            job.timing["encode_s"] = time.perf_counter() - started
            begun = self.batch.start(job.messages, media, job.params, job.count)
        except Exception as error:
            job.emit(ErrorEvent(error))
            return
        job.timing["prefill_s"] = time.perf_counter() - started - job.timing["encode_s"]
        for phase in ("queue", "encode", "prefill"):
            self.metrics.phase(phase, job.timing[f"{phase}_s"])
        job.open = len(begun)
        job.emit(StartedEvent(media, begun[0][0].prompt))
        self.metrics.tokens.labels("prompt").inc(begun[0][0].prompt)
        for number, (row, token) in enumerate(begun):
            self._rows[id(row)] = job, number
            self._say(row, token)

    def _encoded(self, shown: MediaInput, on_chunk: Callable[[], None]) -> EncodedMedia:
        if shown.encoded is not None:
            return shown.encoded
        assert shown.opened is not None
        (encoded,) = self.engine.encode([shown.opened], shown.options, on_chunk)
        self.metrics.tokens.labels("visual").inc(len(encoded.tokens))
        if shown.keep is not None:
            shown.keep(encoded)
        return encoded

    def _guarded_step(self) -> list[tuple[RunningSequence, Token]]:
        try:
            return self.batch.step()
        except Exception as error:  # a bug, or memory that ran out: those in the batch are lost, others are not
            self._fail(error, waiting=False)
            return []

    def _fail(self, error: Exception, waiting: bool = True) -> None:
        jobs = {id(job): job for job, _ in self._rows.values()}
        if waiting:
            jobs |= {id(job): job for job in self._waiting}
            self._waiting.clear()
        for job in jobs.values():
            job.emit(ErrorEvent(error))
        self._rows.clear()
        self.batch = Batch(self.engine)

    def _say(self, row: RunningSequence, token: Token) -> None:
        job, number = self._rows[id(row)]
        self.metrics.tokens.labels("completion").inc()
        if row.finish is not None:
            del self._rows[id(row)]
            job.open -= 1
        job.emit(TokenEvent(number, token, row.finish))


__all__ = ["ErrorEvent", "Job", "MediaInput", "Scheduler", "StartedEvent", "TokenEvent"]
