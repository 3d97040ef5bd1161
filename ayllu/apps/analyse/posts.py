"""Posts as they come: CSV, JSON Lines, Parquet or a pipe; columns are recognised, bad rows named and counted."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from ayllu.data.encodings import decode
from ayllu.data.folders import LINES, PLAIN, TABLES, files_below, kind_of, passed_over
from ayllu.data.packed import Moved, Watch
from ayllu.data.readers import columns, records
from ayllu.data.rows import BadRow, Record, Reject
from ayllu.errors import DataError
from ayllu.text.lexicon import listed

ROLES = {role: listed()[f"column_{role}"] for role in ("text", "time", "author", "group", "id")}
LONGEST = 20_000                                         # characters of a post that are read; it is told of longer ones
_BROKEN = "not UTF-8: save it as UTF-8"
_READ = ".csv, .tsv, .jsonl, .parquet and .txt (also packed: .gz, .xz, .zst)"
_DATE = re.compile(r"(\d{4})\s*[-/.年]\s*(\d{1,2})\s*[-/.月]\s*(\d{1,2})日?(?:[T\s]*(\d{1,2})[:时](\d{1,2}))?")


@dataclass(frozen=True)
class Post:
    """One post as it was given; `time` in seconds since 1970, UTC where nothing else is said."""

    id: str
    text: str
    time: float | None = None
    author: str | None = None
    group: str | None = None
    is_cut: bool = False


@dataclass(frozen=True)
class Columns:
    """Which column is what; None where there is none."""

    text: str
    time: str | None = None
    author: str | None = None
    group: str | None = None
    id: str | None = None


def recognise(names: Sequence[str], named: dict[str, str | None], where: str) -> Columns:
    """The columns by their names; DataError where the texts' one isn't clear or a named one isn't there."""
    known = {str(name).strip().lstrip("\ufeff").lower().replace(" ", "_"): name for name in names}
    found: dict[str, str | None] = {}
    for role, words in ROLES.items():
        asked = named.get(role)
        if asked is not None and asked not in names:
            raise DataError(f"{where} has no column {asked!r}: it has {', '.join(map(str, names))}; name another with "
                            f"--{role}")
        found[role] = asked or next((known[word] for word in words if word in known), None)
    if found["text"] is None and len(names) == 1:
        found["text"] = names[0]
    if found["text"] is None:
        raise DataError(f"{where}: none of the columns {', '.join(map(str, names))} is known to hold the texts: name "
                        "it with --text")
    return Columns(**found)                              # type: ignore[arg-type]


def read_posts(path: Path, named: dict[str, str | None], watch: Watch) -> Iterator[Post | Reject]:
    """Every row of a file, or of a folder's files, as a post or with the reason why it is none. `watch(file)` gives
    what is told of the bytes that were read. A file of a folder that holds no posts is left out as its row 0."""
    for file in files_below(path):
        try:
            with watch(file) as moved:
                yield from _of_file(file, named, moved)
        except DataError as error:
            if file == path:
                raise
            yield Reject(file.name, 0, str(error).removeprefix(f"{file.parent}/").removeprefix(f"{file.name}: "))
    if others := ", ".join(f"{n:,} {kind}" for kind, n in passed_over(path).items()):
        yield Reject(path.name, 0, f"passed over: {others}; posts are read from {_READ}")


def _of_file(file: Path, named: dict[str, str | None], moved: Moved) -> Iterator[Post | Reject]:
    kind = kind_of(file)
    if kind not in PLAIN | LINES | TABLES | {".parquet"}:
        raise DataError(f"{file}: posts are read from {_READ}, found {kind or 'no ending'}")
    found = records(file, (), file.name, moved=moved, by_line=kind in PLAIN)
    if kind in PLAIN:
        yield from map(_line, found)
    else:
        yield from _rows(((row.line, row if isinstance(row, Reject) else _table(row, file.name)) for row in found),
                         named, file.name)


def _line(row: Record | Reject) -> Post | Reject:
    """A line of a plain text."""
    if isinstance(row, Reject):
        return row
    assert isinstance(row.payload, bytes)
    try:
        text = decode(row.payload, "utf-8", row.encoding)
    except BadRow as error:
        return Reject(row.file, row.line, f"{str(error).partition(':')[0]}: save it as UTF-8")
    if "\0" in text:
        return Reject(row.file, row.line, "no text, but bytes of a program or a picture")
    return _post(str(row.line), text.strip())


def read_pipe(stream: TextIO, named: dict[str, str | None], name: str = "stdin") -> Iterator[Post | Reject]:
    """Posts as they arrive: JSON objects, CSV below a header with a known column of texts, or a text in each line."""
    first = next((line for line in stream if line.strip()), "")
    if first.lstrip().startswith("{"):
        yield from _rows(((i, _object(line, i, name)) for i, line in enumerate(_after(first, stream), 1)
                          if line.strip()), named, name)
        return
    header = next(csv.reader([first]), [])
    try:
        found = len(header) > 1 and bool(recognise(header, named, name))
    except DataError:
        found = False
    if not found:
        yield from _plain(_after(first, stream), name)
        return
    yield from _rows(_cells(stream, header, name), named, name)


def _cells(stream: TextIO, header: list[str], name: str) -> Iterator[tuple[int, dict[str, Any] | Reject]]:
    rows = csv.reader(stream)
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield rows.line_num + 1, Reject(name, rows.line_num + 1, f"not valid CSV ({error})")
            continue
        if any(map(_is_broken, cells)):
            yield rows.line_num + 1, Reject(name, rows.line_num + 1, _BROKEN)
        elif len(cells) == len(header):
            yield rows.line_num + 1, dict(zip(header, cells, strict=True))
        elif cells:
            line = rows.line_num + 1
            yield line, Reject(name, line, f"{len(cells)} cells, the header has {len(header)}")


def moment(value: Any) -> float | None:
    """Seconds since 1970 of what people write for a time; None where it is none."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    text = str(value).strip()
    if re.fullmatch(r"\d{9,10}(\.\d+)?|\d{12,13}", text):
        number = float(text)
        return number / 1000 if number > 1e11 else number
    try:
        if text[:4].isdigit():
            return moment(datetime.fromisoformat(text))
    except ValueError:
        pass
    if match := _DATE.match(text):
        year, month, day, hour, minute = (int(part or 0) for part in match.groups())
        try:
            return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()
        except ValueError:
            return None
    for form in ("%a %b %d %H:%M:%S %z %Y", "%d %b %Y", "%b %d, %Y", "%m/%d/%Y"):
        try:
            return moment(datetime.strptime(text, form))
        except ValueError:
            continue
    return None


def _after(first: str, stream: Iterable[str]) -> Iterator[str]:
    yield first
    yield from stream


def _plain(lines: Iterable[str], name: str) -> Iterator[Post | Reject]:
    for i, line in enumerate(lines, 1):
        if line.strip():
            yield Reject(name, i, _BROKEN) if _is_broken(line) else _post(str(i), line.strip())


def _is_broken(text: str) -> bool:
    """Whether it came from bytes that are no text; see ayllu/data/encodings.py."""
    return "\udc80" in text


def _table(row: Any, name: str) -> dict[str, Any] | Reject:
    try:
        table = columns(row)
    except BadRow as error:
        return Reject(name, row.line, str(error))
    return table if isinstance(table, dict) else Reject(name, row.line, "no table")


def _object(line: str, number: int, name: str) -> dict[str, Any] | Reject:
    if _is_broken(line):
        return Reject(name, number, _BROKEN)
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Reject(name, number, f"not a JSON object ({error})")
    return row if isinstance(row, dict) else Reject(name, number, f"expected a JSON object, found {type(row).__name__}")


def _rows(rows: Iterable[tuple[int, dict[str, Any] | Reject]], named: dict[str, str | None],
          name: str) -> Iterator[Post | Reject]:
    known: Columns | None = None
    for line, row in rows:
        if isinstance(row, Reject):
            yield row
            continue
        known = known or recognise(list(row), named, name)
        yield _of(row, known, line, name)


def _of(row: dict[str, Any], known: Columns, line: int, name: str) -> Post | Reject:
    def cell(column: str | None) -> str | None:
        value = row.get(column) if column else None
        return None if value is None or isinstance(value, dict | list) or str(value).strip() == "" else str(value)

    text = row.get(known.text)
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if not isinstance(text, str) or not text.strip():
        held = "nothing" if text is None or text == "" else "spaces" if isinstance(text, str) else type(text).__name__
        return Reject(name, line, f"no text in {known.text!r}: it holds {held}")
    time = moment(row[known.time]) if cell(known.time) and known.time else None
    return _post(cell(known.id) or str(line), text.strip(), time, cell(known.author), cell(known.group))


def _post(id_: str, text: str, time: float | None = None, author: str | None = None, group: str | None = None) -> Post:
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")
    return Post(id_[:100], text[:LONGEST], time, author, group and group[:60], len(text) > LONGEST)
