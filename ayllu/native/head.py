"""The head's loss and gradients in one sweep over the vocabulary (head.cpp): three products, and logits only in caches.

The slow twin is `_sweep` in train/head_loss.py, which rounds logits to bfloat16, where this keeps them in float32.

N tokens  D width  V vocabulary
"""

import ctypes

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ayllu.native.build import address, library

TILE = 32                                                # of head.cpp: tokens that go through together


def fits(hidden: Tensor, weight: Tensor) -> bool:
    """Whether the kernel takes these: rows of an even number of bfloat16, whole and in the memory of the CPU."""
    return (hidden.device.type == "cpu" and not isinstance(weight, DTensor)
            and hidden.dtype == weight.dtype == torch.bfloat16 and hidden.shape[0] > 0 and hidden.shape[1] % 2 == 0)


def head_loss(hidden: Tensor, weight: Tensor, labels: Tensor, weights: Tensor, z_loss: float, chunk: int,
              by_hidden: bool, by_weight: bool) -> tuple[Tensor, Tensor | None, Tensor | None] | None:
    """Losses (N,) and the gradients of their sum that are wanted, all in float32.

    None where a logit lies 69 or more above the label's, which these sums can't hold.
    """
    (N, D), V = hidden.shape, weight.shape[0]
    x, w, labels, weights = (t.contiguous() for t in (hidden, weight, labels, weights))
    each = torch.empty(N)
    dx = torch.empty(N, D) if by_hidden else None
    dw = torch.empty(V, D) if by_weight else None
    sizes = (ctypes.c_long(n) for n in (N, D, V, -(-min(chunk, N) // TILE) * TILE))
    failed = library("head").ayllu_head_loss(
        *map(address, (x, w, labels, weights)), ctypes.c_float(z_loss), *sizes, *map(address, (each, dx, dw)),
        torch.get_num_threads())
    return None if failed else (each, dx, dw)
