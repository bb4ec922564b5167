"""Fixtures of the tests of the synthetic world: samples generated once, because most tests only read them."""

from __future__ import annotations

import pytest

from pvc.lab.synthetic import Sample, make
from tests.lab.synthetic.kinds import SCENES

COUNT = 120
_FEW = {"long": 20}  # of samples that are large


@pytest.fixture(scope="session")
def samples() -> dict[str, list[Sample]]:
    """Return COUNT training samples of every task of scenes."""
    return {task: [make(task, seed) for seed in range(_FEW.get(task, COUNT))] for task in SCENES}
