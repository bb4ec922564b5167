"""The thread that owns the model. It prefills one request, advances every answer by one token, and repeats.

While a long video is encoded, the other answers advance after every chunk of it. Other threads pass their work through
a queue. The `emit` callbacks run in this thread and must not block. Used by `app.py` and `chat_completions.py`.
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
from pvc.engine.engine import Engine
from pvc.engine.options import MediaOptions, SamplingParams
from pvc.media import Video
from pvc.server.metrics import Metrics
from pvc.server.settings import Settings

JOIN_SECONDS = 60


@dataclass(frozen=True)
class MediaInput:
    """One medium of a request, which is either decoded or encoded already.

    Attributes:
        opened: the decoded medium; None if `encoded` is set.
        options: how it is prepared.
        encoded: its visual tokens, if it was encoded before.
        on_encoded: called with the visual tokens once they are computed.
    """

    opened: PreparedPicture | Video | None
    options: MediaOptions
    encoded: EncodedMedia | None = None
    on_encoded: Callable[[EncodedMedia], None] | None = None


@dataclass(frozen=True)
class StartedEvent:
    """The prompt has been prefilled.

    Attributes:
        media: its encoded media, in order.
        prompt_tokens: number of its tokens.
    """

    media: list[EncodedMedia]
    prompt_tokens: int


@dataclass(frozen=True)
class TokenEvent:
    """One token of an answer.

    Attributes:
        index: number of the answer.
        token: the token.
        finish: reason why the answer ends with this token, or None.
    """

    index: int
    token: Token
    finish: str | None


@dataclass(frozen=True)
class ErrorEvent:
    """The request has failed; no event follows.

    Attributes:
        error: the exception.
    """

    error: Exception


@dataclass
class Job:
    """A request in the scheduler.

    Attributes:
        messages: the conversation, as a chat template takes it.
        media: its media, in order.
        params: how tokens are sampled.
        num_answers: number of answers.
        emit: called with a `StartedEvent`, then with many `TokenEvent`, or with an `ErrorEvent`.
        is_cancelled: set by another thread when the result is not needed any more.
        queued_at: time of creation, in seconds of `time.monotonic`.
        timing: seconds by phase, as clients get them.
        num_open: answers that have not ended.
    """

    messages: Sequence[dict[str, Any]]
    media: list[MediaInput]
    params: SamplingParams
    num_answers: int
    emit: Callable[[StartedEvent | TokenEvent | ErrorEvent], None]
    is_cancelled: bool = False
    queued_at: float = field(default_factory=time.monotonic)
    timing: dict[str, float] = field(default_factory=dict)
    num_open: int = 0


class JobCancelled(Exception):
    """A job was cancelled while its media were encoded."""


class Scheduler:
    """The thread and its queue.

    Args:
        engine: the engine, whose model only this thread uses.
        settings: limits of the batch and the queue.
        metrics: records tokens, steps and phases.

    Attributes:
        max_batch_size: maximum number of answers that run when a request starts.
        capacity: maximum number of requests that wait or are answered.
        tenant_capacity: the same for one tenant.
        batch: the answers that are being generated.
    """

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self.engine, self.max_batch_size, self.metrics = engine, settings.batch, metrics
        self.capacity = settings.batch + settings.queue
        self.tenant_capacity = settings.get_tenant_share(self.capacity)
        self.batch = Batch(engine)
        self._inbox: queue.SimpleQueue[Job | tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._jobs: dict[int, tuple[Job, int]] = {}  # job and number of the answer, by `id` of the sequence
        self._abandon_error: Exception | None = None
        self._reserved: Counter[str] = Counter()  # places by tenant
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run_loop, name="pvc-scheduler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread after the present step."""
        self._inbox.put(None)
        self._thread.join(JOIN_SECONDS)

    def abandon(self, error: Exception) -> None:
        """Fail all present and future requests with `error`."""
        self._abandon_error = error
        self.run(lambda: None)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def load(self) -> int:
        """Number of requests that wait or are answered."""
        return self._reserved.total()

    def reserve(self, tenant: str) -> bool:
        """Reserve a place for a request, until `release`. Return False if all places are taken."""
        with self._lock:
            if self._reserved.total() >= self.capacity or self._reserved[tenant] >= self.tenant_capacity:
                return False
            self._reserved[tenant] += 1
            self.metrics.open_requests.set(self._reserved.total())
        return True

    def release(self, tenant: str) -> None:
        """Return a place that `reserve` has taken."""
        with self._lock:
            self._reserved[tenant] -= 1
            self.metrics.open_requests.set(self._reserved.total())

    def submit(self, job: Job) -> None:
        """Add a request to the queue."""
        self._inbox.put(job)

    def run(self, call: Callable[[], Any]) -> Future[Any]:
        """Call a function in this thread between two steps, and return the future of its result."""
        future: Future[Any] = Future()
        self._inbox.put((call, future))
        return future

    def _run_loop(self) -> None:
        while self._take_from_inbox():
            try:
                if self._abandon_error is not None:
                    self._fail_jobs(self._abandon_error)
                self._drop_cancelled()
                if self._waiting and len(self.batch.rows) < self.max_batch_size:
                    self._start_job(self._waiting.popleft())
                self._advance_answers()
            except Exception as error:  # a bug must fail the present requests, not the server
                self._fail_jobs(error)

    def _advance_answers(self) -> None:
        """Advance every answer by one token."""
        started_at = time.perf_counter()
        tokens = self._step_batch()
        if tokens:
            self.metrics.observe_step(len(tokens), time.perf_counter() - started_at)
        for sequence, token in tokens:
            self._emit_token(sequence, token)

    def _take_from_inbox(self) -> bool:
        """Take new work, and wait for it only if there is nothing else to do. Return False to stop the thread.

        Takes all requests, but at most one call: answers advance between two calls.
        """
        is_idle = not self._waiting and not self.batch.rows
        while is_idle or not self._inbox.empty():
            item = self._inbox.get()
            is_idle = False
            if item is None:
                return False
            if isinstance(item, Job):
                self._waiting.append(item)
                continue
            call, future = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except Exception as error:
                    future.set_exception(error)
            break
        return True

    def _drop_cancelled(self) -> None:
        cancelled = [sequence for sequence in self.batch.rows if self._jobs[id(sequence)][0].is_cancelled]
        for sequence in cancelled:
            del self._jobs[id(sequence)]
        self.batch.remove(cancelled)
        self._waiting = deque(job for job in self._waiting if not job.is_cancelled)

    def _start_job(self, job: Job) -> None:
        started_at = time.perf_counter()
        job.timing["queue_s"] = time.monotonic() - job.queued_at

        def on_chunk() -> None:
            self._drop_cancelled()
            self._advance_answers()
            if job.is_cancelled or self._abandon_error is not None:
                raise self._abandon_error or JobCancelled()

        try:
            media: list[EncodedMedia] = []
            for medium in job.media:
                media.append(self._encode(medium, on_chunk))
                self.batch.room(sum(len(encoded.tokens) for encoded in media))
            job.timing["encode_s"] = time.perf_counter() - started_at
            sequences = self.batch.start(job.messages, media, job.params, job.num_answers)
        except Exception as error:
            job.emit(ErrorEvent(error))
            return
        job.timing["prefill_s"] = time.perf_counter() - started_at - job.timing["encode_s"]
        for phase in ("queue", "encode", "prefill"):
            self.metrics.observe_phase(phase, job.timing[f"{phase}_s"])
        job.num_open = len(sequences)
        prompt_tokens = sequences[0][0].prompt
        job.emit(StartedEvent(media, prompt_tokens))
        self.metrics.tokens.labels("prompt").inc(prompt_tokens)
        for index, (sequence, token) in enumerate(sequences):
            self._jobs[id(sequence)] = job, index
            self._emit_token(sequence, token)

    def _encode(self, medium: MediaInput, on_chunk: Callable[[], None]) -> EncodedMedia:
        if medium.encoded is not None:
            return medium.encoded
        assert medium.opened is not None
        (encoded,) = self.engine.encode([medium.opened], medium.options, on_chunk)
        self.metrics.tokens.labels("visual").inc(len(encoded.tokens))
        if medium.on_encoded is not None:
            medium.on_encoded(encoded)
        return encoded

    def _step_batch(self) -> list[tuple[RunningSequence, Token]]:
        try:
            return self.batch.step()
        except Exception as error:  # a bug, or out of memory: fails the batch, not the requests that wait
            self._fail_jobs(error, include_waiting=False)
            return []

    def _fail_jobs(self, error: Exception, include_waiting: bool = True) -> None:
        jobs = {id(job): job for job, _ in self._jobs.values()}
        if include_waiting:
            jobs |= {id(job): job for job in self._waiting}
            self._waiting.clear()
        for job in jobs.values():
            job.emit(ErrorEvent(error))
        self._jobs.clear()
        self.batch = Batch(self.engine)

    def _emit_token(self, sequence: RunningSequence, token: Token) -> None:
        job, index = self._jobs[id(sequence)]
        self.metrics.tokens.labels("completion").inc()
        if sequence.finish is not None:
            del self._jobs[id(sequence)]
            job.num_open -= 1
        job.emit(TokenEvent(index, token, sequence.finish))


__all__ = ["ErrorEvent", "Job", "MediaInput", "Scheduler", "StartedEvent", "TokenEvent"]
