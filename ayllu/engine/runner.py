"""Which runner computes a model's steps. The protocol is `ayllu.model.step.Runner`; the plain one is there too.

A runner may hold the weights in another form (fused, compiled, captured) as long as `step` gives the same logits.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor

from ayllu.adapters.lora import Adapter
from ayllu.adapters.many import Bank
from ayllu.engine.matrix import matrix_for
from ayllu.errors import ConfigError
from ayllu.model.adapt import Adapt
from ayllu.model.attend import Attend
from ayllu.model.cache import DenseCache
from ayllu.model.config import LlamaConfig
from ayllu.model.fused import FusedRunner, why_not_fused
from ayllu.model.llama import Llama
from ayllu.model.shown import Shown
from ayllu.model.step import Batch, EagerRunner, Model, Runner

__all__ = ["AdaptedRunner", "Batch", "EagerRunner", "FusedRunner", "Runner", "RunnerKind", "make_runner"]

RunnerKind = Literal["auto", "eager", "fused"]


def make_runner(model: Model, kind: RunnerKind = "auto", shares: bool = False) -> Runner:
    """The runner of this kind for a model; `auto` takes the fastest that can run it.

    A fused runner takes the model's weights over: use the model no more, or ask the runner to `give_back`. With
    shares=True it is one that leaves the model usable.
    """
    match kind:
        case "eager":
            return EagerRunner(model)
        case "fused" | "auto":
            make = None if shares else matrix_for(model)
            reason = why_not_fused(model, make)
            if reason is None and isinstance(model, Llama):
                return FusedRunner(model, shares, make)
            if kind == "fused":
                raise ConfigError(f"this model can't run fused: {reason}; use runner='eager'")
            return EagerRunner(model)
    raise ConfigError(f"runner {kind!r} is unknown: use auto, eager or fused")


class AdaptedRunner:
    """A runner whose every step has one adapter beside the weights."""

    def __init__(self, runner: Runner, adapter: Adapter) -> None:
        self.runner, self.config, self.device, self.dtype = runner, runner.config, runner.device, runner.dtype
        if not isinstance(runner.config, LlamaConfig):
            raise ConfigError("only the Llama family takes adapters")
        bank = Bank(runner.config, runner.dtype, runner.device)
        bank.put(0, adapter)
        self.adapt = bank.adapt([0])

    def new_cache(self, padding: Sequence[int], capacity: int) -> DenseCache:
        """The runner's own."""
        return self.runner.new_cache(padding, capacity)

    def step(self, batch: Batch) -> Tensor:                                   # (B, V)
        """Logits after the last new token of each row."""
        return self.runner.step(replace(batch, adapt=self.adapt))

    def hidden(self, batch: Batch) -> Tensor:                                 # (B, T, D)
        """What `logits` takes."""
        return self.runner.hidden(replace(batch, adapt=self.adapt))

    def flat(self, ids: Tensor, positions: Tensor, attends: Sequence[Attend], adapt: Adapt | None = None,
             shown: Shown | None = None) -> Tensor:                           # (N,), (N,) -> (N, D)
        """The same for tokens of any rows side by side."""
        return self.runner.flat(ids, positions, attends, adapt or self.adapt, shown)

    def logits(self, h: Tensor) -> Tensor:                                    # (..., D) -> (..., V)
        """The model's head, which adapters leave as it is."""
        return self.runner.logits(h)
