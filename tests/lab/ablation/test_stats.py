"""Intervals against known values, the borders of every verdict, and what steps add against all permutations."""

from itertools import combinations, permutations
from statistics import mean, stdev

import pytest

from pvc.errors import UsageError
from pvc.lab.ablation.stats import (
    combine_outcomes,
    compute_progress,
    describe_progress,
    is_at_ceiling,
    is_at_floor,
    judge_better,
    judge_inferior,
    judge_non_inferior,
    pair_by_seed,
    t_interval,
    t_quantile,
)

# Two-sided, from printed tables.
KNOWN = {
    0.95: {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 20: 2.086, 30: 2.042, 120: 1.980},
    0.99: {1: 63.657, 2: 9.925, 4: 4.604, 5: 4.032, 10: 3.169, 30: 2.750},
}


@pytest.mark.parametrize("confidence", KNOWN)
def test_t_quantiles_are_those_of_the_tables(confidence):
    for df, value in KNOWN[confidence].items():
        assert t_quantile(df, confidence) == pytest.approx(value, abs=6e-4)


@pytest.mark.parametrize(("df", "confidence"), [(0, 0.95), (3, 0.0), (3, 1.0)])
def test_impossible_quantiles_are_refused(df, confidence):
    with pytest.raises(UsageError):
        t_quantile(df, confidence)


def test_intervals():
    values = [0.1, 0.2, 0.4]
    estimate = t_interval(values)
    half = 4.30265 * stdev(values) / 3**0.5
    assert estimate.mean == pytest.approx(mean(values))
    assert estimate.lower == pytest.approx(mean(values) - half, abs=1e-5)
    assert estimate.upper == pytest.approx(mean(values) + half, abs=1e-5)
    assert t_interval([0.3]).lower is None and t_interval([0.3]).upper is None
    with pytest.raises(UsageError):
        t_interval([])


def test_pairs_are_of_common_seeds_only():
    pairs = pair_by_seed({0: 0.5, 2: 0.7, 1: 0.6}, {2: 0.4, 0: 0.4, 5: 0.1})
    assert pairs.seeds == (0, 2)
    assert pairs.differences == pytest.approx((0.1, 0.3))
    assert (pairs.only_left, pairs.only_right) == ((1,), (5,))


def around(centre, half):
    """Three differences whose 95 % interval is `centre` plus and minus `half`."""
    spread = half * 3**0.5 / t_quantile(2)
    return [centre - spread, centre, centre + spread]


@pytest.mark.parametrize(
    ("rule", "centre", "half", "outcome"),
    [
        (judge_non_inferior, 0.0, 0.0199, "supported"),
        (judge_non_inferior, 0.0, 0.0201, "undecided"),
        (judge_non_inferior, -0.04, 0.0199, "not supported"),
        (judge_non_inferior, -0.04, 0.0201, "undecided"),
        (judge_inferior, -0.04, 0.0199, "supported"),
        (judge_inferior, -0.04, 0.0201, "undecided"),
        (judge_inferior, 0.0, 0.0199, "not supported"),
        (judge_inferior, 0.0, 0.0201, "undecided"),
        (judge_better, 0.02, 0.0199, "supported"),
        (judge_better, 0.02, 0.0201, "undecided"),
        (judge_better, -0.02, 0.0249, "not supported"),  # ends below +0.5 point
        (judge_better, -0.02, 0.0251, "undecided"),
        (judge_better, 0.002, 0.001, "supported"),  # small, but surely above 0
    ],
)
def test_borders_of_the_verdicts(rule, centre, half, outcome):
    verdict = rule(around(centre, half))
    assert verdict.outcome == outcome == verdict.text
    assert verdict.estimate.upper - verdict.estimate.mean == pytest.approx(half)


@pytest.mark.parametrize("rule", [judge_non_inferior, judge_inferior, judge_better])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_seeds_decide_nothing_but_show_their_numbers(rule, count):
    verdict = rule([0.5] * count)
    assert verdict.outcome == "undecided"
    assert verdict.text == f"undecided ({count} seed{'' if count == 1 else 's'})"
    assert verdict.estimate is None if not count else verdict.estimate.mean == 0.5


def test_ceiling_floor_and_combination():
    assert is_at_ceiling(0.981, 0.99) and not is_at_ceiling(0.98, 0.99)
    assert is_at_floor(0.29, 0.27, 0.25) and not is_at_floor(0.29, 0.31, 0.25)
    assert combine_outcomes(["supported", "supported"]) == "supported"
    assert combine_outcomes(["supported", "undecided"]) == combine_outcomes([]) == "undecided"
    assert combine_outcomes(["undecided", "not supported"]) == "not supported"


def all_subsets(value, steps=4):
    return {kept: value(kept) for size in range(1, steps + 1) for kept in combinations(range(steps), size)}


def test_what_steps_add_is_the_average_over_all_permutations():
    table = all_subsets(lambda kept: (sum((k + 2) ** 2 for k in kept) + 3 * (0 in kept) * len(kept)) / 100)
    progress = compute_progress(table, nothing=0.03)
    table[()] = 0.03
    averaged = [0.0] * 4
    for order in permutations(range(4)):
        for place, step in enumerate(order):
            before = tuple(sorted(order[:place]))
            averaged[step] += (table[tuple(sorted((*before, step)))] - table[before]) / 24
    assert progress.averaged == pytest.approx(averaged)
    assert progress.prefixes == pytest.approx([table[tuple(range(k))] for k in range(1, 5)])
    assert sum(progress.gains) == pytest.approx(sum(averaged)) == pytest.approx(table[0, 1, 2, 3] - 0.03)
    assert progress.dropped[1] == pytest.approx(table[0, 1, 2, 3] - table[0, 2, 3])
    assert progress.alone == pytest.approx([table[k,] for k in range(4)])


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (lambda kept: len(kept) / 4, "a partition"),
        (lambda kept: sum((0.6, 0.2, 0.1, 0.1)[k] for k in kept), "unequal parts"),
        (lambda kept: 0.6 + 0.13 * (len(kept) - 1) if 0 in kept else 0.05, "coarse-to-fine"),
        (lambda kept: 1 - 0.4 ** len(kept), "overlap"),
        (lambda kept: (len(kept) / 4) ** 3, "complementary"),
    ],
)
def test_shapes_of_progress(value, name):
    progress = compute_progress(all_subsets(value))
    assert describe_progress(progress.gains, progress.averaged, progress.alone).startswith(name)


@pytest.mark.parametrize("change", [lambda t: t.pop((1, 2)), lambda t: t.clear(), lambda t: t.update({(7,): 0.1})])
def test_incomplete_subsets_are_refused(change):
    table = all_subsets(lambda kept: 0.1)
    change(table)
    with pytest.raises(UsageError, match="subsets of steps"):
        compute_progress(table)
