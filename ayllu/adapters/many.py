"""Many adapters in one batch: each token gets what its own adapter adds, and nobody waits for another's.

`Bank` holds the matrices of all loaded adapters in one pair of buffers for each linear layer, filled up with zeros to
the largest rank, which changes nothing. Where many adapters have few tokens each (every row writes one), two batched
products serve all of them at once (S-LoRA, arXiv:2311.03285, and Punica, 2310.18547, do this in kernels of their own);
an adapter with many tokens, as when a prompt is read, gets two plain products over its tokens. There is no loop over
requests. `TiledBank` is for deterministic steps. The slow twin is one request after the other (tests/adapters).

N tokens  S slots  M tokens of one slot at most  R largest rank
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ayllu.adapters.lora import Adapter
from ayllu.adapters.names import modules
from ayllu.errors import ConfigError
from ayllu.model.adapt import Adapt
from ayllu.model.config import LlamaConfig

FEW = 4                                                  # tokens with which an adapter joins the batched product
Place = tuple[int, str]                                  # block and linear layer: 0, attention.wq
Ready = dict[Place, tuple[Tensor, Tensor]]               # A (R, inputs) and scale * B (outputs, R), as they are used


class Holds(Protocol):
    """Loaded adapters by slot."""

    def put(self, slot: int, adapter: Adapter) -> None: ...

    def drop(self, slot: int) -> None: ...

    def bytes_with(self, slot: int, adapter: Adapter) -> int: ...

    def adapt(self, owners: Sequence[int | None]) -> Adapt | None: ...


def ready(adapter: Adapter, dtype: torch.dtype, device: torch.device) -> Ready:
    """An adapter's matrices for a runner; the scale is multiplied into B once."""
    if adapter.config.use_dora:
        raise ConfigError("this is a DoRA adapter, whose stretching needs the whole weight: merge it into its base and "
                          "serve that")
    found = Ready()
    for name, pair in adapter.pairs.items():
        b = pair.b.float() * adapter.config.scale(name)
        found[_place(name)] = pair.a.to(device, dtype).contiguous(), b.to(device, dtype).contiguous()
    return found


def _place(name: str) -> Place:
    _, number, part = name.split(".", 2)
    return int(number), part


class Bank:
    """`adapt(owners)` is for tokens whose adapters lie in these slots; None: the plain model."""

    def __init__(self, config: LlamaConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self.widths = {_place(name): width for name, width in modules(config).items()}
        self.buffers: dict[Place, tuple[Tensor, Tensor]] = {}                 # (S, R, inputs), (S, R, outputs)
        self.changes = 0                                 # how often adapters came and went
        self.ranks: dict[int, dict[Place, int]] = {}                          # by slot

    @torch.inference_mode()
    def put(self, slot: int, adapter: Adapter) -> None:
        """Load an adapter into a free slot."""
        new = ready(adapter, self.dtype, self.device)
        self.ranks[slot] = _ranks(adapter)
        self._fit()
        for place, pair in new.items():
            for buffer, matrix in zip(self.buffers[place], (pair[0], pair[1].t()), strict=True):
                buffer[slot, :len(matrix)] = matrix

    @torch.inference_mode()
    def drop(self, slot: int) -> None:
        """Free a slot, and the memory that only it needed."""
        for place in self.ranks.pop(slot):
            for buffer in self.buffers[place]:
                buffer[slot] = 0
        self._fit()

    def bytes_with(self, slot: int, adapter: Adapter) -> int:
        """What the buffers would take with one more adapter."""
        n_slots, largest = _shapes({**self.ranks, slot: _ranks(adapter)})
        return n_slots * sum(rank * sum(self.widths[place]) for place, rank in largest.items()) * self.dtype.itemsize

    def adapt(self, owners: Sequence[int | None]) -> Adapt | None:
        """For one step of N tokens, given each one's slot; None where all are the plain model's."""
        return None if all(slot is None for slot in owners) else Mixed(self, owners)

    def _fit(self) -> None:
        """Let the buffers have the sizes that the loaded adapters need."""
        n_slots, largest = _shapes(self.ranks)
        before, self.buffers = self.buffers, {}
        for place, rank in largest.items():
            old = before.pop(place, None)
            if old is None or old[0].shape[:2] != (n_slots, rank):
                inputs, outputs = self.widths[place]
                shapes = (n_slots, rank, inputs), (n_slots, rank, outputs)
                a, b = (self._resized(shape, old and old[i]) for i, shape in enumerate(shapes))
                old = a, b
            self.buffers[place] = old
        self.changes += 1

    def _resized(self, shape: tuple[int, int, int], old: Tensor | None) -> Tensor:
        new = torch.zeros(shape, dtype=self.dtype, device=self.device)
        if old is not None:
            i, j, k = (min(pair) for pair in zip(shape, old.shape, strict=True))
            new[:i, :j, :k] = old[:i, :j, :k]
        return new


def _ranks(adapter: Adapter) -> dict[Place, int]:
    return {_place(name): len(pair.a) for name, pair in adapter.pairs.items()}


def _shapes(ranks: dict[int, dict[Place, int]]) -> tuple[int, dict[Place, int]]:
    """S, a power of two, and R of each linear layer, for adapters in these slots."""
    largest: dict[Place, int] = {}
    for own in ranks.values():
        for place, rank in own.items():
            largest[place] = max(rank, largest.get(place, 0))
    return 1 << max(ranks).bit_length() if ranks else 0, largest


@dataclass(frozen=True, eq=False)
class _Together:
    """Adapters with few tokens each, slot by slot: filled up to M tokens, of which some are nobody's."""

    table: Tensor                                        # (S, M): which token; 0 where there is none
    places: Tensor                                       # of the S * M, those that count
    rows: Tensor                                         # whose they are


def _together(rows: dict[int, list[int]], end: int, device: torch.device) -> _Together:
    most = max(map(len, rows.values()))
    table = [[*rows.get(slot, []), *[0] * (most - len(rows.get(slot, [])))] for slot in range(end)]
    places = [slot * most + i for slot in range(end) for i in range(len(rows.get(slot, [])))]
    owners = [row for slot in range(end) for row in rows.get(slot, [])]
    return _Together(*(torch.tensor(x, device=device) for x in (table, places, owners)))


class Mixed:
    """One step's tokens, by the slots of their adapters. Whoever doesn't call it doesn't pay for the sorting."""

    def __init__(self, bank: Bank, owners: Sequence[int | None]) -> None:
        self.bank, self.owners = bank, owners

    @functools.cached_property
    def _sorted(self) -> "tuple[tuple[tuple[int, Tensor | None], ...], _Together | None]":
        """Each slot with its tokens, None for all there are; and the slots with few tokens."""
        rows, device = dict[int, list[int]](), self.bank.device
        for row, slot in enumerate(self.owners):
            if slot is not None:
                rows.setdefault(slot, []).append(row)
        few = {slot: found for slot, found in rows.items() if len(found) <= FEW}
        end = max(few, default=-1) + 1
        if len(few) < 2 or 2 * len(few) < end:           # half of what a batched product reads would be for nobody
            few = {}
        alone = tuple((slot, None if len(found) == len(self.owners) else torch.tensor(found, device=device))
                      for slot, found in rows.items() if slot not in few)
        return alone, _together(few, end, device) if few else None

    def __call__(self, layer: int, part: str, x: Tensor, y: Tensor) -> None:  # (N, inputs), (N, outputs)
        place = layer, part
        if place not in self.bank.buffers:
            return
        a, b = self.bank.buffers[place]
        alone, together = self._sorted
        for slot, rows in alone:
            rank = self.bank.ranks[slot].get(place)
            if rank is None:
                continue
            own = x if rows is None else x[rows]
            more = F.linear(own, a[slot, :rank]) @ b[slot, :rank]
            if rows is None:
                y += more
            else:
                y.index_add_(0, rows, more)
        if (t := together) is not None:
            n = len(t.table)
            low = torch.bmm(x[t.table], a[:n].transpose(1, 2))                # (S, M, R)
            more = torch.bmm(low, b[:n])                                      # (S, M, outputs)
            y.index_add_(0, t.rows, more.flatten(0, 1)[t.places])


class TiledBank:
    """For deterministic steps: every product is over all tokens of a tile, whosever they are, so that what a token gets
    doesn't depend on its neighbours; each adapter's matrices lie by themselves, so that it doesn't depend on what else
    is loaded."""

    def __init__(self, config: LlamaConfig, dtype: torch.dtype, device: torch.device, tile: int) -> None:
        self.dtype, self.device, self.tile = dtype, device, tile
        self.slots: dict[int, Ready] = {}

    @torch.inference_mode()
    def put(self, slot: int, adapter: Adapter) -> None:
        """Load an adapter, unless on this machine a token's result depends on its place in the tile."""
        new = ready(adapter, self.dtype, self.device)
        for (layer, part), (a, b) in new.items():
            x = torch.randn(1, a.shape[1], generator=torch.Generator().manual_seed(layer)).to(self.device, self.dtype)
            y = F.linear(F.linear(x.expand(self.tile, -1).contiguous(), a), b)
            if not torch.equal(y, y[:1].expand_as(y)):
                raise ConfigError(f"deterministic=True: on this machine the adapter's result for {part} depends on a "
                                  "row's place in the product, so equal bits can't be promised; try another dtype")
        self.slots[slot] = new

    def drop(self, slot: int) -> None:
        """Free a slot."""
        del self.slots[slot]

    def bytes_with(self, slot: int, adapter: Adapter) -> int:
        """What all matrices would take with one more adapter."""
        held = [t for own in self.slots.values() for pair in own.values() for t in pair]
        n = sum(t.numel() for t in held) + sum(p.a.numel() + p.b.numel() for p in adapter.pairs.values())
        return n * self.dtype.itemsize

    def adapt(self, owners: Sequence[int | None]) -> Adapt | None:
        """For one tile."""
        used = sorted({slot for slot in owners if slot is not None})
        masks = [(self.slots[slot], torch.tensor([[owner == slot] for owner in owners], device=self.device))
                 for slot in used]

        def add(layer: int, part: str, x: Tensor, y: Tensor) -> None:
            for own, mask in masks:                      # a token has one adapter: the order makes no difference
                if (layer, part) in own:
                    a, b = own[layer, part]
                    y.copy_(torch.where(mask, y + F.linear(F.linear(x, a), b), y))

        return add if masks else None
