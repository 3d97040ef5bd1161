"""The adaptive learning rate at work: decisions of adapt.py carried out on weights, optimiser and batches.

Two published ways to adapt the rate to the held-out loss: ReduceLROnPlateau and GreedyLR, as pure functions.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from ayllu import dist
from ayllu.train.adapt import (
    AdaptConfig,
    AdaptState,
    Decision,
    Where,
    after_update,
    before_update,
    first_decision,
    rate_factor,
)
from ayllu.train.average import Average


class Control:
    """What the controller knows: its state, the next batch, and copies of weights worth going back to.

    Copies lie in the memory beside the model, two in a trial, else one. They go into each checkpoint, so that a resume
    repeats every decision. Steps count all batches that were computed; `batch` counts
    those of the line that is kept.
    """

    def __init__(self, config: AdaptConfig) -> None:
        self.config, self.state, self.batch = config, AdaptState(), 0
        self.copies: dict[str, dict[str, Any]] = {}

    def horizon(self, step: int, steps: int) -> int:
        """The batches in all: what trials and rolling back have cost is taken off the end."""
        return steps - (step - self.batch)

    def factor(self, base: float = 1.0) -> float:
        """What the rate of the settings is multiplied by, where `base` is the schedule's factor."""
        return rate_factor(self.state, self.batch, base)

    def begin(self, where: Where, parts: "Parts") -> Decision:
        """Before the first batch: copy the weights, and perhaps begin a trial."""
        if self.config.kind != "follow" or self.copies:
            return Decision()
        self.state, decision = first_decision(self.config, self.state, where)
        return self._carry_out(decision, parts)

    def admit(self, loss: float, norm: float, parts: "Parts") -> Decision:
        """Before an update: whether the batch is learned from; the next batch is set where it isn't."""
        loss, norm = from_main([loss, norm], parts.device)
        if self.config.kind == "follow":
            self.state, decision = before_update(self.config, self.state, loss, norm)
        else:
            broken = not (math.isfinite(loss) and math.isfinite(norm))
            decision = Decision("stop", f"loss {loss}, gradient norm {norm}") if broken else Decision()
        self._carry_out(decision, parts)
        if not decision.applies and not decision.replay:
            self.batch += 1                              # the batch is never seen again
        return decision

    def conclude(self, where: Where, loss: float, held: float | None, parts: "Parts") -> Decision:
        """After an update, with the held-out loss where one has been measured."""
        loss, measured = from_main([loss, math.nan if held is None else held], parts.device)
        held = None if held is None else measured
        match self.config.kind:
            case "follow":
                self.state, decision = after_update(self.config, self.state, where, loss, held)
            case "plateau":
                self.state, decision = reduce_on_plateau(self.config, self.state, held)
            case _:
                self.state, decision = greedy(self.config, self.state, held)
        return self._carry_out(decision, parts)

    def _carry_out(self, decision: Decision, parts: "Parts") -> Decision:
        if decision.store == "end":
            self.copies["end"] = parts.copy(self.batch)
        if decision.load:
            batch = parts.take(self.copies[decision.load])
            self.batch = batch if decision.replay else self.batch
        if decision.store == "good":
            self.copies["good"] = parts.copy(self.batch)
        if self.state.trial is None:
            self.copies.pop("end", None)
        return decision

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: text, a number, and tensors of which each rank has its share."""
        return {"adapt": json.dumps(self.state.to_dict()), "batch": self.batch, "copies": dict(self.copies)}

    def make_room(self, saved: Iterable[str], parts: "Parts") -> None:
        """Copies of the shape of those in a checkpoint, which has the keys `saved`, for it to fill."""
        found = [key.split(".", 3) for key in saved if key.startswith("control.copies.")]
        moments = {name for _, _, name, rest in found if rest.startswith("optimizer.state.")}
        self.copies = {name: parts.copy(0) for name in sorted({name for _, _, name, _ in found})}
        for name in set(self.copies) - moments:          # copied before the first update
            self.copies[name]["optimizer"]["state"] = {}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.state, self.batch = AdaptState.from_dict(json.loads(saved["adapt"])), saved["batch"]
        self.copies = dict(saved["copies"])


class Parts:
    """The weights, the optimiser's state and the average that are copied and taken back together."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: Average | None) -> None:
        self.model, self.optimizer, self.average = model, optimizer, average
        self.device = next(model.parameters()).device

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def copy(self, batch: int) -> dict[str, Any]:
        """Everything as it is now."""
        return {"batch": batch, "model": _cloned(self._trained()),
                "optimizer": _with_keys(self.optimizer.state_dict(), str),
                "average": _cloned(self.average) if self.average is not None else None}

    @torch.no_grad()
    def take(self, copy: dict[str, Any]) -> int:
        """Put a copy back; returns the batch that it stood before."""
        for name, parameter in self._trained().items():
            parameter.copy_(copy["model"][name])
        self.optimizer.load_state_dict(_with_keys(copy["optimizer"], int))
        for name, tensor in (self.average or {}).items():
            tensor.copy_(copy["average"][name])
        batch: int = copy["batch"]
        return batch


def from_main(values: list[float], device: torch.device) -> list[float]:
    """The first rank's numbers on every rank, so that all decide alike: the others add zeros."""
    if dist.world_size() == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    found: list[float] = dist.sum_over_ranks(tensor if dist.is_main() else torch.zeros_like(tensor)).tolist()
    return found


def _with_keys(optimizer: dict[str, Any], kind: type) -> dict[str, Any]:
    """A copy of an optimiser's state by parameter number; a checkpoint wants text for keys."""
    return {"param_groups": _cloned(optimizer["param_groups"]),
            "state": {kind(k): _cloned(v) for k, v in optimizer["state"].items()}}


def _cloned(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: _cloned(v) for k, v in value.items()}
    return [_cloned(v) for v in value] if isinstance(value, list) else value


def reduce_on_plateau(config: AdaptConfig, state: AdaptState, held: float | None) -> tuple[AdaptState, Decision]:
    """Shrink after more than `patience` evaluations in a row without a gain: torch's ReduceLROnPlateau.

    A gain is a loss lower than the best by the share `threshold` (torch's mode `rel`).
    """
    if held is None:
        return state, Decision()
    if held < state.best * (1 - config.threshold):
        return replace(state, best=held, bad=0), Decision()
    state = replace(state, bad=state.bad + 1)
    if state.bad <= config.patience:
        return state, Decision()
    return _shrink(config, replace(state, bad=0), f"no gain in {state.bad} evaluations")


def greedy(config: AdaptConfig, state: AdaptState, held: float | None) -> tuple[AdaptState, Decision]:
    """Grow after more than `patience` gains in a row, shrink after as many failures: GreedyLR (arXiv:2512.14527).

    As in the authors' code a gain is a loss lower than the best by `threshold`, in absolute terms; without smoothing,
    waiting periods and the reset at the lower bound.
    """
    if held is None:
        return state, Decision()
    if held < state.best - config.threshold:
        state = replace(state, best=held, bad=0, good=state.good + 1)
    else:
        state = replace(state, bad=state.bad + 1, good=0)
    if state.good > config.patience:
        grown = min(state.multiplier / config.factor, config.most)
        reason = f"{state.good} gains in a row: rate x {grown:.3g}"
        return replace(state, multiplier=grown, good=0), Decision("grow", reason)
    if state.bad > config.patience:
        return _shrink(config, replace(state, bad=0), f"no gain in {state.bad} evaluations")
    return state, Decision()


def _shrink(config: AdaptConfig, state: AdaptState, why: str) -> tuple[AdaptState, Decision]:
    lower = max(state.multiplier * config.factor, config.least)
    return replace(state, multiplier=lower), Decision("shrink", f"{why}: rate x {lower:.3g}")
