"""Interleaved and half-split rows: each other's inverse, and the same rotation as Meta's complex numbers."""

import pytest
import torch

from ayllu.checkpoint.rope_layout import to_half_split, to_interleaved, turned_heads
from ayllu.model.llama import Rope


@pytest.mark.parametrize("shape", [(24, 5), (24,), (8, 3)])
def test_inverse(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape)
    assert torch.equal(to_half_split(to_interleaved(weight, 4), 4), weight)
    assert torch.equal(to_interleaved(to_half_split(weight, 4), 4), weight)
    if shape[0] == 24:                                   # with two features a head both layouts are the same
        assert not torch.equal(to_interleaved(weight, 4), weight)


def test_scores_equal_those_of_complex_rotation() -> None:
    """Meta's model turns pairs (2i, 2i+1) as complex numbers; ours turns halves: q·k must be the same."""
    torch.manual_seed(0)
    T, H, E, D = 7, 3, 8, 12
    x, wq, wk = torch.randn(T, D), torch.randn(H * E, D), torch.randn(H * E, D)
    angles = torch.outer(torch.arange(T).float(), 10_000.0 ** (-torch.arange(0, E, 2) / E))
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]                 # (T, 1, E/2)

    def metas(w: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex((x @ w.T).view(T, H, E // 2, 2))
        return torch.view_as_real(pairs * turn).flatten(2)                       # (T, H, E)

    both = torch.cat((angles, angles), -1)[None, :, None]
    rope = Rope(both.cos(), both.sin())

    def ours(w: torch.Tensor) -> torch.Tensor:
        return rope((x @ to_half_split(w, H).T).view(1, T, H, E))[0]

    scores = torch.einsum("the,she->hts", metas(wq), metas(wk))
    assert torch.allclose(torch.einsum("the,she->hts", ours(wq), ours(wk)), scores, atol=1e-4)
    assert not torch.allclose(torch.einsum("the,she->hts", rope((x @ wq.T).view(1, T, H, E))[0],
                                           rope((x @ wk.T).view(1, T, H, E))[0]), scores, atol=1e-1)


def test_which_tensors_are_turned() -> None:
    assert turned_heads("layers.0.attention.wq.weight", 8, 2) == 8
    assert turned_heads("layers.11.attention.wk.bias", 8, 2) == 2
    assert turned_heads("layers.0.attention.wv.weight", 8, 2) is None
    assert turned_heads("tok_embeddings.weight", 8, 2) is None
