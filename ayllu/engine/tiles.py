"""Deterministic steps: the bits of a row's logits don't depend on what else is computed, nor on how or when.

A matrix product of M rows may add its terms in another order when M changes, so that the same row comes out with other
last bits in a larger batch. Here every operation has one shape: tokens go through the model TILE at a time (the last
tile is filled up), and attention adds up blocks of BLOCK keys one after the other, from the one that holds the first
key that the token sees; a block past a token's own length changes nothing, to the bit. What remains is that a row's
result must not depend on its place in the tile: `check_places` tries that with the model's own products and refuses
otherwise.

The price is speed: less for many rows than for one, which is computed as TILE.

T tokens of a tile  S keys of a block  H query heads  K key/value heads  E head width  D width  V vocabulary
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ayllu.engine.batch import FlatBatch, Span
from ayllu.engine.paged import PagedCache, Views
from ayllu.engine.paged_native import NativeViews
from ayllu.engine.stores import Store
from ayllu.errors import ConfigError
from ayllu.model.adapt import Adapt
from ayllu.model.attend import Attend
from ayllu.model.step import Runner

TILE = 16                                                # tokens; so many rows fill a tile of AMX, too
BLOCK = 64                                               # keys, at least a page


@dataclass(frozen=True, eq=False)
class TileAttend:
    """One layer's view: each token of the tile reads its own pages, block by block."""

    keys: Store                                          # (P, page, K, E)
    values: Store                                        # (P, page, K, E)
    slots: Tensor                                        # (T,)
    blocks: tuple[tuple[Tensor, Tensor], ...]            # pages (T, pages of a block), added to scores (T, 1, 1, S)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:            # (1, T, H, E), (1, T, K, E)
        self.keys.write(self.slots, k[0])
        self.values.write(self.slots, v[0])
        (T, H, E), K = q.shape[1:], k.shape[2]
        query = q[0].float().mul(E**-0.5).reshape(T * K, H // K, E)
        best = torch.full((T, K, H // K, 1), -torch.inf, device=q.device)     # largest score so far
        total, y = torch.zeros_like(best), torch.zeros(T, K, H // K, E, device=q.device)
        for pages, mask in self.blocks:
            keys, values = (self._read(store, pages) for store in (self.keys, self.values))   # (T K, S, E)
            scores = torch.bmm(query, keys.transpose(1, 2)).view(T, K, H // K, -1) + mask
            larger = torch.maximum(best, scores.amax(-1, keepdim=True))
            weights, keep = (scores - larger).exp_(), (best - larger).exp_()
            best, total = larger, total * keep + weights.sum(-1, keepdim=True)
            y = y * keep + torch.bmm(weights.view(T * K, H // K, -1), values).view_as(y)
        return (y / total).reshape(1, T, H, E).to(q.dtype)

    def _read(self, store: Store, pages: Tensor) -> Tensor:
        """The slots of these pages in float32, (T K, S, E)."""
        (T, n), (_, size, K, E) = pages.shape, store.shape
        read = store.read(pages.flatten()).view(T, n * size, K, E)
        return read.transpose(1, 2).reshape(T * K, n * size, E).float()


class TiledSteps:
    """Computes a batch tile by tile. The cache needs one page more than the scheduler knows: what fills a tile up is
    written there. With NativeViews, attention is in C++, which computes each token alone and in blocks as well."""

    def __init__(self, runner: Runner, cache: PagedCache, views: Views | None = None) -> None:
        self.runner, self.cache, self.native = runner, cache, views if isinstance(views, NativeViews) else None
        self.scratch = cache.n_pages - 1
        self.block_pages = max(1, BLOCK // cache.page_size)
        self.check_places()

    def hidden(self, batch: FlatBatch, adapt: Callable[[slice, int], Adapt | None]) -> Tensor:     # (N, D)
        """What `logits` takes, for all tokens. A row's earlier tokens are written before its later ones are read.
        `adapt(own, n_more)` is for those tokens of the batch and so many that fill the tile up."""
        size, parts = self.cache.page_size, list[Tensor]()
        owners = [(span, place) for span in batch.spans for place in range(span.start, span.length)]
        for begin in range(0, len(owners), TILE):
            own = slice(begin, min(begin + TILE, len(owners)))
            n_more = begin + TILE - own.stop
            ids, positions = (F.pad(x[own], (0, n_more)) for x in (batch.ids, batch.positions))
            slots = F.pad(batch.slots[own], (0, n_more), value=self.scratch * size)
            filler = [(Span(0, 1, 0, [self.scratch]), 0)] * n_more
            shown = None if batch.shown is None else batch.shown.part(own, n_more)
            hidden = self.runner.flat(ids, positions, self._attends(slots, owners[own] + filler),
                                      adapt(own, n_more), shown)
            parts.append(hidden[:own.stop - begin])
        return torch.cat(parts)

    def logits(self, hidden: Tensor) -> Tensor:                               # (C, D) -> (C, V)
        """The model's head, tile by tile."""
        parts = [self.runner.logits(F.pad(part, (0, 0, 0, TILE - len(part))))[:len(part)]
                 for part in hidden.split(TILE)]
        return torch.cat(parts)

    @torch.inference_mode()
    def check_places(self) -> None:
        """Refuse where a token's logits depend on its place in the tile: TILE times the same token must be equal."""
        ids = torch.ones(TILE, dtype=torch.long, device=self.runner.device)
        places = torch.zeros_like(ids)
        owners = [(Span(0, 1, 0, [self.scratch]), 0)] * TILE
        attends = self._attends(places + self.scratch * self.cache.page_size, owners)
        hidden = self.runner.flat(ids, places, attends)
        logits = self.logits(hidden)
        if not all(torch.equal(x, x[:1].expand_as(x)) for x in (hidden, logits)):
            raise ConfigError("deterministic=True: on this machine a row's result depends on its place in a product of "
                              f"{TILE} rows, so equal bits can't be promised; try another dtype or runner='eager'")

    def _attends(self, slots: Tensor, owners: Sequence[tuple[Span, int]]) -> Sequence[Attend]:
        if self.native is not None:
            return self.native.layers(slots, [(i, place, span) for i, (span, place) in enumerate(owners)])
        config = self.cache.config
        windows = [config.window(layer) for layer in range(config.n_layers)]
        blocks = {window: self._blocks(owners, window) for window in set(windows)}
        return [TileAttend(keys, values, slots, blocks[window])
                for (keys, values), window in zip(self.cache.stores, windows, strict=True)]

    def _blocks(self, owners: Sequence[tuple[Span, int]], window: int | None) -> tuple[tuple[Tensor, Tensor], ...]:
        size, n = self.cache.page_size, self.block_pages
        # whole blocks, so that the page size makes no difference either
        firsts = [0 if window is None else max(0, place - window + 1) // (n * size) * n for _, place in owners]
        lists = [list(span.pages[first:place // size + 1]) for (span, place), first in zip(owners, firsts, strict=True)]
        width = -(-max(map(len, lists)) // n) * n
        table = torch.tensor([pages + [self.scratch] * (width - len(pages)) for pages in lists])
        last = torch.tensor([[place - first * size] for (_, place), first in zip(owners, firsts, strict=True)])
        slot = torch.arange(width * size)
        seen = slot <= last                                                   # (T, slots)
        if window is not None:
            seen &= slot > last - window
        mask = torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)[:, None, None].to(self.cache.device)
        return tuple(zip(table.to(self.cache.device).split(n, dim=1), mask.split(n * size, dim=-1), strict=True))
