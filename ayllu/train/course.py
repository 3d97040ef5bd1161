"""A run around the loop, the same for every kind of training: its folder, its ranks, its report, the best kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ayllu import dist
from ayllu.device import large_pages, pick_device
from ayllu.errors import ConfigError
from ayllu.files import write_json
from ayllu.log import only_warnings, say
from ayllu.model.build import CausalModel
from ayllu.model.config import ModelSettings
from ayllu.model.parallel import Layout, new_layout
from ayllu.train.average import new_average
from ayllu.train.best import Best
from ayllu.train.checkpoints import restore, take_best
from ayllu.train.control import Control
from ayllu.train.loop import BatchSource, LossFunction, fit
from ayllu.train.optim import build_optimizer
from ayllu.train.recipe import Recipe
from ayllu.train.report import Report, Unseen
from ayllu.train.run_folder import Resume, claimed, describe
from ayllu.train.state import TrainState

Row = dict[str, Any]


@contextmanager
def begun(config: Recipe, resume: Resume) -> Iterator[torch.device]:
    """Hold the run's folder, with the ranks in touch and the threads set; gives this rank's device."""
    if config.loop.micro_batch == "auto":
        raise ConfigError("loop.micro_batch=auto is settled before training: call ayllu.train.plan.ready(config) first")
    if config.loop.precision != "float32":               # there they cost room between tensors, and save too little
        large_pages()
    device = dist.own_device(pick_device(config.device))
    if not dist.is_main():
        only_warnings()
    with dist.processes(device), claimed(Path(config.out), resume):
        if config.threads:
            torch.set_num_threads(config.threads)
        yield device


def ranks_of(config: Recipe, model: ModelSettings, device: torch.device) -> Layout:
    """Where this process stands; ConfigError where the processes and the recipe don't fit together."""
    layout = new_layout(config.parallel, model, device)
    if config.loop.batch_size % layout.data:
        raise ConfigError(f"loop.batch_size={config.loop.batch_size} can't be dealt out to {layout.data} data ranks in "
                          "equal parts: choose a multiple")
    if dist.world_size() > 1:
        torch.manual_seed(config.seed + layout.data_rank)    # dropout differs between rows, as in one process
        if dist.is_main():
            say(f"{dist.world_size()} processes: {layout.data} with rows of their own ({layout.mode}), {layout.tensor} "
                "to each model")
    return layout


def whole_models(config: Recipe, model: ModelSettings, folder: Path, device: torch.device, name: str,
                 data: Callable[[], Row] | None = None, may_share: bool = False) -> Layout:
    """Note in the run's folder what it is and what it learns from, and say where this process stands, for training
    (`name` in an error) that each rank does with a whole model, unless it `may_share` one."""
    run = Path(config.out)
    if dist.is_main():
        describe(run, config, folder, device)
        if data is not None:
            write_json(run / "data.json", data())
    layout = ranks_of(config, model, device)
    if layout.is_sharded and not may_share:
        raise ConfigError(f"{name} is shared out with whole models only so far: set parallel.mode=data and "
                          "parallel.tensor=1")
    torch.manual_seed(config.seed + layout.data_rank)    # of dropout and noise
    return layout


def new_state(config: Recipe, model: nn.Module, layout: Layout, plus: float = 1.0, **facts: Any) -> TrainState:
    """The state before the first step; `facts` must be the same after a resume, as must those that all runs have."""
    facts |= {"threads": torch.get_num_threads() if dist.world_size() == 1 else 0,     # 0: rounding follows the ranks
              "micro_batch": config.loop.micro_batch, "batch_size": config.loop.batch_size, "seed": config.seed}
    model = cast(CausalModel, model)                     # the loop calls the loss alone
    return TrainState(model, build_optimizer(model, config.optim, plus), facts=facts, best=Best(), layout=layout,
                      average=new_average(model) if config.loop.ema else None,
                      control=Control(config.adapt) if config.adapt.kind != "off" else None)


def taken_up(config: Recipe, state: TrainState, resume: Resume) -> bool:
    """Load the newest checkpoint, where there is one."""
    found = restore(state, Path(config.out), fall_back=resume == "auto")
    if found:
        say(f"resuming {config.out} at step {state.step:,} of {config.loop.steps:,}")
    return found


def follow(config: Recipe, state: TrainState, batches: BatchSource, loss: LossFunction, context: int, resumed: bool,
           device: torch.device, look: Callable[[TrainState], tuple[list[str], Row]],
           last_look: Callable[[TrainState], Row]) -> Row:
    """Train to the end with a report; returns its last row.

    `look` gives sample texts and held-out results on the way; `last_look` the results at the end, of the best weights
    where training stopped early.
    """
    run, loop = Path(config.out), config.loop
    report_of = Report if dist.is_main() else Unseen
    with report_of(run, state, loop.steps, loop.batch_size * context, context, device, resumed,
                   loop.precision) as report:

        def evaluate(state: TrainState) -> Row:
            texts, row = look(state)
            report.samples(state.step, texts)
            return row

        fit(state, batches, loss, loop=loop, optim=config.optim, run=run, observer=report, evaluate=evaluate,
            device=device)
        if loop.patience and state.best and state.best.step:
            take_best(state, run)
            say(f"the best evaluation was at step {state.best.step:,}: its weights are exported")
        with state.averaged():
            report.log({"step": state.step, "final": True, **last_look(state)})
        return report.last


def reached(state: TrainState, last: Row, **files: Any) -> Row:
    """What a command prints of a run that is over."""
    return {**files, "steps": state.step, "tokens": state.tokens, "hours": round(state.seconds / 3600, 3),
            **{k: v for k, v in last.items() if k != "final"}}
