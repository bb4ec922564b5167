"""Statistics of an ablation: intervals over seeds, paired differences, verdicts, and the gain of each step.

Accuracies and margins are shares in [0, 1] (0.02 is two points). RULES describes the verdict rules, and the report
prints them from there. Called by `claims`, `tables`, `summary` and `plots`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal

from pvc.errors import UsageError

MARGIN = 0.02  # smallest loss that counts (issue: "non-inferior by 2 points")
MIN_GAIN = 0.005  # a gain below half a point does not count
MIN_SEEDS = 3
CEILING = 0.98
FLOOR = 0.05  # above chance; below it an arm has not learned the task

Outcome = Literal["supported", "not supported", "undecided"]

_MARGIN, _SMALL = f"{MARGIN * 100:.0f} points", f"{MIN_GAIN * 100:.1f} point"
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
    """A mean with its Student-t interval.

    Attributes:
        values: one value per seed.
        mean: mean of the values.
        lower: lower bound of the 95 % interval; None below two values.
        upper: upper bound of the 95 % interval; None below two values.
    """

    values: tuple[float, ...]
    mean: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Verdict:
    """Result of a rule on paired differences.

    Attributes:
        outcome: of the rule.
        estimate: mean difference; None without values.
        reason: why the rule was not applied (seeds, ceiling, floor); empty if it was.
    """

    outcome: Outcome
    estimate: Estimate | None
    reason: str = ""

    @property
    def text(self) -> str:
        """Outcome, with the reason in parentheses if there is one."""
        return f"{self.outcome} ({self.reason})" if self.reason else self.outcome


def _compute_t_probability(t: float, df: int) -> float:
    """Compute P(|T| < t) for integer degrees of freedom: Abramowitz and Stegun 26.7.3 and 26.7.4, exact sums."""
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
    """Compute the t with P(|T| < t) = confidence, by bisection.

    Args:
        df: degrees of freedom, at least 1.
        confidence: between 0 and 1.

    Raises:
        UsageError: an argument is out of range.
    """
    if df < 1 or not 0 < confidence < 1:
        raise UsageError(f"no t quantile for {df} degrees of freedom at confidence {confidence}")
    low, high = 0.0, 1.0
    while _compute_t_probability(high, df) < confidence:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _compute_t_probability(middle, df) < confidence else (low, middle)
    return (low + high) / 2


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Compute the mean and its Student-t interval.

    Args:
        values: at least one value; an interval needs two.
        confidence: between 0 and 1.

    Raises:
        UsageError: no values.
    """
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
    """Differences left - right by seed.

    Attributes:
        seeds: seeds that both arms have.
        differences: one per seed of `seeds`.
        only_left: seeds that only the left arm has.
        only_right: seeds that only the right arm has.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    only_left: tuple[int, ...]
    only_right: tuple[int, ...]


def pair_by_seed(left: Mapping[int, float], right: Mapping[int, float]) -> Paired:
    """Compute the differences of two arms by seed.

    Args:
        left: value by seed.
        right: value by seed.
    """
    both = tuple(sorted(set(left) & set(right)))
    return Paired(
        both,
        tuple(left[seed] - right[seed] for seed in both),
        tuple(sorted(set(left) - set(right))),
        tuple(sorted(set(right) - set(left))),
    )


def _judge(differences: Sequence[float], rule: Callable[[float, float], Outcome]) -> Verdict:
    """Apply a rule for the bounds of the interval, if there are enough seeds."""
    count = len(differences)
    estimate = t_interval(differences) if count else None
    if count < MIN_SEEDS or estimate is None or estimate.lower is None or estimate.upper is None:
        return Verdict("undecided", estimate, f"{count} seed{'' if count == 1 else 's'}")
    return Verdict(rule(estimate.lower, estimate.upper), estimate)


def judge_non_inferior(differences: Sequence[float], margin: float = MARGIN) -> Verdict:
    """Judge whether the left arm loses less than `margin`.

    Args:
        differences: left - right, one per seed.
        margin: share in [0, 1].
    """

    def rule(lower: float, upper: float) -> Outcome:
        return "supported" if lower > -margin else "not supported" if upper < -margin else "undecided"

    return _judge(differences, rule)


def judge_inferior(differences: Sequence[float], margin: float = MARGIN) -> Verdict:
    """Judge whether the left arm loses more than `margin`.

    Args:
        differences: left - right, one per seed.
        margin: share in [0, 1].
    """

    def rule(lower: float, upper: float) -> Outcome:
        return "supported" if upper < -margin else "not supported" if lower > -margin else "undecided"

    return _judge(differences, rule)


def judge_better(differences: Sequence[float], small: float = MIN_GAIN) -> Verdict:
    """Judge whether the left arm is better.

    Args:
        differences: left - right, one per seed.
        small: if the interval is not above 0 and ends below this share, the verdict is "not supported".
    """

    def rule(lower: float, upper: float) -> Outcome:
        return "supported" if lower > 0 else "not supported" if upper < small else "undecided"

    return _judge(differences, rule)


def is_at_ceiling(left: float, right: float) -> bool:
    """Return whether both accuracies are above 98 %, where a loss of two points or a gain cannot be observed."""
    return left > CEILING and right > CEILING


def is_at_floor(left: float, right: float, chance: float = 0.0) -> bool:
    """Return whether both arms are within five points of chance, so that neither has learned the task.

    Args:
        left: accuracy of the left arm.
        right: accuracy of the right arm.
        chance: accuracy of guessing.
    """
    return max(left, right) <= chance + FLOOR


def combine_outcomes(outcomes: Sequence[Outcome]) -> Outcome:
    """Combine outcomes: supported if all are, not supported if one is not, else undecided (also if there are none)."""
    if "not supported" in outcomes:
        return "not supported"
    return "supported" if outcomes and all(outcome == "supported" for outcome in outcomes) else "undecided"


@dataclass(frozen=True)
class Progress:
    """Contribution of each of the `T` steps of one run, from the accuracy of every subset of them.

    Attributes:
        prefixes: accuracy of the first k steps.
        gains: gain of step k over the steps before it.
        averaged: mean gain of step k over all orders of the steps (its Shapley value).
        alone: accuracy of step k without others.
        dropped: loss if only step k is removed.
    """

    prefixes: tuple[float, ...]
    gains: tuple[float, ...]
    averaged: tuple[float, ...]
    alone: tuple[float, ...]
    dropped: tuple[float, ...]


def compute_progress(accuracy: Mapping[tuple[int, ...], float], nothing: float = 0.0) -> Progress:
    """Compute the contribution of each step, in order and averaged over all orders.

    Args:
        accuracy: by subset of the steps, for all non-empty subsets of 0 .. T-1.
        nothing: accuracy without any step, used if the mapping does not have it.

    Raises:
        UsageError: a subset is missing.
    """
    value = {frozenset(subset): share for subset, share in accuracy.items()}
    value.setdefault(frozenset(), nothing)
    steps = sorted(frozenset().union(*value))
    expected = {frozenset(subset) for size in range(len(steps) + 1) for subset in combinations(steps, size)}
    if not steps or steps != list(range(len(steps))) or set(value) != expected:
        raise UsageError(f"{len(value) - 1} subsets of steps {steps}; all {len(expected) - 1} are needed")
    count, everything = len(steps), frozenset(steps)
    prefixes = tuple(value[frozenset(steps[: k + 1])] for k in steps)
    before = (value[frozenset()], *prefixes[:-1])
    averaged = []
    for k in steps:
        # Of all orders, the share in which exactly `subset` comes before k is |subset|! (T - 1 - |subset|)! / T!.
        parts = [
            math.factorial(len(subset))
            * math.factorial(count - 1 - len(subset))
            * (value[subset | {k}] - value[subset])
            for subset in expected
            if k not in subset
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


def describe_progress(gains: Sequence[float], averaged: Sequence[float], alone: Sequence[float]) -> str:
    """Describe how the steps share the content.

    Both kinds of gain have the same sum: if the first step's is lower in order, those of later steps are higher.

    Args:
        gains: means of `Progress.gains`.
        averaged: means of `Progress.averaged`.
        alone: means of `Progress.alone`.
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
    "MIN_GAIN",
    "MIN_SEEDS",
    "RULES",
    "Estimate",
    "Outcome",
    "Paired",
    "Progress",
    "Verdict",
    "combine_outcomes",
    "compute_progress",
    "describe_progress",
    "is_at_ceiling",
    "is_at_floor",
    "judge_better",
    "judge_inferior",
    "judge_non_inferior",
    "pair_by_seed",
    "t_interval",
    "t_quantile",
]
