"""Near-copies of other texts, with the place in both: winnowing (Schleimer, Wilkerson and Aiken, SIGMOD 2003).

Hashes of K units in a row are taken at each place; of every W neighbours the smallest is kept. So whatever K + W - 1 or
more units two texts share is found by one common hash at least, from an index a fraction the size of the texts. A hit
is then read unit by unit, to both sides, so nothing that only collides is told.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayllu.apps.documents.read import read_document
from ayllu.apps.write.measure import Language, Span, language_of, units
from ayllu.data.folders import passed_over, some_files_below
from ayllu.data.overlap import index, shared_runs
from ayllu.data.readers import columns, records
from ayllu.data.rows import BadRow, Record, Reject, each
from ayllu.errors import DataError, RequestError

K: dict[Language, int] = {"en": 8, "zh": 13}             # shorter runs are idioms, names and titles
W = 4
MOST_PLACES = 20                                         # of one hash: what stands everywhere is nobody's


@dataclass(frozen=True)
class Copy:
    """Characters `start` to `end` of the text stand in `source`, from its character `source_start`."""

    start: int
    end: int
    text: str
    source: str
    source_start: int
    n_units: int


def read_sources(paths: Iterable[tuple[str, Path]], streamed: Sequence[Path] = ()) -> "Sources":
    """The texts of files of any kind that documents may have, under their names. `streamed`: files and folders of
    texts too many for an index, as models are trained on; they are read through for each text that is checked."""
    return Sources(((name, read_text(path, name)) for name, path in paths), streamed)


def read_text(path: Path, name: str) -> str:
    """The text of a file; what is wrong with it is said with its name."""
    try:
        return read_document(path).text
    except DataError as error:
        raise RequestError(f"{name}: {error}") from error


class Sources:
    """Texts that one may not copy from, with an index of their fingerprints."""

    def __init__(self, texts: Iterable[tuple[str, str]], streamed: Sequence[Path] = ()) -> None:
        """Names and texts."""
        self._files = {file: str(file.relative_to(path.parent)) for path in streamed for file in some_files_below(path)}
        self._others = ", ".join(f"{n:,} {kind}" for path in streamed for kind, n in passed_over(path).items())
        self.unread = ""                                 # what of the streamed texts the last text wasn't compared with
        self.texts: list[tuple[str, list[Span]]] = []
        self._index: dict[tuple[Language, int], list[tuple[int, int]]] = {}        # -> (text, place)
        for name, text in texts:
            found = units(text)
            for language in K:
                for place, hash_ in fingerprints(found, K[language]):
                    places = self._index.setdefault((language, hash_), [])
                    if len(places) < MOST_PLACES:
                        places.append((len(self.texts), place))
            self.texts.append((name, found))

    def copies(self, text: str) -> list[Copy]:
        """The longest runs of the text that stand in a source, in their order; none lies within another."""
        found, language = units(text), language_of(text)
        reached: dict[tuple[int, int], int] = {}         # (source, diagonal) -> the last unit that was read on it
        best: list[tuple[int, int, int, int]] = []       # (first unit, units, source, its first unit there)
        for place, hash_ in fingerprints(found, K[language]):
            for number, at in self._index.get((language, hash_), ()):
                if reached.get((number, at - place), -1) >= place:
                    continue
                first, n = _extended(found, place, self.texts[number][1], at)
                reached[number, at - place] = first + n - 1
                if n >= K[language]:
                    best.append((first, n, number, at - place + first))
        return [self._told(text, found, run) for run in _outermost(best)] + self._in_streamed(text, K[language] - 3)

    def _in_streamed(self, text: str, n: int) -> list[Copy]:
        """As `copies`, of the streamed texts that share a run of n units; each place of the text is told once."""
        known, _ = index([text] if self._files else [], n)
        found: dict[tuple[int, int], Copy] = {}
        bad: list[str] = []
        for file, name in self._files.items():
            for one in each(records(file, (), name), _whole_row):
                if isinstance(one, Reject):
                    bad.append(one.told)
                elif shared_runs(one[1], known, n):
                    place = f"{name}, row {one[0]}" if one[0] else name
                    found = {(c.start, c.end): c for c in Sources([(place, one[1])]).copies(text)} | found
        told = [f"files of the training text that aren't read: {self._others}"] if self._others else []
        told += [f"{len(bad):,} rows of the training text can't be read, the first {bad[0]}"] if bad else []
        self.unread = "; ".join(told)
        return list(found.values())

    def _told(self, text: str, found: list[Span], run: tuple[int, int, int, int]) -> Copy:
        first, n, number, at = run
        start, end = found[first].start, found[first + n - 1].end
        name, theirs = self.texts[number]
        return Copy(start, end, text[start:end], name, theirs[at].start, n)


def _whole_row(record: Record) -> tuple[int, str]:
    """A row and all its texts, one below the other: a model may have been trained on any of its columns."""
    row = columns(record)
    text = row if isinstance(row, str) else "\n".join(_texts(row))
    if isinstance(row, dict) and not text.strip():
        raise BadRow(f"no text in its columns {', '.join(map(str, row))}")
    return record.line, text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):                 # of messages, as conversations are kept
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def fingerprints(found: list[Span], k: int) -> Iterator[tuple[int, int]]:
    """(place, hash) of the smallest hash, the last of equal ones, of each window of W places."""
    hashes = [zlib.crc32("\0".join(unit.text for unit in found[i:i + k]).encode("utf-8", "surrogatepass"))
              for i in range(len(found) - k + 1)]
    last = -1
    for begin in range(max(1, len(hashes) - W + 1) if hashes else 0):
        window = range(begin, min(begin + W, len(hashes)))
        place = min(window, key=lambda i: (hashes[i], -i))
        if place != last:
            last = place
            yield place, hashes[place]


def _extended(mine: list[Span], place: int, theirs: list[Span], at: int) -> tuple[int, int]:
    """The run of equal units around a place in both: its first unit of mine and its length; 0 where they differ."""
    begin = 0
    while place - begin > 0 and at - begin > 0 and mine[place - begin - 1].text == theirs[at - begin - 1].text:
        begin += 1
    end = 0
    while place + end < len(mine) and at + end < len(theirs) and mine[place + end].text == theirs[at + end].text:
        end += 1
    return (place - begin, begin + end) if end else (place, 0)


def _outermost(runs: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    found: list[tuple[int, int, int, int]] = []
    for run in sorted(set(runs), key=lambda run: (run[0], -run[1], run[2], run[3])):
        if not found or run[0] + run[1] > found[-1][0] + found[-1][1]:
            found.append(run)
    return found
