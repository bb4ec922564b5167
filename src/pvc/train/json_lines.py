"""Append to and read files of JSON lines that a killed process may have left with half a line.

Called by whatever a run writes as it goes: `train/data/records.py`, `stage_log.py`, `plot.py`, `distill`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def append_json_line(path: Path, entry: Any) -> None:
    """Append `entry` as one line. If the file ends in the middle of a line, that line is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        is_cut = False
        if size:
            file.seek(size - 1)
            is_cut = file.read(1) != b"\n"
        file.write((b"\n" if is_cut else b"") + json.dumps(entry).encode() + b"\n")


def read_json_lines(path: Path) -> Iterator[Any]:
    """Yield the entries of a file; nothing if there is none. Lines that are not JSON are left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # the process was killed while it wrote the line, or the disk was full
            continue


__all__ = ["append_json_line", "read_json_lines"]
