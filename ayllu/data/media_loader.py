"""Batches of conversations with images and sounds: a pure function of the seed and the step.

B rows  T tokens  N features of one medium  L width of the Llama
"""

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ayllu.data.media_rows import Folder, MediaFile, MediaRow
from ayllu.data.order import Order
from ayllu.data.rows import BadRow, Reject
from ayllu.errors import BadMedia, DataError, RequestError
from ayllu.media.senses import Kind, Medium, Senses
from ayllu.media.splice import Place, expanded
from ayllu.text.chat import ChatTemplate
from ayllu.text.marks import MEDIA
from ayllu.text.tokenizer import Tokenizer

KEPT_BYTES = 1 << 30                                     # of decoded media, so that a second epoch reads no file


@dataclass(frozen=True)
class MediaSample:
    """One row as ids, placeholders and all. `weights[i]` is the weight of predicting `ids[i]`."""

    ids: np.ndarray                                      # (T,) int64
    weights: np.ndarray                                  # (T,) float32
    places: tuple[Place, ...]
    media: tuple[MediaFile, ...]
    row: str                                             # file and line


@dataclass(frozen=True)
class MediaBatch:
    """Rows padded at the right; `media[i]` are those of row i, whose `places` count from its first token."""

    ids: Tensor                                          # (B, T)
    labels: Tensor                                       # (B, T)
    weights: Tensor                                      # (B, T)
    places: tuple[tuple[Place, ...], ...]
    media: tuple[tuple[Medium, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, rows: int) -> Iterator["MediaBatch"]:
        """Micro-batches."""
        for i in range(0, len(self), rows):
            part = slice(i, i + rows)
            yield MediaBatch(self.ids[part], self.labels[part], self.weights[part], self.places[part],
                             self.media[part])

    def to(self, device: torch.device) -> "MediaBatch":
        """The same batch on another device; media follow when they are encoded."""
        ids, labels, weights = (t.to(device, non_blocking=True) for t in (self.ids, self.labels, self.weights))
        return MediaBatch(ids, labels, weights, self.places, self.media)


def marks_of(tokenizer: Tokenizer) -> dict[str, str]:
    """For each stand-in its special token: <image> and <audio>, or the unknown token where a vocabulary has none."""
    known = {control.text for control in tokenizer.codec.controls}
    unknown = tokenizer.named.unk_id
    found = {}
    for kind, stand_in in MEDIA.items():
        if f"<{kind}>" in known:
            found[stand_in] = f"<{kind}>"
        elif unknown is not None and tokenizer.id_to_piece(unknown) in known:
            found[stand_in] = tokenizer.id_to_piece(unknown)
        else:
            raise DataError(f"this tokenizer has no token <{kind}> and no unknown token that could stand for one: "
                            "take a model whose vocabulary has one")
    return found


def counter(senses: Senses) -> Callable[[MediaFile], int]:
    """How many features a file has; only where that depends on its content is it read."""
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
    marks = {_id_of(tokenizer, text) for text in media.values()}
    ids, places = expanded(found.ids, sorted(marks), lengths)
    wide = np.zeros(len(ids), np.float32)
    kept = np.ones(len(ids), bool)
    for place in places:
        kept[place.start:place.start + place.length] = False
    wide[kept] = weights[[id not in marks for id in found.ids]]
    wide[:1] = 0                                         # nothing comes before the first id that could predict it
    if not wide.any():
        raise BadRow("it teaches nothing: there is no answer after the image or sound")
    return MediaSample(np.array(ids, np.int64), wide, tuple(places), row.media, f"{row.file}, row {row.line}")


def _id_of(tokenizer: Tokenizer, text: str) -> int:
    return next(control.id for control in tokenizer.codec.controls if control.text == text)


def samples(rows: Iterator[MediaRow | Reject], tokenizer: Tokenizer, template: ChatTemplate,
            length: Callable[[MediaFile], int], context: int) -> tuple[list[MediaSample], list[Reject]]:
    """Rows that fit and teach, and the others with their reasons."""
    found: list[MediaSample] = []
    rejects: list[Reject] = []
    for row in rows:
        if isinstance(row, Reject):
            rejects.append(row)
            continue
        try:
            sample = encode_media(row, tokenizer, template, length)
            if len(sample.ids) - 1 > context:
                raise BadRow(f"{len(sample.ids)} ids with its placeholders, context={context} takes {context + 1}")
            found.append(sample)
        except BadRow as error:
            rejects.append(Reject(row.file, row.line, str(error)))
    return found, rejects


@dataclass
class MediaLoader:
    """Each sample once in an epoch, in an order that the seed and the epoch decide."""

    found: Sequence[MediaSample]
    senses: Senses
    batch_size: int                                      # rows over all ranks
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    jitter: Literal["none", "shift"] = "none"            # shift: images move a little, sounds begin a little later
    kept: "OrderedDict[tuple[str, str], Medium]" = field(default_factory=OrderedDict)
    n_bytes: int = 0

    def __post_init__(self) -> None:
        self.order = Order([len(self.found)], None, self.seed)

    def batch(self, step: int) -> MediaBatch:
        """The rows of this rank for one step."""
        first = step * self.batch_size
        rows = range(first + self.rank, first + self.batch_size, self.world_size)
        batch = self.rows([self.order.at(i)[0] for i in rows])
        if self.jitter == "none":
            return batch
        rng = np.random.default_rng([self.seed, step, self.rank])
        return MediaBatch(batch.ids, batch.labels, batch.weights, batch.places,
                          tuple(tuple(moved(medium, rng) for medium in row) for row in batch.media))

    def rows(self, numbers: Sequence[int]) -> MediaBatch:
        """Some samples, padded."""
        chosen = [self.found[n] for n in numbers]
        T = max(len(sample.ids) for sample in chosen) - 1
        ids, labels = np.zeros((len(chosen), T), np.int64), np.zeros((len(chosen), T), np.int64)
        weights = np.zeros((len(chosen), T), np.float32)
        for i, sample in enumerate(chosen):
            n = len(sample.ids) - 1
            ids[i, :n], labels[i, :n], weights[i, :n] = sample.ids[:-1], sample.ids[1:], sample.weights[1:]
        return MediaBatch(torch.from_numpy(ids), torch.from_numpy(labels), torch.from_numpy(weights),
                          tuple(sample.places for sample in chosen),
                          tuple(tuple(self._medium(file, sample.row) for file in sample.media) for sample in chosen))

    def in_order(self, rows: int) -> Iterator[MediaBatch]:
        """All of them once."""
        for first in range(0, len(self.found), rows):
            yield self.rows(range(first, min(first + rows, len(self.found))))

    def _medium(self, file: MediaFile, row: str) -> Medium:
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


def moved(medium: Medium, rng: np.random.Generator) -> Medium:
    """An image shifted by up to a sixteenth of its side, its border repeated; a spectrum by up to 20 frames, and a band
    of it and a stretch of time silent now and then (SpecAugment, arXiv:1904.08779)."""
    values = medium.values
    if medium.kind == "image":
        most = max(1, values.shape[-1] // 16)
        down, right = (int(n) for n in rng.integers(-most, most + 1, 2))
        tiles = values.reshape(-1, *values.shape[-3:])                        # (V, 3, S, S)
        tiles = torch.nn.functional.pad(tiles, (most,) * 4, mode="replicate")[..., most + down:, most + right:]
        values = tiles[..., :values.shape[-2], :values.shape[-1]].reshape(values.shape)
    else:
        M, frames = values.shape
        values = torch.cat((values[:, -20:], values[:, :-20]), 1).roll(int(rng.integers(-40, 1)), 1).clone()
        low = values.min()
        band, stretch = int(rng.integers(0, M // 8 + 1)), int(rng.integers(0, 16))
        at, when = int(rng.integers(0, M - band)), int(rng.integers(0, max(frames - stretch, 1)))
        values[at:at + band], values[:, when:when + stretch] = low, low
    return Medium(medium.kind, values, medium.n_features, medium.digest)
