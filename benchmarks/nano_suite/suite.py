"""The whole suite: all items in order, and their digest. Called by `__main__.py` and the tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from benchmarks.nano_suite.charts import chart
from benchmarks.nano_suite.clips import clip_motion, clip_text
from benchmarks.nano_suite.conversations import conversation
from benchmarks.nano_suite.items import Item
from benchmarks.nano_suite.objects import count, describe, place, shape
from benchmarks.nano_suite.outside import outside
from benchmarks.nano_suite.screens import screen
from benchmarks.nano_suite.texts import lines, number, word

PER_KIND = 48
BUILDERS: dict[str, Callable[[int], Item]] = {
    "word": word,
    "number": number,
    "lines": lines,
    "screen": screen,
    "shape": shape,
    "count": count,
    "place": place,
    "describe": describe,
    "chart": chart,
    "clip_text": clip_text,
    "clip_motion": clip_motion,
    "conversation": conversation,
    "outside": outside,
}


def build_suite(kinds: Sequence[str] = (), limit: int | None = None) -> list[Item]:
    """Build the items.

    Args:
        kinds: kinds to build; by default all.
        limit: maximum number of items of each kind.
    """
    chosen = kinds or list(BUILDERS)
    each = PER_KIND if limit is None else min(limit, PER_KIND)
    return [BUILDERS[kind](at) for kind in chosen for at in range(each)]


def digest(items: Sequence[Item]) -> str:
    """Compute the SHA-256 of kinds, questions and answers, without pixels, which depend on the libraries."""
    content = [
        [item.kind, item.number]
        + [
            [turn.question.text, turn.question.expected, turn.question.rule, list(turn.question.others)]
            + [medium.kind for medium in turn.media]
            for turn in item.turns
        ]
        for item in items
    ]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
