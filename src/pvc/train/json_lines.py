"""Append to and read files of JSON lines, in which a killed process may have left half a line.

Called by `stage_log.py`, `plot.py`, `summary.py`, `data/records.py` and `distill/`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def append_json_line(path: Path, entry: Any) -> None:
    """Append an entry as one line. If the file ends in the middle of a line, end that line first.

    Args:
        path: of the file; it is created, and so is its directory.
        entry: to be written as JSON.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        is_cut = False
        if size:
            file.seek(size - 1)
            is_cut = file.read(1) != b"\n"
        file.write((b"\n" if is_cut else b"") + json.dumps(entry).encode() + b"\n")


def read_json_lines(path: Path) -> Iterator[Any]:
    """Yield the entries of a file; none if it does not exist. Lines that are not JSON are skipped."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # the process was killed while writing, or the disk was full
            continue


__all__ = ["append_json_line", "read_json_lines"]
