"""What a run costs in hours, energy and money, from the seconds of a rehearsal."""

from dataclasses import dataclass

from pydantic import Field

from ayllu.config import Settings
from ayllu.model.spread import Machine
from ayllu.train.loop import LoopConfig


class PlanConfig(Settings):
    """What a plan can't measure; none of it changes training."""

    memory_gb: float | None = Field(default=None, gt=0)  # the process's share; None: 90 % of what is free
    watts: float | None = Field(default=None, gt=0)      # of the machine; None: 10 a CPU thread, 400 a GPU, assumed
    price_per_kwh: float = Field(default=0.30, ge=0)
    price_per_hour: float = Field(default=0.0, ge=0)     # of a rented machine, energy included: set price_per_kwh=0
    currency: str = "EUR"
    machine: Machine = Machine()                         # of a run on many ranks, which is foreseen and not rehearsed


def gb(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / 1e9:.2f} GB"


def short(value: float) -> float:
    """Four digits that count, so that a small run's cost is not told as none."""
    return float(f"{value:.4g}")


@dataclass(frozen=True)
class Times:
    """Seconds of each part of a rehearsal."""

    first_step_s: float                                  # compilation included
    step_s: float
    evaluation_s: float                                  # of one language, with its samples
    saving_s: float


def hours(loop: LoopConfig, times: Times, languages: int) -> float:
    """All steps, evaluations and saves; saving counts as if nothing went on beside it."""
    evaluations, saves = -(-loop.steps // loop.eval_every), -(-loop.steps // loop.checkpoint_every)
    seconds = (times.first_step_s + (loop.steps - 1) * times.step_s + evaluations * languages * times.evaluation_s
               + saves * times.saving_s)
    return seconds / 3600


def watts_of(plan: PlanConfig, device: str, threads: int) -> float:
    """The power that is reckoned with."""
    return plan.watts or (400.0 if device == "cuda" else 10.0 * threads)


def costs(plan: PlanConfig, spent_hours: float, watts: float) -> tuple[float, float]:
    """Kilowatt-hours, and money in the plan's currency."""
    energy = spent_hours * watts / 1000
    return energy, energy * plan.price_per_kwh + spent_hours * plan.price_per_hour
