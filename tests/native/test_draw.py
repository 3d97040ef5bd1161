"""Drawing in C++ against the filters and the draw of model/sample.py."""

import numpy as np
import pytest
import torch

from ayllu.model import sample
from ayllu.native.draw import draw

SETTINGS = [(1.0, 0, 1.0, 0.0), (0.7, 0, 1.0, 0.0), (1.0, 1, 1.0, 0.0), (0.8, 40, 1.0, 0.0), (1.3, 0, 0.9, 0.0),
            (1.0, 0, 0.05, 0.0), (1.0, 0, 0.9999, 0.0), (0.8, 40, 0.9, 0.0), (1.0, 0, 1.0, 0.1), (1.5, 300, 0.95, 0.02),
            (1.0, 10**6, 0.5, 1.0)]


def slow(logits, settings, u):
    t, k, p, least = (torch.tensor(column) for column in zip(*settings, strict=True))
    x = sample.keep_top_k(logits.float() / t[:, None], k)
    x = sample.keep_top_p(x, p)
    x = sample.keep_min_p(x, torch.where(least > 0, least, 1e-30))
    return sample.draw(x, torch.from_numpy(u))


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("V", [7, 100, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_draws_are_those_of_torch(dtype, V, scale):
    """Equal but for numbers within a rounding of a border: none in a thousand or so. bfloat16 has many ties."""
    rng, n = np.random.default_rng(0), 40
    logits = torch.from_numpy(rng.normal(size=(n * len(SETTINGS), V)) * scale).to(dtype)
    u = rng.random(len(logits))
    settings = SETTINGS * n
    found, want = draw(logits, np.array(settings), u), slow(logits, settings, u)
    near = (found - want).abs() <= 1                     # the neighbour, where u lies on a border
    assert (found == want).float().mean() > 0.995
    assert near.float().mean() > 0.99


def test_only_what_is_kept_is_drawn():
    logits = torch.full((200, 50), -torch.inf)
    logits[:, 7], logits[:, 30], logits[:, 31] = 1.0, 2.0, 2.0
    u = np.linspace(0, 1 - 1e-12, 200)
    ids = draw(logits, np.tile(np.array([1.0, 0, 1.0, 0.0]), (200, 1)), u)
    assert set(ids.tolist()) == {7, 30, 31}
    assert abs((ids == 7).float().mean().item() - 1 / (1 + 2 * np.e)) < 0.01
    ids = draw(logits, np.tile(np.array([1.0, 1, 1.0, 0.0]), (200, 1)), u)
    assert set(ids.tolist()) == {30, 31}                 # what equals the k-th is kept
    ids = draw(logits, np.tile(np.array([1.0, 0, 0.5, 0.0]), (200, 1)), u)
    assert set(ids.tolist()) == {30, 31}


def test_damaged_rows_give_some_id():
    """What is wrong with them is found elsewhere."""
    rows = torch.zeros(4, 20)
    rows[0], rows[1], rows[2], rows[3, 5] = torch.nan, -torch.inf, torch.inf, torch.nan
    for settings in SETTINGS:
        ids = draw(rows, np.tile(np.array(settings), (4, 1)), np.full(4, 0.999))
        assert ((ids >= 0) & (ids < 20)).all()
