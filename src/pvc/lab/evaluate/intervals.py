"""Confidence intervals of proportions. Called by `accuracy.py` and benchmarks."""

from __future__ import annotations

import math


def wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Compute Wilson's score interval of a proportion.

    Source: E. B. Wilson, JASA 22 (1927). Unlike the normal approximation it stays within [0, 1].

    Args:
        right: number of successes.
        count: number of trials.
        z: quantile of the normal distribution; the default gives a 95 % interval.

    Returns:
        Lower and upper bound; (0, 1) if `count` is 0.
    """
    if count == 0:
        return 0.0, 1.0
    share, z2 = right / count, z * z
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = z * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


__all__ = ["wilson"]
