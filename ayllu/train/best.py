"""Early stopping: remember the best held-out loss, and stop once nothing better has come for a while."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Best:
    """The lowest held-out loss so far, the step it was found at, and how many evaluations have passed since."""

    loss: float = math.inf
    step: int = 0
    since: int = 0

    def judge(self, loss: float, step: int) -> "Best":
        """With one more evaluation; a loss that is no number is never better."""
        return Best(loss, step, 0) if loss < self.loss else replace(self, since=self.since + 1)


def held_out_loss(row: dict[str, float]) -> float | None:
    """What early stopping and the controller follow: the mean of the row's held-out losses, None where there is none.

    Held-out losses are `held_out` and every `bits_per_byte_LANGUAGE`.
    """
    losses = [value for name, value in row.items() if name == "held_out" or name.startswith("bits_per_byte_")]
    return sum(losses) / len(losses) if losses else None
