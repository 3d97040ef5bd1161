"""What stands between a fused runner's products, and the largest logits, in C++ (pointwise.cpp): each in one pass.

The slow twins are `Plain` (model/pointwise.py) and torch's `max`.

N tokens  D width  F feed-forward width  H heads  E head width  V vocabulary
"""

import ctypes
import functools
from typing import Any

import torch
from torch import Tensor

from ayllu.native.build import vector_library

NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
ARGUMENTS: dict[str, list[Any]] = {
    "norm": [ctypes.c_void_p] * 2 + [ctypes.c_float] + [ctypes.c_long] * 2 + [ctypes.c_void_p],
    "turn": [ctypes.c_void_p, ctypes.c_long] + [ctypes.c_void_p] * 2 + [ctypes.c_long] * 3,
    "gate": [ctypes.c_void_p] + [ctypes.c_long] * 2 + [ctypes.c_void_p],
    "largest": [ctypes.c_void_p] + [ctypes.c_long] * 2 + [ctypes.c_void_p] * 2}
# Numbers: fewer take less time than another thread may let one wait for it where other processes use the same cores.
WORTH_A_THREAD = 1 << 19


def load() -> ctypes.CDLL:
    """The kernels' library, which is compiled if it never was."""
    return vector_library("pointwise")


class Kernels:
    """A `Pointwise` (model/pointwise.py) for float32 and bfloat16 on the CPU."""

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:          # (..., D), (D,) -> (..., D)
        """RMSNorm."""
        x, D = x.contiguous(), x.shape[-1]
        y = torch.empty_like(x)
        kernel("norm", x.dtype)(x.data_ptr(), weight.data_ptr(), eps, x.numel() // D, D, y.data_ptr(),
                                _threads(x.numel()))
        return y

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> None:              # (N, H, E), (N, E)
        """Rotate x in place."""
        N, H, E = x.shape
        assert x.stride()[1:] == (E, 1)
        cos, sin = cos.contiguous(), sin.contiguous()
        kernel("turn", x.dtype)(x.data_ptr(), x.stride(0), cos.data_ptr(), sin.data_ptr(), N, H, E, _threads(N * H * E))

    def gate(self, both: Tensor) -> Tensor:                                   # (N, 2F) -> (N, F)
        """silu(first half) * second half."""
        both, (N, F2) = both.contiguous(), both.shape
        y = torch.empty(N, F2 // 2, dtype=both.dtype)
        kernel("gate", both.dtype)(both.data_ptr(), N, F2 // 2, y.data_ptr(), _threads(N * F2))
        return y


def largest(x: Tensor) -> tuple[Tensor, Tensor]:                              # (N, V) -> (N,), (N,)
    """The largest number of each row in float32, and its first place; NaN counts as the largest."""
    x, (N, V) = x.contiguous(), x.shape
    values, places = torch.empty(N), torch.empty(N, dtype=torch.long)
    kernel("largest", x.dtype)(x.data_ptr(), N, V, values.data_ptr(), places.data_ptr(), _threads(x.numel()))
    return values, places


def _threads(n_numbers: int) -> int:
    return max(1, min(torch.get_num_threads(), n_numbers // WORTH_A_THREAD))


@functools.cache
def kernel(name: str, dtype: torch.dtype) -> Any:
    """The function of this name for this dtype."""
    function = getattr(load(), f"ayllu_{name}_{NAMES[dtype]}")
    function.argtypes, function.restype = [*ARGUMENTS[name], ctypes.c_int], None
    return function
