"""Attention in C++ as an operator that torch can differentiate and compile (attention.cpp).

The slow twin is torch's scaled_dot_product_attention, whose backward pass on a CPU multiplies without AMX and which
computes every score where there is a mask.

B rows  T tokens  H heads  G heads of keys  E head width
"""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ayllu.native.build import address, library


def fits(q: Tensor, k: Tensor) -> bool:
    """Whether the kernel takes these: whole, bfloat16 on the CPU, a key for each query token, an even head width."""
    return (q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[:2] == k.shape[:2]
            and q.shape[2] % k.shape[2] == 0 and q.shape[-1] % 2 == 0 and not isinstance(q, DTensor))


def attention(q: Tensor, k: Tensor, v: Tensor, first: Tensor | None = None, end: Tensor | None = None) -> Tensor:
    """softmax(q kT / sqrt(E)) v: (B, T, H, E) of q and the result, (B, T, G, E) of k and v.

    Each token sees the keys from `first` to before `end`, both (B, T) int32, in which it must lie itself; without them,
    itself and what came before.
    """
    return _forward(q, k, v, first, end)[0]


@torch.library.custom_op("ayllu::attention", mutates_args=(), device_types="cpu")
def _forward(q: Tensor, k: Tensor, v: Tensor, first: Tensor | None, end: Tensor | None) -> tuple[Tensor, Tensor]:
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    y, log_sums = torch.empty_like(q), torch.empty(q.shape[0], q.shape[2], q.shape[1])
    library("attention").ayllu_attention(*map(address, (q, k, v, first, end)), *_sizes(q, k),
                                         *map(address, (y, log_sums)), torch.get_num_threads())
    return y, log_sums


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, first: Tensor | None, end: Tensor | None) -> tuple[Tensor, Tensor]:
    B, T, H, E = q.shape
    return q.new_empty(B, T, H, E), q.new_empty((B, H, T), dtype=torch.float32)


@torch.library.custom_op("ayllu::attention_backward", mutates_args=(), device_types="cpu")
def _backward(q: Tensor, k: Tensor, v: Tensor, y: Tensor, dy: Tensor, log_sums: Tensor, first: Tensor | None,
              end: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    given = [t.contiguous() for t in (q, k, v, y, dy, log_sums)]
    made = [torch.empty_like(t) for t in given[:3]]
    library("attention").ayllu_attention_backward(*map(address, (*given, first, end)), *_sizes(q, k),
                                                  *map(address, made), torch.get_num_threads())
    return made[0], made[1], made[2]


@_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, y: Tensor, dy: Tensor, log_sums: Tensor, first: Tensor | None,
      end: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _sizes(q: Tensor, k: Tensor) -> list[ctypes.c_long]:
    B, T, H, E = q.shape
    return [ctypes.c_long(n) for n in (B, T, H, k.shape[2], E)]


def _keep(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, first, end, y, log_sums = ctx.saved_tensors
    return *_backward(q, k, v, y, dy, log_sums, first, end), None, None


_forward.register_autograd(_differentiate, setup_context=_keep)
