"""Which runner computes a model's steps. The protocol is `ayllu.model.step.Runner`; the plain one is there too.

A runner may hold the weights in another form (fused, compiled, captured) as long as `step` gives the same logits.
"""

from typing import Literal

from ayllu.errors import ConfigError
from ayllu.model.fused import FusedRunner, why_not_fused
from ayllu.model.llama import Llama
from ayllu.model.step import Batch, EagerRunner, Model, Runner

__all__ = ["Batch", "EagerRunner", "FusedRunner", "Runner", "RunnerKind", "make_runner"]

RunnerKind = Literal["auto", "eager", "fused"]


def make_runner(model: Model, kind: RunnerKind = "auto", shares: bool = False) -> Runner:
    """The runner of this kind for a model; `auto` takes the fastest that works where the model lies.

    A fused runner takes the model's weights over: use the model no more, or ask the runner to `give_back`. With
    shares=True it is one that leaves the model usable.
    """
    match kind:
        case "eager":
            return EagerRunner(model)
        case "fused" | "auto":
            reason = why_not_fused(model)
            if reason is None and isinstance(model, Llama):
                return FusedRunner(model, shares)
            if kind == "fused":
                raise ConfigError(f"this model can't run fused: {reason}; use runner='eager'")
            return EagerRunner(model)
    raise ConfigError(f"runner {kind!r} is unknown: use auto, eager or fused")
