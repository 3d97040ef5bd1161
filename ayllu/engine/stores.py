"""How one layer's keys or values lie in their pages: as they are, or as 8-bit numbers with a scale for each head.

int8: x is kept as round(x / s) with s = max|x| / 127 over the head's E features of one token, so that what is read
differs from x by s / 2 at most, which is max|x| / 254 (and a rounding of the model's own dtype). It takes 1 + 4/E bytes
for a number instead of 4 or 2. Nothing is shared between tokens, so that a page's content doesn't depend on how it was
filled.

P pages  N new tokens  S slots that are read  K key/value heads  E head width
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ayllu.native.large import large_zeros

LARGEST = 127.0


class Store(Protocol):
    """The pages of one layer's keys or values."""

    @property
    def shape(self) -> torch.Size: ...                                        # (P, page, K, E)

    def write(self, slots: Tensor, new: Tensor) -> None: ...                  # (N,), (N, K, E)

    def read(self, pages: Tensor) -> Tensor: ...                              # (pages,) -> (S, K, E)


@dataclass(frozen=True, eq=False)
class PlainStore:
    """In the model's own dtype."""

    data: Tensor                                                              # (P, page, K, E)

    @property
    def shape(self) -> torch.Size:
        """(P, page, K, E)."""
        return self.data.shape

    def write(self, slots: Tensor, new: Tensor) -> None:
        """Keep new (N, K, E) in these slots."""
        self.data.flatten(0, 1).index_copy_(0, slots, new)

    def read(self, pages: Tensor) -> Tensor:
        """The slots (S, K, E) of these pages."""
        return self.data.flatten(1).index_select(0, pages).view(-1, *self.data.shape[2:])


@dataclass(frozen=True, eq=False)
class Int8Store:
    """8-bit numbers; what is read comes in `dtype`."""

    data: Tensor                                                              # (P, page, K, E), int8
    scales: Tensor                                                            # (P, page, K), float32
    dtype: torch.dtype

    @property
    def shape(self) -> torch.Size:
        """(P, page, K, E)."""
        return self.data.shape

    def write(self, slots: Tensor, new: Tensor) -> None:
        """Keep new (N, K, E) in these slots, rounded."""
        x = new.float()
        scales = x.abs().amax(-1).div_(LARGEST).clamp_(min=1e-30)             # zeros stay zeros
        self.data.flatten(0, 1).index_copy_(0, slots, (x / scales[..., None]).round_().to(torch.int8))
        self.scales.flatten(0, 1).index_copy_(0, slots, scales)

    def read(self, pages: Tensor) -> Tensor:
        """The slots (S, K, E) of these pages."""
        numbers = self.data.flatten(1).index_select(0, pages).view(-1, *self.data.shape[2:])
        scales = self.scales.flatten(1).index_select(0, pages).view(-1, self.data.shape[2], 1)
        return (numbers * scales).to(self.dtype)


def make_stores(shape: Sequence[int], dtype: torch.dtype, device: torch.device,
                is_int8: bool) -> tuple[tuple[Tensor, ...], list[tuple[Store, Store]]]:
    """Buffers of shape (L, 2, P, page, K, E) and (int8 only) one dimension less, and each layer's stores over them.

    They begin with zeros, since what is masked still is multiplied by its weight of 0, and 0 * NaN is NaN.
    """
    if not is_int8:
        buffer = _zeros(shape, dtype, device)
        return (buffer,), [(PlainStore(k), PlainStore(v)) for k, v in buffer]
    buffer = _zeros(shape, torch.int8, device)
    scales = torch.zeros(*shape[:-1], device=device)
    return (buffer, scales), [(Int8Store(k, ks, dtype), Int8Store(v, vs, dtype))
                              for (k, v), (ks, vs) in zip(buffer, scales, strict=True)]


def _zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(*shape, dtype=dtype, device=device)
    return large_zeros(shape, dtype).zero_()             # written to now: a page that isn't there later ends the server
