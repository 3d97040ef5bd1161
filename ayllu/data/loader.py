"""Batches of training windows: a pure function of (seed, step), so that a resume needs only the step number."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


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

    Every rank takes its own rows of the same global batch: more ranks see the same batches.
    """

    tokens: np.ndarray                                   # (tokens,), may be memory-mapped
    context: int
    batch_size: int                                      # rows over all ranks
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        self.n_windows = (len(self.tokens) - 1) // self.context
        self._orders: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> Batch:
        """The rows of this rank for one step."""
        first = step * self.batch_size
        mine = range(first + self.rank, first + self.batch_size, self.world_size)
        rows = np.stack([self._window(i) for i in mine])                 # (B, T + 1)
        ids = torch.from_numpy(rows.astype(np.int64))
        return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())

    def _window(self, i: int) -> np.ndarray:
        epoch, place = divmod(i, self.n_windows)
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = np.random.default_rng((self.seed, epoch)).permutation(self.n_windows)
        start = int(self._orders[epoch][place]) * self.context
        return self.tokens[start:start + self.context + 1]
