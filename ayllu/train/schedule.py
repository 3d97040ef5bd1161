"""Learning rates over steps."""

import math
from typing import Literal

from pydantic import Field, model_validator

from ayllu.config import Settings


class Schedule(Settings):
    """Linear warm-up to the peak, then down to `floor` times the peak at the last step.

    wsd (warm-up, stable, decay) stays at the peak until `decay_steps` before the end and comes down by 1 - sqrt
    (Hägele et al. 2024, arXiv:2405.18392, section 3). Until the decay begins no rate depends on the number of steps,
    so a run that was stopped there can be resumed with another one. inverse_sqrt falls as 1 / sqrt(step) after the
    warm-up (arXiv:1706.03762, section 5.3) and knows no end either.

    A cooldown begins at step `cooldown_at` of any of them: from the rate of that step down to `floor` times the peak
    by 1 - sqrt, over `cooldown_steps`, after which the rate stays.
    """

    kind: Literal["constant", "cosine", "linear", "inverse_sqrt", "wsd"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0)
    decay_steps: int = Field(default=0, ge=0)            # of wsd
    floor: float = Field(default=0.1, ge=0, le=1)
    cooldown_at: int | None = Field(default=None, ge=0)
    cooldown_steps: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _decay_belongs_to_wsd(self) -> "Schedule":
        if (self.kind == "wsd") != (self.decay_steps > 0):
            raise ValueError(f"decay_steps={self.decay_steps} with kind={self.kind!r}: wsd needs decay_steps of at "
                             "least 1, the other kinds take none")
        if (self.cooldown_at is not None) != (self.cooldown_steps > 0):
            raise ValueError(f"cooldown_at={self.cooldown_at} with cooldown_steps={self.cooldown_steps}: a cooldown "
                             "needs both, its first step and at least 1 step")
        return self


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the peak learning rate is multiplied by at `step` (from 0) of `steps`."""
    at = schedule.cooldown_at
    if at is None or step < at:
        return _before_cooldown(schedule, step, steps)
    return fall(_before_cooldown(schedule, at, steps), schedule.floor, (step - at) / schedule.cooldown_steps)


def fall(start: float, end: float, done: float) -> float:
    """From `start` to `end` by 1 - sqrt of the share that is done (arXiv:2405.18392); it never rises."""
    end = min(start, end)
    return end + (start - end) * (1 - math.sqrt(min(done, 1.0)))


def _before_cooldown(schedule: Schedule, step: int, steps: int) -> float:
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(steps - schedule.warmup_steps, 1)
    match schedule.kind:
        case "constant":
            return 1.0
        case "linear":
            return schedule.floor + (1 - schedule.floor) * (1 - done)
        case "inverse_sqrt":
            return max(math.sqrt(max(schedule.warmup_steps, 1) / (step + 1)), schedule.floor)
        case "wsd":
            decayed = max(step - (steps - schedule.decay_steps), 0) / schedule.decay_steps
            return schedule.floor + (1 - schedule.floor) * (1 - math.sqrt(min(decayed, 1.0)))
        case "cosine":
            return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
