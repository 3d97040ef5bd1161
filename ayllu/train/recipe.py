"""What the recipe of every kind of training has: how long, how fast, how exactly, and where it writes."""

from typing import Any, Literal, Self

from ayllu.config import Settings
from ayllu.model.parallel import ParallelConfig
from ayllu.train.adapt import AdaptConfig
from ayllu.train.costs import PlanConfig
from ayllu.train.loop import LoopConfig
from ayllu.train.losses import LossConfig
from ayllu.train.optim import OptimConfig


class Recipe(Settings):
    """Paths are relative to the recipe's folder, `out` to the working directory."""

    folder: str | None = None                            # what paths are relative to; None: where the recipe lies
    name: str
    out: str
    loop: LoopConfig
    optim: OptimConfig = OptimConfig()
    adapt: AdaptConfig = AdaptConfig()
    plan: PlanConfig = PlanConfig()                      # what a dry run reckons with
    loss: LossConfig = LossConfig()
    parallel: ParallelConfig = ParallelConfig()
    seed: int = 0
    device: str = "auto"
    threads: int | None = None                           # None: as many as torch picks
    compile: Literal["auto", "on", "off"] = "auto"
    native: bool = True                                  # where compiled, in bfloat16, on a CPU with AMX: C++ kernels
    licence: str | None = None                           # of the weights that come out, as the hub calls it

    def with_loop(self, **loop: Any) -> Self:
        """The same recipe with other settings of its loop."""
        return self.model_copy(update={"loop": self.loop.model_copy(update=loop)})


def value_of(config: Settings, key: str) -> Any:
    """The value at `a.b.c` of nested settings."""
    for name in key.split("."):
        config = getattr(config, name)
    return config
