"""Pairs of items in one conversation: the accuracy of the second question beside its accuracy alone.

Called by `__main__.py`.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from benchmarks.nano_suite.items import SEED, Item
from benchmarks.nano_suite.report import Row, last_row
from benchmarks.nano_suite.run import Result, run_item, with_progress
from benchmarks.nano_suite.suite import BUILDERS, build_suite

if TYPE_CHECKING:
    from pvc.engine import Engine

COUNT = 40
_CLIPS = ("clip_text", "clip_motion")
_PICTURES = tuple(kind for kind in BUILDERS if kind not in (*_CLIPS, "conversation", "outside"))


def build_pairs() -> list[tuple[Item, Item]]:
    """Build pairs of items of different kinds: in turn two pictures, picture and clip, clip and picture."""
    rng = Random(f"{SEED}/pairs")
    remaining = build_suite([*_PICTURES, *_CLIPS])
    rng.shuffle(remaining)
    pairs = []
    for number in range(COUNT):
        first_kinds, second_kinds = ((_PICTURES, _PICTURES), (_PICTURES, _CLIPS), (_CLIPS, _PICTURES))[number % 3]
        first = next(item for item in remaining if item.kind in first_kinds)
        second = next(item for item in remaining if item.kind in second_kinds and item.kind != first.kind)
        remaining.remove(first)
        remaining.remove(second)
        pairs.append((first, second))
    return pairs


def run_pairs(engine: Engine, limit: int | None = None) -> tuple[list[Result], list[Row]]:
    """Ask every pair in one conversation, and every second question alone.

    Args:
        engine: the model.
        limit: maximum number of pairs.

    Returns:
        The results in conversation, and rows for the second question alone and in conversation.
    """
    pairs = build_pairs()[:limit]
    together, alone = [], []
    for number, (first, second) in enumerate(with_progress(pairs, "pairs")):
        kind = f"{first.kind} + {second.kind}"
        together.append(run_item(engine, Item(kind, number, first.turns + second.turns)))
        alone.append(run_item(engine, second))
    return together, [
        last_row("second question alone", alone),
        last_row("second question after another medium", together),
    ]
