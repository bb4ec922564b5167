"""Helpers for the tests of the network."""

import torch


def frames(count, side=32, seed=0, dtype=torch.float32):
    """Generate random frames `(count, 3, side, side)`."""
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative_difference(ours, theirs):
    """Compute the largest difference, relative to the largest value of `theirs`."""
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


def limit(dtype):
    """Return the largest relative difference that rounding alone may cause."""
    return 1e-10 if dtype == torch.float64 else 1e-5
