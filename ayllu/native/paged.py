"""Attention of single tokens over keys and values in their pages, in C++ (paged.cpp): nothing is copied or padded.

The slow twin is plain torch's, which gathers pages and masks what is too much (engine/paged.py).

P pages  N new tokens  M of them that attend here  H query heads  K key/value heads  E head width
"""

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ayllu.native.build import address, vector_library

KERNELS = {torch.float32: "ayllu_paged_float32", torch.bfloat16: "ayllu_paged_bfloat16"}   # by the dtype of q


@dataclass(frozen=True, eq=False)
class Pool:
    """One layer's keys and values; where they are bytes, with a scale for each slot and head."""

    keys: Tensor                                                              # (P, page, K, E)
    values: Tensor                                                            # (P, page, K, E)
    key_scales: Tensor | None = None                                          # (P, page, K)
    value_scales: Tensor | None = None                                        # (P, page, K)


@dataclass(frozen=True, eq=False)
class Reads:
    """What each token reads: all tokens of its row up to itself, the last `window` of them if that isn't 0."""

    tokens: Tensor                                       # (M, 3) int32: which of N, its position, where its pages begin
    tables: Tensor                                       # int32: the pages of all rows, one row after the other
    window: int = 0


def load() -> ctypes.CDLL:
    """The kernel's library, which is compiled if it never was."""
    return vector_library("paged")


def attend(q: Tensor, k: Tensor, v: Tensor, pool: Pool, slots: Tensor, reads: Reads) -> Tensor:
    """Writes k and v (N, K, E) to `slots` (N,), then gives what the tokens of `reads` get for q (N, H, E)."""
    (N, H, E), (_, size, K, _) = q.shape, pool.keys.shape
    asked, kept = q.dtype, pool.keys.dtype
    one = asked if kept == torch.int8 else kept          # autocast rounds v alone: a rotation gives float32 again
    q, k, v = (_in_rows(x.to(one)) for x in (q, k, v))
    y = torch.empty(N, H, E, dtype=one)
    strides = (ctypes.c_long * 3)(q.stride(0), k.stride(0), v.stride(0))
    sizes = (ctypes.c_long * 7)(len(reads.tokens), N, H, K, E, size, reads.window)
    kernel(one, kept)(
        q.data_ptr(), k.data_ptr(), v.data_ptr(), strides,
        *map(address, (pool.keys, pool.values, pool.key_scales, pool.value_scales, slots, reads.tokens, reads.tables)),
        sizes, y.data_ptr(), torch.get_num_threads())
    return y.to(asked)


def _in_rows(x: Tensor) -> Tensor:
    """A token's heads beside each other; from token to token may be any stride."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


@functools.cache
def kernel(dtype: torch.dtype, kept: torch.dtype) -> Any:
    """The function for q of this dtype over pages of that one."""
    function: Any = getattr(load(), KERNELS[dtype] + ("_int8" if kept == torch.int8 else ""))
    function.argtypes, function.restype = [ctypes.c_void_p] * 13 + [ctypes.c_int], None
    return function
