"""Intervals over seeds, paired differences, verdicts, and what each step adds. Pure arithmetic.

Accuracies are shares in [0, 1]; margins too (0.02 is two points). The verdict rules are stated once, in RULES, and the
report prints them from there. Leaves out where the numbers come from (`claims`). Used by `claims` and `tables`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal

from pvc.errors import UsageError

MARGIN = 0.02  # what counts as a loss (issue: "non-inferior by 2 points")
SMALL = 0.005  # a gain below half a point is no gain
MIN_SEEDS = 3
CEILING = 0.98
FLOOR = 0.05  # above chance; below it an arm has not learned the task

Outcome = Literal["supported", "not supported", "undecided"]

_MARGIN, _SMALL = f"{MARGIN * 100:.0f} points", f"{SMALL * 100:.1f} point"
RULES = {
    "non_inferior": f"*no loss*: supported if the whole interval of the difference lies above -{_MARGIN}, "
    "not supported if it lies below, otherwise undecided",
    "inferior": f"*loss*: supported if the whole interval lies below -{_MARGIN}, not supported if it lies above, "
    "otherwise undecided",
    "better": "*gain*: supported if the whole interval lies above 0; else not supported if it ends below "
    f"+{_SMALL} (a larger gain is ruled out); otherwise undecided",
    "progressive": "*each step adds*: the rule *gain* for what step k adds to the steps before it, for every step "
    "after the first; supported if all are, not supported if one is not, otherwise undecided",
}


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % Student-t interval over `values`; no interval below two values."""

    values: tuple[float, ...]
    mean: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Verdict:
    """What a rule says of paired differences; `reason` is set where the rule was not asked (seeds, ceiling, floor)."""

    outcome: Outcome
    estimate: Estimate | None
    reason: str = ""

    @property
    def text(self) -> str:
        return f"{self.outcome} ({self.reason})" if self.reason else self.outcome


def _inside(t: float, df: int) -> float:
    """P(|T| < t) for integer degrees of freedom: Abramowitz and Stegun 26.7.3 and 26.7.4, exact sums."""
    angle = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    term = cosine if odd else 1.0
    total = term if df > 1 else 0.0
    for k in range(3 if odd else 2, df - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


@lru_cache
def t_quantile(df: int, confidence: float = 0.95) -> float:
    """The t with P(|T| < t) = confidence, by bisection.

    Raises UsageError unless df is at least 1 and the confidence lies between 0 and 1.
    """
    if df < 1 or not 0 < confidence < 1:
        raise UsageError(f"no t quantile for {df} degrees of freedom at confidence {confidence}")
    low, high = 0.0, 1.0
    while _inside(high, df) < confidence:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, df) < confidence else (low, middle)
    return (low + high) / 2


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean and Student-t interval. Raises UsageError without values."""
    if not values:
        raise UsageError("an interval needs at least one value")
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Estimate(tuple(values), mean, None, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = t_quantile(count - 1, confidence) * math.sqrt(variance / count)
    return Estimate(tuple(values), mean, mean - half, mean + half)


@dataclass(frozen=True)
class Paired:
    """Differences left - right over the seeds that both have; `only_left`, `only_right` are seeds without a partner."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    only_left: tuple[int, ...]
    only_right: tuple[int, ...]


def paired(left: Mapping[int, float], right: Mapping[int, float]) -> Paired:
    """Pair two arms by seed; seeds that one of them lacks are named, not used."""
    both = tuple(sorted(set(left) & set(right)))
    return Paired(
        both,
        tuple(left[seed] - right[seed] for seed in both),
        tuple(sorted(set(left) - set(right))),
        tuple(sorted(set(right) - set(left))),
    )


def _judge(differences: Sequence[float], rule: Callable[[float, float], Outcome]) -> Verdict:
    count = len(differences)
    estimate = t_interval(differences) if count else None
    if count < MIN_SEEDS or estimate is None or estimate.lower is None or estimate.upper is None:
        return Verdict("undecided", estimate, f"{count} seed{'' if count == 1 else 's'}")
    return Verdict(rule(estimate.lower, estimate.upper), estimate)


def non_inferior(differences: Sequence[float], margin: float = MARGIN) -> Verdict:
    """Does the left arm lose less than `margin`?"""

    def rule(lower: float, upper: float) -> Outcome:
        return "supported" if lower > -margin else "not supported" if upper < -margin else "undecided"

    return _judge(differences, rule)


def inferior(differences: Sequence[float], margin: float = MARGIN) -> Verdict:
    """Does the left arm lose more than `margin`?"""

    def rule(lower: float, upper: float) -> Outcome:
        return "supported" if upper < -margin else "not supported" if lower > -margin else "undecided"

    return _judge(differences, rule)


def better(differences: Sequence[float], small: float = SMALL) -> Verdict:
    """Is the left arm better at all? A gain known to be below `small` counts as none unless it is surely above 0."""

    def rule(lower: float, upper: float) -> Outcome:
        return "supported" if lower > 0 else "not supported" if upper < small else "undecided"

    return _judge(differences, rule)


def at_ceiling(left: float, right: float) -> bool:
    """Both arms above 98 %: neither a loss of two points nor a gain could have shown."""
    return left > CEILING and right > CEILING


def at_floor(left: float, right: float, chance: float = 0.0) -> bool:
    """Both arms at most five points above chance: neither has learned the task, so "no loss" means nothing."""
    return max(left, right) <= chance + FLOOR


def combined(outcomes: Sequence[Outcome]) -> Outcome:
    """Supported if all are, not supported if one is not, undecided otherwise (also without any)."""
    if "not supported" in outcomes:
        return "not supported"
    return "supported" if outcomes and all(outcome == "supported" for outcome in outcomes) else "undecided"


@dataclass(frozen=True)
class Progress:
    """What the steps of one run add, from the accuracy of every subset of them (`T` values each).

    prefixes: accuracy of the first k steps. gains: what step k adds to the steps before it. averaged: what it adds on
    average over all orders of the steps (its Shapley value). alone: accuracy of step k without others. dropped: what
    is lost when only step k is taken away.
    """

    prefixes: tuple[float, ...]
    gains: tuple[float, ...]
    averaged: tuple[float, ...]
    alone: tuple[float, ...]
    dropped: tuple[float, ...]


def progressive(accuracy: Mapping[tuple[int, ...], float], nothing: float = 0.0) -> Progress:
    """What each step adds, in order and averaged over all orders.

    accuracy: by the steps kept, for all non-empty subsets of 0 .. T-1. nothing: the accuracy without any step, where
    the mapping does not hold it.
    Raises UsageError unless all subsets are there.
    """
    value = {frozenset(kept): share for kept, share in accuracy.items()}
    value.setdefault(frozenset(), nothing)
    steps = sorted(frozenset().union(*value))
    wanted = {frozenset(kept) for size in range(len(steps) + 1) for kept in combinations(steps, size)}
    if not steps or steps != list(range(len(steps))) or set(value) != wanted:
        raise UsageError(f"{len(value) - 1} subsets of steps {steps}; all {len(wanted) - 1} are needed")
    count, everything = len(steps), frozenset(steps)
    prefixes = tuple(value[frozenset(steps[: k + 1])] for k in steps)
    before = (value[frozenset()], *prefixes[:-1])
    averaged = []
    for k in steps:
        # Of all orders, the share in which exactly `kept` come before k is |kept|! (T - 1 - |kept|)! / T!.
        parts = [
            math.factorial(len(kept)) * math.factorial(count - 1 - len(kept)) * (value[kept | {k}] - value[kept])
            for kept in wanted
            if k not in kept
        ]
        averaged.append(math.fsum(parts) / math.factorial(count))
    return Progress(
        prefixes,
        tuple(after - earlier for after, earlier in zip(prefixes, before, strict=True)),
        tuple(averaged),
        tuple(value[frozenset({k})] for k in steps),
        tuple(value[everything] - value[everything - {k}] for k in steps),
    )


ORDER_MATTERS = 0.05
UNEQUAL = 0.10


def shape_of_progress(gains: Sequence[float], averaged: Sequence[float], alone: Sequence[float]) -> str:
    """A name for how the steps share the content, from the means of a Progress.

    Both kinds of gain have the same sum: where the first step's is lower in order, later ones' are higher.
    """
    effects = [gain - mean for gain, mean in zip(gains, averaged, strict=True)]
    if max(abs(effect) for effect in effects) <= ORDER_MATTERS:
        if max(gains) - min(gains) <= UNEQUAL:
            return "a partition: each step adds about the same, whatever the order"
        return "unequal parts: steps add different amounts, but each about the same whatever the order"
    if effects[0] > 0:
        return "overlap: later steps repeat part of what the earlier ones brought"
    if alone[0] - max(alone[1:]) > UNEQUAL:
        return "coarse-to-fine: the first step says most, and later ones add most when it is there"
    return "complementary: later steps add more once others are there, but the first alone is not the best one"


__all__ = [
    "MARGIN",
    "MIN_SEEDS",
    "RULES",
    "Estimate",
    "Outcome",
    "Paired",
    "Progress",
    "Verdict",
    "at_ceiling",
    "at_floor",
    "better",
    "combined",
    "inferior",
    "non_inferior",
    "paired",
    "progressive",
    "shape_of_progress",
    "t_interval",
    "t_quantile",
]
