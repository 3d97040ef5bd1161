"""What stands between a fused runner's products in Triton, for CUDA: norm, rotation and gate, each in one pass.

The slow twin is `Plain` (model/pointwise.py). Numbers are rounded to their dtype where the twin rounds them, except in
the rotation, which is computed in float32 and rounded once.

N tokens  D width  F feed-forward width  H heads  E head width
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

HEADS = 8                                                # that a program turns
COLUMNS = 1024                                           # that a program gates


@triton.jit
def _norm(x: tl.tensor, weight: tl.tensor, y: tl.tensor, eps: tl.tensor, D: tl.constexpr, D2: tl.constexpr) -> None:
    """One token."""
    DTYPE: tl.constexpr = x.dtype.element_ty
    row, d = tl.program_id(0).to(tl.int64) * D, tl.arange(0, D2)
    inside = d < D
    numbers = tl.load(x + row + d, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(numbers * numbers, 0) / D + eps)
    scaled = (numbers * scale).to(DTYPE).to(tl.float32)
    factors = tl.load(weight + d, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row + d, (scaled * factors).to(DTYPE), mask=inside)


@triton.jit
def _turn(x: tl.tensor, cos: tl.tensor, sin: tl.tensor, stride: tl.tensor, H: tl.constexpr, E: tl.constexpr,
          HALF2: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """Some heads of one token: (a, b) becomes (a, b) cos + (b, a) sin."""
    DTYPE: tl.constexpr = x.dtype.element_ty
    HALF: tl.constexpr = E // 2
    token, e = tl.program_id(0).to(tl.int64), tl.arange(0, HALF2)
    head = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    exists = e < HALF
    inside = (head < H)[:, None] & exists[None, :]
    at = x + token * stride + head[:, None] * E + e[None, :]
    a, b = (tl.load(at, mask=inside, other=0.0).to(tl.float32),
            tl.load(at + HALF, mask=inside, other=0.0).to(tl.float32))
    turn = token * E + e
    cos_a, cos_b = (tl.load(cos + turn, mask=exists, other=0.0).to(tl.float32)[None, :],
                    tl.load(cos + turn + HALF, mask=exists, other=0.0).to(tl.float32)[None, :])
    sin_a, sin_b = (tl.load(sin + turn, mask=exists, other=0.0).to(tl.float32)[None, :],
                    tl.load(sin + turn + HALF, mask=exists, other=0.0).to(tl.float32)[None, :])
    tl.store(at, (a * cos_a + b * sin_a).to(DTYPE), mask=inside)
    tl.store(at + HALF, (b * cos_b + a * sin_b).to(DTYPE), mask=inside)


@triton.jit
def _gate(both: tl.tensor, y: tl.tensor, F: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """Some columns of one token."""
    DTYPE: tl.constexpr = both.dtype.element_ty
    token, f = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = f < F
    gate = tl.load(both + token * 2 * F + f, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + token * 2 * F + F + f, mask=inside, other=0.0).to(tl.float32)
    silu = (gate / (1.0 + tl.exp(-gate))).to(DTYPE).to(tl.float32)
    tl.store(y + token * F + f, (silu * up).to(DTYPE), mask=inside)


class Kernels:
    """A `Pointwise` for float32, float16 and bfloat16 on CUDA."""

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:          # (..., D), (D,) -> (..., D)
        """RMSNorm."""
        x, D = x.contiguous(), x.shape[-1]
        y, D2 = torch.empty_like(x), triton.next_power_of_2(D)
        _norm[x.numel() // D,](x, weight, y, eps, D=D, D2=D2, num_warps=min(16, max(1, D2 // 512)))
        return y

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> None:              # (N, H, E), (N, E)
        """Rotate x in place."""
        N, H, E = x.shape
        assert x.stride()[1:] == (E, 1)
        _turn[N, triton.cdiv(H, HEADS)](x, cos.contiguous(), sin.contiguous(), x.stride(0), H=H, E=E,
                                        HALF2=triton.next_power_of_2(E // 2), BLOCK=HEADS)

    def gate(self, both: Tensor) -> Tensor:                                   # (N, 2F) -> (N, F)
        """silu(first half) * second half."""
        both, (N, F2) = both.contiguous(), both.shape
        y = both.new_empty(N, F2 // 2)
        _gate[N, triton.cdiv(F2 // 2, COLUMNS)](both, y, F=F2 // 2, BLOCK=COLUMNS)
        return y
