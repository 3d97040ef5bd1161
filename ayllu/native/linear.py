"""A linear layer without bias whose weight's gradient is formed in C++ (linear.cpp); all else is torch's.

The slow twin is torch's own linear.

N tokens  I numbers in  O numbers out
"""

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor

from ayllu.native.build import address, library


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernel takes these: whole, bfloat16 on the CPU, an even number of outputs."""
    return (x.device.type == "cpu" and x.dtype == weight.dtype == torch.bfloat16 and weight.shape[0] % 2 == 0
            and not isinstance(x, DTensor) and not isinstance(weight, DTensor))


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., I) and weight (O, I) -> x weightT (..., O)."""
    return _Linear.apply(x, weight)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return dy @ weight, weight_gradient(dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1]))


@torch.library.custom_op("ayllu::weight_gradient", mutates_args=(), device_types="cpu")
def weight_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """dW (O, I) from dy (N, O) and x (N, I)."""
    (N, I), O = x.shape, dy.shape[1]                     # noqa: E741 - the legend's letters
    made = x.new_empty(O, I)
    library("linear").ayllu_weight_gradient(*map(address, (dy.contiguous(), x.contiguous())),
                                            *map(ctypes.c_long, (N, I, O)), address(made), torch.get_num_threads())
    return made


@weight_gradient.register_fake
def _(dy: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(dy.shape[1], x.shape[1])
