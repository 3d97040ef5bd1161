"""Batches of labelled texts as ids: a pure function of seed and step, so that a resume needs only the step number.

B batch  T tokens  N labels
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ayllu.data.labelled import SHOWN, Labelled
from ayllu.data.order import Order
from ayllu.errors import DataError
from ayllu.model.heads import TooLong
from ayllu.text.tokenizer import Tokenizer

IGNORED = -100                                           # the label of a token that begins no word


@dataclass(frozen=True)
class TextBatch:
    """Texts of different lengths, padded at the right to the longest."""

    ids: Tensor                                          # (B, T)
    is_token: Tensor                                     # (B, T), False on padding
    labels: Tensor                                       # (B,) long; (B, N) or (B,) float; (B, T) long, -100 ignored

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, rows: int) -> Iterator["TextBatch"]:
        """Micro-batches of rows that are about as long, each as wide as its longest."""
        lengths = self.is_token.sum(1)
        order = lengths.argsort(stable=True)
        for i in range(0, len(self), rows):
            part = order[i:i + rows]
            T = int(lengths[part[-1]])
            labels = self.labels[part]
            yield TextBatch(self.ids[part, :T], self.is_token[part, :T],
                            labels[:, :T] if labels.shape[1:] == self.ids.shape[1:] else labels)

    def to(self, device: torch.device) -> "TextBatch":
        """The same batch on another device."""
        return TextBatch(*(t.to(device, non_blocking=True) for t in (self.ids, self.is_token, self.labels)))


@dataclass(frozen=True)
class Texts:
    """Rows as ids with what they are labelled, as numbers."""

    ids: list[list[int]]
    labels: list[int | float | list[float] | list[int]]

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Sequence[int]) -> TextBatch:
        """Some of them, padded."""
        T = max(len(self.ids[row]) for row in rows)
        ids, is_token = np.zeros((len(rows), T), np.int64), np.zeros((len(rows), T), bool)
        for i, row in enumerate(rows):
            n = len(self.ids[row])
            ids[i, :n], is_token[i, :n] = self.ids[row], True
        found, seen = labels_of(self, rows), torch.from_numpy(is_token)
        if by_token(self.labels[rows[0]]):
            found = torch.full(ids.shape, IGNORED).masked_scatter_(seen, found)
        return TextBatch(torch.from_numpy(ids), seen, found)

    def in_order(self, rows: int) -> Iterator[tuple[list[int], TextBatch]]:
        """All of them once, those of a length together: (which they are, the batch)."""
        order = sorted(range(len(self)), key=lambda row: len(self.ids[row]))
        for first in range(0, len(order), rows):
            part = order[first:first + rows]
            yield part, self.batch(part)


def by_token(label: object) -> bool:
    """Whether this is a list of each token's label; yes and no for many labels are floats."""
    return isinstance(label, list) and isinstance((label or [0.0])[0], int)


def labels_of(texts: Texts, rows: Sequence[int]) -> Tensor:
    """(B,) long, (B, N) or (B,) float; where tokens have labels, those of one text after the other, long."""
    labels = [texts.labels[row] for row in rows]
    if by_token(labels[0]):
        return torch.tensor([n for label in labels for n in label])           # type: ignore[union-attr]
    return torch.tensor(labels, dtype=torch.long if isinstance(labels[0], int) else torch.float32)


def as_numbers(rows: Sequence[Labelled], names: Sequence[str], kind: str) -> Tensor:
    """(n,) long or (n, N) float: labels of whole texts."""
    number = {name: i for i, name in enumerate(names)}
    return labels_of(Texts([], [_numbers(row, number, kind, [], 0) for row in rows]), range(len(rows)))


@dataclass
class LabelLoader:
    """Each text once in an epoch, in an order that the seed and the epoch decide."""

    texts: Texts
    batch_size: int                                      # rows over all ranks
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        self.order = Order([len(self.texts)], None, self.seed)

    def batch(self, step: int) -> TextBatch:
        """The texts of this rank for one step."""
        return self.texts.batch(self.rows(step))

    def rows(self, step: int) -> list[int]:
        """Their numbers."""
        return [row for row, _ in self.order.of_step(step, self.batch_size, self.rank, self.world_size)]


@dataclass(frozen=True)
class Reading:
    """How texts become ids. `context` is the most tokens, `too_long` what becomes of longer texts."""

    tokenizer: Tokenizer
    context: int
    too_long: TooLong

    def ids(self, text: str | tuple[str, ...]) -> tuple[list[int], list[int]]:
        """All ids, and where each word begins (nowhere in a text that isn't given as words)."""
        has_bos = self.tokenizer.bos_id is not None
        if isinstance(text, str):
            return self.tokenizer.encode(text, bos=has_bos), []
        ids, begins = [self.tokenizer.bos_id] * has_bos, []
        for word in text:
            begins.append(len(ids))
            ids += self.tokenizer.encode(word)
        return ids, begins                               # type: ignore[return-value]

    def fit(self, ids: list[int]) -> list[int]:
        """The ids, or what is kept of them."""
        if len(ids) <= self.context or self.too_long == "error":
            return ids
        if self.too_long == "begin":
            return ids[:self.context]
        last = self.context // 2
        return ids[:self.context - last] + ids[-last:]


def encode(rows: Sequence[Labelled], reading: Reading, names: Sequence[str], kind: str) -> tuple[Texts, int]:
    """The rows as ids and numbers, and how many of them were cut; DataError where none may be."""
    number = {name: i for i, name in enumerate(names)}
    out, long = Texts([], []), list[tuple[Labelled, int]]()
    for row in rows:
        ids, begins = reading.ids(row.text)
        if len(ids) > reading.context:
            long.append((row, len(ids)))
        kept = reading.fit(ids)
        out.ids.append(kept)
        out.labels.append(_numbers(row, number, kind, begins, len(kept)))
    if (long and reading.too_long == "error") or (long and kind == "tokens"):
        shown = "; ".join(f"{row.file}, row {row.line}: {n:,} tokens" for row, n in long[:SHOWN])
        choose = ("cut them into shorter ones" if kind == "tokens" else
                  "choose --too-long begin (their first tokens are read) or --too-long ends (first and last ones)")
        raise DataError(f"{len(long):,} of {len(rows):,} texts are longer than {reading.context:,} tokens: {shown}. "
                        f"{choose[0].upper()}{choose[1:]}, or allow more with --context")
    return out, len(long)


def _numbers(row: Labelled, number: dict[str, int], kind: str, begins: list[int],
             length: int) -> int | float | list[float] | list[int]:
    match kind:
        case "single":
            return number[str(row.label)]
        case "multi":
            return [float(name in row.labels) for name in number]
        case "tokens":
            marks = [IGNORED] * length
            for place, name in zip(begins, row.labels, strict=True):
                if place < length:
                    marks[place] = number[name]
            return marks
    assert isinstance(row.label, float)
    return row.label
