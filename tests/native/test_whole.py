"""Attention of encoders against torch's: numbers of places around the kernel's blocks, head widths, threads."""

import pytest
import torch
import torch.nn.functional as F

from ayllu.native import whole
from ayllu.native.build import missing_vectors

pytestmark = pytest.mark.skipif(bool(missing_vectors()), reason=f"no kernels here: {missing_vectors()}")


def slow(qkv):
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)                            # (B, H, N, E)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


@pytest.mark.parametrize(("B", "N", "H", "E"), [
    (1, 1, 1, 64), (2, 5, 3, 64), (1, 48, 2, 64), (3, 64, 1, 64), (1, 65, 2, 64), (1, 129, 2, 64), (2, 257, 4, 64),
    (1, 577, 1, 64), (1, 1500, 1, 64), (2, 50, 2, 40), (1, 70, 2, 72), (1, 33, 1, 80), (1, 100, 1, 128), (1, 20, 2, 3)])
def test_it_gives_what_torch_gives(B, N, H, E):
    torch.manual_seed(0)
    qkv = 2 * torch.randn(B, N, 3, H, E)                                      # some scores far above the others
    torch.testing.assert_close(whole.attend(qkv), slow(qkv), atol=2e-5, rtol=1e-4)   # sums in another order


def test_threads_change_nothing():
    """Each query is answered alone, in one order."""
    torch.manual_seed(0)
    qkv, before, made = torch.randn(1, 300, 3, 2, 64), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            made.append(whole.attend(qkv))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(made[0], other) for other in made[1:])


def test_scores_of_any_size():
    """Large ones overflow no exponential; a key that is NaN makes all of its head's answers NaN, as with torch."""
    qkv = torch.zeros(1, 70, 3, 2, 64)
    qkv[0, 3, :2] = 1e3
    torch.testing.assert_close(whole.attend(qkv), slow(qkv))
    qkv = torch.randn(1, 70, 3, 2, 64)
    qkv[0, 5, 1, 1] = torch.nan
    assert torch.equal(whole.attend(qkv).isnan(), slow(qkv).isnan())
    assert whole.attend(qkv).isnan().any()
