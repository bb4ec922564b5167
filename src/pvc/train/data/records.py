"""Records of a stage's files in the order of training, and the bookkeeping of bad records.

Every epoch over a file has all of its records, in a different order. A bad record is reported once and logged in a file
that every process and a later run of the same training reads. Another record replaces it. Files are opened by
`readers.py`. Called by `mixture.py` and `check.py`.
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
MIN_BAD_OF_STREAM = 10  # bad records of a stream, whose length is unknown, that are allowed in any case


class BadRowLog:
    """Log of bad records, in a file that workers, processes and later runs share.

    Args:
        path: JSON lines with `file`, `line` and `reason`; without it the log is in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._reasons: dict[str, dict[int, str]] = {}

    def get_reasons(self, file: str) -> dict[int, str]:
        """Return the reasons by line of one file, including those that other processes have logged."""
        for entry in read_json_lines(self.path) if self.path is not None else ():
            self._reasons.setdefault(entry["file"], {})[entry["line"]] = entry["reason"]
        return self._reasons.setdefault(file, {})

    def add(self, file: str, line: int, reason: str) -> bool:
        """Log a record; return whether it is new.

        Args:
            file: path of the file.
            line: number of the record, from 1.
            reason: what is wrong with it.
        """
        if line in self.get_reasons(file):
            return False
        self._reasons[file][line] = reason
        if self.path is not None:
            append_json_line(self.path, {"file": file, "line": line, "reason": reason})
        return True


class RecordSource:
    """The records of one file (or of anything that `readers.open_table` opens) that can be trained on.

    Args:
        path: of the file.
        max_bad_fraction: maximum fraction of bad records.
        report: gets a line for every bad record.
        mix: split, subset and streaming of a dataset.
        seed: of the order.
        bad_row_log: where bad records are logged.
        need_good: whether a file without good records is an error.
        table: opened file; by default `path` is opened.
        check_record: returns what is wrong with a record, or None; by default `find_missing_answer`.

    Attributes:
        bad: reasons by line.
        total: number of records; None for a stream.
        groups: numbers of the records of each group, which batches consist of; None if their number is unknown.

    Raises:
        UsageError: the file cannot be read.
        ConfigError: no record is good, or more are bad than the stage allows; the message lists them.
    """

    def __init__(
        self,
        path: str,
        max_bad_fraction: float,
        report: Report = lambda line: None,
        *,
        mix: FileMix | None = None,
        seed: int = 0,
        bad_row_log: BadRowLog | None = None,
        need_good: bool = True,
        table: RecordTable | None = None,
        check_record: Callable[[Record], str | None] | None = None,
    ) -> None:
        mix = mix or FileMix(weight=1.0)
        self.path, self._max_bad_fraction, self._report = path, max_bad_fraction, report
        self._bad_row_log, self._check_record = bad_row_log or BadRowLog(), check_record or find_missing_answer
        if table is None:
            table = open_table(path, split=mix.split, subset=mix.subset, stream=seed if mix.stream else None)
        self._table = table
        self.total = self._table.total
        self._seed, self._num_read = seed, 0
        self.bad: dict[int, str] = dict(self._bad_row_log.get_reasons(path))
        reasons = {malformed.line: malformed.reason for malformed in self._table.bad}
        reasons |= {
            record.line: reason for record in self._table.records or () if (reason := self._check_record(record))
        }
        for line, reason in reasons.items():
            self.add_bad(line, reason)
        # Bad records that an earlier run logged remain in the groups, so that a resumed training has the same order.
        self.groups = self._build_groups(set(reasons))
        self._epochs: dict[str, tuple[int, NDArray[np.int64]]] = {}
        if need_good and not any(numbers is None or len(numbers) for numbers in self.groups.values()):
            raise ConfigError(f"{path} has no rows that could be trained on{self._describe_bad()}")

    def _build_groups(self, bad_lines: set[int]) -> dict[str, NDArray[np.int64] | None]:
        if self._table.records is None:
            return {"rows": None if self.total is None else np.arange(self.total)}
        groups: dict[str, NDArray[np.int64] | None] = {}
        for kind in ("image", "video"):
            numbers = [
                number
                for number, record in enumerate(self._table.records)
                if record.kind == kind and record.line not in bad_lines
            ]
            if numbers:
                groups[kind] = np.array(numbers, np.int64)
        return groups

    @property
    def max_bad(self) -> int:
        """Maximum number of bad records; for a stream it grows with the number of records that were read."""
        if self.total is not None:
            return int(self._max_bad_fraction * self.total)
        return MIN_BAD_OF_STREAM + int(self._max_bad_fraction * self._num_read)

    def read_good_records(self) -> list[Record]:
        """Read all records that are not known to be bad, and log malformed ones; not for streams."""
        if self._table.records is not None:
            return [record for record in self._table.records if record.line not in self.bad]
        records = []
        for number in range(self.total or 0):
            try:
                records.append(self._read(number))
            except PVCError as error:
                self.add_bad(number + 1, str(error))
        return records

    def _read(self, number: int) -> Record:
        record = self._table.get_record(number)
        if reason := self._check_record(record):
            raise ConfigError(reason)
        return record

    def get_record(self, group: str, position: int) -> Record:
        """Return the record at a position in the order of a group.

        Args:
            group: name in `groups`.
            position: from 0; after the last record of an epoch comes the first of the next.

        Raises:
            PVCError: the record is bad; `get_line` returns its line.
        """
        self._num_read = max(self._num_read, position + 1)
        return self._read(self._get_number(group, position))

    def get_line(self, group: str, position: int) -> int:
        """Return the line, from 1, of the record that `get_record` returns for the same arguments."""
        number = self._get_number(group, position)
        return number + 1 if self._table.records is None else self._table.records[number].line

    def _get_number(self, group: str, position: int) -> int:
        numbers = self.groups[group]
        if numbers is None:
            return position
        epoch, rest = divmod(position, len(numbers))
        if self._epochs.get(group, (-1,))[0] != epoch:
            order = np.random.default_rng((self._seed, 3, epoch)).permutation(len(numbers))
            self._epochs[group] = epoch, numbers[order]
        return int(self._epochs[group][1][rest])

    def choose_substitute(self, group: str, position: int, rng: np.random.Generator) -> int:
        """Return a position to try instead of that of a bad record.

        Args:
            group: name in `groups`.
            position: of the bad record.
            rng: chooses the position; a stream continues with the next one.

        Raises:
            ConfigError: all records of the group are bad.
        """
        numbers = self.groups[group]
        if numbers is None:
            return position + 1
        if len(self.bad) >= len(numbers) and all(self.get_line(group, n) in self.bad for n in range(len(numbers))):
            raise ConfigError(f"{self.path} ({group}): no row is left that could be trained on")
        return int(rng.integers(len(numbers)))

    def add_bad(self, line: int, reason: str) -> None:
        """Log a bad record.

        Args:
            line: number of the record, from 1.
            reason: what is wrong with it.

        Raises:
            ConfigError: more records are bad than allowed.
        """
        is_new = self._bad_row_log.add(self.path, line, reason)
        self.bad.update(self._bad_row_log.get_reasons(self.path))
        if not is_new:
            return
        self._report(f"{self.path}, {self.describe_lines(line)}: passed over: {reason}")
        if len(self.bad) > self.max_bad:
            of = "rows that were read" if self.total is None else "rows"
            raise ConfigError(
                f"{self.path}: {len(self.bad)} of {self._num_read if self.total is None else self.total} {of} are bad, "
                f"more than 'bad_rows' allows ({self.max_bad}){self._describe_bad()}"
            )

    def describe_lines(self, *lines: int) -> str:
        """Return the lines of records as text, or their file names if every record is a file."""
        names = getattr(self._table, "names", None)
        text = ", ".join(str(line if names is None else names[line - 1]) for line in lines)
        return text if names is not None else f"line{'s'[: len(lines) != 1]} {text}"

    def _describe_bad(self, max_lines: int = 5) -> str:
        bad = sorted(self.bad.items())[:max_lines]
        reasons = "; ".join(f"{self.describe_lines(line)}: {reason}" for line, reason in bad)
        more = f"; and {len(self.bad) - max_lines} more" if len(self.bad) > max_lines else ""
        return f": {reasons}{more}" if reasons else ""


def find_missing_answer(record: Record) -> str | None:
    """Return what is wrong with a record that has no answer to learn; None if it has one."""
    return None if has_answer(record) else NO_ANSWER


def has_answer(record: Record) -> bool:
    """Return whether a record has an assistant's message with content."""
    return any(message["role"] == "assistant" and message["content"] for message in record.messages)


__all__ = ["BadRowLog", "RecordSource", "find_missing_answer", "has_answer"]
