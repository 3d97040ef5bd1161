"""Batches of training windows: a pure function of (seed, step), so that a resume needs only the step number."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ayllu.data.order import Order, Part


@dataclass(frozen=True)
class Batch:
    """`ids` (B, T) and `labels` (B, T), the next id at each place; -100 where nothing is learned."""

    ids: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return self.ids.shape[0]

    def split(self, rows: int) -> Iterator["Batch"]:
        """Micro-batches of at most `rows` rows."""
        for i in range(0, len(self), rows):
            yield Batch(self.ids[i:i + rows], self.labels[i:i + rows])

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(self.ids.to(device, non_blocking=True), self.labels.to(device, non_blocking=True))


@dataclass
class WindowLoader:
    """Windows of T + 1 ids, each drawn once per epoch in an order that the seed and the epoch decide.

    Every rank takes its own rows of the same global batch: more ranks see the same batches. With `parts`, each part
    of the ids has its own share of the rows and its own epochs.
    """

    tokens: np.ndarray                                   # (tokens,), may be memory-mapped
    context: int
    batch_size: int                                      # rows over all ranks
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    parts: tuple[Part, ...] = ()                         # () is one part that holds all

    def __post_init__(self) -> None:
        parts = self.parts or (Part(0, len(self.tokens), 1.0),)
        counts = [max(part.end - part.start - 1, 0) // self.context for part in parts]
        self.order = Order(counts, [part.share for part in parts], self.seed)
        self._starts = np.concatenate([part.start + self.context * np.arange(n)
                                       for part, n in zip(parts, counts, strict=True)])

    def batch(self, step: int) -> Batch:
        """The rows of this rank for one step."""
        items = self.order.of_step(step, self.batch_size, self.rank, self.world_size)
        starts = [int(self._starts[item]) for item, _ in items]
        rows = np.stack([self.tokens[start:start + self.context + 1] for start in starts])       # (B, T + 1)
        ids = torch.from_numpy(rows.astype(np.int64))
        return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
