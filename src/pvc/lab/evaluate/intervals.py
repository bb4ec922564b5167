"""Intervals for proportions. Pure arithmetic."""

from __future__ import annotations

import math


def wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval for `right` out of `count` (95 % by default); (0, 1) when `count` is 0.

    Source: E. B. Wilson, JASA 22 (1927). Unlike the normal approximation it stays within [0, 1].
    """
    if count == 0:
        return 0.0, 1.0
    share, z2 = right / count, z * z
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = z * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


__all__ = ["wilson"]
