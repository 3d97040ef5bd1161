"""Rows of Parquet, a batch in memory at a time; a group of rows that is damaged costs only itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ayllu.data.packed import Moved, open_seekable
from ayllu.data.rows import Record, Reject
from ayllu.errors import MissingExtra

BATCH = 1000


def parquet(path: Path, fields: tuple[str, ...], name: str, moved: Moved) -> Iterator[Record | Reject]:
    """Rows with the columns `fields` (none: all); "meta.text" is the field `text` of the column `meta`."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(f"{path}: reading Parquet needs the extra `data`: pip install 'ayllu[data]'.") from error
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
        start = 0
        for group in range(table.num_row_groups):
            last, end = start, start + table.metadata.row_group(group).num_rows
            try:
                for batch in table.iter_batches(BATCH, row_groups=[group], columns=list(dict.fromkeys(wanted)) or None):
                    for row in _dicts(batch):
                        last += 1
                        yield Record(name, last, row) if isinstance(row, dict) else Reject(name, last, row)
            except (pyarrow.ArrowException, OSError) as error:
                yield Reject(name, last + 1, f"rows {last + 1:,} to {end:,} can't be read ({_first_line(error)})")
            start = end


def _dicts(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Rows as dictionaries; the reason where one holds what Python can't take, such as text that isn't UTF-8."""
    try:
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
