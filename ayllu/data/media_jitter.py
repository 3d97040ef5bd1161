"""Images and sounds as a learner sees them: a little moved, so that it learns what they are and not where.

V views  S pixels a side  M mel bands  F frames
"""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ayllu.media.senses import Medium

Jitter = Literal["none", "shift", "warp"]                # by whole pixels and frames; also turned, stretched
LATEST, SOONEST, WINDOW = 20, 20, 16                     # frames of 10 ms
TURN, SIZE, PLACE = math.radians(12), 0.15, 1 / 12       # of an image: up to so much
SPEED, PITCH = 0.15, 0.05                                # of a sound
LOUDER, NOISE = 0.25, 0.5                                # in units of Whisper's log-mel: 40 dB


def jittered(medium: Medium, kind: Jitter, rng: np.random.Generator) -> Medium:
    """Another medium of the same shape."""
    if kind == "none":
        return medium
    if medium.kind == "image":
        return replace(medium, values=(shifted if kind == "shift" else warped)(medium.values, rng))
    return replace(medium, values=masked(medium.values if kind == "shift" else sounding(medium.values, rng), rng))


def shifted(values: Tensor, rng: np.random.Generator) -> Tensor:              # (..., 3, S, S)
    """An image moved by up to a sixteenth of its side, its border repeated."""
    most = max(1, values.shape[-1] // 16)
    down, right = (int(n) for n in rng.integers(-most, most + 1, 2))
    tiles = values.reshape(-1, *values.shape[-3:])                            # (V, 3, S, S)
    tiles = F.pad(tiles, (most,) * 4, mode="replicate")[..., most + down:, most + right:]
    return tiles[..., :values.shape[-2], :values.shape[-1]].reshape(values.shape)


def warped(values: Tensor, rng: np.random.Generator) -> Tensor:               # (..., 3, S, S)
    """An image turned, scaled, and moved; its border repeated."""
    turn, (wide, high) = rng.uniform(-TURN, TURN), np.exp(rng.uniform(-SIZE, SIZE, 2))
    right, down = rng.uniform(-2 * PLACE, 2 * PLACE, 2)                       # an image reaches from -1 to 1
    cos, sin = math.cos(turn), math.sin(turn)
    tiles = values.reshape(-1, *values.shape[-3:])                            # (V, 3, S, S)
    return _sampled(tiles, [[wide * cos, -high * sin, right], [wide * sin, high * cos, down]]).reshape(values.shape)


def sounding(values: Tensor, rng: np.random.Generator) -> Tensor:             # (M, F)
    """A sound that is faster or slower, higher or lower, louder or softer, before a noise of some loudness."""
    speed, pitch = np.exp(rng.uniform(-SPEED, SPEED)), np.exp(rng.uniform(-PITCH, PITCH))
    # Both grow from the first frame and the lowest band, which stay where they are.
    values = _sampled(values[None, None], [[speed, 0, speed - 1], [0, pitch, pitch - 1]])[0, 0]
    noise = values.max() - rng.uniform(NOISE, 4 * NOISE) + 0.1 * torch.from_numpy(
        rng.standard_normal(values.shape, np.float32))
    return torch.maximum(values, noise) + float(rng.uniform(-LOUDER, LOUDER))


def masked(values: Tensor, rng: np.random.Generator) -> Tensor:               # (M, F)
    """A spectrum moved by up to 20 frames, and a band of it and a stretch of time silent now and then (SpecAugment,
    arXiv:1904.08779)."""
    M, frames = values.shape
    values = torch.cat((values[:, -LATEST:], values[:, :-LATEST]), 1)
    values = values.roll(int(rng.integers(-LATEST - SOONEST, 1)), 1).clone()
    low = values.min()
    band, stretch = int(rng.integers(0, M // 8 + 1)), int(rng.integers(0, WINDOW))
    at, when = int(rng.integers(0, M - band)), int(rng.integers(0, max(frames - stretch, 1)))
    values[at:at + band], values[:, when:when + stretch] = low, low
    return values


def _sampled(values: Tensor, matrix: list[list[float]]) -> Tensor:            # (V, C, H, W)
    grid = F.affine_grid(torch.tensor([matrix], dtype=values.dtype), [1, *values.shape[1:]], align_corners=False)
    return F.grid_sample(values, grid.expand(len(values), -1, -1, -1), padding_mode="border", align_corners=False)
