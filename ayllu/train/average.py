"""Averages of the weights, and the weights that evaluation, samples and the export use in place of the trained ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ayllu.model.parallel import settle
from ayllu.train.schedule_free import ScheduleFree

Average = dict[str, Tensor]                              # by parameter name


def new_average(model: nn.Module) -> Average:
    """An exponential moving average that begins at the weights as they are."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def update_average(average: Average, model: nn.Module, decay: float, updates: int) -> None:
    """average += (1 - decay) (weights - average); early on the decay is (1 + n) / (10 + n) after n updates at most.

    The ramp lets the first, random weights fade at once; it is the one of TensorFlow's ExponentialMovingAverage.
    """
    keep = min(decay, (1 + updates) / (10 + updates))
    for name, parameter in model.named_parameters():
        if name in average:
            average[name].lerp_(parameter, 1 - keep)


@contextmanager
def averaged(model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None) -> Iterator[None]:
    """Inside, the averages (EMA, or Schedule-Free's x) are the weights; afterwards these are back bit for bit."""
    if isinstance(optimizer, ScheduleFree):
        instead = optimizer.averages()
    else:
        kept = average or {}
        instead = {p: kept[name] for name, p in model.named_parameters() if name in kept}
    trained = [(p, p.detach().clone()) for p in instead]
    with torch.no_grad():
        for p, value in instead.items():
            p.copy_(value)
    try:
        yield
    finally:
        settle(model)                                    # what evaluation has gathered is not what is trained
        with torch.no_grad():
            for p, before in trained:
                p.copy_(before)
