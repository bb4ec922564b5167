"""Adapters for other programs; no other package of PVC uses them."""
