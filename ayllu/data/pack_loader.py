"""Batches of packed and masked documents: a pure function of the seed, the step and, where asked for, the loss."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ayllu.data.mask_marks import Marks
from ayllu.data.mask_schedule import Moment
from ayllu.data.masks import IGNORED, Example, Mixture, hide, left_causal, longest
from ayllu.data.order import Order, Part
from ayllu.data.pack import pack_parts
from ayllu.errors import DataError
from ayllu.model.attend import Masked, window_mask

COLUMNS = ("ids", "labels", "weights", "document", "positions", "two_way")
PADDING = -1                                             # the document number of places that hold nothing


@dataclass(frozen=True)
class PackedBatch:
    """Rows of whole documents. `positions` count from 0 in each document; padding is a document of its own."""

    ids: Tensor                                          # (B, T) int64
    labels: Tensor                                       # (B, T) int64, -100 where nothing is learned
    weights: Tensor                                      # (B, T) float32, of each place in the loss
    document: Tensor                                     # (B, T) int64, counted in each row; PADDING where empty
    positions: Tensor                                    # (B, T) int64
    two_way: Tensor                                      # (B, T) bool: seen by all of its document
    counts: Counter[str] = field(default_factory=Counter)    # of the whole rank's batch: objectives, notes, places
    ends: tuple[int, ...] = ()                           # where each row's padding begins, if that is known

    def __len__(self) -> int:
        return self.ids.shape[0]

    def split(self, rows: int) -> Iterator["PackedBatch"]:
        """Micro-batches of at most `rows` rows."""
        for i in range(0, len(self), rows):
            yield self._with({"ends": self.ends[i:i + rows],
                              **{name: tensor[i:i + rows] for name, tensor in self.tensors().items()}})

    def trimmed(self) -> "PackedBatch":
        """Without the padding that ends all rows."""
        end = max(self.ends, default=self.ids.shape[1])
        return self._with({name: tensor[:, :end] for name, tensor in self.tensors().items()})

    def to(self, device: torch.device) -> "PackedBatch":
        """The same batch on another device."""
        return self._with({name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    def _with(self, changes: dict[str, Any]) -> "PackedBatch":
        return replace(self, **changes)

    def attend(self, window: int | None = None, dropout: float = 0.0) -> Masked:
        """Who sees whom: only the own document, of it what came before, and its two-way places from everywhere.

        Where nothing is two-way, this is `packed(document)`. `window` limits how far back causal places see.
        """
        T = self.ids.shape[1]
        same = self.document[:, :, None] == self.document[:, None, :]        # (B, T, T)
        causal = window_mask(T, window or T, self.ids.device)
        return Masked(same & (causal | self.two_way[:, None, :]), dropout)


def filled(rows: list[list[Example]], context: int, pad: int, counts: Counter[str]) -> PackedBatch:
    """The batch whose rows hold these pieces side by side; `counts` is added to and kept with it."""
    made = [_row(examples, context, pad, counts) for examples in rows]
    return PackedBatch(**{name: torch.from_numpy(np.stack([row[name] for row in made])) for name in COLUMNS},
                       counts=counts, ends=tuple(sum(map(len, examples)) for examples in rows))


def _row(examples: list[Example], T: int, pad: int, counts: Counter[str]) -> dict[str, np.ndarray]:
    ids = np.full(T, pad, dtype=np.int64)
    labels, document = np.full(T, IGNORED, dtype=np.int64), np.full(T, PADDING, dtype=np.int64)
    weights, positions = np.zeros(T, dtype=np.float32), np.zeros(T, dtype=np.int64)
    two_way = np.zeros(T, dtype=bool)
    at = 0
    for number, example in enumerate(examples):
        n = len(example)
        here = slice(at, at + n)
        ids[here], weights[here] = example.inputs, example.weights
        labels[here] = np.where(example.weights > 0, example.targets, IGNORED)
        document[here], positions[here] = number, np.arange(n)
        two_way[at:at + example.prefix] = True
        at += n
        counts.update([f"objective/{example.objective}"] + ([f"note/{example.note}"] if example.note else []))
        counts["learned"] += int((example.weights > 0).sum())
    counts["filled"] += at
    counts["places"] += T
    return {"ids": ids, "labels": labels, "weights": weights, "document": document, "positions": positions,
            "two_way": two_way}


@dataclass
class PackedLoader:
    """Windows of whole documents, each window once per epoch, masked afresh at each visit.

    Every rank takes its own rows of the same global batch, as in WindowLoader. Windows are packed once; the seed and
    the epoch decide their order. With `reserve=None` a window has room for the longest form that a mask may ever
    take. A share, such as 0.1, sets aside only so much more than the plain document; a masked piece that then doesn't
    fit is left causal and counted as "no_room".
    """

    tokens: np.ndarray                                   # (tokens,), may be memory-mapped
    marks: Marks
    context: int                                         # places of a window
    batch_size: int                                      # rows over all ranks
    mixture: Mixture = field(default_factory=Mixture)
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    reserve: float | None = None
    parts: tuple[Part, ...] = ()                         # stretches of the ids with their shares; () is one

    def __post_init__(self) -> None:
        parts = self.parts or (Part(0, len(self.tokens), 1.0),)
        self.packing, counts = pack_parts(self.tokens, [(p.start, p.end) for p in parts], self.marks.bos,
                                          self.marks.eos, self.context, self._room)
        if not len(self.packing):
            raise DataError("no document has two ids or more: there is nothing to train on")
        self.order = Order(counts, [part.share for part in parts], self.seed)
        self.loss: float | None = None
        self._last: Counter[str] = Counter()             # what the newest batch held,
        self._seen: float | None = None                  # and the loss that its masks were drawn by

    def observe(self, loss: float) -> None:
        """Tell the loss (over all ranks, nats per learned token) of the step just done, for loss-driven schedules.

        A loss that is no number says nothing: such a step was not learned from.
        """
        if math.isfinite(loss):
            keep = 0.0 if self.loss is None else self.mixture.smoothing
            self.loss = keep * (self.loss or 0.0) + (1 - keep) * loss

    def row(self) -> dict[str, float]:
        """For the log, of this rank's newest batch: the share of its places that teach and that hold something, of
        its pieces by objective and by what was not as asked, and the loss that schedules saw.
        """
        pieces = sum(n for key, n in self._last.items() if key.startswith("objective/"))
        places = self._last["places"]
        if not places:
            return {}
        out = {f"masks/{key}": round(self._last[key] / places, 4) for key in ("learned", "filled")}
        out |= {f"masks/{key}": round(n / pieces, 4) for key, n in sorted(self._last.items()) if "/" in key}
        return out if self._seen is None else {**out, "masks/loss": self._seen}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: the smoothed loss. All else follows from seed and step."""
        return {"loss": self.loss}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.loss = state["loss"]

    def batch(self, step: int) -> PackedBatch:
        """The rows of this rank for one step."""
        counts: Counter[str] = Counter()
        rows = [self.examples(window, epoch, step) for window, epoch in self.windows(step)]
        self._last, self._seen = counts, self.loss
        return filled(rows, self.context, self.marks.pad or 0, counts)

    def windows(self, step: int) -> list[tuple[int, int]]:
        """(window, epoch) of each row of this rank at a step."""
        return self.order.of_step(step, self.batch_size, self.rank, self.world_size)

    def examples(self, window: int, epoch: int, step: int) -> list[Example]:
        """The masked pieces of one window at one visit."""
        pieces = [(self.packing.documents[p], self.packing.starts[p], self.packing.ends[p])
                  for p in self.packing.window(window)]
        left = self.context - sum(int(end - start) - 1 for _, start, end in pieces)    # past the plain form of all
        out = []
        for document, start, end in pieces:
            ids = self.tokens[start:end]
            key = (self.seed, int(document), int(start), epoch, step)
            example = hide(self.mixture, ids, self.marks, Moment(step, self.loss), key)
            if len(example) - (len(ids) - 1) > left:
                example = left_causal(example, ids)
            left -= len(example) - (len(ids) - 1)
            out.append(example)
        return out

    def _room(self, n: int) -> int:
        most = longest(self.mixture, n)
        return most if self.reserve is None else min(most, int(np.ceil((n - 1) * (1 + self.reserve))))
