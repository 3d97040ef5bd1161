"""Attention over pages as a kernel wants it: what is read is told by tensors alone, whose shapes know no row's length.

The step's tokens stand in tiles of one row each, and a table says which pages each row has. So a CUDA graph can compute
other rows, shorter or longer ones, when the numbers in these tensors change (graphs.py). `mix` does the arithmetic
(paged_triton.py). The slow twin is paged.py, whose masks and groups are made anew for each step.

M tiles  R rows  W pages of a line  N new tokens of all rows  H query heads  K key/value heads  E head width
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ayllu.engine.batch import FlatBatch, Span
from ayllu.engine.paged import PagedCache
from ayllu.engine.stores import Store
from ayllu.model.attend import sdpa

TILE_ROWS = 64                                           # queries of a tile: tokens times the heads that share a key
SHARE = 128                                              # slots that are worth a part of their own
MOST_PARTS = 64
ALONE = 256                                              # tokens of a prompt that are worth a call of their own


@dataclass(frozen=True, eq=False)
class Reads:
    """Tiles of up to `size` tokens, each of one row; those with 0 tokens are passed over. The keys of a tile are read
    in `n_parts` parts at a time, where tiles alone would leave a GPU idle."""

    tiles: Tensor                                        # (M, 4) int32: token (of N), tokens, its position, table line
    table: Tensor                                        # (R, W) int32
    size: int
    n_parts: int


class Mix(Protocol):
    """Write y (N, H, E) for the tokens of all tiles; q (N, H, E), whose tokens may lie apart. A token sees its row up
    to itself, `window` at most."""

    def __call__(self, q: Tensor, y: Tensor, keys: Store, values: Store, reads: Reads, window: int | None) -> None: ...


@dataclass(frozen=True, eq=False)
class TableAttend:
    """One layer's view of the pool: writes the step's keys and values, then mixes. Tokens that are `alone` see nothing
    but each other, and don't read the pool."""

    keys: Store                                          # (P, page, K, E)
    values: Store                                        # (P, page, K, E)
    slots: Tensor                                        # (N,)
    reads: tuple[Reads, ...]
    window: int | None
    mix: Mix
    alone: tuple[slice, ...] = ()                        # tokens (of N): a whole prompt each

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:            # (1, N, H, E), (1, N, K, E)
        self.keys.write(self.slots, k[0])
        self.values.write(self.slots, v[0])
        if len(self.alone) == 1 and not self.reads:
            return sdpa(q, k, v, causal=True)
        y = q.new_empty(q.shape)
        for own in self.alone:
            y[:, own] = sdpa(q[:, own], k[:, own], v[:, own], causal=True)
        for reads in self.reads:
            self.mix(q[0], y[0], self.keys, self.values, reads, self.window)
        return y


class TableViews:
    """Makes the views of a step. `n_processors`: of the GPU, all of which shall have something to do. `has_flash`:
    torch's attention is the faster way for a prompt that sees nothing before it and all of itself."""

    def __init__(self, cache: PagedCache, mix: Mix, n_processors: int, has_flash: bool = False) -> None:
        self.cache, self.mix, self.n_processors, self.has_flash = cache, mix, n_processors, has_flash
        self.windows = [cache.config.window(layer) for layer in range(cache.config.n_layers)]
        self.tile = max(1, TILE_ROWS * cache.config.n_kv_heads // cache.config.n_heads)

    def attends(self, batch: FlatBatch) -> list[TableAttend]:
        """A view for each layer: rows with one new token apart from the others, whose tiles are larger."""
        alone = tuple(slice(span.begin, span.end) for span in batch.chunks if self._is_alone(span))
        chunks = [span for span in batch.chunks if not self._is_alone(span)]
        reads = [self._reads(spans, size) for spans, size in ((batch.singles, 1), (chunks, self.tile)) if spans]
        return self.layers(batch.slots, tuple(reads), alone)

    def layers(self, slots: Tensor, reads: tuple[Reads, ...], alone: tuple[slice, ...] = ()) -> list[TableAttend]:
        """The same for reads that are there already."""
        return [TableAttend(keys, values, slots, reads, window, self.mix, alone)
                for (keys, values), window in zip(self.cache.stores, self.windows, strict=True)]

    def _is_alone(self, span: Span) -> bool:
        return (self.has_flash and span.start == 0 and span.length >= ALONE
                and all(window is None or window >= span.length for window in self.windows))

    def n_parts(self, n_tiles: int, n_slots: int) -> int:
        """A power of two: twice as many programs as the GPU has processors, where rows are long enough."""
        wanted = 2 * self.n_processors // (n_tiles * self.cache.config.n_kv_heads)
        return 1 << max(1, min(wanted, n_slots // SHARE, MOST_PARTS)).bit_length() - 1

    def _reads(self, spans: Sequence[Span], size: int) -> Reads:
        table = table_of(spans, self.cache.page_size)
        tiles = [(span.begin + at, min(size, span.end - span.begin - at), span.start + at, line)
                 for line, span in enumerate(spans) for at in range(0, span.end - span.begin, size)]
        parts = self.n_parts(len(tiles), table.shape[1] * self.cache.page_size) if size == 1 else 1
        return Reads(torch.tensor(tiles, dtype=torch.int32).to(self.cache.device), table.to(self.cache.device), size,
                     parts)


def table_of(spans: Sequence[Span], page_size: int) -> Tensor:
    """(R, W) int32 on the CPU: the pages that hold each row's tokens; a shorter row's line ends with its last page."""
    lists = [span.pages[:-(-span.length // page_size)] for span in spans]
    width = max(map(len, lists))
    return torch.tensor([[*pages, *[pages[-1]] * (width - len(pages))] for pages in lists], dtype=torch.int32)
