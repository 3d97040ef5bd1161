"""The weight's gradient in C++ is torch's, for any shape and any number of threads."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ayllu.native import linear


@given(n=st.integers(1, 1200), inputs=st.integers(1, 90), half_outputs=st.integers(1, 90), seed=st.integers(0, 99),
       threads=st.sampled_from([1, 2]))
@settings(max_examples=25, deadline=None, phases=[Phase.generate])
def test_any_shape_gives_the_product(n, inputs, half_outputs, seed, threads):
    """Factors are given in bfloat16 and summed in float32; the result is rounded once: 2^-8 of it."""
    draw = torch.Generator().manual_seed(seed)
    dy, x = (torch.randn(n, width, generator=draw).bfloat16() for width in (2 * half_outputs, inputs))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = linear.weight_gradient(dy, x)
    finally:
        torch.set_num_threads(before)
    right = dy.double().t() @ x.double()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), right, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 12), (3, 5, 12)])
def test_as_a_layer_it_is_torchs(shape):
    """Values and the input's gradient have the same bits."""
    x, weight = torch.randn(*shape).bfloat16().requires_grad_(), torch.randn(8, 12).bfloat16().requires_grad_()
    dy, (fast, slow) = torch.randn(*shape[:-1], 8).bfloat16(), (f(x, weight) for f in (linear.linear, F.linear))
    assert torch.equal(fast, slow)
    found, expected = (torch.autograd.grad(y, (x, weight), dy) for y in (fast, slow))
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=2**-7, atol=2**-6)


def test_what_it_does_not_take():
    assert linear.fits(torch.zeros(3, 5).bfloat16(), torch.zeros(4, 5).bfloat16())
    assert not linear.fits(torch.zeros(3, 5).bfloat16(), torch.zeros(3, 5).bfloat16())
    assert not linear.fits(torch.zeros(3, 5), torch.zeros(4, 5))
