"""What a reader gives: the text of one document, where its pages begin, and what of it was left out."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import Field

from ayllu.config import Settings
from ayllu.errors import DataError

_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")     # control characters and half surrogate pairs


class Unreadable(DataError):                            # noqa: N818 - it speaks to people
    """A document that can't be read; the message says why, without the file's name."""


class Limits(Settings):
    """How much one document may take. What is beyond is refused with a message, so that one file can't stop the rest.

    They guard against mistakes and against files that are made to do harm (a DOCX of 50 kB that unpacks to 5 GB).
    """

    file_bytes: int = Field(default=256 * 2**20, ge=1)
    html_bytes: int = Field(default=32 * 2**20, ge=1)    # a page's tree takes about 20 times its bytes
    characters: int = Field(default=50_000_000, ge=1)    # of the text
    pages: int = Field(default=10_000, ge=1)
    cell: int = Field(default=32_767, ge=1)              # characters of a table's cell, Excel's own limit; rest is cut
    cells: int = Field(default=5_000_000, ge=1)
    depth: int = Field(default=50, ge=1)                 # tables in tables
    unpacked_bytes: int = Field(default=512 * 2**20, ge=1)          # of all parts of a DOCX, XLSX or EPUB
    unpacked_ratio: int = Field(default=200, ge=1)       # of a part above 1 MB: text packs to a tenth, bombs to 1/1000
    parts: int = Field(default=20_000, ge=1)
    seconds: float = Field(default=120, gt=0)

    def clock(self) -> "Clock":
        """A limit on the time from now on."""
        return Clock(self.seconds)


class Clock:
    """Asked now and then while a document is read; a reader that hangs within one call is ended by pool.py."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.monotonic() + seconds

    def check(self) -> None:
        """Raise where the time is over."""
        if time.monotonic() > self._end:
            raise Unreadable(f"reading took more than {self.seconds:.0f} s: cut it into smaller documents")


@dataclass(frozen=True)
class Document:
    """The text of a file. Page n, from 1, begins at the character `pages[n - 1]`; no pages: the format has none."""

    text: str
    kind: str                                            # pdf, docx, ...
    title: str = ""
    pages: tuple[int, ...] = ()
    notes: tuple[str, ...] = field(default=())           # what was left out, for people


def joined(parts: Iterable[str], limits: Limits, clock: Clock, between: str = "\n\n") -> tuple[str, tuple[int, ...]]:
    """Pages as one text, and where each begins."""
    texts, starts, at = [], [], 0
    for part in parts:
        clock.check()
        starts.append(at)
        texts.append(clean(part))
        at += len(texts[-1]) + len(between)
        check_length(at, limits)
    return between.join(texts), tuple(starts)


def check_length(n: int, limits: Limits) -> None:
    """Refuse a text that is too long."""
    if n > limits.characters:
        raise Unreadable(f"more than {limits.characters:,} characters of text: cut it into smaller documents")


def clean(text: str) -> str:
    """The text without what no text holds, each such character replaced by one sign, so that places stay."""
    return _NOT_TEXT.sub("\ufffd", text)
