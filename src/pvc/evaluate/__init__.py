"""Measure what answers cost: time and tokens of requests on users' media (`pvc bench`)."""
