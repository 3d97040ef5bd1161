"""Prodigy (Mishchenko and Defazio 2023, arXiv:2306.06101): AdamW that finds its own learning rate.

The rate is d, a lower estimate of the distance from the first weights to the solution. It only grows: from <g, x0 - x>,
which is large while the weights keep moving the way the gradients point.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class Prodigy(torch.optim.Optimizer):
    """Algorithm 4 of the paper with decoupled decay; `lr` is a factor on d and is meant to be 1.

    Departs from the paper in one place, as the authors' code does under `safeguard_warmup`: the denominator's sum is
    not multiplied by `lr`, so that d doesn't jump while a warm-up raises the factor.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float,
                 d0: float = 1e-6) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "d": d0, "r": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:     # type: ignore[override]
        """Estimate d anew from all parameters, then move each; `closure` is refused, nothing here calls twice."""
        assert closure is None
        first = self.param_groups[0]
        d, root = first["d"], math.sqrt(first["betas"][1])
        inner, norm = self._estimate(d, root)
        r = root * first["r"] + (1 - root) * first["lr"] * d * d * inner
        d_next = max(d, r / norm) if norm > 0 and first["lr"] > 0 else d
        for group in self.param_groups:                  # one d for all; each group carries it for the checkpoint
            self._move(group, d)
            group["d"], group["r"] = d_next, r

    def _estimate(self, d: float, root: float) -> tuple[float, float]:
        """Update the moments; returns <g, x0 - x> and |s|_1 over all parameters."""
        inner, norm = 0.0, 0.0
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(first=p.clone(), exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p),
                                 s=torch.zeros_like(p))
                state["exp_avg"].mul_(beta1).add_(p.grad, alpha=(1 - beta1) * d)
                state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=(1 - beta2) * d * d)
                state["s"].mul_(root).add_(p.grad, alpha=(1 - root) * d * d)
                inner += _total(p.grad * (state["first"] - p))
                norm += _total(state["s"].abs())
        return inner, norm

    def _move(self, group: dict[str, Any], d: float) -> None:
        rate = group["lr"] * d
        for p in group["params"]:
            if self.state[p] and p.grad is not None:
                state = self.state[p]
                p.mul_(1 - rate * group["weight_decay"])
                p.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt().add_(d * group["eps"]), value=-rate)


def _total(values: Tensor) -> float:
    """The sum in float64, over all ranks where each holds a share."""
    total = values.sum(dtype=torch.float64)
    return (total.full_tensor() if isinstance(total, DTensor) else total).item()
