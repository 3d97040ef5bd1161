"""NF4 with double quantisation (QLoRA, arXiv:2305.14314, section 3), in pure torch.

Blocks of 64 weights are divided by their largest magnitude and rounded to the nearest of 16 values, which lie where a
normal distribution has equal shares. The magnitudes themselves are stored in 8 bits, in blocks of 256, less their
mean: 4 + 8 / 64 + 32 / (64 * 256) = 4.127 bits a weight.

n weights  G = n / 64 blocks
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK, SCALES = 64, 256
# Appendix E: quantiles of N(0, 1), 8 below and 9 above zero with zero shared, scaled to [-1, 1].
CODE = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
PART = 1 << 22                                           # weights rounded at once: little is needed on the way


@dataclass(frozen=True)
class Packed:
    """A weight in NF4; `scales` are the blocks' largest magnitudes in 8 bits."""

    codes: Tensor                                        # (n / 2,) uint8, the first of two weights in the high bits
    scales: Tensor                                       # (G,) uint8
    steps: Tensor                                        # (G / 256,) float32, of each block of scales
    mean: Tensor                                         # () float32, of all magnitudes

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All that is stored."""
        return self.codes, self.scales, self.steps, self.mean

    @property
    def nbytes(self) -> int:
        """Bytes of it all."""
        return sum(t.numel() * t.element_size() for t in self.tensors)


def quantise(weight: Tensor) -> Packed:
    """A weight of any shape, whose size 64 must divide; ValueError where it doesn't."""
    if weight.numel() % BLOCK:
        raise ValueError(f"a weight of {weight.numel():,} numbers can't be cut into blocks of {BLOCK}")
    flat = weight.detach().reshape(-1)
    largest = torch.cat([part.float().view(-1, BLOCK).abs().amax(1) for part in flat.split(PART)])          # (G,)
    scales, steps, mean = quantise_scales(largest)
    borders = _code(weight.device)
    borders = (borders[1:] + borders[:-1]) / 2                                # (15,)
    codes = torch.empty(len(flat) // 2, dtype=torch.uint8, device=weight.device)
    for at in range(0, len(flat), PART):
        part = flat[at:at + PART].float().view(-1, BLOCK)
        by = largest[at // BLOCK:at // BLOCK + len(part), None].clamp(min=1e-38)
        near = torch.bucketize(part / by, borders).to(torch.uint8).view(-1, 2)
        codes[at // 2:at // 2 + len(near)] = near[:, 0] << 4 | near[:, 1]
    return Packed(codes, scales, steps, mean)


def dequantise(packed: Packed, shape: tuple[int, ...] | torch.Size, dtype: torch.dtype) -> Tensor:
    """The weight that the codes stand for."""
    largest = dequantise_scales(packed.scales, packed.steps, packed.mean).to(dtype)
    code = _code(packed.codes.device).to(dtype)
    pairs = torch.cartesian_prod(code, code)                                  # (256, 2): a byte at a time
    both = F.embedding(packed.codes.int(), pairs)                             # (n / 2, 2)
    return (both.view(-1, BLOCK) * largest[:, None]).view(shape)


def quantise_scales(largest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """8-bit scales (G,), their steps (G / 256,) and the mean that was taken from them first.

    The paper's 8-bit float is a linear grid of 255 values here: its error is the same everywhere, and there is a bound.
    """
    mean = largest.mean()
    padded = F.pad(largest - mean, (0, -len(largest) % SCALES)).view(-1, SCALES)
    steps = (padded.abs().amax(1) / 127).clamp(min=1e-38)
    scales = (padded / steps[:, None]).round() + 128
    return scales.to(torch.uint8).view(-1)[:len(largest)].clone(), steps, mean


def dequantise_scales(scales: Tensor, steps: Tensor, mean: Tensor) -> Tensor:
    """(G,) float32."""
    return (scales.float() - 128) * steps.repeat_interleave(SCALES)[:len(scales)] + mean


def bytes_of(n: int) -> int:
    """Bytes of n weights."""
    groups = n // BLOCK
    return n // 2 + groups + 4 * math.ceil(groups / SCALES) + 4


def random_packed(n: int, std: float, draw: torch.Generator, device: torch.device) -> Packed:
    """n weights without a checkpoint, for a rehearsal: any codes, whose values have this deviation."""
    groups = n // BLOCK
    codes = torch.randint(256, (n // 2,), dtype=torch.uint8, generator=draw)
    spread = torch.tensor(CODE).std().item()
    scales, steps = torch.full((groups,), 128, dtype=torch.uint8), torch.zeros(math.ceil(groups / SCALES))
    return Packed(*(t.to(device) for t in (codes, scales, steps, torch.tensor(std / spread))))


def _code(device: torch.device) -> Tensor:
    return torch.tensor(CODE, device=device)
