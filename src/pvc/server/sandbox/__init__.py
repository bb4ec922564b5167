"""Decode clients' media in worker processes that can do nothing else."""
