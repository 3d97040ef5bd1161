"""Attention of an encoder, where each place sees all, in float32 and C++ (whole.cpp).

The slow twin is torch's own, F.scaled_dot_product_attention.

B images or sounds  N places of one  H heads  E head width
"""

import ctypes
import functools

import torch
from torch import Tensor

from ayllu.native.build import VECTOR_FLAGS, NativeError, address, missing_vectors, vector_flags, vector_library


@functools.cache
def works() -> bool:
    """Whether it can be had and is worth it: with AVX512's 32 registers; with fewer, torch's is no slower."""
    if missing_vectors() or vector_flags() != VECTOR_FLAGS:
        return False
    try:
        vector_library("whole")
    except (NativeError, OSError):                       # torch's does the same; the engine says what doesn't compile
        return False
    return True


def attend(qkv: Tensor) -> Tensor:
    """softmax(q kT / sqrt(E)) v, (B, N, H, E), of q, k and v (B, N, 3, H, E), all float32."""
    B, N, _, H, E = qkv.shape
    y = qkv.new_empty(B, N, H, E)
    vector_library("whole").ayllu_attend_whole(address(qkv), *map(ctypes.c_long, (B, N, H, E)), address(y),
                                               torch.get_num_threads())
    return y
