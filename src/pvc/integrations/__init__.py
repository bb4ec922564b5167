"""Shells around other programs: no maths, nothing that the rest of the package needs."""
