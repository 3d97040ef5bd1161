"""What the model will really see: one training batch, read back from its tensors, place by place."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from ayllu.data.chat_loader import ChatLoader
from ayllu.data.loader import Batch
from ayllu.data.mask_marks import Marks
from ayllu.data.masks import IGNORED, NOTES
from ayllu.data.pack_loader import PADDING, PackedBatch, PackedLoader

Look = Literal["text", "border", "mark", "replaced"]


@dataclass(frozen=True)
class Place:
    """One place of a window: what is given there, and what must be predicted (None: nothing is learned)."""

    id: int
    piece: str
    look: Look                                           # border: BOS, EOS; replaced: another id stands for the true
    label: int | None
    target: str | None


@dataclass(frozen=True)
class Piece:
    """A stretch of a window that stands for one document, or for one part of it."""

    document: int | None                                 # its number in the shards, from 0; None where it isn't known
    objective: str
    note: str | None
    places: tuple[Place, ...]
    two_way: int                                         # so many places at its beginning see each other both ways
    where: str = ""                                      # the file and row of a conversation

    @property
    def learned(self) -> int:
        """Places that teach."""
        return sum(place.label is not None for place in self.places)


@dataclass(frozen=True)
class Window:
    """One row of the batch."""

    row: int
    pieces: tuple[Piece, ...]
    padding: int                                         # places that hold nothing


@dataclass(frozen=True)
class View:
    """A batch to look at."""

    form: Literal["windows", "packed"]
    step: int
    context: int
    batch_size: int
    windows: tuple[Window, ...]                          # the first rows of the batch
    counts: dict[str, int]                               # of the whole batch
    packing: dict[str, float]                            # of the whole corpus; empty for plain windows

    @property
    def notes(self) -> dict[str, int]:
        """What is not as it was asked for, with how often."""
        return {key.removeprefix("note/"): n for key, n in self.counts.items() if key.startswith("note/")}


def look_at_windows(batch: Batch, marks: Marks, piece_of: Callable[[int], str], step: int, rows: int) -> View:
    """Plain windows of a running text: borders are marked, but every place sees all that came before it."""
    windows = []
    for row in range(min(rows, len(batch))):
        ids, labels = batch.ids[row], batch.labels[row]
        cuts = [0, *(i for i, given in enumerate(ids.tolist()) if i and given == marks.bos), len(ids)]
        pieces = [Piece(None, "causal", None, _places(ids[a:b], labels[a:b], marks, piece_of, True), 0)
                  for a, b in pairwise(cuts)]
        windows.append(Window(row, tuple(pieces), 0))
    learned = int((batch.labels != IGNORED).sum())
    counts = {"learned": learned, "filled": batch.ids.numel(), "places": batch.ids.numel()}
    return View("windows", step, batch.ids.shape[1], len(batch), tuple(windows), counts, {})


def look_at_packed(loader: PackedLoader | ChatLoader, piece_of: Callable[[int], str], step: int, rows: int) -> View:
    """A packed and masked batch: the tensors decide what is shown, the loader only names objectives and documents."""
    batch = loader.batch(step)
    windows = []
    for row, (window, epoch) in enumerate(loader.windows(step)[:rows]):
        named = zip(loader.packing.window(window), loader.examples(window, epoch, step), strict=True)
        pieces = tuple(_piece(batch, row, number, int(loader.packing.documents[p]), example.objective, example.note,
                              example.shifted, loader.marks, piece_of) for number, (p, example) in enumerate(named))
        if isinstance(loader, ChatLoader):
            pieces = tuple(replace(piece, where=loader.encoded.rows[piece.document or 0]) for piece in pieces)
        windows.append(Window(row, pieces, int((batch.document[row] == PADDING).sum())))
    return View("packed", step, loader.context, len(batch), tuple(windows), dict(batch.counts), loader.packing.report())


def _piece(batch: PackedBatch, row: int, number: int, document: int, objective: str, note: str | None, shifted: bool,
           marks: Marks, piece_of: Callable[[int], str]) -> Piece:
    here = batch.document[row] == number
    labels = torch.where(batch.weights[row][here] > 0, batch.labels[row][here], IGNORED)
    places = _places(batch.ids[row][here], labels, marks, piece_of, shifted)
    return Piece(document, objective, note, places, int(batch.two_way[row][here].sum()))


def _places(ids: Tensor, labels: Tensor, marks: Marks, piece_of: Callable[[int], str],
            shifted: bool) -> tuple[Place, ...]:
    reserved = {marks.mask, *marks.fim, *marks.sentinels, *marks.modes}
    out = []
    for given, label in zip(ids.tolist(), labels.tolist(), strict=True):
        look: Look = "text"
        if given in (marks.bos, marks.eos):
            look = "border"
        elif given in reserved:
            look = "mark"
        elif not shifted and label not in (IGNORED, given):
            look = "replaced"
        asked = (None, None) if label == IGNORED else (label, piece_of(label))
        out.append(Place(given, piece_of(given), look, *asked))
    return tuple(out)


def as_table(view: View) -> dict[str, Any]:
    """The view as plain JSON values."""
    return {"form": view.form, "step": view.step, "context": view.context, "batch_size": view.batch_size,
            "counts": view.counts, "packing": view.packing,
            "notes": {key: {"count": n, "meaning": NOTES[key]} for key, n in view.notes.items()},
            "windows": [{"row": window.row, "padding": window.padding, "pieces": [
                {"document": p.document, **({"where": p.where} if p.where else {}),
                 "objective": p.objective, "note": p.note, "two_way": p.two_way,
                 "learned": p.learned, "ids": [x.id for x in p.places], "pieces": [x.piece for x in p.places],
                 "labels": [x.label for x in p.places]} for p in window.pieces]} for window in view.windows]}
