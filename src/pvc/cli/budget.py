"""`pvc ask --budget`: reads what may be spent, and opens media as the engine plans them.

Leaves out the planning (`pvc.engine.budget`). Called by `ask.py`; imports no torch.
"""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pvc import media as pvc_media
from pvc.checkpoint.state_file import is_state_path, open_state
from pvc.errors import UsageError
from pvc.media.outline import outline

if TYPE_CHECKING:
    from pvc.engine.budget import Plan
    from pvc.engine.engine import Engine
    from pvc.engine.options import MediaOptions

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG])(i?)B", re.IGNORECASE)
_POWER = {"K": 1, "M": 2, "G": 3}


@dataclass(frozen=True)
class Spending:
    """What may be spent: visual tokens, bytes while media are encoded, or both."""

    tokens: int | None = None
    memory: int | None = None


def spending_of(text: str | None) -> Spending | None:
    """`"512"`, `"2GB"` or `"512,2GB"`; raises UsageError for anything else."""
    if text is None:
        return None
    tokens: int | None = None
    memory: int | None = None
    for part in text.split(","):
        found = _MEMORY.fullmatch(part.strip())
        if found is not None and memory is None:
            base = 1024 if found[3] else 1000
            memory = int(float(found[1]) * base ** _POWER[found[2].upper()])
        elif re.fullmatch(r"[0-9]{1,12}", part.strip()) and tokens is None:
            tokens = int(part)
        else:
            raise UsageError(f"--budget is visual tokens, memory, or both, like 512 or 2GB or 512,2GB; not {text!r}")
    if 0 in (tokens, memory):
        raise UsageError(f"--budget must be at least 1, not {text!r}")
    return Spending(tokens, memory)


def check_headers(paths: list[str], sampling: pvc_media.Sampling) -> None:
    """Refuse what can be refused before a model is loaded; raises as opening the files would."""
    for path in paths:
        if is_state_path(path):
            open_state(path)
            continue
        seen = outline(path)
        if seen.kind == "video":
            seen.picked(sampling)


def open_planned(
    engine: Engine,
    paths: list[str],
    spending: Spending,
    options: MediaOptions,
    sampling: pvc_media.Sampling,
    frames: int | None,
) -> tuple[Plan, list[Any], float]:
    """The plan, the media opened by it, and the seconds that opening took; a terminal is told what is reduced.

    `options`: of pictures; `sampling`: of videos, with `frames` as it was given, or None.
    """
    evenly = frames if sampling.fps is None and sampling.times is None else None
    options = replace(options, frames=evenly, fps=sampling.fps, times=sampling.times)
    plan = engine.plan(paths, budget=spending.tokens, memory=spending.memory, options=options)
    if plan.reduced and sys.stderr.isatty():
        print(f"pvc: {plan.line}", file=sys.stderr)
    started = time.perf_counter()
    opened = [engine.open(path, own) for path, own in zip(paths, plan.options, strict=True)]
    return plan, opened, time.perf_counter() - started


__all__ = ["Spending", "check_headers", "open_planned", "spending_of"]
