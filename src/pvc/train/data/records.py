"""Rows of a stage's files in the order of training, and account of those that cannot be used.

Every round over a file has all of its rows, in another order. A bad row is told once, written down where every
process and a later run of the same training sees it, and another one is taken in its place. Leaves out where rows
come from (`readers.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pvc.errors import ConfigError, PVCError
from pvc.processing.conversations import Record
from pvc.train.data.readers import RecordTable, open_table
from pvc.train.json_lines import append_json_line, read_json_lines
from pvc.train.recipe import FileMix

Report = Callable[[str], None]
NO_ANSWER = "no answer that could be learned"
SPARE = 10  # bad rows of a stream, whose length nobody knows, before their part counts


class BadRowLog:
    """Bad rows that were met, in a file that workers, processes and later runs share; without one, in memory."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.met: dict[str, dict[int, str]] = {}

    def of(self, file: str) -> dict[int, str]:
        """Reasons by line of one file, those that others wrote included."""
        for line in read_json_lines(self.path) if self.path is not None else ():
            self.met.setdefault(line["file"], {})[line["line"]] = line["reason"]
        return self.met.setdefault(file, {})

    def add(self, file: str, line: int, reason: str) -> bool:
        """Write a row down; returns whether it is new."""
        if line in self.of(file):
            return False
        self.met[file][line] = reason
        if self.path is not None:
            append_json_line(self.path, {"file": file, "line": line, "reason": reason})
        return True


class RecordSource:
    """The rows of one file (or whatever `tables.open_table` opens) that can be trained on.

    Attributes:
        bad: reasons by line. total: rows, or None of a stream. groups: names of parts that batches are made of, with
            the numbers of their rows; None where nobody knows how many there are.

    Raises:
        UsageError: the file cannot be read.
        ConfigError: no row is good, or more are bad than the stage allows; they are named.
    """

    def __init__(
        self,
        path: str,
        share: float,
        report: Report = lambda line: None,
        *,
        mix: FileMix | None = None,
        seed: int = 0,
        bad_row_log: BadRowLog | None = None,
        need_good: bool = True,
        table: RecordTable | None = None,
        refuse: Callable[[Record], str | None] | None = None,
    ) -> None:
        mix = mix or FileMix(weight=1.0)
        self.path, self.share, self.report = path, share, report
        self.bad_row_log, self.refuse = bad_row_log or BadRowLog(), refuse or without_answer
        if table is None:
            table = open_table(path, split=mix.split, subset=mix.subset, stream=seed if mix.stream else None)
        self.table = table
        self.total = self.table.total
        self.seed, self.seen = seed, 0
        self.bad: dict[int, str] = dict(self.bad_row_log.of(path))
        useless = {malformed.line: malformed.reason for malformed in self.table.bad}
        useless |= {row.line: reason for row in self.table.rows or () if (reason := self.refuse(row))}
        for line, reason in useless.items():
            self.note(line, reason)
        # Not without those that an earlier run has met: the order must not depend on where a training stopped.
        self.groups = self._grouped(set(useless))
        self.rounds: dict[str, tuple[int, NDArray[np.int64]]] = {}
        if need_good and not any(numbers is None or len(numbers) for numbers in self.groups.values()):
            raise ConfigError(f"{path} has no rows that could be trained on{self._named()}")

    def _grouped(self, useless: set[int]) -> dict[str, NDArray[np.int64] | None]:
        if self.table.rows is None:
            return {"rows": None if self.total is None else np.arange(self.total)}
        groups: dict[str, NDArray[np.int64] | None] = {}
        for kind in ("image", "video"):
            numbers = [n for n, row in enumerate(self.table.rows) if row.kind == kind and row.line not in useless]
            if numbers:
                groups[kind] = np.array(numbers, np.int64)
        return groups

    @property
    def allowed(self) -> int:
        """How many rows may be bad."""
        return int(self.share * self.total) if self.total is not None else SPARE + int(self.share * self.seen)

    def good(self) -> list[Record]:
        """All rows that are not known to be bad, of a table that has an end; what is malformed is noted."""
        if self.table.rows is not None:
            return [row for row in self.table.rows if row.line not in self.bad]
        found = []
        for number in range(self.total or 0):
            try:
                found.append(self._read(number))
            except PVCError as error:
                self.note(number + 1, str(error))
        return found

    def _read(self, number: int) -> Record:
        row = self.table.row(number)
        if reason := self.refuse(row):
            raise ConfigError(reason)
        return row

    def draw(self, group: str, place: int) -> Record:
        """The row at a place in the order of a group; raises PVCError for one that is bad (its line: `line_at`)."""
        self.seen = max(self.seen, place + 1)
        return self._read(self._number(group, place))

    def line_at(self, group: str, place: int) -> int:
        """The line that `draw` gives, numbered from 1."""
        number = self._number(group, place)
        return number + 1 if self.table.rows is None else self.table.rows[number].line

    def _number(self, group: str, place: int) -> int:
        numbers = self.groups[group]
        if numbers is None:
            return place
        turn, rest = divmod(place, len(numbers))
        if self.rounds.get(group, (-1,))[0] != turn:
            order = np.random.default_rng((self.seed, 3, turn)).permutation(len(numbers))
            self.rounds[group] = turn, numbers[order]
        return int(self.rounds[group][1][rest])

    def substitute(self, group: str, place: int, rng: np.random.Generator) -> int:
        """A place to look at instead of a bad one; raises ConfigError when no row of the group is left."""
        numbers = self.groups[group]
        if numbers is None:
            return place + 1  # reading on is all that a stream can do
        if len(self.bad) >= len(numbers) and all(self.line_at(group, n) in self.bad for n in range(len(numbers))):
            raise ConfigError(f"{self.path} ({group}): no row is left that could be trained on")
        return int(rng.integers(len(numbers)))

    def note(self, line: int, reason: str) -> None:
        """A row turned out to be bad; raises ConfigError where that is one too many."""
        new = self.bad_row_log.add(self.path, line, reason)
        self.bad.update(self.bad_row_log.of(self.path))
        if not new:
            return
        self.report(f"{self.path}, {self.named(line)}: passed over: {reason}")
        if len(self.bad) > self.allowed:
            of = "rows that were read" if self.total is None else "rows"
            raise ConfigError(
                f"{self.path}: {len(self.bad)} of {self.seen if self.total is None else self.total} {of} are bad, more "
                f"than 'bad_rows' allows ({self.allowed}){self._named()}"
            )

    def named(self, *lines: int) -> str:
        """What people call rows: their lines, or their files where every row is a file."""
        names = getattr(self.table, "names", None)
        listed = ", ".join(str(line if names is None else names[line - 1]) for line in lines)
        return listed if names is not None else f"line{'s'[: len(lines) != 1]} {listed}"

    def _named(self, most: int = 5) -> str:
        reasons = "; ".join(f"{self.named(line)}: {reason}" for line, reason in sorted(self.bad.items())[:most])
        more = f"; and {len(self.bad) - most} more" if len(self.bad) > most else ""
        return f": {reasons}{more}" if reasons else ""


def without_answer(row: Record) -> str | None:
    """Say what is wrong with a row that teaches no answer."""
    return None if learnable(row) else NO_ANSWER


def learnable(row: Record) -> bool:
    """Whether there is an answer in it."""
    return any(message["role"] == "assistant" and message["content"] for message in row.messages)


__all__ = ["BadRowLog", "RecordSource", "learnable", "without_answer"]
