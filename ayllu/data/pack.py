"""Best-fit packing: whole documents into windows of a fixed size, none split that fits (arXiv:2404.10830)."""

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ayllu.errors import ConfigError, DataError

CHUNK = 1 << 24                                          # ids looked at in one go: memory stays small


def document_starts(ids: np.ndarray, bos: int | None, eos: int | None) -> np.ndarray:
    """(documents,) where each document begins in `ids`: at every BOS, or after every EOS where there is no BOS."""
    mark = bos if bos is not None else eos
    if mark is None:
        raise DataError("documents can't be told apart: this tokenizer has neither BOS nor EOS")
    found = [np.flatnonzero(ids[i:i + CHUNK] == mark) + i for i in range(0, len(ids), CHUNK)]
    starts = np.concatenate([np.zeros(0, dtype=np.int64), *found])
    if bos is None:
        starts = starts[starts < len(ids) - 1] + 1
    if len(ids) and (not len(starts) or starts[0] != 0):
        starts = np.concatenate([[0], starts])           # ids before the first mark are a document too
    return starts


@dataclass(frozen=True)
class Packing:
    """Which pieces lie in which window. A piece is a document, or a part of one too long for any window.

    The parts of a document overlap by one id: the last of one part is the first of the next, given and not learned,
    so that each id but a document's first is learned in exactly one part.
    """

    capacity: int                                        # places of a window
    documents: np.ndarray                                # (pieces,) the number of each piece's document
    starts: np.ndarray                                   # (pieces,) its first id, counted from the beginning of all
    ends: np.ndarray                                     # (pieces,) one past its last id
    rooms: np.ndarray                                    # (pieces,) places that were set aside for it
    offsets: np.ndarray                                  # (windows + 1,) pieces offsets[w]:offsets[w + 1] lie in w
    too_short: int                                       # documents of fewer than 2 ids: nothing to predict
    split: int                                           # documents that were split

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def window(self, number: int) -> range:
        """The pieces of one window."""
        return range(int(self.offsets[number]), int(self.offsets[number + 1]))

    def report(self) -> dict[str, float]:
        """Counts for logs. `filled` is the share of all places that pieces set aside."""
        places = len(self) * self.capacity
        return {"windows": len(self), "pieces": len(self.documents), "documents_split": self.split,
                "documents_too_short": self.too_short, "filled": float(self.rooms.sum() / places) if places else 0.0}


def pack(starts: np.ndarray, n_ids: int, capacity: int, room: Callable[[int], int] = lambda n: n - 1) -> Packing:
    """Pack the documents that begin at `starts` in an array of `n_ids` ids into windows of `capacity` places.

    `room(n)` is the number of places that a piece of n ids needs; it must not fall as n grows. Left to right with
    next-id targets it is n - 1; a mask that adds marks needs more.
    """
    longest = _longest_piece(capacity, room)
    lengths = np.diff(np.append(starts, n_ids))
    usable = np.flatnonzero(lengths >= 2)
    parts = np.maximum(-(-(lengths[usable] - 1) // (longest - 1)), 1)        # each part learns longest - 1 ids at most
    documents = np.repeat(usable, parts)
    number = np.arange(len(documents)) - np.repeat(np.cumsum(parts) - parts, parts)
    first = starts[documents] + number * (longest - 1)
    last = np.minimum(first + longest, starts[documents] + lengths[documents])
    sizes, which = np.unique(last - first, return_inverse=True)
    rooms = np.array([room(int(n)) for n in sizes], dtype=np.int64)[which]
    windows = best_fit(rooms, capacity)
    order = np.argsort(windows, kind="stable")
    n_windows = int(windows.max()) + 1 if len(windows) else 0
    offsets = np.searchsorted(windows[order], np.arange(n_windows + 1))
    return Packing(capacity, documents[order], first[order], last[order], rooms[order], offsets,
                   int((lengths < 2).sum()), int((parts > 1).sum()))


def pack_parts(ids: np.ndarray, parts: Sequence[tuple[int, int]], bos: int | None, eos: int | None, capacity: int,
               room: Callable[[int], int]) -> tuple[Packing, list[int]]:
    """Pack stretches (start, end) of `ids` each by itself; also how many windows each has, in their order."""
    made: list[Packing] = []
    n_documents = 0
    for start, end in parts:
        starts = document_starts(ids[start:end], bos, eos)
        one = pack(starts, end - start, capacity, room)
        made.append(replace(one, documents=one.documents + n_documents, starts=one.starts + start,
                            ends=one.ends + start))
        n_documents += len(starts)
    pieces = np.cumsum([0, *(len(one.documents) for one in made)])
    offsets = [one.offsets[:-1] + before for one, before in zip(made, pieces[:-1], strict=True)]
    documents, first, last, rooms = (np.concatenate([getattr(one, name) for one in made])
                                     for name in ("documents", "starts", "ends", "rooms"))
    joined = Packing(capacity, documents, first, last, rooms, np.concatenate([*offsets, pieces[-1:]]),
                     sum(one.too_short for one in made), sum(one.split for one in made))
    return joined, [len(one) for one in made]


def best_fit(rooms: np.ndarray, capacity: int) -> np.ndarray:
    """(items,) the window of each item: best fit decreasing, that is, the longest items first, each into the window
    in which it leaves the least room; the older window where two leave the same.
    """
    windows = np.full(len(rooms), -1, dtype=np.int64)
    free: dict[int, list[int]] = {}                      # room left -> its windows, the oldest on top
    sizes: list[int] = []                                # the keys of `free`, rising
    n_windows = 0
    for item in np.argsort(-rooms, kind="stable").tolist():
        need = int(rooms[item])
        if need > capacity:
            raise DataError(f"a piece needs {need} places, a window has {capacity}: split it first")
        at = bisect_left(sizes, need)
        if at < len(sizes):
            left = sizes[at]
            window = heapq.heappop(free[left])
            if not free[left]:
                del free[left], sizes[at]
        else:
            left, window, n_windows = capacity, n_windows, n_windows + 1
        windows[item] = window
        if left > need:
            if left - need not in free:
                free[left - need] = []
                insort(sizes, left - need)
            heapq.heappush(free[left - need], window)
    return windows


def _longest_piece(capacity: int, room: Callable[[int], int]) -> int:
    """The most ids that surely fit one window."""
    if room(2) > capacity:
        raise ConfigError(f"a window of {capacity} places is too small: two ids alone may need {room(2)} with these "
                          "masks; set a longer context")
    low, high = 2, capacity + 2                          # room(n) is n - 1 at least
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if room(middle) <= capacity else (low, middle)
    return low
