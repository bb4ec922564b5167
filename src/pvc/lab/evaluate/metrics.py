"""Character metrics of an answer. Called by `accuracy.py`."""

from __future__ import annotations


def edit_distance(first: str, second: str) -> int:
    """Compute the minimum number of characters to insert, delete or replace (V. Levenshtein, 1966)."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        above_left, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            above_left, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above_left + (a != b))
    return row[-1]


def characters_right(expected: str, answer: str) -> int:
    """Count the characters of `expected` that `answer` has right: its length less the edit distance, at least 0."""
    return max(0, len(expected) - edit_distance(expected, answer))


__all__ = ["characters_right", "edit_distance"]
