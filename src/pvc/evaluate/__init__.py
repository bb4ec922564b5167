"""Measuring models: free-running accuracy on held-out synthetic samples, with intervals."""

from pvc.evaluate.intervals import wilson

__all__ = ["wilson"]
