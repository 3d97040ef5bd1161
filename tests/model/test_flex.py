"""FlexAttention over packed documents is the masked attention of SDPA: the same pairs, the same values."""

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask

from ayllu.data.pack_loader import PackedBatch
from ayllu.model.attend import Masked, window_mask
from ayllu.model.flex import flex


def rows():
    document = torch.tensor([[0] * 50 + [1] * 60 + [2] * 18, [0] * 100 + [-1] * 28])
    two_way = torch.zeros(2, 128, dtype=torch.bool)
    two_way[0, 50:70] = two_way[1, :30] = True
    return document, two_way


@pytest.mark.parametrize("window", [None, 16])
def test_the_same_pairs_see_each_other(window):
    document, two_way = rows()
    expected = (document[:, :, None] == document[:, None, :]) & (
        window_mask(128, window or 128, document.device) | two_way[:, None, :])
    found = create_mask(flex(document, two_way, window).blocks.mask_mod, 2, None, 128, 128, device="cpu")
    assert torch.equal(found[:, 0], expected)
    empty = torch.zeros(2, 128)
    batch = PackedBatch(document, document, empty, document, document, two_way)
    assert torch.equal(batch.attend(window).mask, expected)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_same_values(window, kv_heads):
    """Float32 sums in another order: 1e-5."""
    document, two_way = rows()
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 128, heads, 16, generator=draw) for heads in (4, kv_heads, kv_heads))
    mask = (document[:, :, None] == document[:, None, :]) & (
        window_mask(128, window or 128, document.device) | two_way[:, None, :])
    torch.testing.assert_close(flex(document, two_way, window)(q, k, v), Masked(mask)(q, k, v), atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_compiled_on_a_gpu_with_gradients():
    document, two_way = (tensor.cuda() for tensor in rows())
    batch = PackedBatch(document, document, torch.zeros(2, 128), document, document, two_way)
    draw = torch.Generator("cuda").manual_seed(0)
    inputs = [torch.randn(2, 128, heads, 32, generator=draw, device="cuda", requires_grad=True) for heads in (4, 2, 2)]

    def mixed(attend, q, k, v):                          # training compiles blocks, and hands them what `flex` made
        return attend(q, k, v)

    found, expected = torch.compile(mixed)(flex(document, two_way), *inputs), batch.attend()(*inputs)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)        # TF32 products
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), inputs) for y in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, atol=2e-2, rtol=2e-2)
