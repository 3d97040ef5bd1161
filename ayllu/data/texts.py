"""Documents from files where every row has to be good: the first bad one is an error that names file and line."""

from collections.abc import Iterator
from pathlib import Path

from ayllu.data.readers import PLAIN, BadRow, Reject, files_below, kind_of, parse, records
from ayllu.errors import DataError


def documents(path: str | Path, fields: tuple[str, ...] = ("text",)) -> Iterator[str]:
    """The documents of one file, or of every readable file below a folder, in the order of their names.

    A plain file or a page is one document. A row of JSON Lines, CSV or Parquet gives its `fields`, joined by a line
    break; a row without them is an error that names file and line.
    """
    for file in files_below(Path(path)):
        for record in records(file, fields, str(file)):
            where = f"{record.file}:{record.line}" if record.line else record.file
            if isinstance(record, Reject):
                raise DataError(f"{where}: {record.reason}")
            try:
                yield parse(record, fields)
            except BadRow as error:
                raise DataError(f"{where}: {error}; mend it, or let [data.prepare] put such rows aside") from error


def is_plain(path: Path) -> bool:
    """Whether a file is one document as it stands."""
    return kind_of(path) in PLAIN
