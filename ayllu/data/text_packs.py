"""Labelled texts side by side in one row without padding: what a head learns from fast on a CPU.

Its slow twin is TextBatch (label_loader.py): the same texts, each padded to the longest.

N tokens  B texts  C labels
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ayllu.data.label_loader import LabelLoader, Texts, labels_of

TOKENS = 4096                                            # of a pack: enough for full products, few for the caches


@dataclass(frozen=True)
class TextPack:
    """Whole texts, one after the other."""

    ids: Tensor                                          # (N,)
    text: Tensor                                         # (N,) which of the B texts, ascending
    place: Tensor                                        # (N,) in its text, ascending from 0; hidden ones leave gaps
    labels: Tensor                                       # (B,) long; (B, C) or (B,) float; (N,) long, -100 ignored

    def to(self, device: torch.device) -> "TextPack":
        """The same on another device."""
        return TextPack(*(t.to(device) for t in (self.ids, self.text, self.place, self.labels)))

    def kept(self, which: Tensor) -> "TextPack":          # (N,) bool
        """Without the tokens that nobody is to see: what is left doesn't move. Each text must keep one."""
        return replace(self, ids=self.ids[which], text=self.text[which], place=self.place[which])


@dataclass(frozen=True)
class PackedRows:
    """The texts of one step, on this rank."""

    texts: Texts
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, most: int) -> Iterator[TextPack]:
        """Packs of at most `most` texts and TOKENS tokens; a longer text stands alone."""
        lengths = [len(self.texts.ids[row]) for row in self.rows]
        for numbers in batches(lengths, rows=most):
            yield pack(self.texts, [self.rows[i] for i in numbers])


@dataclass(frozen=True)
class PackLoader:
    """The texts that a LabelLoader gives, to be packed."""

    loader: LabelLoader

    def batch(self, step: int) -> PackedRows:
        """Those of this rank for one step."""
        return PackedRows(self.loader.texts, self.loader.rows(step))


def pack(texts: Texts, rows: Sequence[int]) -> TextPack:
    """Some of them, in this order."""
    lengths = torch.tensor([len(texts.ids[row]) for row in rows])             # (B,)
    text = torch.arange(len(rows)).repeat_interleave(lengths)                 # (N,)
    first = (lengths.cumsum(0) - lengths)[text]
    ids = torch.tensor([i for row in rows for i in texts.ids[row]])
    return TextPack(ids, text, torch.arange(len(ids)) - first, labels_of(texts, rows))


def batches(lengths: Sequence[int], most: int = TOKENS, rows: int | None = None) -> Iterator[list[int]]:
    """Numbers of texts in order, of `most` tokens together and no more than `rows`; a longer text runs alone."""
    batch: list[int] = []
    n = 0
    for i, length in enumerate(lengths):
        if batch and (n + length > most or len(batch) == rows):
            yield batch
            batch, n = [], 0
        batch.append(i)
        n += length
    if batch:
        yield batch
