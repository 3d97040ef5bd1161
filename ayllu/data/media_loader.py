"""Batches of conversations with images and sounds: a pure function of the seed and the step.

B rows  T tokens  N features of one medium  L width of the Llama
"""

import functools
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ayllu.data.media_jitter import Jitter, jittered
from ayllu.data.media_rows import Folder, MediaFile, MediaRow
from ayllu.data.order import Order
from ayllu.data.rows import BadRow, Reject, each
from ayllu.errors import BadMedia, DataError, RequestError
from ayllu.media.marks import mark_ids, marks_of
from ayllu.media.senses import Kind, Medium, Senses
from ayllu.media.splice import Place, expanded
from ayllu.text.chat import ChatTemplate
from ayllu.text.marks import MEDIA
from ayllu.text.tokenizer import Tokenizer

KEPT_BYTES = 1 << 30                                     # of decoded media, so that a second epoch reads no file


@dataclass(frozen=True)
class AsText:
    """A row, or a batch of them (B, T), with transcripts in place of its media: its answers are the same ids."""

    ids: Any
    weights: Any


@dataclass(frozen=True)
class MediaSample:
    """One row as ids, placeholders and all. `weights[i]` is the weight of predicting `ids[i]`."""

    ids: np.ndarray                                      # (T,) int64
    weights: np.ndarray                                  # (T,) float32
    places: tuple[Place, ...]
    media: tuple[MediaFile, ...]
    row: str                                             # file and line
    text: AsText | None = None                           # arrays


@dataclass(frozen=True)
class MediaBatch:
    """Rows padded at the right; `media[i]` are those of row i, whose `places` count from its first token."""

    ids: Tensor                                          # (B, T)
    labels: Tensor                                       # (B, T)
    weights: Tensor                                      # (B, T)
    places: tuple[tuple[Place, ...], ...]
    media: tuple[tuple[Medium, ...], ...]
    text: AsText | None = None                           # tensors

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, rows: int) -> Iterator["MediaBatch"]:
        """Micro-batches."""
        for i in range(0, len(self), rows):
            part = slice(i, i + rows)
            text = None if self.text is None else AsText(self.text.ids[part], self.text.weights[part])
            yield MediaBatch(self.ids[part], self.labels[part], self.weights[part], self.places[part],
                             self.media[part], text)

    def to(self, device: torch.device) -> "MediaBatch":
        """The same batch on another device; media follow when they are encoded."""
        ids, labels, weights = (t.to(device, non_blocking=True) for t in (self.ids, self.labels, self.weights))
        text = self.text and AsText(self.text.ids.to(device), self.text.weights.to(device))
        return MediaBatch(ids, labels, weights, self.places, self.media, text)


def counter(senses: Senses) -> Callable[[MediaFile], int]:
    """How many placeholders a file has; only where that depends on its content is it read."""
    most = senses.config.most_features

    @functools.lru_cache(maxsize=1 << 20)
    def count(kind: Kind, folder: Folder, name: str) -> int:
        try:
            return senses.medium(kind, folder.read(name), name).n_features
        except (BadMedia, DataError) as error:
            raise BadRow(str(error)) from error

    def of(file: MediaFile) -> int:
        kind: Kind = "image" if file.kind == "image" else "audio"
        if kind not in most:
            raise BadRow(f"{file.name} is {'an image' if kind == 'image' else 'a sound'}, and these senses have no "
                         f"{'eye' if kind == 'image' else 'ear'}")
        if senses.config.cross:
            return 1                                     # the mark alone: the features stand beside the text
        return most[kind] if senses.config.has_one_length(kind) else count(kind, file.folder, file.name)

    return of


def encode_media(row: MediaRow, tokenizer: Tokenizer, template: ChatTemplate,
                 length: Callable[[MediaFile], int]) -> MediaSample:
    """Every answer is learned, no placeholder is; BadRow where that teaches nothing or isn't possible."""
    media = marks_of(tokenizer)
    lengths = [length(file) for file in row.media]
    try:
        found = template.render(list(row.messages), tokenizer, media=media)
    except RequestError as error:
        raise BadRow(str(error)) from error
    weights = np.zeros(len(found.ids), np.float32)
    for start, end in found.spans:
        weights[start:end] = 1
    marks = mark_ids(tokenizer)
    ids, places = expanded(found.ids, marks, lengths)
    wide = np.zeros(len(ids), np.float32)
    kept = np.ones(len(ids), bool)
    for place in places:
        kept[place.start:place.start + place.length] = False
    wide[kept] = weights[[id not in marks for id in found.ids]]
    wide[:1] = 0                                         # nothing comes before the first id that could predict it
    if not wide.any():
        raise BadRow("it teaches nothing: there is no answer after the image or sound")
    return MediaSample(np.array(ids, np.int64), wide, tuple(places), row.media, f"{row.file}, row {row.line}")


def as_text(row: MediaRow, sample: MediaSample, tokenizer: Tokenizer, template: ChatTemplate) -> AsText:
    """What a Llama reads that is told in words what another hears."""
    if not row.transcripts:
        raise BadRow("it has no transcript, which [kl] needs: what a text in the place of the image or sound would say")
    said = iter(row.transcripts)

    def told(content: Any) -> Any:
        return re.sub(f"[{''.join(MEDIA.values())}]", lambda _: next(said), content)

    messages = [{**message, "content": told(message["content"])} for message in row.messages]
    try:
        found = template.render(messages, tokenizer)
    except RequestError as error:
        raise BadRow(str(error)) from error
    weights = np.zeros(len(found.ids), np.float32)
    for start, end in found.spans:
        weights[start:end] = 1
    ids = np.array(found.ids, np.int64)
    if not np.array_equal(ids[weights > 0], sample.ids[sample.weights > 0]):
        raise BadRow("with its transcript the answer has other ids: the template or the tokenizer joins it to what "
                     "stands before")
    return AsText(ids, weights)


def samples(rows: Iterator[MediaRow | Reject], tokenizer: Tokenizer, template: ChatTemplate,
            length: Callable[[MediaFile], int], context: int,
            with_text: bool = False) -> tuple[list[MediaSample], list[Reject]]:
    """Rows that fit and teach, and the others with their reasons."""
    found: list[MediaSample] = []
    rejects: list[Reject] = []

    def encoded(row: MediaRow) -> list[MediaSample]:
        sample = encode_media(row, tokenizer, template, length)
        if len(sample.ids) - 1 > context:
            raise BadRow(f"{len(sample.ids)} ids with its placeholders, context={context} takes {context + 1}")
        return [replace(sample, text=as_text(row, sample, tokenizer, template)) if with_text else sample] * row.times

    for made in each(rows, encoded):
        rejects.append(made) if isinstance(made, Reject) else found.extend(made)
    return found, rejects


@dataclass
class MediaReader:
    """Files as an encoder takes them, kept so that a second epoch reads none."""

    senses: Senses
    kept: "OrderedDict[tuple[str, str], Medium]" = field(default_factory=OrderedDict)
    n_bytes: int = 0

    def medium(self, file: MediaFile, row: str) -> Medium:
        """One file; DataError names the row where it is no image or sound."""
        key = (str(file.folder.path), file.name)
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        try:
            medium = self.senses.medium("image" if file.kind == "image" else "audio", file.read(), file.name)
        except BadMedia as error:
            raise DataError(f"{row}: {error}") from error
        self.kept[key] = medium
        self.n_bytes += medium.values.nbytes
        while self.n_bytes > KEPT_BYTES and len(self.kept) > 1:
            self.n_bytes -= self.kept.popitem(last=False)[1].values.nbytes
        return medium


@dataclass
class MediaLoader:
    """Each sample once in an epoch, in an order that the seed and the epoch decide."""

    found: Sequence[MediaSample]
    senses: Senses
    batch_size: int                                      # rows over all ranks
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    jitter: Jitter = "none"

    def __post_init__(self) -> None:
        self.order = Order([len(self.found) or 1], None, self.seed)           # nothing may be held out
        self.reader = MediaReader(self.senses)

    def batch(self, step: int) -> MediaBatch:
        """The rows of this rank for one step."""
        rows = self.order.of_step(step, self.batch_size, self.rank, self.world_size)
        batch = self.rows([number for number, _ in rows])
        if self.jitter == "none":
            return batch
        rng = np.random.default_rng([self.seed, step, self.rank])
        return replace(batch, media=tuple(tuple(jittered(medium, self.jitter, rng) for medium in row)
                                          for row in batch.media))

    def rows(self, numbers: Sequence[int]) -> MediaBatch:
        """Some samples, padded."""
        chosen = [self.found[n] for n in numbers]
        ids, labels = padded([s.ids[:-1] for s in chosen]), padded([s.ids[1:] for s in chosen])
        texts = [s.text for s in chosen if s.text is not None]
        text = AsText(padded([t.ids[:-1] for t in texts]), padded([t.weights[1:] for t in texts])) if texts else None
        media = tuple(tuple(self.reader.medium(file, sample.row) for file in sample.media) for sample in chosen)
        return MediaBatch(ids, labels, padded([s.weights[1:] for s in chosen]), tuple(s.places for s in chosen), media,
                          text)

    def in_order(self, rows: int) -> Iterator[MediaBatch]:
        """All of them once."""
        for first in range(0, len(self.found), rows):
            yield self.rows(range(first, min(first + rows, len(self.found))))


def padded(rows: Sequence[np.ndarray]) -> Tensor:
    """(B, T), zeros at the right."""
    return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True)
