"""What is asked: a task is a file of rows, a template that makes prompts of them, and how answers are counted.

    [tasks.capitals]                                     # tasks.toml
    file = "capitals.jsonl"
    kind = "choice"
    prompt = "The capital of {{ country }} is"
    options = "choices"
    answer = "right"

Templates are Jinja in a sandbox; a name that the row hasn't is an error. The tasks that come with Ayllu are such files,
too: ayllu/evaluate/tasks/.
"""

import hashlib
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field, model_validator

from ayllu.config import Settings, load_recipe, validate
from ayllu.data.corpus import uniform
from ayllu.data.readers import columns
from ayllu.data.texts import each_row
from ayllu.errors import ConfigError, DataError
from ayllu.evaluate.metrics import Convention
from ayllu.evaluate.retrieval import RANKS, Passages, rank_of

Kind = Literal["choice", "classify", "qa", "span", "translate", "arithmetic", "instruct", "perplexity"]
METRICS: dict[str, tuple[str, ...]] = {                  # by kind; the first is the headline
    "choice": ("accuracy", "calibration_error"), "classify": ("accuracy", "macro_f1", "calibration_error"),
    "qa": ("f1", "em"), "span": ("f1", "em"), "translate": ("chrf", "bleu"), "arithmetic": ("accuracy",),
    "instruct": ("prompt_accuracy", "rule_accuracy"), "perplexity": ("bits_per_byte", "perplexity")}
WRITTEN = {"qa", "translate", "arithmetic", "instruct"}  # kinds that the model answers in words
BUILT_IN = Path(__file__).parent / "tasks"
OURS = "ayllu-"                                          # begins the names of files that lie there, too


class Task(Settings):
    """One task; docs/evaluation.md explains each key."""

    file: str                                            # JSON Lines, CSV or Parquet, also compressed
    kind: Kind
    prompt: str = ""                                     # Jinja over the row's columns; perplexity: the text
    answer: str = ""                                     # the column with what is expected
    options: str | list[str] | dict[str, str] = ""       # a column, the texts, or label = text
    context: str = ""                                    # span: the column with the passage
    group: str = ""                                      # a column: items that are drawn together in the bootstrap
    where: dict[str, str] = Field(default_factory=dict)  # only rows whose columns have these values
    test_share: float = Field(default=1.0, gt=0, le=1)   # below 1: rows are test or training by a hash of `split_by`
    split_by: tuple[str, ...] = ()
    cut: str = ""                                        # of plain texts: a regular expression between documents
    gather: bool = False                                 # rows with one prompt are one item with several answers
    metric: str | None = None                            # the headline; None: the kind's first
    normalise: Literal["bytes", "tokens", "none"] | None = None     # None: bytes for choice, none else
    join: str = " "                                      # between a prompt and its answer
    convention: Convention = "squad"                     # how answers are compared
    tokenize: str = "13a"                                # BLEU's tokenizer: zh for Chinese
    shots: int = Field(default=0, ge=0, le=64)           # examples before each item
    shots_file: str | None = None                        # None: from the same file, whose items they no longer are
    shots_seed: int = 0
    separator: str = "\n\n"                              # between examples
    chat: bool = False                                   # as a conversation, by the model's template
    max_tokens: int = Field(default=64, ge=1)            # of a written answer, or of a span
    stop: tuple[str, ...] = ()
    temperature: float = Field(default=0.0, ge=0)
    beams: int = Field(default=1, ge=1)
    starts: int = Field(default=32, ge=1)                # span: places of the passage that are tried
    retrieve: int = Field(default=0, ge=0)               # qa: put so many found passages in the place of `context`
    query: str = "{{ question }}"                        # what they are looked for by

    @model_validator(mode="after")
    def _consistent(self) -> "Task":
        need = {"span": "context", "choice": "options", "classify": "options"}.get(self.kind)
        if need and not getattr(self, need):
            raise ValueError(f"kind {self.kind!r} needs {need!r}")
        if self.kind not in ("instruct", "perplexity") and not self.answer:
            raise ValueError(f"kind {self.kind!r} needs 'answer', the column with what is expected")
        if self.kind == "classify" and isinstance(self.options, str):
            raise ValueError("kind 'classify' needs the same options for all rows: a list, or a table label = text")
        if self.metric is not None and self.metric not in METRICS[self.kind]:
            raise ValueError(f"kind {self.kind!r} has no metric {self.metric!r}: {', '.join(METRICS[self.kind])}")
        if self.retrieve and not self.context:
            raise ValueError("'retrieve' needs 'context', the column whose passages are searched")
        if (self.test_share < 1) != bool(self.split_by):
            raise ValueError("'test_share' below 1 and 'split_by', the columns that decide, belong together")
        if not self.prompt:
            raise ValueError("'prompt' is empty: write a Jinja template over the row's columns")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """All of the kind's, the headline first."""
        own = METRICS[self.kind] + tuple(f"recall@{k}" for k in RANKS if self.retrieve)
        return own if self.metric is None else (self.metric, *(m for m in own if m != self.metric))


class TaskFile(Settings):
    """A TOML file of tasks."""

    tasks: dict[str, Task]


def is_test(task: Task, row: dict[str, Any], where: str = "a row") -> bool:
    """Whether a row is on the test side, whatever other rows there are. Nothing may be trained on those."""
    key = "\n".join(str(_column(row, name, where)) for name in task.split_by)
    return task.test_share == 1 or uniform(key) < task.test_share


@dataclass(frozen=True)
class Item:
    """One row, ready to be asked. `examples` are (prompt, answer)."""

    id: str
    row: dict[str, Any] = field(repr=False)
    prompt: str
    expected: Any                                        # the number of an option, or texts, or rules
    options: tuple[str, ...] = ()
    group: str | None = None
    ranks: dict[str, float] = field(default_factory=dict)           # retrieve: whether the passage was found, recall@k
    examples: tuple[tuple[str, str], ...] = ()


def find_tasks(names: list[str], data: Path | None) -> dict[str, tuple[Task, Path]]:
    """Tasks by name, or all of a TOML file, each with the folder that its paths are relative to."""
    found: dict[str, tuple[Task, Path]] = {}
    for name in names:
        tasks = (load_recipe(TaskFile, name).tasks if name.endswith(".toml") else
                 {key: task for key, task in built_in().items() if name in (key, key.partition(".")[0])})
        if not tasks:
            raise ConfigError(f"no task {name!r}: give a TOML file of tasks, or one of {', '.join(sorted(built_in()))}")
        for key, task in tasks.items():
            if key in found:
                raise ConfigError(f"two tasks are called {key!r}: rename one")
            own = BUILT_IN if task.file.startswith(OURS) else Path(name).parent if name.endswith(".toml") else Path(".")
            found[key] = (task, own if own == BUILT_IN else data or own)
    return found


def built_in() -> dict[str, Task]:
    """The tasks that come with Ayllu: FILE.TASK."""
    return {f"{path.stem}.{key}": task for path in sorted(BUILT_IN.glob("*.toml"))
            for key, task in load_recipe(TaskFile, path).tasks.items()}


def load_items(name: str, task: Task, folder: Path, limit: int | None = None, seed: int = 0) -> list[Item]:
    """The items of a task; `limit` of them drawn by `seed` and kept in their order."""
    rows = _rows(folder / task.file, task)
    test = [row for row in rows if is_test(task, row[1], row[0])]
    if not test:
        raise DataError(f"task {name}: {folder / task.file} has no row" + (f" where {task.where}" * bool(task.where)))
    examples, test = _examples(task, folder, rows, test)
    seen: dict[str, int] = {}
    items = [_item(task, where, row, seen) for where, row in test]
    items = _gathered(items) if task.gather else items
    passages = Passages([str(i.row[task.context]) for i in items]) if task.retrieve else None
    if limit is not None and limit < len(items):
        items = [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), limit))]
    if passages is not None:                             # all are searched, whatever the limit
        items = [_retrieved(task, item, passages) for item in items]
    return [replace(item, examples=examples) for item in items]


Rows = list[tuple[str, dict[str, Any]]]                  # (file:line, columns)


def _examples(task: Task, folder: Path, rows: Rows, test: Rows) -> tuple[tuple[tuple[str, str], ...], Rows]:
    """The examples of all items, and the rows that are left to be asked."""
    if not task.shots:
        return (), test
    pool = _rows(folder / task.shots_file, task) if task.shots_file else rows
    if task.test_share < 1:
        pool = [row for row in pool if not is_test(task, row[1], row[0])]
    if len(pool) <= task.shots:
        raise DataError(f"{task.shots} examples are asked for, of {len(pool)} rows: lower `shots`")
    chosen = [pool[i] for i in random.Random(task.shots_seed).sample(range(len(pool)), task.shots)]
    items = [_item(task, *row, {}) for row in chosen]
    places = {where for where, _ in chosen}
    return tuple((item.prompt, answer_text(task, item)) for item in items), [r for r in test if r[0] not in places]


def _gathered(items: list[Item]) -> list[Item]:
    first: dict[str, Item] = {}
    for item in items:
        known = first.get(item.prompt)
        answers = item.expected if known is None else list(dict.fromkeys([*known.expected, *item.expected]))
        first[item.prompt] = replace(known or item, expected=answers)
    return list(first.values())


def _retrieved(task: Task, item: Item, passages: Passages) -> Item:
    """The item with found passages in the place of its own."""
    found = passages.search(render(task.query, item.row), max(task.retrieve, *RANKS))
    rank = rank_of(found, passages.texts.index(str(item.row[task.context]))) or len(passages.texts) + 1
    row = {**item.row, task.context: "\n".join(passages.texts[i] for i in found[:task.retrieve])}
    ranks = {f"recall@{k}": float(rank <= k) for k in RANKS}
    return replace(item, row=row, prompt=render(task.prompt, row), ranks=ranks)


def answer_text(task: Task, item: Item) -> str:
    """The answer as an example shows it."""
    if task.kind in ("choice", "classify"):
        return item.options[item.expected]
    if task.kind == "instruct":
        raise ConfigError("kind 'instruct' has no answers to show: set shots = 0")
    return str(item.expected[0])


def _item(task: Task, where: str, row: dict[str, Any], seen: dict[str, int]) -> Item:
    digest = hashlib.sha256(json.dumps(row, ensure_ascii=False, sort_keys=True, default=str).encode()).hexdigest()[:16]
    seen[digest] = seen.get(digest, 0) + 1
    options = _options(task, where, row)
    group = None if not task.group else str(_column(row, task.group, where))
    group = hashlib.sha256(group.encode()).hexdigest()[:16] if group and len(group) > 40 else group
    return Item(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}", row, render(task.prompt, row, where),
                _expected(task, where, row, options), options, group)


def _options(task: Task, where: str, row: dict[str, Any]) -> tuple[str, ...]:
    match task.options:
        case dict() as table:
            return tuple(table.values())
        case list() as texts:
            return tuple(texts)
        case "":
            return ()
        case column:
            found = _column(row, column, where)
            if not isinstance(found, list) or len(set(map(str, found))) < max(len(found), 2) or not all(
                    str(one).strip() for one in found):
                raise DataError(f"{where}: column {column!r} holds {found!r}, and a list of two options at least is "
                                "expected, none of them empty or there twice")
            return tuple(map(str, found))


def _expected(task: Task, where: str, row: dict[str, Any], options: tuple[str, ...]) -> Any:
    if task.kind == "perplexity":
        return None
    value = _column(row, task.answer or "rules", where)
    if task.kind not in ("choice", "classify"):
        value = value if isinstance(value, list) else [] if value is None else [
            value if task.kind == "instruct" else str(value)]
        if not value or (task.kind != "instruct" and not all(str(v).strip() for v in value)):
            raise DataError(f"{where}: column {task.answer or 'rules'!r} is empty, and an answer is expected")
        return value
    names = list(task.options) if isinstance(task.options, dict) else list(options)
    if str(value) in names:
        return names.index(str(value))
    number = int(value) if str(value).isdigit() else -1
    if isinstance(task.options, dict) or not 0 <= number < len(names):
        raise DataError(f"{where}: the answer {value!r} is none of the options: {', '.join(names)[:200]}")
    return number


def _column(row: dict[str, Any], name: str, where: str) -> Any:
    if name not in row:
        raise DataError(f"{where}: no column {name!r}; the row has {', '.join(map(str, row))}")
    return row[name]


def _rows(path: Path, task: Task) -> Rows:
    return [(where, row) for where, row in _read(path, task.cut)
            if all(str(_column(row, name, where)) == value for name, value in task.where.items())]


def _read(path: Path, cut: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        raise DataError(f"no file at {path}: --data FOLDER says where the tasks' files lie")
    for where, row in each_row(path, (), columns, hint=""):
        if not isinstance(row, str):
            yield where, row
            continue
        texts = [text for text in re.split(cut, row) if text.strip()] if cut else [row]
        yield from ((f"{where}, text {i}", {"text": text}) for i, text in enumerate(texts, start=1))


def render(source: str, row: dict[str, Any], where: str = "a row") -> str:
    """The text that a template makes of a row."""
    try:
        return _compiled(source).render(row)
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise DataError(f"{where}: the task's template can't be filled ({error}); the row has "
                        f"{', '.join(map(str, row))}") from error


@lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    try:
        return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(source)
    except TemplateError as error:
        raise ConfigError(f"the template {source[:80]!r} is no valid Jinja: {error}") from error


def read_task(table: dict[str, Any]) -> Task:
    """A task as a run's folder keeps it."""
    return validate(Task, table, where="the run's tasks")
