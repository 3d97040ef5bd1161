"""Rows of CSV and TSV as people write them: any usual delimiter, quoted line breaks, and a quote that never ends."""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from typing import Any

from ayllu.data.encodings import BROKEN, MIXED, is_hidden_utf_8
from ayllu.data.rows import MOST_BLANK, ROW_BYTES, Record, Reject, too_blank, too_long

_DELIMITERS = (",", ";", "\t", "|")
_SURROGATE = re.compile("[\ud800-\udfff]")


def table(stream: Any, suffix: str, encoding: str, fields: tuple[str, ...], name: str) -> Iterator[Record | Reject]:
    """Rows below a header; `line` is the last line of a row, which may span several.

    A row that isn't valid costs its first line only: a quote that is never closed must not swallow the good rows below.
    """
    csv.field_size_limit(ROW_BYTES)
    lines = _Lines(io.TextIOWrapper(stream, encoding=encoding, errors=BROKEN, newline=""), name)
    try:
        yield from _below_header(lines, suffix, encoding, fields, name)
    except _TooBlank:
        yield too_blank(name, lines.number + 1)


def _below_header(lines: "_Lines", suffix: str, encoding: str, fields: tuple[str, ...],
                  name: str) -> Iterator[Record | Reject]:
    delimiter = "\t" if suffix == ".tsv" else _delimiter(lines.peek(), fields)
    header: list[str] | None = None
    for cells in _rows(lines, delimiter):
        if isinstance(cells, Reject):
            yield cells
        elif header is None:
            header = cells
        elif len(cells) != len(header):
            yield Reject(name, lines.number, f"{len(cells)} cells, the header has {len(header)}")
        elif any(map(_SURROGATE.search, cells)):
            yield Reject(name, lines.number, f"not {encoding.removesuffix('-sig').upper()}: save it as UTF-8")
        elif encoding == "gb18030" and is_hidden_utf_8("".join(cells)):
            yield Reject(name, lines.number, MIXED)
        else:
            yield Record(name, lines.number, dict(zip(header, cells, strict=True)), encoding)


class _TooLong(Exception):                               # noqa: N818 - a size, not a fault
    pass


class _TooBlank(Exception):                              # noqa: N818 - no row comes any more
    pass


class _Lines:
    """Lines with their number, which can be given back until the next row begins."""

    def __init__(self, text: io.TextIOWrapper, name: str) -> None:
        self.number = 0                                  # of the last line that was given
        self._text, self._name = text, name
        self._taken: list[str | int] = []                # by this row; a number stands for a line of that size
        self._again: deque[str | int] = deque()
        self._size = self._blank = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        if not line:
            raise StopIteration
        self.number += 1
        self._taken.append(line)
        self._size += line if isinstance(line, int) else len(line)
        if isinstance(line, int) or self._size > ROW_BYTES:
            raise _TooLong
        return line

    def peek(self) -> str:
        """The first line that isn't blank; it is still to be given."""
        line = ""
        for line in self:
            if line.strip():
                break
        self._give_back(0)
        return line

    def begin(self) -> None:
        """A row begins here."""
        self._taken, self._size = [], 0

    def reject_first(self, error: Exception) -> Reject:
        """The first line of the row is bad; the others will be given again."""
        reject = (too_long(self._name, self.number - len(self._taken) + 1, self._size, ROW_BYTES, "characters")
                  if isinstance(error, _TooLong) else
                  Reject(self._name, self.number - len(self._taken) + 1, f"not valid CSV ({error})"))
        self._give_back(1)
        return reject

    def _give_back(self, keep: int) -> None:
        self._again.extendleft(reversed(self._taken[keep:]))
        self.number -= len(self._taken[keep:])
        self.begin()

    def _read(self) -> str | int:
        line = self._text.readline(ROW_BYTES + 1)
        self._blank = 0 if line.strip() else self._blank + len(line)
        if self._blank > MOST_BLANK:
            raise _TooBlank
        if len(line) <= ROW_BYTES:
            return line
        size = len(line)
        while line and not line.endswith(("\n", "\r")):
            line = self._text.readline(2**20)
            size += len(line)
        return size


def _rows(lines: _Lines, delimiter: str) -> Iterator[list[str] | Reject]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLong) as error:
            yield lines.reject_first(error)
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            continue
        if cells:
            yield cells


def _delimiter(line: str, fields: tuple[str, ...]) -> str:
    """The one that gives the columns that are asked for; else the one that gives most; else a comma."""
    columns = {d: next(csv.reader([line], delimiter=d), []) for d in _DELIMITERS}
    return max(_DELIMITERS, key=lambda d: (bool(fields) and set(fields) <= set(columns[d]), len(columns[d])))
