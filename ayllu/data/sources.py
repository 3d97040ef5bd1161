"""What rows to learn from share: where they lie, which are held out, and what became of each.

Conversations (chats.py), preferences (pairs.py) and prompts (prompts.py) add what is their own. A row that nothing can
be learned from, or that doesn't fit, is an error, or left out, counted and listed, as the settings say.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from ayllu.config import Settings
from ayllu.data.chat_rows import Message
from ayllu.data.rows import Reject
from ayllu.errors import DataError

SHOWN = 3                                                # rejects that an error names


class Source(Settings):
    """A file or folder of rows."""

    path: str
    columns: dict[str, str] = Field(default_factory=dict)    # prompt = "question": where columns have other names
    licence: str | None = None


class Rows(Settings):
    """How rows are found and read, and what happens to those that nothing can be learned from."""

    root: str = "."                                      # paths are relative to this; itself relative to the recipe
    held_out: float = Field(default=0.05, ge=0, lt=1)    # the share kept for evaluation, chosen by each row's content
    template: str = "auto"                               # auto: the model's; a format's name; a Jinja file; plain
    bad_rows: Literal["error", "drop"] = "error"         # of rows that nothing can be learned from


@dataclass(kw_only=True)
class Fates:
    """What became of each row, and the rows that were left out."""

    counts: list[Counter[str]] = field(default_factory=list)     # for each source, those held out last
    bad: list[Reject] = field(default_factory=list)
    long: list[Reject] = field(default_factory=list)

    @property
    def rejects(self) -> list[Reject]:
        """All rows that were left out."""
        return [*self.bad, *self.long]

    @property
    def total(self) -> Counter[str]:
        """Over all sources."""
        return sum(self.counts, Counter())

    def refuse(self, row: Any, why: object) -> None:
        """Nothing can be learned from it."""
        self.counts[-1]["bad_rows"] += 1
        self.bad.append(Reject(row.file, row.line, str(why)))

    def refuse_long(self, row: Any, why: object) -> None:
        """It doesn't fit."""
        self.counts[-1]["too_long"] += 1
        self.long.append(Reject(row.file, row.line, str(why)))

    def told(self, *sources: Source) -> dict[str, Any]:
        """For reports: each source and what became of its rows, and each row that was left out."""
        return {"sources": [{"path": source.path, "licence": source.licence,
                             "documents": n["kept"] + n["kept_held_out"], **n}
                            for source, n in zip(sources, self.counts, strict=True)],
                "rows": dict(self.total),
                "left_out": [{"file": r.file, "row": r.line, "reason": r.reason} for r in self.rejects]}

    def check(self, sources: Sequence[Source], bad_rows: str, too_long: str, long: str, is_empty: bool) -> None:
        """DataError where a source is empty, where the settings want no row left out, or none is left; `long` says what
        rows are too long for, with {} for the first of them."""
        total = self.total
        if empty := [source.path for source, n in zip(sources, self.counts, strict=True) if not n["rows"]]:
            raise DataError(f"{', '.join(empty)} holds no row: expected one in each line, or below a header; fill it, "
                            "or leave it out")
        if total["bad_rows"] and bad_rows == "error":
            raise DataError(f"{total['bad_rows']:,} of {total['rows']:,} rows can't be learned from. "
                            f"{some_of(self.bad)}. Correct them, or set data.bad_rows=drop: they are then left out, "
                            "counted and listed")
        if total["too_long"] and too_long == "error":
            raise DataError(f"{total['too_long']:,} of {total['rows']:,} {long.format(some_of(self.long))}")
        if is_empty:
            shown = some_of(self.rejects)
            raise DataError(f"none of {total['rows']:,} rows is left to train on{': ' * bool(shown)}{shown}")

    def check_held_out(self, share: float, is_empty: bool) -> None:
        """DataError where a share was wanted and none came of it."""
        if share and is_empty:
            raise DataError(f"held_out={share} of {self.total['rows']:,} rows came to none: set a larger share, name "
                            "data.held_out_sources, or set data.held_out=0")


def chosen(messages: Sequence[Message], share: float) -> bool:
    """Whether a row with these messages is held out: by content, so that equal ones are on one side, in whatever order
    files are read."""
    said = "\0".join(f"{m['role']}\0{m['content']}" for m in messages)
    number = int.from_bytes(hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    return number < share * 2**64


def some_of(rejects: Sequence[Reject]) -> str:
    """The first ones, for an error."""
    return "; ".join(f"{r.file}, row {r.line}: {r.reason}" for r in rejects[:SHOWN])
