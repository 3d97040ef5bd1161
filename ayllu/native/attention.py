"""Causal attention in C++ as an operator that torch can differentiate and compile (attention.cpp).

The slow twin is torch's scaled_dot_product_attention, whose backward pass on a CPU multiplies without AMX.

B rows  T tokens  H heads  E head width
"""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ayllu.native.build import address, library


def fits(q: Tensor, k: Tensor) -> bool:
    """Whether the kernel takes these: whole, bfloat16 on the CPU, a key for each query, an even head width."""
    return (q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape == k.shape and q.shape[-1] % 2 == 0
            and not isinstance(q, DTensor))


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kT / sqrt(E)) v, where each token sees itself and what came before: (B, T, H, E) of all four."""
    return _forward(q, k, v)[0]


@torch.library.custom_op("ayllu::causal_attention", mutates_args=(), device_types="cpu")
def _forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    B, T, H, E = q.shape
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    y, log_sums = torch.empty_like(q), torch.empty(B, H, T)
    library("attention").ayllu_attention(*map(address, (q, k, v)), *map(ctypes.c_long, (B, T, H, E)),
                                         *map(address, (y, log_sums)), torch.get_num_threads())
    return y, log_sums


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    B, T, H, E = q.shape
    return q.new_empty(B, T, H, E), q.new_empty((B, H, T), dtype=torch.float32)


@torch.library.custom_op("ayllu::causal_attention_backward", mutates_args=(), device_types="cpu")
def _backward(q: Tensor, k: Tensor, v: Tensor, y: Tensor, dy: Tensor,
              log_sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    given = [t.contiguous() for t in (q, k, v, y, dy, log_sums)]
    made = [torch.empty_like(t) for t in given[:3]]
    library("attention").ayllu_attention_backward(*map(address, given), *map(ctypes.c_long, q.shape),
                                                  *map(address, made), torch.get_num_threads())
    return made[0], made[1], made[2]


@_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, y: Tensor, dy: Tensor, log_sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, y, log_sums = ctx.saved_tensors
    return _backward(q, k, v, y, dy, log_sums)


_forward.register_autograd(_differentiate, setup_context=_keep)
