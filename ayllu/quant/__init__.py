"""Weights in fewer bits: NF4 for the frozen base under an adapter."""
