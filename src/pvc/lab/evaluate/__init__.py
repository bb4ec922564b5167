"""Accuracy on held-out synthetic samples, with intervals, and fitting of the step predictor to it."""
