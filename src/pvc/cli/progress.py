"""Progress for people: on stderr, only when that is a terminal, gone when the work is done."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """Show a spinner with `text` while the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


@contextlib.contextmanager
def counting(text: str) -> Iterator[Callable[[int, int], None]]:
    """A bar behind `text`; what is yielded takes how many are done, and of how many."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class Journal:
    """Lines for a terminal, and always into a file: a long run in the background can be looked at.

    On a terminal, what a training says of its steps becomes a bar that is drawn over and over in one line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}

    def __call__(self, line: str) -> None:
        if sys.stderr.isatty():
            print(line, file=sys.stderr) if self.bar is None else self.bar.console.print(line, highlight=False)
        self._write(line)

    def progress(self, stage: str, done: float, line: str) -> None:
        """Part `done` (0 to 1) of a stage, with the line that says so in words."""
        self._write(line)
        if not sys.stderr.isatty():
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.description}"),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.start()
        if stage not in self.tasks:
            self.tasks[stage] = self.bar.add_task(line, total=1.0)
        self.bar.update(self.tasks[stage], completed=done, description=line)

    def close(self) -> None:
        """Leave the bars as they are; later lines go below them."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _write(self, line: str) -> None:
        if self.path.parent.is_dir():
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


__all__ = ["Journal", "counting", "status"]
