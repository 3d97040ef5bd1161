"""The adaptive learning rate's decisions: pure functions on a small state, free of torch.

`follow` is ours: trials on the same batches find the rate (search.py), spikes and broken numbers lead back to the last
good weights, and a flat held-out curve begins the cooldown. `plateau` and `greedy` are in plateau.py.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import Field

from ayllu.config import Settings
from ayllu.train.search import Round, Trial, judged, next_rate, record, shape, verdict

Action = Literal["hold", "try", "grow", "shrink", "skip", "roll back", "cooldown", "stop"]
Place = Literal["", "good", "end"]                       # weights kept: the last good, and a trial's best end


ROUNDS = (Round(tie=0.05, keep=0.4),)                    # a second one, later, cost more than it found


class AdaptConfig(Settings):
    """What multiplies the base schedule; off leaves training bit for bit as it is."""

    kind: Literal["off", "follow", "plateau", "greedy"] = "off"
    least: float = Field(default=1e-3, gt=0)             # the multiplier's bounds
    most: float = Field(default=1e3, gt=0)
    rounds: tuple[Round, ...] = ROUNDS                   # of the search for the rate; none: it stays as it was given
    trial_least: int = Field(default=8, ge=4)            # updates of each rate in a short run's trials
    shrink: float = Field(default=0.5, gt=0, lt=1)       # of the rate after rolling back
    spike_sigmas: float = Field(default=6.0, gt=0)       # above the smoothed loss
    rise: float = Field(default=0.15, gt=0)              # of the smoothed loss above its lowest: divergence
    regain: int = Field(default=200, gt=0)               # updates without trouble after which a shrunk rate grows again
    snapshot_every: int = Field(default=50, gt=0)        # updates between copies of good weights
    rollbacks: int = Field(default=20, ge=0)             # until training is given up
    flat: float = Field(default=0.002, ge=0)             # held-out gain over `flat_evaluations` that counts as none
    flat_evaluations: int = Field(default=4, ge=2)
    cooldown: float = Field(default=0.2, gt=0, lt=1)     # share of the run over which the rate comes down at last
    factor: float = Field(default=0.5, gt=0, lt=1)       # of plateau and greedy
    patience: int = Field(default=3, ge=0)
    threshold: float = Field(default=1e-3, ge=0)


@dataclass(frozen=True)
class AdaptState:
    """All that the decisions depend on."""

    multiplier: float = 1.0
    wanted: float = 1.0                                  # what it grows back to once it has been shrunk
    mean: float = 0.0                                    # of the training loss, smoothed
    variance: float = 0.0
    seen: int = 0                                        # losses in the mean
    lowest: float = math.inf                             # of the smoothed loss
    spikes: int = 0                                      # batches in a row that were skipped
    rollbacks: int = 0
    since_copy: int = 0                                  # updates since the last copy of good weights
    calm: int = 0                                        # updates since the last rolling back or growing
    round: int = 0                                       # of the search: the one at work or to come
    trial: Trial | None = None
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
        return AdaptState(**{**values, "trial": None if trial is None else Trial.from_dict(trial),
                             "held": tuple(values["held"])})


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
    if state.trial is not None:
        return _broken_in_trial(config, state, what)
    if sound and state.spikes == 0:
        return replace(state, spikes=1), Decision("skip", f"{what}: the batch is skipped")
    return _roll_back(config, state, what)


def after_update(config: AdaptConfig, state: AdaptState, where: Where, loss: float,
                 held: float | None = None) -> tuple[AdaptState, Decision]:
    """After an update with the batch before `where`: trials, divergence, cooldown, stop, copies of good weights."""
    state = replace(state, since_copy=state.since_copy + 1, calm=state.calm + 1)
    if state.cooldown_at is not None:
        over = where.batch >= state.cooldown_at + state.cooldown_steps
        return state, Decision("stop", "the cooldown is over") if over else Decision()
    if state.trial is not None:
        return _go_on(config, replace(state, trial=record(state.trial, loss)))
    if state.mean > max(state.lowest * (1 + config.rise), state.lowest + 2 * _deviation(state)):
        return _roll_back(config, state, f"the smoothed loss rose from {state.lowest:.3f} to {state.mean:.3f}")
    begins = _cooldown_reason(config, state, where, held)
    if held is not None:
        state = replace(state, held=(*state.held, held)[-config.flat_evaluations - 1:])
    if begins:
        steps = min(max(round(config.cooldown * where.batches), 1), max(where.batches - where.batch, 1))
        return (replace(state, cooldown_at=where.batch, cooldown_steps=steps), Decision("cooldown", begins))
    if _round_begins(config, state, where):
        return _begin_round(config, state, where)
    if state.multiplier < state.wanted and state.calm >= config.regain:
        grown = min(state.multiplier / config.shrink, state.wanted)
        return (replace(state, multiplier=grown, calm=0),
                Decision("grow", f"no trouble for {state.calm} updates: rate x {grown:.3g}"))
    if state.since_copy >= config.snapshot_every and state.spikes == 0 and state.mean <= state.lowest * 1.02:
        return replace(state, since_copy=0), Decision(store="good")
    return state, Decision()


def first_decision(config: AdaptConfig, state: AdaptState, where: Where) -> tuple[AdaptState, Decision]:
    """Before the first update: weights worth going back to, and the search if it begins here."""
    if _round_begins(config, state, where):
        return _begin_round(config, state, where)
    return state, Decision(store="good")


def rate_factor(state: AdaptState, batch: int, base: float) -> float:
    """What the rate of the settings is multiplied by, where `base` is the schedule's factor.

    A trial has a shape of its own, and before the first update the schedule has no say in it; a cooldown takes the
    rate down by 1 - sqrt of its share that is done.
    """
    if state.trial is not None:
        return state.multiplier * shape(state.trial) * (base if state.trial.at else 1.0)
    if state.cooldown_at is None:
        return state.multiplier * base
    return state.multiplier * base * (1 - math.sqrt(min((batch - state.cooldown_at) / state.cooldown_steps, 1.0)))


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
    settled = state.seen + 1 >= 2 * SEEN_ENOUGH          # a trial ends low, and the loss rises with its rate after it
    lowest = min(state.lowest, mean) if settled else state.lowest
    return replace(state, mean=mean, variance=(1 - share) * (state.variance + share * off * off),
                   seen=state.seen + 1, lowest=lowest)


def _forget(state: AdaptState) -> AdaptState:
    """Other weights have other losses."""
    return replace(state, mean=0.0, variance=0.0, seen=0, lowest=math.inf, spikes=0, since_copy=0)


def _roll_back(config: AdaptConfig, state: AdaptState, what: str) -> tuple[AdaptState, Decision]:
    if state.rollbacks >= config.rollbacks:
        return state, Decision("stop", f"{what}, after {state.rollbacks} times of rolling back: given up")
    lower = max(state.multiplier * config.shrink, config.least)
    again = state.rollbacks and state.calm < 4 * config.regain       # trouble that comes back is the rate's own
    state = replace(_forget(state), multiplier=lower, wanted=lower if again else state.wanted, calm=0,
                    rollbacks=state.rollbacks + 1)
    return state, Decision("roll back", f"{what}: back to the last good weights, rate x {lower:.3g}", load="good")


def _round_begins(config: AdaptConfig, state: AdaptState, where: Where) -> bool:
    """Rounds whose time passed while there was trouble begin once it is over."""
    if state.round >= len(config.rounds) or state.spikes:
        return False
    at = round(config.rounds[state.round].at * where.batches)
    return where.batch == 0 if at == 0 else where.batch >= max(at, where.warmup) and where.base > 0.5


def _begin_round(config: AdaptConfig, state: AdaptState, where: Where) -> tuple[AdaptState, Decision]:
    steps = max(round(config.rounds[state.round].share * where.batches), config.trial_least)
    state = replace(_forget(state), trial=Trial(where.batch, steps, state.multiplier))
    return state, Decision("try", f"a trial of {steps} batches begins with rate x {state.multiplier:.3g}", store="good")


def _broken_in_trial(config: AdaptConfig, state: AdaptState, what: str) -> tuple[AdaptState, Decision]:
    """One batch is passed over, since it may be the batch's own fault; with a second one it is the rate's."""
    assert state.trial is not None
    state, decision = _go_on(config, replace(state, trial=record(state.trial, math.inf)))
    if decision.load:
        return state, decision
    return state, replace(decision, action="skip", reason=decision.reason or f"{what}: the batch is skipped")


def _go_on(config: AdaptConfig, state: AdaptState) -> tuple[AdaptState, Decision]:
    """With one more loss in the trial: the same rate, the next one, or the end."""
    trial, now = state.trial, config.rounds[state.round]
    assert trial is not None
    score, why = verdict(trial, now)
    if score is None:
        return state, Decision()
    why = f"{why} at x {state.multiplier:.3g}"
    trial = judged(trial, state.multiplier, score, now.tie)
    following = next_rate(trial, now, config.least, config.most)
    is_best = trial.best(now.tie)[0] == state.multiplier and score < math.inf
    if following is None:
        return _finish(config, state, trial, why, is_best)
    return (replace(_forget(state), multiplier=following, trial=trial),
            Decision("try", f"{why}: the same batches with rate x {following:.3g}", load="good", replay=True,
                     store="end" if is_best else ""))


def _finish(config: AdaptConfig, state: AdaptState, trial: Trial, why: str,
            is_best: bool) -> tuple[AdaptState, Decision]:
    """The best rate goes on from its own end; a part of it begins where the trial began."""
    now = config.rounds[state.round]
    (winner, score), keep = trial.best(now.tie), now.keep
    found = min(max(trial.edge(now.tie) * keep, config.least), config.most)
    action: Action = "grow" if found > trial.start else "shrink" if found < trial.start else "hold"
    state = replace(_forget(state), multiplier=found, wanted=found, trial=None, round=state.round + 1)
    load: Place = "good" if keep != 1 or score == math.inf else "" if is_best else "end"
    return state, Decision(action, f"{why}; x {winner:.3g} was best: the trial ends with rate x {found:.3g}", load=load,
                           replay=load != "", store="good")


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
