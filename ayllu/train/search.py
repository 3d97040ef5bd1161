"""The search for a rate: short runs in miniature from the same weights over the same batches, as pure functions.

Each run warms up and comes down to zero, so that its last losses say what the rate is worth and not how loud its noise
is. Rates go up and down from where they stand by a factor until the best has a worse neighbour on either side. The
first rounds start from the very first weights, because a rate that is far too high spoils what it has touched.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import Field

from ayllu.config import Settings

WARMUP = 4                                               # the part of a trial's updates over which its rate rises
TAIL = 4                                                 # the part whose losses count


class Round(Settings):
    """One comparison of rates; shares are of the whole run."""

    at: float = Field(default=0.0, ge=0, lt=1)           # where it begins; 0: before the first update
    share: float = Field(default=0.01, gt=0, lt=1)       # the updates of each rate
    factor: float = Field(default=4.0, gt=1)             # between a rate and the next
    tie: float = Field(default=0.0, ge=0)                # so near the best is as good, and the lowest of them wins
    hopeless: float = Field(default=0.05, gt=0)          # behind the best by this share halfway: it goes no further
    keep: float = Field(default=1.0, gt=0)               # what the best one is multiplied by: short runs like high ones


@dataclass(frozen=True)
class Trial:
    """A round on the way; a rate that broke has an infinite score, a batch that was passed over an infinite loss."""

    at: int                                              # the batch at which it began
    steps: int                                           # updates of each rate
    start: float                                         # the multiplier before it
    tried: tuple[tuple[float, float], ...] = ()          # multipliers and their scores
    losses: tuple[float, ...] = ()                       # of the rate that is being tried
    best_losses: tuple[float, ...] = ()                  # of the best one so far
    broken: int = 0                                      # batches in a row that gave no sound loss

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Trial":
        """What `asdict` gave, also after JSON."""
        pairs = tuple((float(m), float(s)) for m, s in values["tried"])
        return Trial(**{**values, "tried": pairs, "losses": tuple(values["losses"]),
                        "best_losses": tuple(values["best_losses"])})

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers and lists."""
        return asdict(self)

    def best(self, tie: float) -> tuple[float, float]:
        """The lowest multiplier whose score is the best or within `tie` of it, and that score.

        Above the rates that are too low lies a plain on which chance decides, and a long run wants its lower end.
        """
        enough = min(score for _, score in self.tried) * (1 + tie)
        return min(pair for pair in self.tried if pair[1] <= enough)

    def edge(self, tie: float) -> float:
        """Where the plain begins: the multiplier at which a line between the best and its lower neighbour, over the
        rate's logarithm, crosses the score that is just enough. Rates that are far apart tell it only so."""
        best, score = self.best(tie)
        enough = min(score for _, score in self.tried) * (1 + tie)
        below = max((pair for pair in self.tried if pair[0] < best), default=None)
        if not tie or below is None or not math.isfinite(below[1]) or score == math.inf:
            return best
        share = (below[1] - enough) / (below[1] - score)
        return below[0] * (best / below[0]) ** share


def shape(trial: Trial) -> float:
    """The rate of the update at hand: up over the first quarter, then down to zero; of the trial's own rate."""
    done, warm = len(trial.losses), max(trial.steps // WARMUP, 1)
    if done < warm:
        return (done + 1) / warm
    return max(trial.steps - done, 1) / (trial.steps - warm + 1)


def record(trial: Trial, loss: float) -> Trial:
    """One more loss of the rate at trial."""
    return replace(trial, losses=(*trial.losses, loss), broken=0 if math.isfinite(loss) else trial.broken + 1)


def verdict(trial: Trial, now: Round) -> tuple[float | None, str]:
    """The score of the rate at trial once it is known, and in words; None before."""
    done, n = len(trial.losses), trial.steps
    if trial.broken > 1:
        return math.inf, "it broke"
    if done == n // 2 and trial.best_losses:
        loss, best = _mean(trial.losses[n // 4:n // 2]), _mean(trial.best_losses[n // 4:n // 2])
        if loss > best * (1 + now.hopeless):
            return loss / best * trial.best(now.tie)[1], f"loss {loss:.3f} against {best:.3f} halfway"
    if done < n:
        return None, ""
    score = _mean(trial.losses[n - max(n // TAIL, 1):n])
    return score, f"loss {score:.3f}"


def judged(trial: Trial, multiplier: float, score: float, tie: float) -> Trial:
    """The trial with one more rate judged, ready for the next."""
    after = replace(trial, tried=(*trial.tried, (multiplier, score)), losses=(), broken=0)
    return replace(after, best_losses=trial.losses if after.best(tie)[0] == multiplier else trial.best_losses)


def next_rate(trial: Trial, now: Round, least: float, most: float) -> float | None:
    """The neighbour of the best rate that has not been tried, the higher one first; None where both have been."""
    best, factor = trial.best(now.tie)[0], now.factor
    broken = min((m for m, score in trial.tried if score == math.inf), default=math.inf)
    for rate in (best * factor, best / factor):
        known = any(math.isclose(rate, m, rel_tol=1e-6) for m, _ in trial.tried)
        if not known and least <= rate <= most and rate < broken:
            return rate
    return None


def _mean(losses: tuple[float, ...]) -> float:
    """Of the sound ones; infinite where there are none."""
    sound = [x for x in losses if math.isfinite(x)]
    return sum(sound) / len(sound) if sound else math.inf
