"""The adaptive learning rate's decisions: pure functions on a small state, free of torch.

`follow` is ours: trials on the same batches find the rate, spikes and broken numbers lead back to the last good
weights, and a flat held-out curve begins the cooldown. `plateau` and `greedy` are in plateau.py.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import Field

from ayllu.config import Settings

Action = Literal["hold", "try", "grow", "shrink", "skip", "roll back", "cooldown", "stop"]
Place = Literal["", "first", "good", "end"]              # weights kept: the first, the last good, a trial's best end


class AdaptConfig(Settings):
    """What multiplies the base schedule; off leaves training bit for bit as it is."""

    kind: Literal["off", "follow", "plateau", "greedy"] = "off"
    least: float = Field(default=1e-3, gt=0)             # the multiplier's bounds
    most: float = Field(default=1e3, gt=0)
    trial_steps: int = Field(default=40, ge=4)           # updates of each rate in a trial
    trial_factor: float = Field(default=3.0, gt=1)       # between the rates of a trial
    trial_start: int | None = Field(default=None, ge=0)  # the batch of the first trial; None: after the warm-up
    trial_until: float = Field(default=0.3, ge=0, le=1)  # the share of the run after which no trial begins
    margin: float = Field(default=0.002, ge=0)           # a higher rate must be better by this share
    lower_margin: float = Field(default=0.02, ge=0)      # a lower one by this, after the first trial: less noise alone
    shrink: float = Field(default=0.5, gt=0, lt=1)       # of the rate after rolling back
    spike_sigmas: float = Field(default=6.0, gt=0)       # above the smoothed loss
    rise: float = Field(default=0.15, gt=0)              # of the smoothed loss above its lowest: divergence
    snapshot_every: int = Field(default=50, gt=0)        # updates between copies of good weights
    rollbacks: int = Field(default=20, ge=0)             # until training is given up
    flat: float = Field(default=0.002, ge=0)             # held-out gain over `flat_evaluations` that counts as none
    flat_evaluations: int = Field(default=4, ge=2)
    cooldown: float = Field(default=0.2, gt=0, lt=1)     # share of the run over which the rate comes down at last
    factor: float = Field(default=0.5, gt=0, lt=1)       # of plateau and greedy
    patience: int = Field(default=3, ge=0)
    threshold: float = Field(default=1e-3, ge=0)


@dataclass(frozen=True)
class Trial:
    """Rates compared on the same batches, `trial_steps` updates each.

    They start from the weights at which the trial began; but in the first trial lower ones start from the very first
    weights, because a rate that is far too high has spoilt the present ones, and no rate would look good on them.
    """

    at: int                                              # the batch at which it began
    start: float                                         # the multiplier before the trial
    best: float                                          # the best multiplier so far, and its losses
    best_losses: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()                       # of the rate that is being tried
    direction: int = 0                                   # 0: the rate as it was; 1: higher ones; -1: lower ones
    is_first: bool = True


@dataclass(frozen=True)
class AdaptState:
    """All that the decisions depend on."""

    multiplier: float = 1.0
    mean: float = 0.0                                    # of the training loss, smoothed
    variance: float = 0.0
    seen: int = 0                                        # losses in the mean
    lowest: float = math.inf                             # of the smoothed loss
    spikes: int = 0                                      # batches in a row that were skipped
    rollbacks: int = 0
    since_copy: int = 0                                  # updates since the last copy of good weights
    trial: Trial | None = None
    next_trial: int = -1                                 # the batch at which a trial begins; -1: not yet set
    held: tuple[float, ...] = ()                         # held-out losses, newest last
    cooldown_at: int | None = None                       # batch and length
    cooldown_steps: int = 0
    good: int = 0                                        # plateau and greedy: evaluations in a row
    bad: int = 0
    best: float = math.inf

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers and lists."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "AdaptState":
        """What `to_dict` gave, also after JSON."""
        trial = values["trial"]
        if trial is not None:
            trial = Trial(**{**trial, "best_losses": tuple(trial["best_losses"]), "losses": tuple(trial["losses"])})
        return AdaptState(**{**values, "trial": trial, "held": tuple(values["held"])})


@dataclass(frozen=True)
class Decision:
    """What is done and why; `hold` without a reason is not worth a line."""

    action: Action = "hold"
    reason: str = ""
    load: Place = ""                                     # take these weights
    replay: bool = False                                 # and their place among the batches
    store: Place = ""                                    # keep the weights: `end` before loading, `good` after it

    @property
    def applies(self) -> bool:
        """Whether the batch at hand is learned from."""
        return not self.load and self.action not in ("skip", "stop")


@dataclass(frozen=True)
class Where:
    """The batch (0, 1, ...), the batches in all, and the base schedule's factor there and warm-up in batches."""

    batch: int
    batches: int
    base: float = 1.0
    warmup: int = 0


SMOOTHING, SEEN_ENOUGH = 0.9, 20                         # short, so that a fast fall early on is not taken for noise


def before_update(config: AdaptConfig, state: AdaptState, loss: float, norm: float) -> tuple[AdaptState, Decision]:
    """With a batch's loss and gradient norm at hand: learn from it, skip it, or roll back."""
    sound = math.isfinite(loss) and math.isfinite(norm)
    if sound and not _is_spike(config, state, loss):
        return replace(_smoothed(state, loss), spikes=0), Decision()
    what = f"loss {loss:.4g}, gradient norm {norm:.4g}" if not sound else (
        f"loss {loss:.3f} is {(loss - state.mean) / _deviation(state):.0f} deviations above {state.mean:.3f}")
    if state.trial is not None and state.trial.direction != 0:
        rejected, decision = _reject(config, state, f"{what}: this rate is too high")
        return rejected, decision
    if sound and state.spikes == 0:
        return replace(state, spikes=1), Decision("skip", f"{what}: the batch is skipped")
    return _roll_back(config, state, what)


def after_update(config: AdaptConfig, state: AdaptState, where: Where, loss: float,
                 held: float | None = None) -> tuple[AdaptState, Decision]:
    """After an update with the batch before `where`: trials, divergence, cooldown, stop, copies of good weights."""
    state = replace(state, since_copy=state.since_copy + 1)
    if state.cooldown_at is not None:
        over = where.batch >= state.cooldown_at + state.cooldown_steps
        return state, Decision("stop", "the cooldown is over") if over else Decision()
    if state.trial is not None:
        return _in_trial(config, state, where, loss)
    if state.seen >= SEEN_ENOUGH and state.mean > state.lowest * (1 + config.rise):
        return _roll_back(config, state, f"the smoothed loss rose from {state.lowest:.3f} to {state.mean:.3f}")
    begins = _cooldown_reason(config, state, where, held)
    if held is not None:
        state = replace(state, held=(*state.held, held)[-config.flat_evaluations - 1:])
    if begins:
        steps = min(max(round(config.cooldown * where.batches), 1), max(where.batches - where.batch, 1))
        return (replace(state, cooldown_at=where.batch, cooldown_steps=steps), Decision("cooldown", begins))
    if _trial_begins(config, state, where):
        return (replace(state, trial=_new_trial(state, where), since_copy=0),
                Decision("try", f"a trial begins with rate x {state.multiplier:.3g}", store="good"))
    if state.since_copy >= config.snapshot_every and state.spikes == 0 and state.mean <= state.lowest * 1.02:
        return replace(state, since_copy=0), Decision(store="good")
    return state, Decision()


def first_trial(config: AdaptConfig, state: AdaptState, where: Where) -> tuple[AdaptState, Decision]:
    """Before the first update: weights worth going back to, and a trial if it begins here."""
    if _trial_begins(config, state, where):
        return (replace(state, trial=_new_trial(state, where)),
                Decision("try", f"a trial begins with rate x {state.multiplier:.3g}", store="good"))
    return state, Decision(store="good")


def rate_factor(state: AdaptState, batch: int) -> float:
    """What the base schedule is multiplied by: the multiplier, and 1 - sqrt of the cooldown that is done."""
    if state.cooldown_at is None:
        return state.multiplier
    return state.multiplier * (1 - math.sqrt(min((batch - state.cooldown_at) / state.cooldown_steps, 1.0)))


def _is_spike(config: AdaptConfig, state: AdaptState, loss: float) -> bool:
    far = loss > state.mean + config.spike_sigmas * _deviation(state)
    return state.seen >= SEEN_ENOUGH and far and loss > 1.1 * state.mean


def _deviation(state: AdaptState) -> float:
    return max(math.sqrt(state.variance), 1e-3 * abs(state.mean), 1e-12)


def _smoothed(state: AdaptState, loss: float) -> AdaptState:
    """Exponential mean and variance, begun as plain ones; one outlier counts for three deviations at most."""
    share = max(1 - SMOOTHING, 1 / (state.seen + 1))
    off = loss - state.mean
    if state.seen >= SEEN_ENOUGH:
        off = min(off, 3 * _deviation(state))
    mean = state.mean + share * off
    lowest = min(state.lowest, mean) if state.seen + 1 >= SEEN_ENOUGH else state.lowest
    return replace(state, mean=mean, variance=(1 - share) * (state.variance + share * off * off),
                   seen=state.seen + 1, lowest=lowest)


def _forget(state: AdaptState) -> AdaptState:
    """Other weights have other losses."""
    return replace(state, mean=0.0, variance=0.0, seen=0, lowest=math.inf, spikes=0, since_copy=0)


def _roll_back(config: AdaptConfig, state: AdaptState, what: str) -> tuple[AdaptState, Decision]:
    if state.rollbacks >= config.rollbacks:
        return state, Decision("stop", f"{what}, after {state.rollbacks} times of rolling back: given up")
    lower = max(state.multiplier * config.shrink, config.least)
    state = replace(_forget(state), multiplier=lower, rollbacks=state.rollbacks + 1, trial=None,
                    next_trial=min(state.next_trial, 0))  # due again at once: what was not needed is won back
    return state, Decision("roll back", f"{what}: back to the last good weights, rate x {lower:.3g}", load="good")


def _trial_begins(config: AdaptConfig, state: AdaptState, where: Where) -> bool:
    first = where.warmup if config.trial_start is None else config.trial_start
    due = where.batch >= (first if state.next_trial < 0 else state.next_trial)
    return due and where.batch <= config.trial_until * where.batches and state.spikes == 0


def _new_trial(state: AdaptState, where: Where) -> Trial:
    return Trial(where.batch, state.multiplier, state.multiplier, is_first=state.next_trial < 0)


def _in_trial(config: AdaptConfig, state: AdaptState, where: Where, loss: float) -> tuple[AdaptState, Decision]:
    trial = state.trial
    assert trial is not None
    if where.batch <= trial.at:
        return state, Decision()                         # on the way from the first weights to the trial's batches
    trial = replace(trial, losses=(*trial.losses, loss))
    state = replace(state, trial=trial)
    n, done = config.trial_steps, len(trial.losses)
    if trial.direction and done == n // 2:               # a hopeless rate needs no second half
        now, best = _mean(trial.losses[n // 4:]), _mean(trial.best_losses[n // 4:n // 2])
        if now > best * 1.05:
            return _reject(config, state, f"loss {now:.3f} against {best:.3f} after {done} batches")
    if done < n:
        return state, Decision()
    score, best = _score(trial.losses), _score(trial.best_losses) if trial.best_losses else math.inf
    needed = 1 - (config.margin if trial.direction > 0 else 0.0 if trial.is_first else config.lower_margin)
    if trial.direction and not score < best * needed:
        return _reject(config, state, f"loss {score:.3f} against {best:.3f} on the same batches")
    trial = replace(trial, best=state.multiplier, best_losses=trial.losses)
    after = replace(state, trial=trial)
    following = state.multiplier * config.trial_factor ** (trial.direction or 1)
    if not config.least <= following <= config.most:
        return _finish(config, after, load="")
    why = f"loss {score:.3f} at x {state.multiplier:.3g}"
    after, decision = _next_rate(after, following, trial.direction or 1, why)
    return after, replace(decision, store="end")


def _reject(config: AdaptConfig, state: AdaptState, why: str) -> tuple[AdaptState, Decision]:
    """The rate at trial is worse: try the other direction, or end the trial with the best."""
    trial = state.trial
    assert trial is not None
    lower = trial.start / config.trial_factor
    if trial.direction > 0 and trial.best == trial.start and lower >= config.least:
        return _next_rate(state, lower, -1, f"x {state.multiplier:.3g} is no better ({why})")
    return _finish(config, state, load="end", why=f"x {state.multiplier:.3g} is no better ({why})")


def _next_rate(state: AdaptState, multiplier: float, direction: int, why: str) -> tuple[AdaptState, Decision]:
    trial = state.trial
    assert trial is not None
    place: Place = "first" if direction < 0 and trial.is_first else "good"
    state = replace(_forget(state), multiplier=multiplier, trial=replace(trial, losses=(), direction=direction))
    return state, Decision("try", f"{why}: the same batches with rate x {multiplier:.3g}", load=place, replay=True)


def _finish(config: AdaptConfig, state: AdaptState, load: Place, why: str = "") -> tuple[AdaptState, Decision]:
    trial = state.trial
    assert trial is not None
    action: Action = "grow" if trial.best > trial.start else "shrink" if trial.best < trial.start else "hold"
    state = replace(_forget(state), multiplier=trial.best, trial=None,
                    next_trial=2 * (trial.at + config.trial_steps))
    return state, Decision(action, f"{why or 'the bound is reached'}: the trial ends with rate x {trial.best:.3g}",
                           load=load, replay=load != "", store="good")


def _cooldown_reason(config: AdaptConfig, state: AdaptState, where: Where, held: float | None) -> str:
    """Why the rate should come down now; only where the base schedule is still high and won't do it itself."""
    if where.base < 0.5:
        return ""
    left = where.batches - where.batch
    if where.base == 1.0 and left <= round(config.cooldown * where.batches):
        return f"{left} batches are left"
    if held is None or len(state.held) < config.flat_evaluations:
        return ""
    before = state.held[-config.flat_evaluations]
    if before - min(*state.held[-config.flat_evaluations + 1:], held) > config.flat * abs(before):
        return ""
    return f"the held-out loss went from {before:.4f} to {held:.4f} in {config.flat_evaluations} evaluations: flat"


def _score(losses: tuple[float, ...]) -> float:
    return _mean(losses[len(losses) // 2:])


def _mean(losses: tuple[float, ...]) -> float:
    return sum(losses) / len(losses)
