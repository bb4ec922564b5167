"""Stop a training after the current step, with a checkpoint, on SIGINT, SIGTERM or when its time is up.

Also saves by time. Called by `run_stage.py` around the steps of one stage. Outside of the steps a signal ends the
program as usual: there is nothing to save, and the next run resumes from the last checkpoint.
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
# torchrun forwards a Ctrl-C that the terminal has already sent to every process: both are one request.
SAME_REQUEST_SECONDS = 1.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
END = 0  # no signal has this number
TIME_UP = "--stop-after"
SHOW_CURSOR = "\x1b[?25h"


class StopRequest:
    """Signals that stop a training; a thread watches for them.

    While the main thread waits for another process, Python runs no signal handlers. The thread can end the program
    even then.

    Args:
        report: gets a line when a stop is requested.
        until: a time of `time.monotonic`, in seconds, at which a stop is requested, too.

    Attributes:
        name: reason of the stop: name of the first signal ("SIGINT"), `TIME_UP`, or None before any request.
    """

    def __init__(self, report: Callable[[str], None] = lambda line: None, until: float | None = None) -> None:
        self.report, self.until = report, until
        self.name: str | None = None
        self._first_time: float | None = None

    def check_time(self) -> None:
        """Request a stop if the time is up."""
        if self.name is None and self.until is not None and time.monotonic() >= self.until:
            self.name = TIME_UP
            self.report(f"{TIME_UP}: stopping after this step and its checkpoint")

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Watch SIGINT and SIGTERM in this block; outside of the main thread do nothing, since Python forbids it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        thread = threading.Thread(target=self._read, args=(reader,), name="stop-request", daemon=True)
        thread.start()
        handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in handlers.items():
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
        if self._first_time is None:
            self.name, self._first_time = self.name or number.name, now
            again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
            self.report(f"{number.name}: stopping after this step and its checkpoint{again}")
        elif now - self._first_time >= SAME_REQUEST_SECONDS:
            if sys.stderr.isatty():  # a progress bar hides the cursor
                sys.stderr.write(f"{SHOW_CURSOR}\n")
                sys.stderr.flush()
            os._exit(Interrupted.exit_code)


class Saving(TrainerCallback):
    """Callback that saves every `minutes`. When a stop is requested, it saves and ends the training.

    All processes follow the clock of the first process, and a signal that any process receives: a process that saves or
    stops alone would leave the others waiting.

    Args:
        minutes: time between two checkpoints; None saves by steps alone.
        request: checked after every step.
        clock: returns seconds from a fixed start, as `time.monotonic` does.

    Attributes:
        stopped: whether the processes have agreed to stop.
    """

    def __init__(
        self, minutes: float | None, request: StopRequest, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.minutes, self.request, self.clock = minutes, request, clock
        self.stopped = False
        self._last_save = clock()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._last_save = self.clock()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restart the clock."""
        self._last_save = self.clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Request a checkpoint when it is due, and the end of the training when a stop is requested."""
        self.request.check_time()
        is_due = self.minutes is not None and self.clock() - self._last_save >= 60 * self.minutes
        self.stopped, is_due = _agree(self.request.name is not None, is_due)
        if self.stopped or is_due:
            control.should_save = True
        if self.stopped:
            # The losses since the last log entry would be lost.
            control.should_log = control.should_training_stop = True


def _agree(is_stopped: bool, is_due: bool) -> tuple[bool, bool]:
    """Return whether any process has to stop, and whether a checkpoint is due by the first process's clock."""
    state = PartialState()
    if state.num_processes == 1:
        return is_stopped, is_due
    flags = torch.tensor([float(is_stopped), float(is_due and state.is_main_process)], device=state.device)
    stops, dues = reduce(flags, reduction="sum").tolist()
    return stops > 0, dues > 0


def outlive_signals(worker: int, before: Callable[[int], Any] | None = None) -> None:
    """Make a data worker ignore the first signal, which its parent handles.

    A terminal sends Ctrl-C to both processes, and a job scheduler sends SIGTERM to both. The parent needs the worker
    for its last step. If the worker does not end by itself, the parent then sends a second SIGTERM.

    Args:
        worker: number of the worker.
        before: called first with that number: the previous `worker_init_fn` of the `DataLoader`.
    """
    if before is not None:
        before(worker)
    received: list[int] = []

    def terminate(number: int, frame: Any) -> None:
        if received:
            os._exit(0)
        received.append(number)

    signal.set_wakeup_fd(-1)  # a forked worker inherits the parent's, which would count the signal twice
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)


__all__ = ["Saving", "StopRequest", "outlive_signals"]
