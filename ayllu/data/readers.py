"""Rows of files, streamed: text, Markdown, HTML, JSON Lines, CSV and Parquet, any of them compressed (gz, xz, zst).

Reading has two halves, so that one process can read while others parse. `records` cuts a file into rows that are still
raw; `parse` turns a row into a text. What can't be read is a `Reject`, with file, line and reason, and never just gone.
"""

import csv
import gzip
import io
import json
import lzma
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from ayllu.data.html import html_text
from ayllu.errors import DataError, MissingExtra

PACKED = {".gz", ".xz", ".zst"}
PLAIN = {".txt", ".md", ".markdown"}
HTML = {".html", ".htm"}
LINES = {".jsonl", ".ndjson"}
TABLES = {".csv", ".tsv"}
KNOWN = PLAIN | HTML | LINES | TABLES | {".parquet"}
FIELD_CHARACTERS = 64 * 2**20                            # of a CSV cell: an unclosed quote must not eat the memory
DAMAGED = (EOFError, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile)


@dataclass(frozen=True, slots=True)
class Record:
    """One raw row; `line` counts from 1, and is 0 where the whole file is one document."""

    file: str
    line: int
    payload: bytes | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reject:
    """A row, or the rest of a file, that can't be read."""

    file: str
    line: int
    reason: str


class BadRow(Exception):                                 # noqa: N818 - it speaks to people
    """Why a row gives no text; caught where rejects are counted."""


def files_below(path: Path, kinds: set[str] = KNOWN) -> list[Path]:
    """The file itself, or every file of a known kind below a folder, in the order of their names."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and kind_of(p) in kinds)
    if not path.is_file():
        raise DataError(f"no file or folder at {path}: check the path")
    if kind_of(path) not in KNOWN:
        raise DataError(f"{path}: don't know how to read {kind_of(path) or 'a file without a suffix'}; known are .txt, "
                        ".md, .html, .jsonl, .csv, .tsv and .parquet, also with .gz, .xz or .zst")
    return [path]


def kind_of(path: Path) -> str:
    """The suffix that tells the format: ".jsonl" for rows.jsonl.zst."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


def records(path: Path, fields: tuple[str, ...], name: str) -> Iterator[Record | Reject]:
    """The raw rows of one file in their order; `name` is what they are called in rejects and reports.

    No `fields`: all of them.
    """
    kind, last = kind_of(path), 0
    try:
        for row in _rows(path, kind, fields, name):
            last = row.line
            yield row
    except DAMAGED as error:
        yield Reject(name, last + 1, f"the file is damaged or cut short from here on ({error or type(error).__name__})")


def parse(record: Record, fields: tuple[str, ...]) -> str:
    """The text of a raw row; raises BadRow with the reason."""
    row = columns(record)
    return row if isinstance(row, str) else pick(row, fields)


def columns(record: Record) -> dict[str, Any] | str:
    """A row of a table by its columns, and the text of what is one document; raises BadRow with the reason."""
    kind = kind_of(Path(record.file))
    if isinstance(record.payload, dict):
        return record.payload
    if kind in HTML:
        return html_text(_decode_html(record.payload))
    text = decode(record.payload)
    if kind in LINES:
        try:
            row = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise BadRow(f"not a JSON object ({error})") from error
        if not isinstance(row, dict):
            raise BadRow(f"expected a JSON object, found {type(row).__name__}")
        return row
    return text


def pick(row: dict[str, Any], fields: tuple[str, ...]) -> str:
    """The fields of a row, joined by a line break."""
    missing = [f for f in fields if not isinstance(row.get(f), str)]
    if missing:
        raise BadRow(f"no text in field {missing[0]!r}; the row has {', '.join(map(str, row))}: set `fields`")
    return "\n".join(row[f] for f in fields)


def decode(data: bytes) -> str:
    """UTF-8 or BadRow."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8 at byte {error.start}") from error


def open_binary(path: Path) -> io.BufferedIOBase:
    """Open a file for reading bytes, undoing gz, xz or zst by its suffix."""
    match path.suffix.lower():
        case ".gz":
            return gzip.open(path, "rb")
        case ".xz":
            return lzma.open(path, "rb")
        case ".zst":
            return io.BufferedReader(_Zstd(path), buffer_size=2**17)
        case _:
            return open(path, "rb")


def _rows(path: Path, kind: str, fields: tuple[str, ...], name: str) -> Iterator[Record | Reject]:
    if kind == ".parquet":
        yield from _parquet(path, fields, name)
        return
    with open_binary(path) as stream:
        if kind in LINES:
            yield from (Record(name, n, line) for n, line in enumerate(stream, start=1) if line.strip())
        elif kind in TABLES:
            yield from _table(stream, "\t" if kind == ".tsv" else ",", name)
        else:
            yield Record(name, 0, stream.read())


def _table(stream: Any, delimiter: str, name: str) -> Iterator[Record | Reject]:
    """Rows of CSV with a header; `line` is the last line of a row, which may span several."""
    csv.field_size_limit(FIELD_CHARACTERS)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Reject(name, reader.line_num, f"not valid CSV ({error})")
            continue
        if not cells:
            continue
        if header is None:
            header = cells
        elif len(cells) != len(header):
            yield Reject(name, reader.line_num, f"{len(cells)} cells, the header has {len(header)}")
        elif any(map(_SURROGATE.search, cells)):
            yield Reject(name, reader.line_num, "not UTF-8")
        else:
            yield Record(name, reader.line_num, dict(zip(header, cells, strict=True)))


_SURROGATE = re.compile("[\ud800-\udfff]")


def _parquet(path: Path, fields: tuple[str, ...], name: str) -> Iterator[Record | Reject]:
    """Rows of Parquet, a batch of them in memory at a time; `line` is the row's number."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(f"{path}: reading Parquet needs the extra `data`: pip install 'ayllu[data]'.") from error
    number = 0
    with _seekable(path) as file:
        try:
            table = pyarrow.parquet.ParquetFile(file)
            known = table.schema_arrow.names
            if missing := [f for f in fields if f not in known]:
                yield Reject(name, 0, f"no column {missing[0]!r}; the file has {', '.join(known)}: set `fields`")
                return
            for batch in table.iter_batches(batch_size=1000, columns=list(fields) or None):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(name, number, row)
        except (pyarrow.ArrowException, OSError) as error:
            yield Reject(name, number + 1, f"can't be read as Parquet from here on ({str(error).splitlines()[0]})")


@contextmanager
def _seekable(path: Path) -> Iterator[IO[bytes]]:
    """Parquet begins at its end: a compressed one is unpacked into a temporary file first."""
    with open_binary(path) as stream:
        if path.suffix.lower() not in PACKED:
            yield stream                                 # type: ignore[misc]
            return
        with tempfile.TemporaryFile() as unpacked:
            shutil.copyfileobj(stream, unpacked)
            unpacked.seek(0)
            yield unpacked


class _Zstd(io.RawIOBase):
    """Every frame of a zstd file, and EOFError where the last one is cut short.

    `ZstdDecompressor.stream_reader` stops at the end of the first frame and takes a cut file for a whole one.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb")                    # noqa: SIM115 - closed in close()
        self._frame: Any = None
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._frame.unused_data if self._frame and self._frame.eof else b""
            data = data or self._file.read(2**17)
            if not data:
                if self._frame is not None and not self._frame.eof:
                    raise EOFError("the compressed file ended before the end-of-stream marker was reached")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._ready = self._frame.decompress(data)
        n = min(len(buffer), len(self._ready))
        buffer[:n], self._ready = self._ready[:n], self._ready[n:]
        return n

    def close(self) -> None:
        self._file.close()
        super().close()


_CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([\w-]{2,40})", re.IGNORECASE)


def _decode_html(data: bytes) -> str:
    """UTF-8 first, since most pages are; then the charset that the page names in its first 2,048 bytes."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        named = _CHARSET.search(data[:2048])
        charset = named[1].decode("ascii", "replace").lower() if named else "utf-8"
        charset = {"gb2312": "gb18030", "gbk": "gb18030", "iso-8859-1": "cp1252"}.get(charset, charset)
        try:
            return data.decode(charset)
        except (LookupError, UnicodeDecodeError):
            raise BadRow(f"not UTF-8 at byte {error.start}, and not the {charset} that the page names" if named else
                         f"not UTF-8 at byte {error.start}, and the page names no charset") from error
