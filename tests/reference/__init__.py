"""Slow reference implementations for tests."""
