"""Prompts to be answered, with whatever else their rows hold: what a reward may look at."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ayllu.config import Settings
from ayllu.data.chat_rows import Message, tables
from ayllu.data.chats import some_of
from ayllu.data.pairs import PairSource
from ayllu.data.preference_rows import prompt_of
from ayllu.data.rows import BadRow, Reject
from ayllu.errors import DataError, RequestError
from ayllu.text.chat import ChatTemplate
from ayllu.text.tokenizer import Tokenizer


class Prompts(Settings):
    """Rows with a prompt: a text or messages."""

    root: str = "."                                      # paths are relative to this; itself relative to the recipe
    sources: tuple[PairSource, ...] = Field(min_length=1)
    held_out: float = Field(default=0.05, ge=0, lt=1)    # the share kept for evaluation, chosen by each row's prompt
    template: str = "auto"                               # auto: the model's; a format's name; a Jinja file; plain
    too_long: Literal["error", "drop"] = "error"         # of prompts that leave no room for an answer
    bad_rows: Literal["error", "drop"] = "error"         # of rows without a prompt


@dataclass(frozen=True)
class Prompt:
    """One row."""

    ids: tuple[int, ...]
    messages: list[Message]
    row: dict[str, Any]                                  # all of its columns
    place: str                                           # the file and the row that it comes from

    @property
    def text(self) -> str:
        """What is asked: the last message."""
        return str(self.messages[-1]["content"])


@dataclass
class GatheredPrompts:
    """What the sources gave: the two sides, what became of each row, and the rows that were left out."""

    train: list[Prompt] = field(default_factory=list)
    held_out: list[Prompt] = field(default_factory=list)
    counts: list[Counter[str]] = field(default_factory=list)
    bad: list[Reject] = field(default_factory=list)
    long: list[Reject] = field(default_factory=list)

    @property
    def rejects(self) -> list[Reject]:
        """All rows that were left out."""
        return [*self.bad, *self.long]

    @property
    def digest(self) -> str:
        """Changes with every prompt of both sides and with all that their rows hold."""
        both = [[[p.ids, p.row] for p in side] for side in (self.train, self.held_out)]
        return hashlib.sha256(json.dumps(both, default=str).encode()).hexdigest()[:16]


def gather_prompts(config: Prompts, folder: Path, tokenizer: Tokenizer, template: ChatTemplate | None,
                   room: int) -> GatheredPrompts:
    """Read and encode all sources; a prompt may have `room` ids. DataError where rows can't be used as they are."""
    found = GatheredPrompts()
    for source in config.sources:
        found.counts.append(counts := Counter[str]())
        for row in tables(folder / config.root / source.path, source.path):
            counts["rows"] += 1
            try:
                if isinstance(row, Reject):
                    raise BadRow(row.reason)
                assert isinstance(row.payload, dict)
                made = _encoded(row.payload, source, tokenizer, template, f"{row.file}, row {row.line}")
            except BadRow as error:
                counts["bad_rows"] += 1
                found.bad.append(Reject(row.file, row.line, str(error)))
                continue
            if len(made.ids) > room:
                counts["too_long"] += 1
                found.long.append(Reject(row.file, row.line, f"a prompt of {len(made.ids)} ids, and {room} leave room "
                                         "for the answer"))
                continue
            held_out = _chosen(made, config.held_out)
            (found.held_out if held_out else found.train).append(made)
            counts[f"kept{'_held_out' * held_out}"] += 1
    _check(found, config)
    return found


def _encoded(payload: dict[str, Any], source: PairSource, tokenizer: Tokenizer, template: ChatTemplate | None,
             place: str) -> Prompt:
    row = {**payload, **{ours: payload[theirs] for ours, theirs in source.columns.items() if theirs in payload}}
    if row.get("prompt") is None:
        raise BadRow(f"no prompt; the row has {', '.join(map(str, row))}: name the column (columns.prompt = \"...\")")
    messages = prompt_of(row["prompt"], template is None)
    if template is None:
        if len(messages) > 1:
            raise BadRow("data.template=plain takes a text, found several messages: name a chat template")
        return Prompt(tuple(tokenizer.encode(messages[0]["content"], bos=True)), messages, row, place)
    try:
        ids = template.render(messages, tokenizer, add_generation_prompt=True, with_spans=False).ids
    except RequestError as error:
        raise BadRow(str(error)) from error
    return Prompt(tuple(ids), messages, row, place)


def _chosen(made: Prompt, share: float) -> bool:
    said = "\0".join(f"{m['role']}\0{m['content']}" for m in made.messages)
    number = int.from_bytes(hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    return number < share * 2**64


def _check(found: GatheredPrompts, config: Prompts) -> None:
    total: Counter[str] = sum(found.counts, Counter())
    if total["bad_rows"] and config.bad_rows == "error":
        raise DataError(f"{total['bad_rows']:,} of {total['rows']:,} rows have no prompt. {some_of(found.bad)}. "
                        "Correct them, or set data.bad_rows=drop: they are then left out, counted and listed")
    if total["too_long"] and config.too_long == "error":
        raise DataError(f"{total['too_long']:,} of {total['rows']:,} prompts are too long. {some_of(found.long)}. "
                        "Choose: data.too_long=drop, a smaller max_tokens, or a longer context")
    if not found.train:
        raise DataError(f"none of {total['rows']:,} rows is left to train on: {some_of(found.rejects)}")
