"""Muon for hidden matrices, AdamW for everything else, in one optimiser.

Muon (Jordan 2024, kellerjordan.github.io/posts/muon): the momentum of a matrix is replaced by the nearest
semi-orthogonal matrix before it is applied, so that every direction of it learns at the same speed.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.adamw import adamw

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)                # Jordan's: the steepest at 0 that stays bounded
RMS_OF_ADAMW = 0.2                                       # what an AdamW update measures (arXiv:2502.16982, section 2.2)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Bring the singular values of matrices (..., M, N) near 1, between 0.7 and 1.2, without computing them.

    Each step applies the odd polynomial a x + b x³ + c x⁵ to all singular values at once. On a GPU in bfloat16, which
    Jordan shows to be enough; on a CPU in float32.
    """
    a, b, c = NEWTON_SCHULZ
    is_tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    x = x.mT if is_tall else x                                                # (..., short, long)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)                       # no singular value above 1
    for _ in range(steps):
        square = x @ x.mT                                                     # (..., short, short)
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if is_tall else x).to(matrix.dtype)


def _of_shares(matrix: Tensor) -> Tensor:
    """Orthogonalise a matrix of which each rank holds a share: every rank gathers the whole and keeps its own part."""
    assert isinstance(matrix, DTensor)
    return distribute_tensor(orthogonalise(matrix.full_tensor()), matrix.device_mesh, matrix.placements,
                             src_data_rank=None)


class Muon(torch.optim.Optimizer):
    """Groups with `muon=True` hold matrices and are orthogonalised; the others are AdamW's.

    The update of an M x N matrix is scaled by 0.2 sqrt(max(M, N)), which gives it the size of an AdamW update
    (arXiv:2502.16982, eq. 4), so that AdamW's learning rate and decay carry over to both.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float,
                 momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "momentum": momentum, "weight_decay": 0.0,
                                  "muon": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:     # type: ignore[override]
        """One update from the gradients at hand; `closure` is refused, nothing here calls twice."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["muon"]:
                self._muon(group, parameters)
            else:
                self._adamw(group, parameters)

    def _muon(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for p in parameters:
            by_shape.setdefault(p.shape, []).append(p)
        for shape, same in by_shape.items():             # equal shapes go through one batched product
            if isinstance(same[0], DTensor):             # shares are gathered: one matrix at a time, to save memory
                updates = [_of_shares(self._momentum(p, group["momentum"])) for p in same]
            else:
                updates = list(orthogonalise(torch.stack([self._momentum(p, group["momentum"]) for p in same])))
            scale = RMS_OF_ADAMW * math.sqrt(max(shape))
            for p, u in zip(same, updates, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(u, alpha=-group["lr"] * scale)

    def _momentum(self, p: Tensor, beta: float) -> Tensor:
        """Nesterov's look ahead: the average as it would be with this gradient once more."""
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - beta)
        return p.grad.lerp(state["momentum"], beta)

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p].update(step=torch.zeros((), device=p.device), exp_avg=torch.zeros_like(p),
                                     exp_avg_sq=torch.zeros_like(p))
        states = [self.state[p] for p in parameters]
        beta1, beta2 = group["betas"]
        adamw(parameters, [p.grad for p in parameters if p.grad is not None], [s["exp_avg"] for s in states],
              [s["exp_avg_sq"] for s in states], [], [s["step"] for s in states], fused=True, amsgrad=False,
              beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"],
              maximize=False)
