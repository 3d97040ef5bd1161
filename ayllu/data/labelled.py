"""Rows with a text and what it is labelled: CSV, TSV, JSON Lines or Parquet, packed or not. Nothing is skipped.

single       a label: a text or a whole number
multi        labels: a list, as JSON in a cell, or a text with `|` between them; [] is a row with none
tokens       words and one label for each: two lists, or two texts cut at spaces (B-PER I-PER O)
regression   a number
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayllu.data.folders import LINES, PLAIN, TABLES, files_below, kind_of
from ayllu.data.readers import records, table_of
from ayllu.data.rows import BadRow, Reject, each
from ayllu.errors import DataError

Label = str | tuple[str, ...] | float
SHOWN = 5                                                # faults that an error names; it counts them all
SEPARATOR = "|"


@dataclass(frozen=True)
class Labelled:
    """One row. `text` is a tuple of words where each has a label."""

    file: str
    line: int
    text: str | tuple[str, ...]
    label: Label

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels by name; none for a number."""
        return () if isinstance(self.label, float) else (self.label,) if isinstance(self.label, str) else self.label


def read_labelled(path: Path, kind: str = "single", text: str = "text", label: str = "label") -> list[Labelled]:
    """All rows of a file; DataError where one can't be learned from, with its file and number."""
    found, faults = list[Labelled](), list[Reject]()
    files = files_below(path)
    for file in files:
        if kind_of(file) not in LINES | TABLES | {".parquet"}:
            raise DataError(f"{file}: rows with labels are read from .jsonl, .csv, .tsv and .parquet (also packed: "
                            f".gz, .xz, .zst), found {kind_of(file)}")
        fields = (text, label) if kind_of(file) in TABLES else ()
        for row in each(records(file, fields, str(file)), lambda row: Labelled(
                row.file, row.line, *_read(table_of(row), kind, text, label))):
            faults.append(row) if isinstance(row, Reject) else found.append(row)
    _refuse(faults, len(found))
    if not found:
        raise DataError(f"{path} holds no row: expected the columns {text} and {label}, and rows below them")
    return found


def read_texts(path: Path, text: str = "text") -> list[str]:
    """The texts of a file without labels; of a plain text file its lines. DataError where a row has none."""
    out, faults = list[str](), list[Reject]()
    for file in files_below(path):
        if kind_of(file) in PLAIN:
            out += [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
            continue
        for row in each(records(file, (text,) if kind_of(file) in TABLES else (), str(file)),
                        lambda row: _text(_column(table_of(row), text, "--text"), text)):
            faults.append(row) if isinstance(row, Reject) else out.append(row)
    _refuse(faults, len(out))
    return out


def _refuse(faults: Sequence[Reject], good: int) -> None:
    if faults:
        first = list({r.reason: r for r in reversed(faults)}.values())[::-1][:SHOWN]     # of each reason, its first row
        shown = "; ".join(f"{r.file}, row {r.line}: {r.reason}" for r in first)
        more = f"; and {len(faults) - len(first):,} more" if len(faults) > len(first) else ""
        raise DataError(f"{len(faults):,} of {good + len(faults):,} rows can't be used. {shown}{more}. Correct or "
                        "remove them: no row is left out silently")


def _read(row: dict[str, Any], kind: str, text: str, label: str) -> tuple[str | tuple[str, ...], Label]:
    said, meant = _column(row, text, "--text"), _column(row, label, "--label")
    match kind:
        case "tokens":
            words, labels = _words(said, text), _words(meant, label)
            if len(words) != len(labels):
                raise BadRow(f"{len(words)} words and {len(labels)} labels: each word needs one")
            return words, labels
        case "multi":
            return _text(said, text), _many(meant, label)
        case "regression":
            return _text(said, text), _number(meant, label)
    if isinstance(meant, list | tuple | dict):
        raise BadRow(f"column {label!r} holds a {type(meant).__name__}, not one label: --kind multi takes some of "
                     "many, --kind tokens one for each word")
    return _text(said, text), _name(meant)


def _column(row: dict[str, Any], column: str, option: str) -> Any:
    if column not in row:
        raise BadRow(f"no column {column!r}; there are {', '.join(map(str, row))}: name it with {option}")
    if row[column] is None or row[column] == "":
        raise BadRow(f"nothing in column {column!r}")
    return row[column]


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"column {column!r} should hold a text, found {type(value).__name__}")
    if not value.strip():
        raise BadRow(f"nothing but space in column {column!r}")
    return value


def _name(value: Any) -> str:
    """A whole number that a table has made a float of, where one is missing somewhere, is still that number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = str(value).strip()
    if not name or name == "nan":
        raise BadRow("no label")
    return name


def _many(value: Any, column: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = _json(value) if value.lstrip().startswith("[") else value.split(SEPARATOR)
    if not isinstance(value, list | tuple):
        raise BadRow(f"column {column!r} should hold a list of labels, found {type(value).__name__}")
    return tuple(dict.fromkeys(_name(one) for one in value))


def _words(value: Any, column: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = _json(value) if value.lstrip().startswith("[") else value.split()
    if not isinstance(value, list | tuple) or not value or not all(isinstance(word, str) and word for word in value):
        raise BadRow(f"column {column!r} should hold a list of words, or a text of them with spaces between")
    return tuple(value)


def _number(value: Any, column: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise BadRow(f"column {column!r} should hold a number, found {str(value)[:40]!r}") from error
    if not math.isfinite(number):
        raise BadRow(f"column {column!r} holds {number}, which is no number to learn")
    return number


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadRow(f"a list that isn't valid JSON ({error})") from error


def names_of(rows: Sequence[Labelled]) -> tuple[str, ...]:
    """All labels that occur, in order: as numbers where all are whole numbers, else as texts."""
    found = {name for row in rows for name in row.labels}
    if all(name.removeprefix("-").isdecimal() for name in found):
        return tuple(sorted(found, key=int))
    return tuple(sorted(found))


def check_known(rows: Sequence[Labelled], names: Sequence[str]) -> None:
    """DataError where a row has a label that nobody learned."""
    known = set(names)
    faults = [(row, name) for row in rows for name in row.labels if name not in known]
    if faults:
        shown = "; ".join(f"{row.file}, row {row.line}: {name!r}" for row, name in faults[:SHOWN])
        raise DataError(f"{len(faults):,} labels that the training data doesn't have: {shown}. It has "
                        f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}: correct them, or train on them")


def split(rows: Sequence[Labelled], shares: Sequence[float]) -> list[list[Labelled]]:
    """The rows in len(shares) + 1 parts by a fixed hash of the text, so that equal texts are on one side, in whatever
    order they come; the last part is what no share took."""
    parts: list[list[Labelled]] = [[] for _ in (*shares, 0)]
    for row in rows:
        place, number, edge = len(shares), position(row.text), 0.0
        for i, share in enumerate(shares):
            edge += share
            if number < edge:
                place = i
                break
        parts[place].append(row)
    return parts


def position(text: str | tuple[str, ...]) -> float:
    """From 0 to 1, by the content alone."""
    said = text if isinstance(text, str) else "\0".join(text)
    return int.from_bytes(hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()[:8], "little") / 2**64
