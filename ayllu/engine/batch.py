"""A plan as tensors: the tokens of all rows side by side, where each is written, and whose logits are wanted.

Rows with a single new token come first, shorter ones before longer ones, so that their attention is few operations; the
others follow as chunks.

N tokens of all rows  C choosing tokens
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ayllu.engine.plan import Plan, Work
from ayllu.model.shown import Passage, Shown, shown_in

LAST = 1 << 60                                           # after every place in a row


class Span(NamedTuple):
    """The new tokens `begin` to `end` (of the N) of one row, which stand at `start` in it and are read from `pages`."""

    begin: int
    end: int
    start: int
    pages: Sequence[int]

    @property
    def length(self) -> int:
        """Tokens of the row, the new ones included."""
        return self.start + self.end - self.begin


@dataclass(frozen=True)
class FlatBatch:
    """What a runner computes in one step. `singles` are spans of one token each: the first tokens of the batch."""

    ids: Tensor                                          # (N,)
    positions: Tensor                                    # (N,)
    slots: Tensor                                        # (N,): page * page size + place in the page
    singles: tuple[Span, ...]
    chunks: tuple[Span, ...]
    works: tuple[Work, ...]                              # of all spans, in their order
    shown: Shown | None = None                           # (N,), (N, L): images and sounds among the tokens

    @property
    def spans(self) -> tuple[Span, ...]:
        """Of all rows."""
        return self.singles + self.chunks

    def on(self, device: torch.device) -> "FlatBatch":
        """The same with its tensors there."""
        if self.ids.device == device:
            return self
        ids, positions, slots = torch.stack((self.ids, self.positions, self.slots)).to(device)
        shown = None if self.shown is None else Shown(*(tensor.to(device) for tensor in self.shown))
        return replace(self, ids=ids, positions=positions, slots=slots, shown=shown)


def flat_batch(plan: Plan, page_size: int, device: torch.device, shows: torch.dtype | None = None) -> FlatBatch:
    """Lay the tokens of a plan out; with what is shown in them in the dtype `shows`, where one is given."""
    works = sorted(plan.work, key=lambda work: work.end if work.n_tokens == 1 else LAST)
    ids, positions, slots, spans, n_singles = list[int](), list[int](), list[int](), list[Span](), 0
    for work in works:
        begin, end, pages = work.begin, work.end + len(work.draft), work.row.pages
        spans.append(Span(len(ids), len(ids) + end - begin, begin, pages))
        if end - begin == 1:                             # nearly always
            ids.append(work.row.ids[begin])
            positions.append(begin)
            slots.append(pages[begin // page_size] * page_size + begin % page_size)
            n_singles += 1
            continue
        ids += work.row.ids[begin:work.end]
        ids += work.draft
        positions += range(begin, end)
        slots += [pages[place // page_size] * page_size + place % page_size for place in range(begin, end)]
    table = torch.from_numpy(np.array([ids, positions, slots])).to(device)    # of lists, numpy's is the faster way
    own = table.unbind()
    has_media = shows is not None and any(work.row.request.media for work in works)
    shown = _shown(works, spans, shows, device) if shows is not None and has_media else None
    return FlatBatch(own[0], own[1], own[2], tuple(spans[:n_singles]), tuple(spans[n_singles:]), tuple(works), shown)


def _shown(works: Sequence[Work], spans: Sequence[Span], dtype: torch.dtype, device: torch.device) -> Shown | None:
    """The part of each image and sound that this step computes; None where there is none."""
    passages = list[Passage]()
    for work, span in zip(works, spans, strict=True):
        for m in work.row.request.media:
            first, last = max(m.start, work.begin), min(m.start + m.length, work.end)
            if first < last:
                features = torch.from_numpy(m.features[first - m.start:last - m.start])
                passages.append((span.begin + first - work.begin, features))
    found = shown_in([passages], [0], spans[-1].end, dtype, device)
    return None if found is None else Shown(found.is_shown[0], found.features[0])
