"""What stands between a fused runner's products (fused.py): norm, rotation, and the gate of the feed-forward.

`Plain` is torch's way, for every dtype. A kernel that does the same in one pass may take its place.

N tokens  D width  F feed-forward width  H heads  E head width
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Pointwise(Protocol):
    """Each token by itself."""

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:          # (..., D), (D,) -> (..., D)
        """RMSNorm."""

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> None:              # (N, H, E), (N, E)
        """Rotate x in place; sin is negative in its first half, since that half gets -b."""

    def gate(self, both: Tensor) -> Tensor:                                   # (N, 2F) -> (N, F)
        """silu(first half) * second half."""


class Plain:
    """By torch's operations."""

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:          # (..., D)
        """In fewer passes than the model's: the sum of squares in float32 by one reduction."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        return (x * scale).to(x.dtype).mul_(weight)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> None:              # (N, H, E), (N, E)
        """x cos + (b, a) sin, where x is (a, b)."""
        turned = x.roll(x.shape[-1] // 2, -1)
        x.mul_(cos[:, None]).addcmul_(turned, sin[:, None])

    def gate(self, both: Tensor) -> Tensor:                                   # (N, 2F) -> (N, F)
        """Of two views."""
        gate, up = both.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)
