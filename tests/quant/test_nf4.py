"""NF4: the published code book, error bounds, the slow twin, and a layer whose products and gradients are exact."""

import pytest
import torch

from ayllu.quant.linear import Nf4Linear, pack_linear
from ayllu.quant.nf4 import (
    BLOCK,
    CODE,
    SCALES,
    bytes_of,
    dequantise,
    dequantise_scales,
    quantise,
    quantise_scales,
    random_packed,
)

# arXiv:2305.14314, appendix E, which bitsandbytes has too
PUBLISHED = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
             -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
             0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]


# The largest error, as a share of a block's largest magnitude: half of the widest gap, which is the lowest one.
WORST = (CODE[1] - CODE[0]) / 2


def code_book() -> list[float]:
    """The 16 values from their definition."""
    offset = 0.5 * (1 / 32 + 1 / 30)                     # how far from 0 and 1 the outermost quantiles stand
    normal = torch.distributions.Normal(0.0, 1.0)
    above = normal.icdf(torch.linspace(1 - offset, 0.5, 9, dtype=torch.float64)[:-1])
    below = -normal.icdf(torch.linspace(1 - offset, 0.5, 8, dtype=torch.float64)[:-1])
    values = torch.cat((below, torch.zeros(1, dtype=torch.float64), above)).sort().values
    return (values / values.abs().max()).tolist()


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_code_book_is_the_published_one_and_follows_from_its_definition():
    assert list(CODE) == PUBLISHED
    torch.testing.assert_close(torch.tensor(code_book()), torch.tensor(CODE), atol=1e-6, rtol=0)


def test_each_weight_becomes_the_nearest_value_of_its_block():
    weight = drawn(24, 80)
    packed = quantise(weight)
    blocks = weight.view(-1, BLOCK)
    largest = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks[..., None] / largest[..., None] - torch.tensor(CODE)).abs().argmin(-1)         # the slow twin
    found = torch.stack((packed.codes >> 4, packed.codes & 15), -1).view(-1, BLOCK)
    assert torch.equal(found.long(), nearest)


@pytest.mark.parametrize("shape", [(64, 64), (3, 64 * 7), (130, 448)])
def test_errors_stay_within_their_bounds(shape):
    weight = drawn(*shape) * torch.logspace(-3, 1, shape[0])[:, None]        # blocks of very different sizes
    packed = quantise(weight)
    largest = weight.view(-1, BLOCK).abs().amax(1)
    scale_error = (dequantise_scales(packed.scales, packed.steps, packed.mean) - largest).abs()
    bound = packed.steps.repeat_interleave(SCALES)[:len(largest)] / 2
    assert (scale_error <= bound * 1.001 + 1e-7).all()                       # half a step of the 8 bits
    error = (dequantise(packed, weight.shape, torch.float32) - weight).view(-1, BLOCK).abs().amax(1)
    assert (error <= WORST * largest + scale_error + 1e-6 * largest).all()
    assert (error > 0).any()


def test_normal_weights_lose_what_the_paper_says():
    """About 9 % of a normal weight's deviation goes to rounding; storing the magnitudes in 8 bits adds little."""
    weight = drawn(256, 1024)
    packed = quantise(weight)
    error = (dequantise(packed, weight.shape, torch.float32) - weight).square().mean().sqrt()
    assert 0.08 < error < 0.10
    single = (packed.codes >> 4).float(), (packed.codes & 15).float()
    whole = torch.tensor(CODE)[torch.stack(single, -1).long()].view(-1, BLOCK) * weight.view(-1, BLOCK).abs().amax(
        1, keepdim=True)
    once = (whole.view_as(weight) - weight).square().mean().sqrt()
    assert error < once * 1.02
    assert packed.nbytes == bytes_of(weight.numel())
    assert 8 * packed.nbytes / weight.numel() == pytest.approx(4.127, abs=1e-3)


def test_zeros_and_sizes_that_do_not_divide():
    assert not dequantise(quantise(torch.zeros(2, 64)), (2, 64), torch.float32).any()
    with pytest.raises(ValueError, match="blocks of 64"):
        quantise(torch.zeros(3, 30))
    scales, steps, mean = quantise_scales(torch.full((300,), 0.5))
    torch.testing.assert_close(dequantise_scales(scales, steps, mean), torch.full((300,), 0.5))


def test_a_packed_layer_is_the_layer_of_its_unpacked_weight():
    bias = drawn(48, seed=1)
    layer = pack_linear(drawn(48, 64), bias)
    weight = dequantise(layer.packed, (48, 64), torch.float32)
    x = drawn(5, 64, seed=2).requires_grad_()
    y = layer(x)
    torch.testing.assert_close(y, x @ weight.T + bias)
    (found,) = torch.autograd.grad(y.square().sum(), x)
    (wanted,) = torch.autograd.grad((x @ weight.T + bias).square().sum(), x)
    torch.testing.assert_close(found, wanted)
    assert [p.requires_grad for p in layer.parameters()] == [False]
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_a_packed_layer_keeps_nothing_of_its_size_for_the_backward_pass():
    layer, kept = pack_linear(drawn(256, 256)), []

    def keep(t):
        kept.append(t.numel() * t.element_size())
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        layer(drawn(2, 256).requires_grad_())
    assert sum(kept) <= layer.packed.nbytes


def test_random_weights_have_the_deviation_that_is_asked_for():
    packed = random_packed(64 * 64 * 8, 0.02, torch.Generator().manual_seed(0), torch.device("cpu"))
    layer = Nf4Linear(64, 512, packed)
    assert layer.weight.float().std().item() == pytest.approx(0.02, rel=0.05)
    assert packed.nbytes == bytes_of(64 * 512)
