"""Schedule-Free AdamW (Defazio et al. 2024, arXiv:2405.15682): averaging takes the place of the schedule.

There are three sequences of weights: z takes the steps, x is the average of z that is evaluated and exported, and
y = (1 - beta1) z + beta1 x is where gradients are taken. The parameters hold y while training.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class ScheduleFree(torch.optim.Optimizer):
    """AdamW without momentum on z (algorithm 1 of the paper); `averages()` gives x.

    The weight of a step in the average is the square of the largest rate so far, as in the authors' code; while the
    rate doesn't fall this is the paper's eq. 23.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "peak": 0.0, "sum": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:     # type: ignore[override]
        """One update from gradients at y; `closure` is refused, nothing here calls twice."""
        assert closure is None
        for group in self.param_groups:
            group["peak"] = max(group["peak"], group["lr"])
            group["sum"] += group["peak"] ** 2
            share = group["peak"] ** 2 / group["sum"] if group["sum"] else 0.0
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group, share)

    def _update(self, p: Tensor, group: dict[str, Any], share: float) -> None:
        beta1, beta2 = group["betas"]
        state, y, grad = self.state[p], p, p.grad
        assert grad is not None
        if not state:
            state.update(step=torch.zeros(()), z=p.clone(), exp_avg_sq=torch.zeros_like(p))
        state["step"] += 1
        state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        scale = (state["exp_avg_sq"] / (1 - beta2 ** state["step"].item())).sqrt_().add_(group["eps"])
        x = _x(y, state["z"], beta1)
        state["z"].sub_((grad / scale).add_(y, alpha=group["weight_decay"]), alpha=group["lr"])
        x.lerp_(state["z"], share)
        p.copy_(x.lerp_(state["z"], 1 - beta1))

    @torch.no_grad()
    def averages(self) -> dict[Tensor, Tensor]:
        """x for each parameter that has been trained: what evaluation, samples and the export must use."""
        return {p: _x(p, self.state[p]["z"], group["betas"][0]) for group in self.param_groups for p in group["params"]
                if self.state[p]}


def _x(y: Tensor, z: Tensor, beta1: float) -> Tensor:
    """Solve y = (1 - beta1) z + beta1 x for x, so that x needs no memory of its own."""
    return y.lerp(z, 1 - 1 / beta1)
