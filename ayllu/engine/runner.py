"""Which runner computes a model's steps. The protocol is `ayllu.model.step.Runner`; the plain one is there too.

A runner may hold the weights in another form (fused, compiled, captured) as long as `step` gives the same logits.
"""

from typing import Literal

from ayllu.errors import ConfigError
from ayllu.model.step import Batch, EagerRunner, Model, Runner

__all__ = ["Batch", "EagerRunner", "Runner", "RunnerKind", "make_runner"]

RunnerKind = Literal["auto", "eager"]


def make_runner(model: Model, kind: RunnerKind = "auto") -> Runner:
    """The runner of this kind for a model; `auto` takes the fastest that works where the model lies."""
    match kind:
        case "auto" | "eager":
            return EagerRunner(model)
    raise ConfigError(f"runner {kind!r} is unknown: use auto or eager")
