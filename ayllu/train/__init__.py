"""The one training loop and the methods that run through it."""
