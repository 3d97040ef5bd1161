"""Which item of which source stands in which row of the stream of batches: a pure function of seed and row.

A source's items (windows) come once in each of its epochs, in an order that the seed and the epoch decide. Where
there are several sources, each has an exact share of the rows, spread evenly, whatever its size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ayllu.errors import ConfigError

UNIT = 1 << 40                                           # shares are whole parts of it: float sums would drift


@dataclass(frozen=True)
class Part:
    """A stretch of the training ids with its share of the rows: what one weighted source has."""

    start: int
    end: int
    share: float                                         # of all shares; needn't sum to 1


class Order:
    """`at(row)` for any row, without walking there."""

    def __init__(self, counts: Sequence[int], shares: Sequence[float] | None = None, seed: int = 0) -> None:
        """`counts[s]` items lie in source s, numbered through all sources."""
        self.counts, self.seed = list(counts), seed
        self.first = np.concatenate([[0], np.cumsum(self.counts)]).tolist()
        self._odds = _odds(list(shares) if shares is not None else [1.0] * len(self.counts))
        if empty := [s for s, (n, odds) in enumerate(zip(self.counts, self._odds, strict=True)) if not n and odds]:
            raise ConfigError(f"source {empty[0]} of the mixture fills no window: take its weight away, give it more "
                              "text, or set a shorter context")
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def at(self, row: int) -> tuple[int, int]:
        """(item, epoch of its source) of a row, both counted from 0."""
        source, visit = self.turn(row)
        epoch, place = divmod(visit, self.counts[source])
        return self.first[source] + int(self._permutation(source, epoch)[place]), epoch

    def of_step(self, step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[tuple[int, int]]:
        """(item, epoch) of each of a rank's rows of a step. Ranks take turns: more of them see the same batches."""
        first = step * batch_size
        return [self.at(row) for row in range(first + rank, first + batch_size, world_size)]

    def turn(self, row: int) -> tuple[int, int]:
        """(source, how many rows it had before this one)."""
        for source, odds in enumerate(self._odds):
            before = row * odds // UNIT
            if (row + 1) * odds // UNIT > before:
                return source, before
            row -= before                                # the rows that are left to the sources after it
        raise AssertionError("the last source with a share takes every row that is left to it")

    def visits(self, rows: int) -> list[int]:
        """(sources,) how many of the first `rows` rows each source has."""
        out = []
        for odds in self._odds:
            out.append(rows * odds // UNIT)
            rows -= out[-1]
        return out

    def _permutation(self, source: int, epoch: int) -> np.ndarray:
        key = (source, epoch)
        if key not in self._orders:
            self._orders = {k: o for k, o in self._orders.items() if k[0] != source or k[1] == epoch - 1}
            seed = (self.seed, epoch, source) if source else (self.seed, epoch)
            self._orders[key] = np.random.default_rng(seed).permutation(self.counts[source])
        return self._orders[key]


def _odds(shares: list[float]) -> list[int]:
    """Of the rows that the sources before leave over, the part of UNIT that each source takes."""
    out, left = [], sum(shares)
    last = max((s for s, share in enumerate(shares) if share > 0), default=0)
    for source, share in enumerate(shares):
        out.append(UNIT if source == last else round(UNIT * share / left) if share else 0)
        left -= share
    return out
