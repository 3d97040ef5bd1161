"""The kernels between a fused runner's products against torch's operations."""

import pytest
import torch
from torch.testing import assert_close

from ayllu.model.pointwise import Plain
from ayllu.native.pointwise import Kernels, largest

DTYPES = [torch.float32, torch.bfloat16]
# float32: a sum in another order, an own exp; bfloat16: where these change a rounding, the next one sees 2^-8 more
TOLERANCES = {torch.float32: {"atol": 1e-6, "rtol": 2e-6}, torch.bfloat16: {"atol": 1e-6, "rtol": 2**-7}}


def numbers(*shape, dtype, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 15, 16, 48, 250, 768])
def test_norm(dtype, width):
    x, weight = numbers(5, 7, width, dtype=dtype), numbers(width, dtype=dtype, seed=1)
    assert_close(Kernels().norm(x, weight, 1e-5), Plain().norm(x, weight, 1e-5), **TOLERANCES[dtype])
    strided = numbers(9, 2 * width, dtype=dtype)[:, ::2]
    assert_close(Kernels().norm(strided, weight, 1e-5), Plain().norm(strided, weight, 1e-5), **TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("H", "E"), [(1, 2), (3, 8), (4, 40), (6, 64), (2, 128)])
def test_turn(dtype, H, E):
    """In place, in rows that hold more."""
    angles = torch.rand(9, E // 2, generator=torch.Generator().manual_seed(1)) * 7
    cos, sin = torch.cat([angles.cos()] * 2, -1).to(dtype), torch.cat([-angles.sin(), angles.sin()], -1).to(dtype)
    fast = numbers(9, H + 2, E, dtype=dtype)
    slow = fast.clone()
    Kernels().turn(fast[:, :H], cos, sin)
    Plain().turn(slow[:, :H], cos, sin)
    # a sum of two products may cancel: the error is that of the products
    assert_close(fast, slow, atol=2e-7 if dtype == torch.float32 else 2**-6, rtol=TOLERANCES[dtype]["rtol"])
    assert torch.equal(fast[:, H:], numbers(9, H + 2, E, dtype=dtype)[:, H:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 17, 64, 704])
def test_gate(dtype, width):
    both = numbers(6, 2 * width, dtype=dtype) * 8
    both[0, 0], both[1, 0], both[2, 0] = 100.0, -100.0, -1000.0
    assert_close(Kernels().gate(both), Plain().gate(both), **TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 5, 16, 100, 16_001])
def test_largest(dtype, columns):
    """Equal to torch's, ties included: bfloat16 has many."""
    x = numbers(50, columns, dtype=dtype)
    want = x.float().max(-1)
    found = largest(x)
    assert torch.equal(found[0], want.values)
    assert torch.equal(found[1], (x == want.values.to(dtype)[:, None]).long().argmax(-1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_numbers(dtype):
    inf, nan = torch.inf, torch.nan
    rows = torch.full((5, 40), -inf, dtype=dtype)
    rows[1, [7, 30, 39]] = inf
    rows[2, 3], rows[2, [20, 38]] = inf, nan
    rows[3, 39] = nan
    rows[4, 39] = -1e30
    values, places = largest(rows)
    assert places.tolist() == [0, 7, 20, 39, 39]
    assert values.isnan().tolist() == [False, False, True, True, False]
    assert values[:2].tolist() == [-inf, inf]
    x = numbers(3, 32, dtype=dtype)
    x[1, 5] = nan
    assert Kernels().norm(x, x[0], 1e-5).isnan().any(-1).tolist() == [False, True, False]
    assert Kernels().gate(x).isnan().sum() == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_have_the_same_bits_in_any_company(dtype):
    x, weight = numbers(300, 704, dtype=dtype), numbers(704, dtype=dtype, seed=1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        norms, gates = Kernels().norm(x, weight, 1e-5), Kernels().gate(x)
        for i in (0, 17, 299):
            assert torch.equal(Kernels().norm(x[i:i + 1], weight, 1e-5)[0], norms[i])
            assert torch.equal(Kernels().gate(x[i:i + 1])[0], gates[i])
    finally:
        torch.set_num_threads(before)
