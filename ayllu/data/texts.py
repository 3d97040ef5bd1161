"""Documents from files: plain text, Markdown and JSON Lines, any of them compressed (gz, xz, zst)."""

import gzip
import io
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from ayllu.errors import DataError

PLAIN = {".txt", ".md", ".markdown"}


def documents(path: str | Path, fields: tuple[str, ...] = ("text",)) -> Iterator[str]:
    """The documents of one file, or of every readable file below a folder, in the order of their names.

    A plain file is one document. A row of JSON Lines gives its `fields`, joined by a line break; a row without
    them is an error that names file and line.
    """
    path = Path(path)
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file() and _kind(p) in PLAIN | {".jsonl"}):
            yield from documents(file, fields)
        return
    if not path.is_file():
        raise DataError(f"no file or folder at {path}: check the path")
    if _kind(path) == ".jsonl":
        yield from (_pick(row, fields, f"{path}:{number}") for number, row in rows(path))
    elif is_plain(path):
        with open_binary(path) as stream:
            yield _decode(stream.read(), str(path))
    else:
        raise DataError(f"{path}: don't know how to read {_kind(path) or 'a file without a suffix'}; "
                        f"known are .txt, .md and .jsonl, also with .gz, .xz or .zst")


def rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for each line of a JSON Lines file; empty lines are passed over."""
    with open_binary(Path(path)) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(_decode(line, f"{path}:{number}"))
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}: not a JSON object ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
            yield number, row


def open_binary(path: Path) -> io.BufferedIOBase:
    """Open a file for reading bytes, undoing gz, xz or zst by its suffix."""
    match path.suffix:
        case ".gz":
            return gzip.open(path, "rb")
        case ".xz":
            return lzma.open(path, "rb")
        case ".zst":
            return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(open(path, "rb"), closefd=True))
        case _:
            return open(path, "rb")


def is_plain(path: Path) -> bool:
    """Whether a file is one document as it stands."""
    return _kind(path) in PLAIN


def _kind(path: Path) -> str:
    suffixes = path.suffixes
    if suffixes and suffixes[-1] in {".gz", ".xz", ".zst"}:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 at byte {error.start}: convert the file to UTF-8 first") from error


def _pick(row: dict[str, Any], fields: tuple[str, ...], where: str) -> str:
    missing = [f for f in fields if not isinstance(row.get(f), str)]
    if missing:
        raise DataError(f"{where}: no text in field {missing[0]!r}; the row has {', '.join(row)}: set `fields`")
    return "\n".join(row[f] for f in fields)
