"""fit(): the only training loop. A method is a loss and its batches."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import Field

from ayllu import dist
from ayllu.config import Settings
from ayllu.errors import ConfigError, TrainingDiverged
from ayllu.model.build import CausalModel
from ayllu.train.average import update_average
from ayllu.train.best import held_out_loss
from ayllu.train.losses import Loss
from ayllu.train.optim import OptimConfig
from ayllu.train.schedule import factor
from ayllu.train.state import TrainState, save, save_best


class LoopConfig(Settings):
    """How long to train, how much at once, and how often to look."""

    steps: int = Field(gt=0)
    batch_size: int = Field(default=32, gt=0)            # rows per step over all ranks and micro-batches
    micro_batch: int = Field(default=8, gt=0)            # rows that go through the model at once
    eval_every: int = Field(default=500, gt=0)
    checkpoint_every: int = Field(default=500, gt=0)
    keep: int = Field(default=2, gt=0)                   # checkpoints kept
    log_every: int = Field(default=10, gt=0)
    autocast: bool = True                                # bf16 matrix products, float32 weights
    ema: float = Field(default=0.0, ge=0, lt=1)          # decay of an average of the weights to evaluate; 0: none
    patience: int = Field(default=0, ge=0)               # evaluations without a better one until it stops; 0: never


class BatchSource(Protocol):
    """Batches as a function of the step, so that a resume needs only the step number."""

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
    with _stop_requested() as stop:
        while state.step < loop.steps and not state.stopped:
            started = time.perf_counter()
            batch = batches.batch(state.step)
            last = step(state, batch, loss, loop, optim, device)
            state.seconds += time.perf_counter() - started
            observer.advance(state, last)
            is_last = state.step == loop.steps
            if state.step % loop.log_every == 0 or is_last:
                observer.log({"step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 3), **last})
            if state.step % loop.eval_every == 0 or is_last:
                _look(state, evaluate, loop, run, observer)
            if state.step % loop.checkpoint_every == 0 or is_last or state.stopped or stop():
                folder = save(state, run, loop.keep)
                if stop() and not is_last:
                    raise Interrupted(state.step, folder)


def _look(state: TrainState, evaluate: Callable[[TrainState], dict[str, Any]], loop: LoopConfig, run: Path,
          observer: Observer) -> None:
    """Evaluate with the averaged weights; keep the best, and stop once nothing better has come for a while."""
    with state.averaged():
        row = evaluate(state)
    observer.log({"step": state.step, **row})
    held = held_out_loss(row)
    if state.best is None or held is None:
        return
    state.best = state.best.judge(held, state.step)
    if state.best.since == 0:
        save_best(state, run)
    elif state.best.since >= loop.patience:
        state.stopped = (f"no held-out loss below {state.best.loss:.4f} (step {state.best.step}) in "
                         f"{state.best.since} evaluations")
        observer.log({"step": state.step, "decision": "stop", "reason": state.stopped})


def _check_parts(state: TrainState, loop: LoopConfig) -> None:
    """A setting whose part was never built would be ignored silently."""
    for name, wanted, part in (("ema", loop.ema > 0, state.average), ("patience", loop.patience > 0, state.best)):
        if wanted != (part is not None):
            raise ConfigError(f"loop.{name}={getattr(loop, name)}, but the state was built "
                              f"{'without' if wanted else 'with'} it: build the state from the same settings")


def step(state: TrainState, batch: Any, loss: LossFunction, loop: LoopConfig, optim: OptimConfig,
         device: torch.device) -> dict[str, Any]:
    """One update: gradients of the summed loss over all micro-batches, divided once by the whole weight."""
    state.model.train()
    lr = optim.lr * factor(optim.schedule, state.step, loop.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    total, weight = accumulate(state.model, batch, loss, loop, device)
    mean = (total / weight).item()
    if not math.isfinite(mean):
        raise TrainingDiverged(f"the loss is {mean} at step {state.step + 1} (batch {state.step}): lower optim.lr "
                               f"(now {optim.lr}), or lengthen the warm-up; the last checkpoint is intact")
    for parameter in state.model.parameters():
        if parameter.grad is not None:
            parameter.grad /= weight
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), optim.clip)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.average is not None:
        update_average(state.average, state.model, loop.ema, state.step)
    state.step += 1
    state.tokens += int(weight)
    return {"loss": mean, "lr": lr, "grad_norm": norm.item()}


def accumulate(model: CausalModel, batch: Any, loss: LossFunction, loop: LoopConfig,
               device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Backward of the loss sums of every micro-batch; returns (sum of losses, sum of weights) over all ranks."""
    total = torch.zeros((), device=device)
    weight = torch.zeros((), device=device)
    for part in batch.split(loop.micro_batch):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=loop.autocast):
            value = loss(model, part.to(device))
        value.total.backward()
        total += value.total.detach()
        weight += value.weight
    if dist.world_size() > 1:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad = dist.sum_over_ranks(parameter.grad)
        total, weight = dist.sum_over_ranks(total), dist.sum_over_ranks(weight)
    return total, weight


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
