"""Learning rates over steps."""

import math
from typing import Literal

from pydantic import Field

from ayllu.config import Settings


class Schedule(Settings):
    """Linear warm-up to the peak, then down to `floor` times the peak at the last step."""

    kind: Literal["constant", "cosine", "linear"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0)
    floor: float = Field(default=0.1, ge=0, le=1)


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the peak learning rate is multiplied by at `step` (from 0) of `steps`."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(steps - schedule.warmup_steps, 1)
    match schedule.kind:
        case "constant":
            return 1.0
        case "linear":
            return schedule.floor + (1 - schedule.floor) * (1 - done)
        case "cosine":
            return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
