"""Small helpers for the tests of the network."""

import torch


def frames(count, side=32, seed=0, dtype=torch.float32):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative_difference(ours, theirs):
    """Largest difference over largest value."""
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


def limit(dtype):
    """How far two ways to the same result may be apart: rounding only."""
    return 1e-10 if dtype == torch.float64 else 1e-5
