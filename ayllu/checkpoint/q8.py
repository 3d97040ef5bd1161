"""Q8_0: blocks of 32 values as one float16 scale d and 32 int8, x = d * q; q = round(x / d), d = max|x| / 127.

Same bytes as ggml's reference (ggml-quants.c) and gguf's Python; here in slices, so that memory stays at one slice.
"""

import numpy as np

BLOCK, BLOCK_BYTES = 32, 34
_SLICE = 1 << 15                                         # blocks at a time: about 10 MB of scratch


def quantise(values: np.ndarray) -> np.ndarray:
    """float32 (..., n) with n a multiple of 32 -> uint8 (..., n / 32 * 34)."""
    blocks = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, BLOCK)
    out = np.empty((len(blocks), BLOCK_BYTES), dtype=np.uint8)
    for start in range(0, len(blocks), _SLICE):
        part = blocks[start:start + _SLICE]
        scale = np.abs(part).max(axis=1, keepdims=True) / np.float32(127)
        with np.errstate(divide="ignore"):
            inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
        scaled = part * inverse
        size = np.abs(scaled)
        whole = np.floor(size)
        rounded = np.sign(scaled) * (whole + np.floor(2 * (size - whole)))       # halves away from zero, as in C
        out[start:start + _SLICE, :2] = scale.astype(np.float16).view(np.uint8)
        out[start:start + _SLICE, 2:] = rounded.astype(np.int8).view(np.uint8)
    return out.reshape(*values.shape[:-1], -1)


def dequantise(stored: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 of the blocks -> float32 of `shape`."""
    blocks = stored.reshape(-1, BLOCK_BYTES)
    out = np.empty((len(blocks), BLOCK), dtype=np.float32)
    for start in range(0, len(blocks), _SLICE):
        part = blocks[start:start + _SLICE]
        scale = np.ascontiguousarray(part[:, :2]).view(np.float16).astype(np.float32)
        np.multiply(part[:, 2:].view(np.int8), scale, out=out[start:start + _SLICE])
    return out.reshape(shape)


def rounding_bound(values: np.ndarray) -> np.ndarray:
    """The largest |x - dequantise(quantise(x))| that is correct, for each block: half a step, and what rounding the
    scale to float16 costs (2**-11 of it, times 127)."""
    blocks = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=1) / 127
    half_ulp = np.maximum(scale * 2.0**-11, 2.0**-25)    # float16 below 2**-14 has a fixed step of 2**-24
    return scale * 0.5 + 127 * half_ulp + 1e-12
