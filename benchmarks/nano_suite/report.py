"""Tables of results: right answers by kind, with Wilson's 95 % interval. Called by `__main__.py` and `width.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.nano_suite.run import Result

from pvc.lab.evaluate.intervals import wilson


@dataclass(frozen=True)
class Row:
    """Right answers of one kind.

    Attributes:
        name: of the kind.
        count: number of answers.
        exact: number of answers equal to the expected ones.
        lenient: number of answers that count by the lenient rules.
    """

    name: str
    count: int
    exact: int
    lenient: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the lenient share."""
        return wilson(self.lenient, self.count)

    def to_json(self) -> dict[str, Any]:
        """Build a dictionary for JSON."""
        low, high = self.interval
        return {
            "count": self.count,
            "exact": self.exact,
            "lenient": self.lenient,
            "interval": [round(low, 4), round(high, 4)],
        }


def rows(results: Sequence[Result]) -> list[Row]:
    """Build one row per kind, scored on the last question; then the total, then details of conversations."""
    kinds = list(dict.fromkeys(result.kind for result in results))
    table = [last_row(kind, [result for result in results if result.kind == kind]) for kind in kinds]
    table.append(last_row("total", results))
    conversations = [result for result in results if len(result.replies) > 1]
    if conversations:
        first = [result.replies[0] for result in conversations]
        both = [all(reply.lenient for reply in result.replies) for result in conversations]
        both_exact = [all(reply.exact for reply in result.replies) for result in conversations]
        table.append(
            Row(
                "conversation: first question",
                len(first),
                sum(reply.exact for reply in first),
                sum(reply.lenient for reply in first),
            )
        )
        table.append(Row("conversation: both questions", len(both), sum(both_exact), sum(both)))
    return table


def last_row(name: str, results: Sequence[Result]) -> Row:
    """Count the right answers to the last question of every item.

    Args:
        name: of the row.
        results: of the items.
    """
    last = [result.replies[-1] for result in results]
    return Row(name, len(last), sum(reply.exact for reply in last), sum(reply.lenient for reply in last))


def to_markdown(table: Sequence[Row]) -> str:
    """Format the table as Markdown."""
    lines = ["| kind | n | exact % | lenient % | 95 % interval |", "|---|---:|---:|---:|---|"]
    for row in table:
        low, high = row.interval
        share = [f"{100 * value / row.count:.1f}" if row.count else "" for value in (row.exact, row.lenient)]
        lines.append(f"| {row.name} | {row.count} | {share[0]} | {share[1]} | {100 * low:.1f}-{100 * high:.1f} |")
    return "\n".join(lines)


def failures(results: Sequence[Result]) -> list[str]:
    """List the errors that replaced answers."""
    return [
        f"{result.kind} {result.number}: {reply.error}"
        for result in results
        for reply in result.replies
        if reply.error is not None
    ]
