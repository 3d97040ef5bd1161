"""The models, their caches, sampling and dense generation."""
