"""Batches of conversations, packed whole: a pure function of the seed and the step."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ayllu.config import Settings
from ayllu.data.chats import Encoded
from ayllu.data.mask_marks import Marks
from ayllu.data.masks import Example
from ayllu.data.order import Order
from ayllu.data.pack import pack
from ayllu.data.pack_loader import PackedBatch, filled
from ayllu.errors import DataError


class ChatPacking(Settings):
    """How conversations become windows, and what computes who sees whom."""

    kind: Literal["best_fit", "none"] = "best_fit"       # none: one to each window, and the rest is padding
    attention: Literal["auto", "sdpa", "flex"] = "auto"  # auto: flex on a GPU where training is compiled, else sdpa


@dataclass
class ChatLoader:
    """Windows of whole samples, each once per epoch; a sample sees itself only. Ranks take turns, as in WindowLoader.

    It has the face of PackedLoader that `ayllu data inspect` looks at.
    """

    encoded: Encoded
    marks: Marks
    context: int                                         # places of a window
    batch_size: int                                      # rows over all ranks
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    kind: Literal["best_fit", "none"] = "best_fit"

    def __post_init__(self) -> None:
        room = (lambda n: n - 1) if self.kind == "best_fit" else (lambda n: max(n - 1, self.context))
        self.packing = pack(self.encoded.starts, len(self.encoded.ids), self.context, room)
        self.order = Order([len(self.packing)], None, self.seed)

    def batch(self, step: int) -> PackedBatch:
        """The rows of this rank for one step; DataError where they teach nothing."""
        counts: Counter[str] = Counter()
        found = filled([self.examples(window) for window, _ in self.windows(step)], self.context, self.marks.pad or 0,
                       counts)
        if not counts["learned"]:
            raise DataError(f"the batch of step {step} teaches nothing: all of its labels are hidden; look at it with "
                            f"ayllu data inspect --step {step}")
        return found

    def windows(self, step: int) -> list[tuple[int, int]]:
        """(window, epoch) of each row of this rank at a step."""
        return self.order.of_step(step, self.batch_size, self.rank, self.world_size)

    def examples(self, window: int, epoch: int = 0, step: int = 0) -> list[Example]:
        """The samples of one window; they are the same at each visit."""
        out = []
        for piece in self.packing.window(window):
            here = slice(int(self.packing.starts[piece]), int(self.packing.ends[piece]))
            ids = self.encoded.ids[here].astype(np.int64)
            out.append(Example("chat", ids[:-1], ids[1:], self.encoded.weights[here][1:]))
        return out

    def in_order(self, rows: int, most: int | None = None) -> Iterator[PackedBatch]:
        """All windows once, `rows` at a time, or the first ones up to `most` places: what an evaluation reads."""
        n = len(self.packing) if most is None else min(len(self.packing), max(most // self.context, 1))
        for first in range(0, n, rows):
            yield filled([self.examples(window) for window in range(first, min(first + rows, n))], self.context,
                         self.marks.pad or 0, Counter())
