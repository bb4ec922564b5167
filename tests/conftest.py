"""Shared fixtures: one thread (two cores, several workers), no network, tiny models."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure(config):
    import os

    os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of odd and hostile media that may lie beside a checkout."""
    if not SHARED.is_dir():
        pytest.skip("no shared/ folder beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def tiny():
    """A tiny random model, shared by tests that do not change it."""
    from pvc.testing import tiny_model

    return tiny_model()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny checkpoint directory."""
    from pvc.testing import write_tiny_checkpoint

    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")
