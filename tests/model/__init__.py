"""Tests of `pvc.model`: properties P1 to P7 and P10, configurations, generation."""
