"""Documents from files where every row has to be good: the first bad one is an error that names file and line."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ayllu.data.folders import PLAIN, files_below, kind_of
from ayllu.data.packed import Watch, unwatched
from ayllu.data.readers import columns, parse, records
from ayllu.data.rows import BadRow, Record, Reject
from ayllu.errors import DataError

T = TypeVar("T")
HINT = "; mend it, or let [data.prepare] put such rows aside"


def documents(path: str | Path, fields: tuple[str, ...] = ("text",), watch: Watch = unwatched) -> Iterator[str]:
    """The documents of one file, or of every readable file below a folder, in the order of their names.

    A plain file or a page is one document. A row of JSON Lines, CSV or Parquet gives its `fields`, joined by a line
    break; a row without them is an error that names file and line.
    """
    for file in files_below(Path(path)):
        for _, text in each_row(file, fields, lambda record: parse(record, fields), watch):
            yield text


def single_texts(file: Path, fields: tuple[str, ...] = ()) -> Iterator[str]:
    """As `documents` of one file, but each of a row's `fields` by itself; without any, all that hold text."""
    for where, row in each_row(file, fields, columns):
        if isinstance(row, str):
            yield row
            continue
        values = [row.get(f) for f in fields] if fields else list(row.values())
        found = [v for v in values if isinstance(v, str)]
        if not found or (fields and len(found) < len(fields)):
            raise DataError(f"{where}: no text in {', '.join(fields) or 'any field'}; the row has "
                            f"{', '.join(map(str, row))} (of ayllu pretrain, data.prepare.overlap.fields names them)")
        yield from found


def each_row(file: Path, fields: tuple[str, ...], read: Callable[[Record], T],
             watch: Watch = unwatched, hint: str = HINT) -> Iterator[tuple[str, T]]:
    """Where each row of a file is, and what `read` makes of it; DataError, with a hint, where it can't be read."""
    with watch(file) as moved:
        for record in records(file, fields, str(file), moved=moved):
            where = f"{record.file}:{record.line}" if record.line else record.file
            if isinstance(record, Reject):
                raise DataError(f"{where}: {record.reason}")
            try:
                yield where, read(record)
            except BadRow as error:
                raise DataError(f"{where}: {error}{hint}") from error


def is_plain(path: Path) -> bool:
    """Whether a file is one document as it stands."""
    return kind_of(path) in PLAIN
