"""Which files a source holds: every readable kind below a folder, each folder once however links lead to it."""

import os
from collections.abc import Iterator
from pathlib import Path

from ayllu.data.packed import PACKED
from ayllu.errors import DataError

PLAIN = {".txt", ".md", ".markdown"}
HTML = {".html", ".htm"}
LINES = {".jsonl", ".ndjson"}
TABLES = {".csv", ".tsv"}
KNOWN = PLAIN | HTML | LINES | TABLES | {".parquet"}
_READ = ".txt, .md, .html, .jsonl, .csv, .tsv and .parquet, also with .gz, .xz or .zst"


def files_below(path: Path, kinds: set[str] = KNOWN) -> list[Path]:
    """The file itself, or every file of a known kind below a folder, in the order of their names.

    Links to folders are followed, each folder once. A link to nothing is named too: reading it gives a reject.
    """
    if path.is_dir():
        return sorted(p for p in _below(path) if kind_of(p) in kinds)
    if not path.is_file():
        raise DataError(f"no file or folder at {path}: check the path")
    if kind_of(path) not in KNOWN:
        kind = kind_of(path) or "a file without a suffix"
        raise DataError(f"{path}: don't know how to read {kind}; known are {_READ}")
    return [path]


def some_files_below(path: Path) -> list[Path]:
    """As `files_below`; a folder without any such file is an error."""
    if found := files_below(path):
        return found
    others = sorted({kind_of(p) or "no suffix" for p in _below(path)})
    raise DataError(f"{path} holds no file to read; known are {_READ}"
                    + (f"; found were {', '.join(others[:8])}" if others else ""))


def passed_over(path: Path) -> dict[str, int]:
    """How many files below a folder are of a kind that isn't read, by suffix."""
    counts: dict[str, int] = {}
    for file in _below(path) if path.is_dir() else ():
        if (kind := kind_of(file)) not in KNOWN:
            counts[kind or "no suffix"] = counts.get(kind or "no suffix", 0) + 1
    return dict(sorted(counts.items()))


def kind_of(path: Path) -> str:
    """The suffix that tells the format: ".jsonl" for rows.jsonl.zst."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


def stamp(path: Path) -> tuple[str, int, int]:
    """Name, size and time of a file: others when it was changed. -1 where it is gone or a link to nothing."""
    try:
        status = path.stat()
    except OSError:
        return path.name, -1, -1
    return path.name, status.st_size, status.st_mtime_ns


def size_of(path: Path) -> int:
    """Bytes on the disk, 0 where there is nothing to be read."""
    return max(stamp(path)[1], 0)


def _below(top: Path) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    todo = [top]
    while todo:
        folder = todo.pop()
        status = folder.stat()
        if (mark := (status.st_dev, status.st_ino)) in seen:
            continue
        seen.add(mark)
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            raise DataError(f"{folder}: can't be listed ({error.strerror}): allow it, or name its files") from error
        for entry in entries:
            file = folder / entry.name
            if file.is_dir():
                todo.append(file)
            elif file.is_file() or not file.exists():    # a pipe or a socket would be waited for
                yield file
