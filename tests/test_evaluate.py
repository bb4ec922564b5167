"""Intervals and the measuring of accuracy."""

import pytest

import pvc
from pvc.errors import UsageError
from pvc.evaluate.accuracy import measure
from pvc.evaluate.intervals import wilson


def test_wilson_by_hand():
    """n = 10, 8 right: centre (0.8 + z^2/20) / (1 + z^2/10), z = 1.96; the book values are 0.490 and 0.943."""
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert wilson(0, 50)[0] == pytest.approx(0.0)
    assert wilson(50, 50)[1] == pytest.approx(1.0)
    assert 0.9 < wilson(50, 50)[0] < 1
    assert wilson(0, 0) == (0.0, 1.0)


def test_an_untrained_model_is_measured_as_it_is(checkpoint):
    engine = pvc.load(checkpoint, device="cpu")
    results = measure(engine, tasks=["read", "direction"], count=30, threads=1)
    assert set(results) == {"read", "direction"}
    for result in results.values():
        assert result["count"] == 30
        assert result["accuracy"] < 0.3
        assert len(result["wrong"]) == 5
        low, high = result["interval"]
        assert low <= result["accuracy"] <= high


def test_unknown_task(checkpoint):
    with pytest.raises(UsageError, match="dancing"):
        measure(pvc.load(checkpoint, device="cpu"), tasks=["dancing"])
