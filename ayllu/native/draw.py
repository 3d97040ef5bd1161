"""Drawing ids from logits in C++ (draw.cpp): the filters that are usual and the draw, row by row.

The slow twins are the functions of model/sample.py. Sums are formed in another order, so that a number u or a top-p
that lies within a rounding of a border may fall on its other side.

R rows  V vocabulary
"""

import ctypes
import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ayllu.native.build import vector_library

WORTH_A_THREAD = 1 << 18                                 # numbers, as in pointwise.py
NAMES = {torch.float32: "ayllu_draw_float32", torch.bfloat16: "ayllu_draw_bfloat16"}


def load() -> ctypes.CDLL:
    """The kernel's library, which is compiled if it never was."""
    return vector_library("draw")


def draw(logits: Tensor, settings: np.ndarray, u: np.ndarray) -> Tensor:
    """Ids (R,) from logits (R, V). settings (R, 4): temperature, top_k, top_p, min_p; u (R,): uniform numbers."""
    logits, (R, V) = logits.contiguous(), logits.shape
    told, numbers = np.ascontiguousarray(settings, dtype=np.float32), np.ascontiguousarray(u, dtype=np.float64)
    ids = torch.empty(R, dtype=torch.long)
    kernel(logits.dtype)(logits.data_ptr(), told.ctypes.data, numbers.ctypes.data, R, V, ids.data_ptr(),
                         max(1, min(torch.get_num_threads(), R, R * V // WORTH_A_THREAD)))
    return ids


@functools.cache
def kernel(dtype: torch.dtype) -> Any:
    """The function for logits of this dtype."""
    function = getattr(load(), NAMES[dtype])
    function.argtypes = [*[ctypes.c_void_p] * 3, *[ctypes.c_long] * 2, ctypes.c_void_p, ctypes.c_int]
    function.restype = None
    return function
