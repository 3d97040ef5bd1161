"""Preferences from the rows of files: two answers to one prompt of which one is better, or one answer and a verdict.

    pair        {"prompt": ..., "chosen": ..., "rejected": ...}
    implicit    {"chosen": ..., "rejected": ...}, both with the prompt before the last answer
    judged      {"prompt": ..., "completion": ..., "label": true}

Each is a text or a list of messages. A text may hold a whole dialogue in the form of HH-RLHF (arXiv:2204.05862),
"\\n\\nHuman: ... \\n\\nAssistant: ...". Files are those of chat_rows.py.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ayllu.data.chat_rows import Message, checked, tables
from ayllu.data.rows import BadRow, Reject, each

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
VERDICTS = {"true": True, "1": True, "good": True, "false": False, "0": False, "bad": False}


@dataclass(frozen=True)
class Preference:
    """One row; of a row with a verdict one answer is missing."""

    file: str
    line: int
    prompt: list[Message]
    good: str | None
    bad: str | None


def preferences(path: Path, name: str, renamed: dict[str, str], keeps_text: bool) -> Iterator[Preference | Reject]:
    """All rows of a file or folder. With `keeps_text` a dialogue in one text stays as it is written, for models that
    know no turns."""
    return each(tables(path, name), lambda row: Preference(row.file, row.line,
                                                           *read_preference(row.table, renamed, keeps_text)))


def read_preference(row: dict[str, Any], renamed: dict[str, str] | None = None,
                    keeps_text: bool = False) -> tuple[list[Message], str | None, str | None]:
    """The prompt, the better answer and the worse one; BadRow where the row has none of the forms."""
    row = {**row, **{ours: row[theirs] for ours, theirs in (renamed or {}).items() if theirs in row}}
    nothing = [key for key, value in row.items() if value is None]
    row = {key: _opened(value) for key, value in row.items() if value is not None}
    if "completion" in row and "label" in row and "prompt" in row:
        answer = _answer(row["completion"], "completion")
        return prompt_of(row["prompt"], keeps_text), *((answer, None) if _verdict(row["label"]) else (None, answer))
    if "chosen" not in row or "rejected" not in row:
        if nothing:
            raise BadRow(f"nothing in {', '.join(map(str, nothing))}: there is no answer")
        raise BadRow("expected prompt, chosen and rejected, or chosen and rejected alone, or prompt, completion and "
                     f"label; the row has {', '.join(map(str, row))}: name the columns (columns.chosen = \"...\")")
    if "prompt" not in row:
        (before, good), (other, bad) = (_parted(row[key], key, keeps_text) for key in ("chosen", "rejected"))
        if before != other:
            raise BadRow("chosen and rejected have different prompts before their last answers: only answers to one "
                         "prompt can be compared")
    else:
        before = prompt_of(row["prompt"], keeps_text)
        good, bad = (_answer(row[key], key, before) for key in ("chosen", "rejected"))
    if good == bad:
        raise BadRow("chosen and rejected are the same text: there is nothing to prefer")
    return before, good, bad


def _opened(value: Any) -> Any:
    """A list of messages that a cell holds as JSON."""
    if isinstance(value, str) and value.lstrip().startswith('[{"'):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _messages(value: list[Any]) -> list[Message]:
    return [checked(number, message) for number, message in enumerate(value)]


def prompt_of(value: Any, keeps_text: bool) -> list[Message]:
    """The messages of a prompt; BadRow where nothing is left to be answered."""
    found = _messages(value) if isinstance(value, list) else _of_text(value, keeps_text)
    if not found or found[-1]["role"] == "assistant":
        raise BadRow("the prompt should end with what is answered, and is empty or ends with an assistant's message")
    return found


def _of_text(text: Any, keeps_text: bool) -> list[Message]:
    if not isinstance(text, str) or not text.strip():
        raise BadRow(f"the prompt should be a text or a list of messages, found {str(text)[:40]!r}")
    if keeps_text or not text.startswith(HUMAN):
        return [{"role": "user", "content": text}]
    parts = re.split(r"\n\n(Human|Assistant):", text.removesuffix(ASSISTANT))[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return _messages([{"role": roles[role], "content": said.strip()}
                      for role, said in zip(parts[::2], parts[1::2], strict=True)])


def _answer(value: Any, what: str, before: list[Message] | None = None) -> str:
    """The text of an answer: a text, one message, or the whole conversation that ends with it."""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        found = _messages(value)
        said = found[:-1]
        if not found or found[-1]["role"] != "assistant" or (said and said != before):
            raise BadRow(f"`{what}` should end with an assistant's message and hold nothing else but the prompt")
        value = found[-1]["content"]
    if not isinstance(value, str):
        raise BadRow(f"`{what}` should be a text or a list of messages, found {type(value).__name__}")
    if not value.strip():
        raise BadRow(f"`{what}` is empty: there is no answer")
    return value


def _parted(value: Any, what: str, keeps_text: bool) -> tuple[list[Message], str]:
    """The prompt and the answer of a whole conversation."""
    if isinstance(value, list):
        found = _messages(value)
        return prompt_of(found[:-1], keeps_text), _answer(found[-1:], what)
    before, mark, answer = value.rpartition(ASSISTANT) if isinstance(value, str) else ("", "", "")
    if not mark or not before.startswith(HUMAN):
        raise BadRow(f"without a prompt, `{what}` should be a list of messages or a text of the form "
                     r"\n\nHuman: ... \n\nAssistant: ...")
    answer = _answer(answer, what)
    return prompt_of(before + mark if keeps_text else before, keeps_text), answer if keeps_text else answer.strip()


def _verdict(value: Any) -> bool:
    found = VERDICTS.get(str(value).strip().lower())
    if found is None:
        raise BadRow(f"`label` should be true or false, found {str(value)[:40]!r}")
    return found
