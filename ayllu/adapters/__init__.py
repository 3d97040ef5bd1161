"""Adapters: small matrices beside a model's own. In and out as PEFT folders, on a model, in its weights, in a batch."""
