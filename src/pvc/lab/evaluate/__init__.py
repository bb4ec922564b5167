"""Measure accuracy on held-out synthetic samples, with intervals."""
