"""Attention over pages on a CPU, in C++: each token reads its row's pages where they lie (native/paged.py).

Rows with few new tokens go that way, one token at a time; the products of a long chunk are large enough for torch. All
keys and values of a step are written before any are read. The slow twins are paged.py and, for deterministic steps,
tiles.py.

N new tokens of all rows  H query heads  K key/value heads  E head width
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ayllu.engine.batch import FlatBatch, Span
from ayllu.engine.paged import Chunk, PagedCache, attend_chunk
from ayllu.engine.stores import Int8Store, PlainStore, Store
from ayllu.native.paged import Pool, Reads, attend

FEW_TOKENS, FEW_PAIRS = 8, 1024                          # of a chunk; a pair is a token and one that it may see


@dataclass(frozen=True, eq=False)
class NativeAttend:
    """One layer's view: writes the step's keys and values, then each token attends."""

    keys: Store                                          # (P, page, K, E)
    values: Store                                        # (P, page, K, E)
    pool: Pool                                           # the same
    slots: Tensor                                        # (N,)
    reads: Reads
    chunks: tuple[Chunk, ...]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:            # (1, N, H, E), (1, N, K, E)
        y = attend(q[0], k[0], v[0], self.pool, self.slots, self.reads)[None]
        for chunk in self.chunks:
            new = slice(chunk.begin, chunk.end)
            y[:, new] = attend_chunk(q[:, new], k[:, new], v[:, new], self.keys, self.values, chunk)
        return y


class NativeViews:
    """Makes the views of a step."""

    def __init__(self, cache: PagedCache) -> None:
        self.cache = cache
        self.pools = [_pool(keys, values) for keys, values in cache.stores]
        self.windows = [cache.config.window(layer) for layer in range(cache.config.n_layers)]

    def attends(self, batch: FlatBatch) -> list[NativeAttend]:
        """A view for each layer."""
        few, many = list[Span](), list[Span]()
        for span in batch.spans:
            (few if is_few(span) else many).append(span)
        tokens = [(span.begin + i, span.start + i, span) for span in few for i in range(span.end - span.begin)]
        return self.layers(batch.slots, tokens, many)

    def layers(self, slots: Tensor, tokens: Iterable[tuple[int, int, Span]],
               chunks: Sequence[Span] = ()) -> list[NativeAttend]:
        """The same for tokens, each with its number among the N, its position and its row; and for chunks."""
        told, tables, begins = list[int](), list[int](), dict[int, int]()     # a row's pages are told once
        for number, position, span in tokens:
            begin = begins.setdefault(id(span), len(tables))
            if begin == len(tables):
                tables += span.pages
            told += (number, position, begin)
        reads = Reads(torch.tensor(told, dtype=torch.int32).view(-1, 3), torch.tensor(tables, dtype=torch.int32))
        by_window = {window: (replace(reads, window=window or 0),
                              tuple(self.cache.chunk(span, window) for span in chunks)) for window in set(self.windows)}
        return [NativeAttend(keys, values, pool, slots, *by_window[window])
                for (keys, values), pool, window in zip(self.cache.stores, self.pools, self.windows, strict=True)]


def is_few(span: Span) -> bool:
    """Whether its tokens are computed one by one: beyond, torch's products are faster than the copy costs."""
    n = span.end - span.begin
    return n <= FEW_TOKENS or n * span.length <= FEW_PAIRS


def _pool(keys: Store, values: Store) -> Pool:
    if isinstance(keys, Int8Store) and isinstance(values, Int8Store):
        return Pool(keys.data, values.data, keys.scales, values.scales)
    assert isinstance(keys, PlainStore)
    assert isinstance(values, PlainStore)
    return Pool(keys.data, values.data)
