"""Ways to mix values across positions. The model calls `attend(q, k, v)` and knows nothing of masks or caches.

B batch  T query tokens  S key tokens  H query heads  K key/value heads  E head width
"""

import functools
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_LENGTH = 8                                         # tokens of a document, in the mean, that pay for a call


class Attend(Protocol):
    """Mix values across positions: q (B, T, H, E), k and v (B, S, K, E) -> (B, T, H, E)."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Causal:
    """Each token sees itself and everything before it; with `window`, only the last `window` tokens."""

    window: int | None = None
    dropout: float = 0.0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T = q.shape[1]
        if self.window is None or self.window >= T:
            return sdpa(q, k, v, causal=True, dropout=self.dropout)
        return sdpa(q, k, v, mask=window_mask(T, self.window, q.device), dropout=self.dropout)


@dataclass(frozen=True)
class Masked:
    """Each token sees what `mask` allows: bool, (T, S) or (B, T, S), True where attention may fall."""

    mask: Tensor
    dropout: float = 0.0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = self.mask if self.mask.dim() == 2 else self.mask[:, None]     # (B, 1, T, S)
        return sdpa(q, k, v, mask=mask, dropout=self.dropout)


@dataclass(frozen=True)
class Within:
    """Each token sees the keys from `first` to before `end`, both (B, T) int32: documents of a row, prefixes, windows.

    What it sees is one stretch, so that a kernel may leave out whole blocks; here it becomes a mask.
    """

    first: Tensor
    end: Tensor

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return Masked(self.mask())(q, k, v)

    def mask(self) -> Tensor:
        """(B, T, T), the same as `Masked` has it."""
        key = torch.arange(self.first.shape[1], device=self.first.device)
        return (key >= self.first[:, :, None]) & (key < self.end[:, :, None])


def within(document: Tensor, two_way: Tensor, window: int | None = None) -> Within | None:
    """Causal within each document (B, T) of neighbouring tokens; its first tokens may be `two_way` (B, T): seen by all.

    None where a window leaves a gap between what is near and what is seen by all.
    """
    T = document.shape[1]
    if window is not None and window < T and bool(two_way.any()):
        return None
    place = torch.arange(T, device=document.device).expand(document.shape)
    begins = torch.ones_like(two_way)
    begins[:, 1:] = document[:, 1:] != document[:, :-1]
    first = (place * begins).cummax(1).values
    prefix = torch.zeros_like(first).scatter_reduce_(1, first, (place + 1) * two_way, "amax").gather(1, first)
    end = torch.maximum(place + 1, prefix)
    if window is not None:
        first = torch.maximum(first, place - window + 1)
    return Within(first.int(), end.int())


@dataclass(frozen=True)
class Apart:
    """Causal within each document, one after the other, so that nothing between documents is computed: `lengths` are
    those of all rows, row by row; neighbours of one length are one call. The slow twin is `packed`."""

    lengths: tuple[int, ...]
    causal: bool = True                                  # else all of a document
    of_last: bool = False                                # gives each document's last token alone, in one row

    def __post_init__(self) -> None:
        _leave_uncompiled()

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        groups = [(len(list(same)), T) for T, same in groupby(self.lengths)]
        seen = []
        for group, *part in zip(groups, *(t.flatten(0, 1).split([n * T for n, T in groups]) for t in (q, k, v)),
                                strict=True):
            a, b, c = (x.unflatten(0, group) for x in part)
            y = sdpa(a[:, -1:], b, c) if self.of_last else sdpa(a, b, c, causal=self.causal)
            seen.append(y.flatten(0, 1))
        return torch.cat(seen)[None] if self.of_last else torch.cat(seen).view(q.shape)


@functools.cache
def _leave_uncompiled() -> None:
    """A graph for each step's lengths would never end compiling. Said by the first of them: it imports the compiler."""
    setattr(Apart, "__call__", torch.compiler.disable(Apart.__call__))        # noqa: B010 - a method, to mypy


def apart(document: Tensor, two_way: Tensor, window: int | None = None) -> Apart | None:
    """Each document (B, T) by itself; None where they see more or less than what came before, or are very short."""
    B, T = document.shape
    if bool(two_way.any()) or B * T - int((document[:, 1:] == document[:, :-1]).sum()) > B * T // LEAST_LENGTH:
        return None
    begins = torch.ones_like(two_way)
    begins[:, 1:] = document[:, 1:] != document[:, :-1]
    at = [*begins.flatten().nonzero()[:, 0].tolist(), B * T]
    lengths = tuple(after - before for before, after in pairwise(at))
    return None if window is not None and window < max(lengths) else Apart(lengths)


def packed(document: Tensor, window: int | None = None, dropout: float = 0.0) -> Masked:
    """Causal within each document: `document` (B, T) holds a number for each token's document."""
    T = document.shape[-1]
    same = document[:, :, None] == document[:, None, :]                      # (B, T, T)
    return Masked(same & window_mask(T, window or T, document.device), dropout)


def padded(is_token: Tensor, window: int | None = None, dropout: float = 0.0) -> Masked:
    """Causal over real tokens: `is_token` (B, T) is False on padding, which sees only itself."""
    T = is_token.shape[-1]
    causal = window_mask(T, window or T, is_token.device)
    itself = torch.eye(T, dtype=torch.bool, device=is_token.device)          # a row with no key would be NaN
    return Masked((causal & is_token[:, None, :]) | itself, dropout)


def window_mask(T: int, window: int, device: torch.device) -> Tensor:
    """(T, T), True where key j may be seen from token i: i - window < j <= i."""
    position = torch.arange(T, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < window)


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False,
         dropout: float = 0.0) -> Tensor:
    """softmax(q kT / sqrt(E)) v by torch's fused kernels; key/value heads are shared among groups of query heads."""
    grouped = q.shape[2] != k.shape[2]
    if grouped and mask is not None and q.device.type == "cuda":      # where both leave torch only its slow way
        k, v, grouped = *repeated(k, v, q.shape[2]), False
    y = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, is_causal=causal,
        dropout_p=dropout, enable_gqa=grouped)                               # (B, H, T, E)
    return y.transpose(1, 2)


def repeated(k: Tensor, v: Tensor, H: int) -> tuple[Tensor, Tensor]:          # (B, S, K, E) -> (B, S, H, E)
    """Each group of query heads with a copy of its key/value head for each."""
    times = H // k.shape[2]
    return k.repeat_interleave(times, 2), v.repeat_interleave(times, 2)
