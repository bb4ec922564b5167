"""Ends a training after the current step, with a checkpoint, when SIGINT or SIGTERM arrives or its time is up.

It also saves by time. Called by `run_stage.py` around the steps of one stage. A signal outside of the steps ends the
program as usual: there is nothing to save, and the run goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import TrainerCallback

from pvc.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# torchrun passes on a Ctrl-C that the terminal has sent to every process already: both are one request.
SAME_REQUEST_SECONDS = 1.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
END = 0  # no signal has this number
TIME_UP = "--stop-after"
SHOW_CURSOR = "\x1b[?25h"


class StopRequest:
    """Signals that ask a training to stop, watched in a thread.

    The main thread may be waiting for another process, where Python runs no signal handler. The thread can end the
    program even then.

    Args:
        report: gets a line when a stop is requested.
        until: a time of `time.monotonic` at which a stop is requested, too.

    Attributes:
        name: of the first signal that arrived ("SIGINT"), `TIME_UP`, or None.
    """

    def __init__(self, report: Callable[[str], None] = lambda line: None, until: float | None = None) -> None:
        self.report, self.until = report, until
        self.name: str | None = None
        self._first: float | None = None

    def check_time(self) -> None:
        """Request a stop if the time is up."""
        if self.name is None and self.until is not None and time.monotonic() >= self.until:
            self.name = TIME_UP
            self.report(f"{TIME_UP}: stopping after this step and its checkpoint")

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Watch SIGINT and SIGTERM in this block; outside of the main thread they cannot be watched."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        thread = threading.Thread(target=self._read, args=(reader,), name="stop-request", daemon=True)
        thread.start()
        before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)
            writer.send(bytes([END]))  # closing it is not enough: a forked data worker has a copy
            thread.join()
            writer.close()
            reader.close()

    def _read(self, reader: socket.socket) -> None:
        while True:
            for number in reader.recv(64):
                if number == END:
                    return
                if number in SIGNALS:
                    self._receive(signal.Signals(number))

    def _receive(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if self._first is None:
            self.name, self._first = self.name or number.name, now
            again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
            self.report(f"{number.name}: stopping after this step and its checkpoint{again}")
        elif now - self._first >= SAME_REQUEST_SECONDS:
            if sys.stderr.isatty():  # a progress bar hides the cursor
                sys.stderr.write(f"{SHOW_CURSOR}\n")
                sys.stderr.flush()
            os._exit(Interrupted.exit_code)


class Saving(TrainerCallback):
    """Saves every `minutes`, and saves and ends the training when a stop is requested.

    All processes follow the first one's clock, and a signal that any of them got: a process that saved or stopped on
    its own would leave the others waiting.

    Args:
        minutes: between two checkpoints; None saves by steps alone.
        request: what `StopRequest` has seen.
        clock: seconds from any fixed start, as `time.monotonic` gives.
    """

    def __init__(
        self, minutes: float | None, request: StopRequest, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.minutes, self.request, self.clock = minutes, request, clock
        self.stopped = False  # agreed by all processes
        self._saved = clock()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = self.clock()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = self.clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.request.check_time()
        due = self.minutes is not None and self.clock() - self._saved >= 60 * self.minutes
        self.stopped, due = _agreed(self.request.name is not None, due)
        if self.stopped or due:
            control.should_save = True
        if self.stopped:
            # What has been summed up since the last line of the log would be lost.
            control.should_log = control.should_training_stop = True


def _agreed(stop: bool, due: bool) -> tuple[bool, bool]:
    """Agree on a stop that any process was asked for, and on the first process's clock."""
    state = PartialState()
    if state.num_processes == 1:
        return stop, due
    flags = torch.tensor([float(stop), float(due and state.is_main_process)], device=state.device)
    stops, dues = reduce(flags, reduction="sum").tolist()
    return stops > 0, dues > 0


def outlive_signals(worker: int, before: Callable[[int], Any] | None = None) -> None:
    """Let a data worker outlive the signals that its parent handles.

    A terminal sends Ctrl-C to both, and a job scheduler SIGTERM. The parent needs the worker for its last step, and
    ends it with a SIGTERM of its own if it does not end by itself.

    Args:
        worker: its number.
        before: what else to call with that number, as `DataLoader` calls a `worker_init_fn`.
    """
    if before is not None:
        before(worker)
    seen: list[int] = []

    def terminate(number: int, frame: Any) -> None:
        if seen:
            os._exit(0)
        seen.append(number)

    signal.set_wakeup_fd(-1)  # a forked worker has the parent's, which would count the signal twice
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)


__all__ = ["Saving", "StopRequest", "outlive_signals"]
