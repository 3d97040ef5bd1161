"""Q8_0 by numpy: the very bytes of gguf, and errors within the stated bound."""

import gguf
import numpy as np
import pytest

from ayllu.checkpoint import q8

RNG = np.random.default_rng(0)
CASES = {
    "normal": RNG.normal(size=(64, 96)), "heavy": RNG.standard_cauchy(size=(64, 64)), "zeros": np.zeros((2, 32)),
    "tiny": RNG.normal(size=(16, 32)) * 1e-7, "halves": (np.arange(64).reshape(2, 32) - 31.5) * 2,
    "large": RNG.normal(size=(4, 32)) * 1e6,
    "many": RNG.normal(size=(q8._SLICE + 3, 32)), "one": np.eye(32),
}


@pytest.mark.parametrize("case", CASES)
def test_same_bytes_as_gguf(case: str) -> None:
    values = CASES[case].astype(np.float32)
    stored = q8.quantise(values)
    assert np.array_equal(stored, gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0))
    back = q8.dequantise(stored, values.shape)
    assert np.array_equal(back, gguf.dequantize(stored, gguf.GGMLQuantizationType.Q8_0))
    error = np.abs(values - back).reshape(-1, q8.BLOCK).max(axis=1)
    assert (error <= q8.rounding_bound(values)).all()


def test_the_bound_is_tight_enough_to_catch_a_wrong_step() -> None:
    values = CASES["normal"].astype(np.float32)
    back = q8.dequantise(q8.quantise(values), values.shape) + np.abs(values).max() / 127
    error = np.abs(values - back).reshape(-1, q8.BLOCK).max(axis=1)
    assert (error > q8.rounding_bound(values)).mean() > 0.9
