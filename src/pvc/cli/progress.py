"""Progress for people: on stderr, only when that is a terminal, gone when the work is done."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """Show a spinner with `text` while the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


class Journal:
    """Lines for a terminal, and always into a file: a long run in the background can be looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, line: str) -> None:
        if sys.stderr.isatty():
            print(line, file=sys.stderr)
        if self.path.parent.is_dir():
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


__all__ = ["Journal", "status"]
