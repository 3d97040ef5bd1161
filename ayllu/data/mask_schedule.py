"""Numbers that change while training goes on: constant, linear, cosine, in steps, or following the loss."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ayllu.config import Settings


@dataclass(frozen=True)
class Moment:
    """When a number is asked for: the step, and the smoothed training loss where there has been one."""

    step: int = 0
    loss: float | None = None


class Ramp(Settings):
    """From `start` to `end` between two steps, in a straight line or along half a cosine; flat before and after."""

    kind: Literal["linear", "cosine"]
    start: float
    end: float
    steps: int = Field(gt=0)                             # how long the way takes
    from_step: int = Field(default=0, ge=0)


class Stairs(Settings):
    """`values[i]` from step `at[i - 1]` on; the first value holds from the beginning."""

    kind: Literal["step"] = "step"
    values: tuple[float, ...] = Field(min_length=1)
    at: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> "Stairs":
        if len(self.at) != len(self.values) - 1 or list(self.at) != sorted(set(self.at)):
            raise ValueError(f"{len(self.values)} values need {len(self.values) - 1} rising steps in `at`, "
                             f"found {list(self.at)}")
        return self


class ByLoss(Settings):
    """`start` while the smoothed loss is at `high` or above, `end` at `low` or below, in a straight line between.

    Before any loss is known it is `start`.
    """

    kind: Literal["loss"] = "loss"
    start: float
    end: float
    high: float                                          # nats per learned token
    low: float

    @model_validator(mode="after")
    def _falls(self) -> "ByLoss":
        if self.low >= self.high:
            raise ValueError(f"low={self.low} should be under high={self.high}: the value goes from `start` to `end` "
                             "as the loss falls from high to low")
        return self


Schedule = float | Annotated[Ramp | Stairs | ByLoss, Field(discriminator="kind")]


def value(schedule: Schedule, moment: Moment) -> float:
    """The schedule's value at a moment."""
    match schedule:
        case Ramp():
            done = min(max((moment.step - schedule.from_step) / schedule.steps, 0.0), 1.0)
            if schedule.kind == "cosine":
                done = (1 - math.cos(math.pi * done)) / 2
        case Stairs():
            return schedule.values[sum(moment.step >= step for step in schedule.at)]
        case ByLoss():
            loss = schedule.high if moment.loss is None else moment.loss
            done = min(max((schedule.high - loss) / (schedule.high - schedule.low), 0.0), 1.0)
        case _:
            return float(schedule)
    return schedule.start + (schedule.end - schedule.start) * done


def bounds(schedule: Schedule) -> tuple[float, float]:
    """The smallest and the largest value that the schedule ever has."""
    match schedule:
        case Ramp() | ByLoss():
            return min(schedule.start, schedule.end), max(schedule.start, schedule.end)
        case Stairs():
            return min(schedule.values), max(schedule.values)
        case _:
            return float(schedule), float(schedule)


def within(schedule: Schedule, low: float, high: float, name: str) -> None:
    """Raise ValueError (which settings turn into a message) where a schedule ever leaves [low, high]."""
    least, most = bounds(schedule)
    if least < low or most > high or math.isnan(least + most):
        raise ValueError(f"{name} goes from {least:g} to {most:g}, it must stay within {low:g} and {high:g}")
