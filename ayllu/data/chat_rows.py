"""Conversations from the rows of files, in the forms that people keep them in, all as OpenAI's messages.

    messages    {"messages": [{"role": "user", "content": ...}, ...], "tools": [...]}, each with a "weight" if wanted
    sharegpt    {"conversations": [{"from": "human", "value": ...}, ...], "system": ...}
    alpaca      {"instruction": ..., "input": ..., "output": ..., "system": ..., "history": [[question, answer], ...]}
    prompt      {"prompt": ..., "completion": ...}: texts, or lists of messages

Files are JSON Lines, JSON (one list), CSV, TSV or Parquet; a cell may hold a list as JSON.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ayllu.data.encodings import decode, guess
from ayllu.data.folders import LINES, TABLES, files_below, kind_of
from ayllu.data.packed import DAMAGED, open_binary
from ayllu.data.readers import records, table_of
from ayllu.data.rows import FILE_BYTES, BadRow, Record, Reject, each, too_long
from ayllu.errors import DataError

Form = Literal["auto", "messages", "sharegpt", "alpaca", "prompt"]
Message = dict[str, Any]
JSON = ".json"
KINDS = LINES | TABLES | {".parquet", JSON}
ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
            "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system", "tool": "tool",
            "observation": "tool", "function_call": "call"}
NEEDED = {"messages": ("messages",), "sharegpt": ("conversations",), "alpaca": ("instruction", "output"),
          "prompt": ("prompt", "completion")}


@dataclass(frozen=True)
class Conversation:
    """One row."""

    file: str
    line: int
    messages: list[Message]
    tools: list[Any] | None = None


def conversations(path: Path, name: str, form: Form = "auto",
                  renamed: dict[str, str] | None = None) -> Iterator[Conversation | Reject]:
    """All rows of a file or folder. `renamed` says which column stands for one of the form's: {"prompt": "question"}.

    `name` stands for the path in rejects.
    """
    return each(tables(path, name), lambda row: Conversation(row.file, row.line,
                                                             *read_row(row.table, form, renamed or {})))


def tables(path: Path, name: str) -> Iterator[Record | Reject]:
    """All rows of a file or folder by their columns; what is no row of a table is a reject."""
    for file in _files(path):
        called = name if file == path else f"{name}/{file.relative_to(path)}"
        rows = _json(file, called) if kind_of(file) == JSON else records(file, (), called)
        yield from each(rows, lambda row: replace(row, payload=table_of(row)))


def read_row(row: dict[str, Any], form: Form = "auto",
             renamed: dict[str, str] | None = None) -> tuple[list[Message], list[Any] | None]:
    """The messages of a row and its tools; BadRow where it is in none of the forms."""
    row = {**row, **{ours: row[theirs] for ours, theirs in (renamed or {}).items() if theirs in row}}
    kind = form if form != "auto" else next((k for k, keys in NEEDED.items() if all(key in row for key in keys)), None)
    lacks = [key for key in NEEDED.get(kind or "", ()) if row.get(key) is None]
    if lacks and lacks[0] in row:
        raise BadRow(f"nothing in {lacks[0]!r}, which the form {kind} needs")
    if kind is None or lacks:
        wanted = f"the form {kind} needs {lacks[0]!r}" if lacks else (
            "expected messages, conversations, instruction and output, or prompt and completion")
        raise BadRow(f"{wanted}; the row has {', '.join(map(str, row))}: name the columns (columns.prompt = \"...\")")
    match kind:
        case "messages":
            found = _list(row["messages"], "messages")
        case "sharegpt":
            found = [_of_sharegpt(turn) for turn in _list(row["conversations"], "conversations")]
        case "alpaca":
            found = _of_alpaca(row)
        case _:
            found = [*_side(row["prompt"], "user"), *_side(row["completion"], "assistant")]
    if kind != "messages" and row.get("system"):
        found = [{"role": "system", "content": row["system"]}, *found]
    tools = row.get("tools") or None
    return [checked(n, message) for n, message in enumerate(found)], _list(tools, "tools") if tools else None


def _of_alpaca(row: dict[str, Any]) -> list[Message]:
    pairs = _list(row.get("history") or [], "history")
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise BadRow("`history` should be a list of pairs: [[question, answer], ...]")
    before = [text for pair in pairs for text in pair]
    asked = row["instruction"]
    if row.get("input") and isinstance(asked, str):
        asked = f"{asked}\n\n{row['input']}"
    return [{"role": ("user", "assistant")[n % 2], "content": text}
            for n, text in enumerate([*before, asked, row["output"]])]


def _of_sharegpt(turn: Any) -> Message:
    if isinstance(turn, dict) and "role" in turn:        # the name of one form around the turns of another
        return turn
    if not isinstance(turn, dict) or not {"from", "value"} <= set(turn):
        raise BadRow("a turn of `conversations` needs `from` and `value`")
    role = SHAREGPT.get(str(turn["from"]))
    if role is None:
        raise BadRow(f"unknown role {str(turn['from'])[:40]!r}; known are {', '.join(SHAREGPT)}")
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": [
            {"type": "function", "function": call} for call in _list(turn["value"], "function_call")]}
    return {"role": role, "content": turn["value"]} | ({"weight": turn["weight"]} if "weight" in turn else {})


def _side(value: Any, role: str) -> list[Message]:
    return list(value) if isinstance(value, list) else [{"role": role, "content": value}]


def checked(number: int, message: Any) -> Message:
    """A message with a known role and a text; what Parquet fills up with null is left out."""
    if not isinstance(message, dict):
        raise BadRow(f"message {number} is a {type(message).__name__}, no object")
    out = {key: value for key, value in message.items() if value is not None}
    role, content = out.get("role"), out.get("content", "")
    if role not in ROLES:
        raise BadRow(f"message {number}: unknown role {str(role)[:40]!r}; known are {', '.join(ROLES)}")
    if isinstance(content, list):
        if other := [part for part in content if not isinstance(part, dict) or part.get("type") != "text"
                     or not isinstance(part.get("text"), str)]:
            raise BadRow(f"message {number}: only text can be learned from, found {str(other[0])[:60]}")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise BadRow(f"message {number}: content should be a text, found {type(content).__name__}")
    if role == "assistant" and not content.strip() and not out.get("tool_calls"):
        raise BadRow(f"message {number}: the answer is empty")
    weight = out.get("weight", 1)
    if not isinstance(weight, int | float) or not 0 <= weight <= 1:
        raise BadRow(f"message {number}: weight should be a number from 0 to 1, found {weight!r}")
    return {**out, "content": content}


def _list(value: Any, what: str) -> list[Any]:
    """A list, also where a cell holds it as JSON; one object is a list of one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRow(f"`{what}` should be a list, and is a text that is no JSON ({error})") from error
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list):
        raise BadRow(f"`{what}` should be a list, found {type(value).__name__}")
    return value


def _files(path: Path) -> list[Path]:
    if path.is_file() and kind_of(path) == JSON:
        return [path]
    found = [file for file in files_below(path, KINDS) if kind_of(file) in KINDS]
    if not found:
        raise DataError(f"{path} holds no conversations: expected .jsonl, .json, .csv, .tsv or .parquet, also with "
                        ".gz, .xz or .zst")
    return found


def _json(path: Path, name: str) -> Iterator[Record | Reject]:
    """The objects of a file that is one list; `line` is their number in it, from 1."""
    try:
        with open_binary(path) as stream:
            data = stream.read(FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            yield too_long(name, 0, path.stat().st_size, FILE_BYTES)
            return
        rows = json.loads(decode(data, guess(data)))
    except (*DAMAGED, OSError, ValueError, RecursionError, BadRow) as error:
        yield Reject(name, 0, f"can't be read as JSON ({error})")
        return
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        yield Record(name, number, row) if isinstance(row, dict) else Reject(
            name, number, f"expected an object, found {type(row).__name__}")
