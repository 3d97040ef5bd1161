"""fit(): the only training loop. A method is a loss and its batches."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field, model_validator
from torch.distributed.tensor import DTensor

from ayllu import dist
from ayllu.config import Settings
from ayllu.device import emulates_bfloat16
from ayllu.errors import ConfigError, TrainingDiverged
from ayllu.log import say
from ayllu.model.build import CausalModel
from ayllu.model.parallel import ALONE, Layout
from ayllu.train.adapt import Decision, Where
from ayllu.train.average import update_average
from ayllu.train.best import held_out_loss
from ayllu.train.control import Control, Parts, from_main
from ayllu.train.losses import Loss
from ayllu.train.optim import OptimConfig
from ayllu.train.saver import Saver
from ayllu.train.schedule import factor
from ayllu.train.state import TrainState
from ayllu.train.trainee import Precision


class LoopConfig(Settings):
    """How long to train, how much at once, and how often to look."""

    steps: int = Field(gt=0)
    batch_size: int = Field(default=32, gt=0)            # rows per step over all ranks and micro-batches
    micro_batch: Annotated[int, Field(gt=0)] | Literal["auto"] = 8   # rows at once; auto: as many as fit (plan.py)
    eval_every: int = Field(default=500, gt=0)
    checkpoint_every: int = Field(default=500, gt=0)
    keep: int = Field(default=2, gt=0)                   # checkpoints kept, beside the best
    async_save: bool = True                              # they are written while training goes on
    log_every: int = Field(default=10, gt=0)
    precision: Precision = "autocast"                    # of products; bf16_masters: of all between float32 weights
    activation_checkpointing: bool = False               # keep only the blocks' inputs, compute the rest again
    ema: float = Field(default=0.0, ge=0, lt=1)          # decay of an average of the weights to evaluate; 0: none
    patience: int = Field(default=0, ge=0)               # evaluations without a better one until it stops; 0: never

    @model_validator(mode="before")
    @classmethod
    def _older_recipes(cls, values: Any) -> Any:
        """autocast = true or false, as recipes had it before there were three choices."""
        if not isinstance(values, dict) or "autocast" not in values:
            return values
        return {"precision": "autocast" if values["autocast"] else "float32",
                **{k: v for k, v in values.items() if k != "autocast"}}

    @property
    def autocast(self) -> bool:
        """Whether products are rounded on the way in; evaluation does it for both low precisions."""
        return self.precision == "autocast"


class BatchSource(Protocol):
    """Batches as a function of the step; what else they depend on is the state of a `Follower`."""

    def batch(self, step: int) -> Any: ...


class Observer(Protocol):
    """What a run reports to: the progress bar, the metrics file."""

    def log(self, row: dict[str, Any]) -> None: ...

    def advance(self, state: TrainState, row: dict[str, Any]) -> None: ...


LossFunction = Callable[[CausalModel, Any], Loss]


@dataclass
class Interrupted(Exception):                            # noqa: N818 - no error: somebody asked for it
    """Ctrl-C or SIGTERM was honoured: everything up to `step` is saved."""

    step: int
    folder: Path


def fit(state: TrainState, batches: BatchSource, loss: LossFunction, *, loop: LoopConfig, optim: OptimConfig,
        run: Path, observer: Observer, evaluate: Callable[[TrainState], dict[str, Any]], device: torch.device) -> None:
    """Train until `loop.steps`, saving and evaluating on the way; raises Interrupted or TrainingDiverged."""
    _check_parts(state, loop)
    if loop.precision != "float32" and emulates_bfloat16(device):
        say(f"this CPU has no instructions for bfloat16: loop.precision=float32 is faster here than {loop.precision}")
    with _stop_requested() as stop, Saver(run, loop.keep, loop.async_save) as saver:
        while state.step < loop.steps and not state.stopped:
            started = time.perf_counter()
            if state.control is None:
                last, learned = step(state, batches.batch(state.step), loss, loop, optim, device), True
            else:
                last, learned = adaptive_step(state, state.control, batches, loss, loop, optim, device, observer)
            state.seconds += time.perf_counter() - started
            if state.follower is not None:
                last |= state.follower.row()
                if learned:
                    state.follower.observe(last["loss"])
            observer.advance(state, last)
            is_last = state.step == loop.steps
            looks = state.step % loop.eval_every == 0 or is_last
            if state.step % loop.log_every == 0 or is_last:
                observer.log({"step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 3), **last})
            held = _look(state, evaluate, loop, saver, observer, device) if looks else None
            if state.control is not None and learned and not state.stopped:
                _conclude(state, state.control, last["loss"], held, loop, optim, observer)
                if state.stopped and not looks:
                    _look(state, evaluate, loop, saver, observer, device)
            stops, failed = dist.any_rank((stop(), saver.failed), device)
            if failed:                                   # on some rank: told at once, and by all of them
                saver.wait()
            if state.step % loop.checkpoint_every == 0 or is_last or state.stopped or stops:
                folder = saver.save(state)
                if stops and not is_last:
                    saver.wait()
                    raise Interrupted(state.step, folder)


def _look(state: TrainState, evaluate: Callable[[TrainState], dict[str, Any]], loop: LoopConfig, saver: Saver,
          observer: Observer, device: torch.device) -> float | None:
    """Evaluate with the averaged weights; keep the best, and stop once nothing better has come for a while."""
    saver.wait()                                         # a disk that failed is known before the long evaluation
    with state.averaged():
        row = evaluate(state)
    observer.log({"step": state.step, **row})
    held = held_out_loss(row)
    held = None if held is None else from_main([held], device)[0]
    if state.best is None or held is None:
        return held
    state.best = state.best.judge(held, state.step)
    if state.best.since == 0:
        saver.save_best(state)
    elif 0 < loop.patience <= state.best.since:
        state.stopped = (f"no held-out loss below {state.best.loss:.4f} (step {state.best.step}) in "
                         f"{state.best.since} evaluations")
        observer.log({"step": state.step, "decision": "stop", "reason": state.stopped})
    return held


def _conclude(state: TrainState, control: Control, loss: float, held: float | None, loop: LoopConfig,
              optim: OptimConfig, observer: Observer) -> None:
    """After an update: what the controller makes of it."""
    parts = Parts(state.model, state.optimizer, state.average)
    decision = control.conclude(_where(state, control, loop, optim), loss, held, parts)
    _note(state, control, decision, observer)
    if decision.action == "stop":
        if control.state.cooldown_at is None:
            raise TrainingDiverged(f"at step {state.step}: {decision.reason}; the last checkpoint is intact")
        state.stopped = decision.reason


def _note(state: TrainState, control: Control, decision: Decision, observer: Observer) -> None:
    if decision.reason:
        observer.log({"step": state.step, "decision": decision.action, "reason": decision.reason,
                      "batch": control.batch, "rate_factor": control.factor()})


def _where(state: TrainState, control: Control, loop: LoopConfig, optim: OptimConfig) -> Where:
    batches = control.horizon(state.step, loop.steps)
    return Where(control.batch, batches, factor(optim.schedule, control.batch, batches), optim.schedule.warmup_steps)


def _check_parts(state: TrainState, loop: LoopConfig) -> None:
    """A setting whose part was never built would be ignored silently."""
    for name, is_built in (("ema", (loop.ema > 0) == (state.average is not None)),
                           ("patience", loop.patience == 0 or state.best is not None)):
        if not is_built:
            value = getattr(loop, name)
            raise ConfigError(f"loop.{name}={value}, but the state was built {'without' if value else 'with'} it: "
                              "build the state from the same settings")


def step(state: TrainState, batch: Any, loss: LossFunction, loop: LoopConfig, optim: OptimConfig,
         device: torch.device) -> dict[str, Any]:
    """One update: gradients of the summed loss over all micro-batches, divided once by the whole weight."""
    lr = _set_rate(state, optim.lr * factor(optim.schedule, state.step, loop.steps))
    mean, norm, weight = _gradients(state, batch, loss, loop, optim, device)
    if not math.isfinite(mean):
        raise TrainingDiverged(f"the loss is {mean} at step {state.step + 1} (batch {state.step}): lower optim.lr "
                               f"(now {optim.lr}), lengthen the warm-up, or set adapt.kind=follow; the last "
                               "checkpoint is intact")
    _update(state, loop)
    state.step += 1
    state.tokens += weight
    return {"loss": mean, "lr": lr, "grad_norm": norm}


def adaptive_step(state: TrainState, control: Control, batches: BatchSource, loss: LossFunction, loop: LoopConfig,
                  optim: OptimConfig, device: torch.device, observer: Observer) -> tuple[dict[str, Any], bool]:
    """One step under the controller; also returns whether the batch was learned from."""
    parts = Parts(state.model, state.optimizer, state.average)
    where = _where(state, control, loop, optim)
    _note(state, control, control.begin(where, parts), observer)
    lr = _set_rate(state, optim.lr * control.factor(where.base))
    mean, norm, weight = _gradients(state, batches.batch(control.batch), loss, loop, optim, device)
    decision = control.admit(mean, norm, parts)
    if decision.applies:
        _update(state, loop)
        control.batch += 1
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    state.tokens += weight
    _note(state, control, decision, observer)
    if decision.action == "stop":
        raise TrainingDiverged(f"at step {state.step}: {decision.reason}; the last checkpoint is intact")
    return {"loss": mean, "lr": lr, "grad_norm": norm}, decision.applies


def _set_rate(state: TrainState, lr: float) -> float:
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group.get("plus", 1.0)
    return lr


def _gradients(state: TrainState, batch: Any, loss: LossFunction, loop: LoopConfig, optim: OptimConfig,
               device: torch.device) -> tuple[float, float, int]:
    """Leave clipped gradients of the mean loss; returns (mean loss, norm before clipping, weight)."""
    state.model.train()
    total, weight = accumulate(state.model, batch, loss, loop, device, state.layout)
    mean = (total / weight).item()
    for parameter in state.model.parameters():
        if parameter.grad is not None:
            parameter.grad /= weight
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), optim.clip)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm          # over all shares
    return mean, norm.item(), int(weight)


def _update(state: TrainState, loop: LoopConfig) -> None:
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.average is not None:
        update_average(state.average, state.model, loop.ema, state.step)


def accumulate(model: CausalModel, batch: Any, loss: LossFunction, loop: LoopConfig, device: torch.device,
               layout: Layout = ALONE) -> tuple[torch.Tensor, torch.Tensor]:
    """Backward of the loss sums of every micro-batch; returns (sum of losses, sum of weights) over all ranks."""
    total = torch.zeros((), device=device)
    weight = torch.zeros((), device=device)
    for part in batch.split(loop.micro_batch):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=loop.autocast):
            value = loss(model, part.to(device))
        value.total.backward()
        total += value.total.detach()
        weight += value.weight
    layout.sum_gradients(model)
    return layout.sum(total), layout.sum(weight)


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a flag that is honoured after the step; a second one stops at once."""
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    try:
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:                                   # not the main thread: nobody sends us signals
        before = {}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
