"""What readers give: raw rows, and what can't be read, with file, line and reason."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

ROW_BYTES = 64 * 2**20                                   # of a line, a CSV row or one of its cells
MOST_BLANK = 2**22                                       # characters of blank lines, one after another
FILE_BYTES = 256 * 2**20                                 # of a file that is one document
T = TypeVar("T")


class Placed(Protocol):
    """What comes from a row of a file."""

    @property
    def file(self) -> str: ...

    @property
    def line(self) -> int: ...


R = TypeVar("R", bound=Placed)


@dataclass(frozen=True, slots=True)
class Record:
    """One raw row; `line` counts from 1, and is 0 where the whole file is one document."""

    file: str
    line: int
    payload: bytes | dict[str, Any]
    encoding: str = "utf-8"                              # of the payload, or of the text that it was cut from

    @property
    def table(self) -> dict[str, Any]:
        """The payload of a row of a table."""
        assert isinstance(self.payload, dict)
        return self.payload


@dataclass(frozen=True, slots=True)
class Reject:
    """A row, or the rest of a file, that can't be read."""

    file: str
    line: int
    reason: str

    @property
    def told(self) -> str:
        """For people."""
        return f"{self.file}{f', row {self.line}' if self.line else ''}: {self.reason}"


class BadRow(Exception):                                 # noqa: N818 - it speaks to people
    """Why a row gives no text; caught where rejects are counted."""


def each(rows: Iterable[R | Reject], make: Callable[[R], T]) -> Iterator[T | Reject]:
    """What `make` makes of each row; where it raises BadRow, a reject with its reason."""
    for row in rows:
        try:
            yield row if isinstance(row, Reject) else make(row)
        except BadRow as error:
            yield Reject(row.file, row.line, str(error))


def too_long(file: str, line: int, size: int, most: int, unit: str = "bytes") -> Reject:
    """The reject for a row, or a file that is one document, past the limit."""
    return Reject(file, line, f"{size:,} {unit}, the most is {most:,}: cut it into smaller documents")


def too_blank(file: str, line: int) -> Reject:
    """The reject for the rest of a file, where no row comes any more."""
    return Reject(file, line, f"{MOST_BLANK:,} and more blank characters, one line after another: the rest isn't read; "
                  "take them out if rows follow")


def weigh(row: Record | Reject) -> int:
    """About how many bytes a raw row takes."""
    if isinstance(row, Reject):
        return 1
    if isinstance(row.payload, dict):
        return sum(len(str(v)) for v in row.payload.values())
    return len(row.payload)
