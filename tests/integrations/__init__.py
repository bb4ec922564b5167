"""Tests of `pvc.integrations`."""
