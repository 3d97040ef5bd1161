"""Ayllu: the whole life of a Llama model in one readable package."""

__version__ = "0.1.0"
