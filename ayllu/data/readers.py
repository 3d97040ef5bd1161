"""Rows of files, streamed: text, Markdown, HTML, JSON Lines, CSV and Parquet, any of them compressed (gz, xz, zst).

Reading has two halves, so that one process can read while others parse. `records` cuts a file into rows that are still
raw; `parse` turns a row into a text. What can't be read is a `Reject`, with file, line and reason, and never just gone.

Rows of Parquet, a batch in memory at a time; a group of rows that is damaged costs only itself.
"""

import errno
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ayllu.data.csv_rows import table
from ayllu.data.encodings import BROKEN, MIXED, decode, guess, guess_page, is_hidden_utf_8
from ayllu.data.folders import HTML, LINES, TABLES, kind_of
from ayllu.data.html import html_text
from ayllu.data.packed import DAMAGED, Moved, nobody, open_binary, open_seekable
from ayllu.data.rows import FILE_BYTES, MOST_BLANK, ROW_BYTES, BadRow, Record, Reject, too_blank, too_long, weigh
from ayllu.errors import extra
from ayllu.files import is_full

PIECE = 2**17                                            # bytes
AUTO = "auto"                                            # an encoding: found from the bytes


def records(path: Path, fields: tuple[str, ...], name: str, encoding: str = AUTO,
            moved: Moved = nobody, by_line: bool = False) -> Iterator[Record | Reject]:
    """The raw rows of one file in their order; `name` is what they are called in rejects and reports.

    No `fields`: all of them. `moved` is told how many bytes of the disk were read since it was told last. `by_line`: a
    plain text is a row for each line (in UTF-8, as `_lines` gives them), not one document.
    """
    last = 0
    try:
        for row in _rows(path, ".jsonl" if by_line else kind_of(path), fields, name, encoding, moved):
            last = row.line
            yield row
    except DAMAGED as error:
        yield Reject(name, last + 1, f"the file is damaged or cut short from here on ({error or type(error).__name__})")
    except OSError as error:
        if is_full(error) or error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
            raise                                        # the machine's fault, and not the file's
        here = " from here on" if last else ""
        yield Reject(name, last + bool(last), f"can't be read{here} ({error.strerror or error})")


def parse(record: Record, fields: tuple[str, ...]) -> str:
    """The text of a raw row; raises BadRow with the reason."""
    row = columns(record)
    return row if isinstance(row, str) else pick(row, fields)


def columns(record: Record) -> dict[str, Any] | str:
    """A row of a table by its columns, and the text of what is one document; raises BadRow with the reason."""
    kind = kind_of(Path(record.file))
    if isinstance(record.payload, dict):
        return record.payload
    if kind not in LINES:
        text = decode(record.payload, record.encoding)
        return html_text(text) if kind in HTML else text
    text = decode(record.payload, "utf-8", record.encoding)
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:        # ValueError also for a number of thousands of digits
        raise BadRow(f"not a JSON object ({error})") from error
    if not isinstance(row, dict):
        raise BadRow(f"expected a JSON object, found {type(row).__name__}")
    return row


def table_of(record: Record) -> dict[str, Any]:
    """A row of a table by its columns; raises BadRow with the reason."""
    row = columns(record)
    if isinstance(row, str):
        raise BadRow("a text, no row of a table")
    return row


def pick(row: dict[str, Any], fields: tuple[str, ...]) -> str:
    """The fields of a row, joined by a line break; "meta.text" is the field `text` of the object `meta`."""
    found = [_value(row, field) for field in fields]
    if missing := [f for f, value in zip(fields, found, strict=True) if value is None]:
        held = row.get(missing[0])
        why = (f"the row has {', '.join(map(str, row))}: set `fields` (--field)" if missing[0] not in row else
               f"it holds {'nothing' if held is None else type(held).__name__}")
        raise BadRow(f"no text in field {missing[0]!r}; {why}")
    return "\n".join(value for value in found if value is not None)


def _value(row: Any, field: str) -> str | None:
    value = row.get(field)
    if value is None and "." in field:
        first, _, rest = field.partition(".")
        return _value(row[first], rest) if isinstance(row.get(first), dict) else None
    if isinstance(value, bytes):                         # Parquet's binary columns, as older writers make of text
        return decode(value, "utf-8")
    return value if isinstance(value, str) else None


def _rows(path: Path, kind: str, fields: tuple[str, ...], name: str, encoding: str,
          moved: Moved) -> Iterator[Record | Reject]:
    if kind == ".parquet":
        yield from parquet(path, fields, name, moved)
        return
    with open_binary(path, moved) as stream:
        if kind not in LINES | TABLES:
            yield _whole(stream, kind, name, encoding)
            return
        start = stream.peek(PIECE)[:PIECE]               # what the buffers hold: 8 kB or more
        found = guess(start, is_whole=False) if encoding == AUTO else encoding
        yield from (_lines(stream, name, found) if kind in LINES else table(stream, kind, found, fields, name))


def _whole(stream: Any, kind: str, name: str, encoding: str) -> Record | Reject:
    data = stream.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        return too_long(name, 0, len(data) + sum(map(len, iter(lambda: stream.read(PIECE), b""))), FILE_BYTES)
    found = (guess_page if kind in HTML else guess)(data) if encoding == AUTO else encoding
    return Record(name, 0, data, found)


def _lines(stream: Any, name: str, encoding: str) -> Iterator[Record | Reject]:
    """Lines as UTF-8, whatever they were in: the bytes of UTF-16 can't be cut at line feeds."""
    if encoding == "utf-8":
        return _cut(stream, name, encoding)
    return _cut(io.TextIOWrapper(stream, encoding=encoding, errors=BROKEN, newline="\n"), name, encoding)


def _cut(stream: Any, name: str, encoding: str) -> Iterator[Record | Reject]:
    number = blank = 0
    while line := stream.readline(ROW_BYTES + 1):
        number += 1
        blank = 0 if line.strip() else blank + len(line)
        if blank > MOST_BLANK:
            yield too_blank(name, number)
            return
        if len(line) > ROW_BYTES:
            size, piece = len(line), line
            while piece and piece[-1:] not in ("\n", b"\n"):
                piece = stream.readline(PIECE)
                size += len(piece)
            yield too_long(name, number, size, ROW_BYTES, "bytes" if isinstance(line, bytes) else "characters")
        elif blank:
            continue
        elif isinstance(line, bytes):
            yield Record(name, number, line)
        elif encoding == "gb18030" and is_hidden_utf_8(str(line)):
            yield Reject(name, number, MIXED)
        else:
            yield Record(name, number, line.encode("utf-8", "surrogatepass"), encoding)


BATCH = 1000
MOST_BYTES, MOST_TIMES = 256 * 2**20, 1000               # that a column of a group may have, and be packed by, at once
MOST_LONG = 2**21                                        # of a column, for a thousand rows; twice pyarrow's dictionary


def parquet(path: Path, fields: tuple[str, ...], name: str, moved: Moved) -> Iterator[Record | Reject]:
    """Rows with the columns `fields` (none: all); "meta.text" is the field `text` of the column `meta`."""
    with extra("data", f"{path}: reading Parquet"):
        import pyarrow
        import pyarrow.parquet
    with open_seekable(path, moved) as file:
        try:
            table = pyarrow.parquet.ParquetFile(file)
        except (pyarrow.ArrowException, OSError) as error:
            yield Reject(name, 1, f"can't be read as Parquet ({_first_line(error)})")
            return
        known = table.schema_arrow.names
        wanted = [f if f in known else f.partition(".")[0] for f in fields]
        if missing := [f for f, column in zip(fields, wanted, strict=True) if column not in known]:
            yield Reject(name, 0, f"no column {missing[0]!r}; the file has {', '.join(known)}: set `fields`")
            return
        if long := _long(table, wanted):
            table = pyarrow.parquet.ParquetFile(file, read_dictionary=long)
        start = size = 0
        packed = path.stat().st_size
        for group in range(table.num_row_groups):
            last, end = start, start + table.metadata.row_group(group).num_rows
            if reason := _bomb(table.metadata.row_group(group), wanted):
                yield Reject(name, last + 1, f"rows {last + 1:,} to {end:,} aren't unpacked: {reason}")
                start = end
                continue
            try:
                for batch in table.iter_batches(BATCH, row_groups=[group], columns=list(dict.fromkeys(wanted)) or None):
                    for row in _dicts(batch, one_by_one=bool(long)):
                        last += 1
                        yield (found := Record(name, last, row) if isinstance(row, dict) else Reject(name, last, row))
                        if (size := size + weigh(found)) > MOST_BYTES and size > MOST_TIMES * packed:
                            yield Reject(name, last + 1, f"rows {last + 1:,} to {table.metadata.num_rows:,} aren't "
                                         f"read: {packed:,} bytes have become {size:,} of text, as many rows name one "
                                         "value; write the file without packing if that is right")
                            return
            except (pyarrow.ArrowException, OSError) as error:
                yield Reject(name, last + 1, f"rows {last + 1:,} to {end:,} can't be read ({_first_line(error)})")
            start = end


def _bomb(group: Any, wanted: list[str]) -> str | None:
    """Why a group of rows is left alone: pyarrow unpacks a page whole, however large it is."""
    for column in map(group.column, range(group.num_columns)):
        name, size, packed = column.path_in_schema, column.total_uncompressed_size, column.total_compressed_size
        if size <= MOST_BYTES or (wanted and name.partition(".")[0] not in wanted):
            continue
        if size > MOST_TIMES * packed or size > ROW_BYTES * column.num_values:
            return (f"{packed:,} bytes of the column {name} would be {size:,}, in {column.num_values:,} cells: cut "
                    "what is in them, or write the file without packing if that is right")
    return None


def _long(table: Any, wanted: list[str]) -> list[str]:
    """Columns whose rows may all name one long text, which lies in the file once: it is kept once in memory, too."""
    groups = map(table.metadata.row_group, range(table.num_row_groups))
    return sorted({column.path_in_schema for group in groups for column in map(group.column, range(group.num_columns))
                   if column.has_dictionary_page and column.physical_type == "BYTE_ARRAY"
                   and column.total_uncompressed_size * min(BATCH, group.num_rows) > MOST_TIMES * MOST_LONG
                   and (not wanted or column.path_in_schema.partition(".")[0] in wanted)})


def _dicts(batch: Any, one_by_one: bool = False) -> Iterator[dict[str, Any] | str]:
    """Rows as dictionaries; the reason where one holds what Python can't take, such as text that isn't UTF-8."""
    try:
        if not one_by_one:
            yield from batch.to_pylist()
            return
    except (ValueError, OverflowError):
        pass
    for i in range(batch.num_rows):
        try:
            yield batch.slice(i, 1).to_pylist()[0]
        except (ValueError, OverflowError) as error:
            yield f"a value that can't be read ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
