"""Keys and values in pages of one contiguous pool, and the attention that writes and reads them.

The model is handed one `PageAttend` for each layer: tensors that say where this step's keys and values go and where
those of each row lie. The slow twin is the dense cache (ayllu/model/cache.py).

B rows with a single new token  T new tokens of one row  N new tokens of all rows  S slots that are read
L layers  P pages  H query heads  K key/value heads  E head width
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ayllu.engine.batch import FlatBatch, Span
from ayllu.engine.stores import Store, make_stores
from ayllu.model.attend import Attend, sdpa
from ayllu.model.config import LlamaConfig, TransformerConfig

FEW_PAGES = 7                                            # rows with up to so many and one more form one group


@dataclass(frozen=True, eq=False)
class Singles:
    """Where some rows of about the same length, with one new token each, read."""

    begin: int                                           # their tokens among the N
    end: int
    table: Tensor                                        # (B, pages)
    mask: Tensor | None                                  # added to scores, (B, 1, 1, S); None: all is seen


@dataclass(frozen=True, eq=False)
class Chunk:
    """Where one row with several new tokens reads."""

    begin: int                                           # its tokens among the N
    end: int
    pages: Tensor | None                                 # (pages,); None: nothing stood before, no page is read
    mask: Tensor | None                                  # added to scores, (T, S); None: plain causal attention


@dataclass(frozen=True, eq=False)
class PageAttend:
    """One layer's view of the pool: writes the step's keys and values, then each row attends over its own pages."""

    keys: Store                                          # (P, page, K, E)
    values: Store                                        # (P, page, K, E)
    slots: Tensor                                        # (N,)
    singles: tuple[Singles, ...]
    chunks: tuple[Chunk, ...]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:            # (1, N, H, E), (1, N, K, E)
        self.keys.write(self.slots, k[0])
        self.values.write(self.slots, v[0])
        if len(self.singles) == 1 and not self.chunks:
            return _attend_singles(q[0], self.keys, self.values, self.singles[0])[None]
        y = torch.empty_like(q)
        for some in self.singles:
            y[0, some.begin:some.end] = _attend_singles(q[0, some.begin:some.end], self.keys, self.values, some)
        for chunk in self.chunks:
            new = slice(chunk.begin, chunk.end)
            y[:, new] = attend_chunk(q[:, new], k[:, new], v[:, new], self.keys, self.values, chunk)
        return y


class Views(Protocol):
    """Makes the views of a step, one for each layer."""

    def attends(self, batch: FlatBatch) -> Sequence[Attend]: ...


class PagedCache:
    """The pool, one buffer (L, 2, P, page, K, E) that a runner of any kind can read; with int8, one of scales too."""

    def __init__(self, config: LlamaConfig | TransformerConfig, n_pages: int, page_size: int, *,
                 dtype: torch.dtype, device: torch.device, is_int8: bool = False) -> None:
        self.config, self.n_pages, self.page_size = config, n_pages, page_size
        self.dtype, self.device = dtype, device
        shape = (config.n_layers, 2, n_pages, page_size, config.n_kv_heads, config.head_dim)
        self.buffers, self.stores = make_stores(shape, dtype, device, is_int8)

    @property
    def nbytes(self) -> int:
        """Bytes of the pool."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy pages (source, target), all sources as they were before."""
        if pairs:
            sources, targets = torch.tensor(pairs, device=self.device).unbind(1)
            for buffer in self.buffers:
                buffer[:, :, targets] = buffer[:, :, sources]

    def attends(self, batch: FlatBatch) -> list[PageAttend]:
        """A view for each layer."""
        windows = [self.config.window(layer) for layer in range(self.config.n_layers)]
        reads = {window: (self._singles(batch.singles, window),
                          tuple(self.chunk(span, window) for span in batch.chunks)) for window in set(windows)}
        return [PageAttend(keys, values, batch.slots, *reads[window])
                for (keys, values), window in zip(self.stores, windows, strict=True)]

    def _singles(self, spans: Sequence[Span], window: int | None) -> tuple[Singles, ...]:
        """Groups whose longest row reads twice as many pages as the shortest at most: all are filled up to it."""
        firsts = [_first_page(span, window, self.page_size) for span in spans]
        n_pages = [-(-span.length // self.page_size) - first for span, first in zip(spans, firsts, strict=True)]
        groups = groupby(range(len(spans)), key=lambda i: max(FEW_PAGES, n_pages[i] - 1).bit_length())
        return tuple(self._group(spans[rows[0]:rows[-1] + 1], firsts[rows[0]:rows[-1] + 1], window)
                     for rows in (list(group) for _, group in groups))

    def _group(self, spans: Sequence[Span], firsts: Sequence[int], window: int | None) -> Singles:
        size = self.page_size
        lists = [span.pages[first:-(-span.length // size)] for span, first in zip(spans, firsts, strict=True)]
        width = max(map(len, lists))
        table = torch.tensor([[*pages, *[pages[-1]] * (width - len(pages))] for pages in lists])
        end = torch.tensor([[span.length - first * size] for span, first in zip(spans, firsts, strict=True)])
        slot = torch.arange(width * size)
        seen = slot < end                                                     # (B, S)
        if window is not None:
            seen &= slot >= end - window
        return Singles(spans[0].begin, spans[-1].end, table.to(self.device), self._as_mask(seen[:, None, None]))

    def chunk(self, span: Span, window: int | None) -> Chunk:
        """Where this row reads in a layer with such a window."""
        T, size = span.end - span.begin, self.page_size
        if span.start == 0 and (window is None or window >= T):
            return Chunk(span.begin, span.end, None, None)
        first = _first_page(span, window, size)
        pages = torch.tensor(span.pages[first:-(-span.length // size)])
        key = torch.arange(first * size, first * size + len(pages) * size)    # (S,)
        query = torch.arange(span.start, span.length)[:, None]                # (T, 1)
        seen = key <= query
        if window is not None:
            seen &= key > query - window
        return Chunk(span.begin, span.end, pages.to(self.device), self._as_mask(seen))

    def _as_mask(self, seen: Tensor) -> Tensor | None:
        if seen.all():
            return None
        mask = torch.zeros(seen.shape, dtype=self.dtype)
        return mask.masked_fill_(~seen, -torch.inf).to(self.device)


def _first_page(span: Span, window: int | None, page_size: int) -> int:
    """The first page that any of the span's tokens may read."""
    return 0 if window is None else max(0, span.start - window + 1) // page_size


def _attend_singles(q: Tensor, keys: Store, values: Store, where: Singles) -> Tensor:   # (B, H, E) -> (B, H, E)
    """All rows at once; the query heads of a group stand where query tokens would, so no key is repeated."""
    (B, H, E), K = q.shape, keys.shape[2]
    k, v = (store.read(where.table.flatten()).view(B, -1, K, E).transpose(1, 2) for store in (keys, values))
    y = F.scaled_dot_product_attention(q.view(B, K, H // K, E), k, v, attn_mask=where.mask)   # (B, K, H/K, E)
    return y.reshape(B, H, E)


def attend_chunk(q: Tensor, k: Tensor, v: Tensor, keys: Store, values: Store, where: Chunk) -> Tensor:
    """One row's tokens (1, T, H, E); what they see is in its pages, or only among themselves."""
    if where.pages is None:
        return sdpa(q, k, v, causal=True)
    k, v = (store.read(where.pages)[None] for store in (keys, values))        # (1, S, K, E)
    return sdpa(q, k, v, mask=where.mask)
