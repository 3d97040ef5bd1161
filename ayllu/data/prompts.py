"""Prompts to be answered, with whatever else their rows hold: what a reward may look at."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ayllu.data.chat_rows import Message, tables
from ayllu.data.preference_rows import prompt_of
from ayllu.data.rows import BadRow, Reject
from ayllu.data.sources import Fates, Rows, Source, chosen
from ayllu.errors import RequestError
from ayllu.text.chat import ChatTemplate
from ayllu.text.tokenizer import Tokenizer


class Prompts(Rows):
    """Rows with a prompt, a text or messages, by which they are held out."""

    sources: tuple[Source, ...] = Field(min_length=1)
    too_long: Literal["error", "drop"] = "error"         # of prompts that leave no room for an answer


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
class GatheredPrompts(Fates):
    """What the sources gave: the two sides, and what became of each row."""

    train: list[Prompt] = field(default_factory=list)
    held_out: list[Prompt] = field(default_factory=list)

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
                found.refuse(row, error)
                continue
            if len(made.ids) > room:
                found.refuse_long(row, f"a prompt of {len(made.ids)} ids, and {room} leave room for the answer")
                continue
            held_out = chosen(made.messages, config.held_out)
            (found.held_out if held_out else found.train).append(made)
            counts[f"kept{'_held_out' * held_out}"] += 1
    found.check(config.sources, config.bad_rows, config.too_long, "prompts are too long. {}. Choose: "
                "data.too_long=drop, a smaller max_tokens, or a longer context", not found.train)
    return found


def _encoded(payload: dict[str, Any], source: Source, tokenizer: Tokenizer, template: ChatTemplate | None,
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
