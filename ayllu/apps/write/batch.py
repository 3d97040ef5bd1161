"""Many briefs from a table, each written and checked; what is done is kept at once, and never done again."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ayllu.apps.speaker import Speaker
from ayllu.apps.write.brief import Brief
from ayllu.apps.write.checks import check
from ayllu.apps.write.compose import write
from ayllu.apps.write.copies import Sources
from ayllu.data.chat_rows import tables
from ayllu.data.rows import Reject
from ayllu.errors import DataError

COLUMNS = tuple(Brief.model_fields)
LISTS = ("points", "forbidden", "keywords")                    # several in one cell, between semicolons
MOST = 10_000


@dataclass(frozen=True)
class Row:
    """A brief with the line that it stands in."""

    line: int
    brief: Brief


def read_briefs(path: Path, name: str = "") -> tuple[list[Row], list[str]]:
    """The briefs of a table (CSV, TSV, JSON Lines or Parquet), and what is wrong with its other rows, by their lines.

    Columns are the fields of a brief; only `topic` or `keywords` is needed. A column of another name is an error.
    """
    rows, faults = [], []
    for record in tables(path, name or path.name):
        if isinstance(record, Reject):
            faults.append(f"{record.file}:{record.line}: {record.reason}")
            continue
        assert isinstance(record.payload, dict)
        cells = {str(key).strip().lower(): value for key, value in record.payload.items()}
        _check_columns(cells, f"{record.file}:{record.line}")
        try:
            rows.append(Row(record.line, Brief.model_validate(_fields(cells))))
        except ValidationError as error:
            first = error.errors()[0]
            said = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
            where = "".join(f"{part}: " for part in first["loc"][:1])
            faults.append(f"{record.file}:{record.line}: {where}{said}")
    if len(rows) > MOST:
        raise DataError(f"{len(rows)} briefs, at most {MOST} are taken at a time: split the table")
    if not rows:
        raise DataError(f"{name or path.name} has no brief that can be used: " + ("; ".join(faults[:5]) or
                        "write one row for each text, below a header with `topic` or `keywords`"))
    return rows, faults


def write_all(rows: Sequence[Row], speaker: Speaker, *, done: int = 0, seed: int = 0, sources: Sources | None = None,
              beat: Callable[[int], None] = lambda n: None) -> Iterator[dict[str, Any]]:
    """One JSON value for each brief after the first `done`, as it is finished; `beat` gets how many are."""
    for number, row in enumerate(rows[done:], done):
        beat(number)
        text = write(row.brief, speaker, seed=seed + 10_000 * number)
        yield {"line": row.line, "topic": row.brief.topic, "text": text, "model": speaker.name,
               "checks": check(text, row.brief, sources).as_json()}


def finished(out: Path, rows: Sequence[Row]) -> int:
    """How many briefs a file of results holds already; a last line that was cut is dropped. It is an error where they
    are of other briefs."""
    if not out.exists():
        return 0
    whole = out.read_bytes()
    if whole and not whole.endswith(b"\n"):
        whole = whole[:whole.rfind(b"\n") + 1]
        out.write_bytes(whole)
    try:
        found = [(value["line"], value["topic"]) for value in map(json.loads, whole.splitlines())]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{out} holds something else than texts of briefs: name another file with --out") from error
    for (line, topic), row in zip(found, rows, strict=False):
        if (line, topic) != (row.line, row.brief.topic):
            raise DataError(f"{out} holds texts of other briefs (line {line}: {topic!r}): "
                            "name another file with --out, or move it away")
    return min(len(found), len(rows))


def _fields(cells: dict[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in cells.items() if value not in (None, "")}
    for key in LISTS:
        if isinstance(given.get(key), str):
            given[key] = tuple(given[key].replace("；", ";").split(";"))
    return {"topic": "", **given}


def _check_columns(cells: dict[str, Any], where: str) -> None:
    for key in cells:
        if key not in COLUMNS:
            near = get_close_matches(key, COLUMNS, n=1)
            raise DataError(f"{where}: there is no column {key!r}" + (f": is {near[0]!r} meant?" if near else "") +
                            f" Columns are {', '.join(COLUMNS)}")
