"""An evaluation as a folder: what was asked of which model, every answer, and the scores; it resumes and repeats.

    OUT/run.json        model, tasks, seed, limit, machine: all that a repetition needs
    OUT/TASK.jsonl      one record for each item, in order
    OUT/scores.json     each metric with its interval, n, and what was done to prompts that didn't fit

Items are answered in blocks that don't depend on where an earlier run stopped, so that a run that was stopped gives
what an unbroken one gives.
"""

import json
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ayllu import __version__
from ayllu.config import Settings
from ayllu.errors import ConfigError, DataError
from ayllu.evaluate.asking import Prompt, Record, TooLong, answer, prepare
from ayllu.evaluate.contamination import Overlap, overlaps, training_texts
from ayllu.evaluate.scores import groups_of, interval, measures
from ayllu.evaluate.subject import Subject
from ayllu.evaluate.task import Task, load_items
from ayllu.evaluate.translation import signature
from ayllu.files import sha256, write_json
from ayllu.log import say

BLOCK = 4                                                # batches whose answers are written at a time
EVERY_S = 30.0                                           # between lines, where nobody looks at a bar


class How(Settings):
    """What a run depends on besides model and tasks."""

    limit: int | None = None
    seed: int = 0
    batch: int = 16
    too_long: TooLong = "error"


@dataclass(frozen=True)
class Asked:
    """A task as it is run: with its folder and items."""

    task: Task
    folder: Path
    sums: dict[str, str]                                 # SHA-256 of its files


class Stopped(KeyboardInterrupt):
    """Ctrl-C, after what was done has been written."""


def evaluate(subject: Subject, tasks: dict[str, tuple[Task, Path]], out: Path, how: How,
             trained: Sequence[Path] = ()) -> dict[str, Any]:
    """Answer, score and write; gives what scores.json holds. A folder of the same run goes on where it stopped.

    `trained`: what the model was trained on, in which the items are looked for.
    """
    asked = {name: Asked(task, folder.resolve(), sums_of(task, folder)) for name, (task, folder) in tasks.items()}
    _claim(out, subject, asked, how)
    scores = {}
    items = {name: load_items(name, one.task, one.folder, how.limit, how.seed) for name, one in asked.items()}
    found_in = overlaps(items, training_texts(trained, subject.tokenizer)) if trained else {}
    for name, one in asked.items():
        prompts = prepare(subject, name, one.task, items[name], how.too_long)
        records = _answer_all(subject, name, one.task, prompts, out / f"{name}.jsonl", how)
        scores[name] = score(one.task, records, how.seed)
        if name in found_in:
            scores[name]["contamination"] = _beside(one.task, records, found_in[name], how.seed)
            write_json(out / f"{name}.dirty.json", {"trained_on": list(map(str, trained)),
                                                    "dirty": sorted(found_in[name].dirty)})
    found = {"model": subject.facts.get("model"), "tasks": scores}
    write_json(out / "scores.json", found)
    return found


def score(task: Task, records: Sequence[Record], seed: int) -> dict[str, Any]:
    """Every metric with its interval, and how many prompts were cut."""
    groups = groups_of(records)
    found = {m.name: asdict(interval(m, len(records), seed, groups)) for m in measures(task, records)}
    cut = Counter(r["fit"].split()[0] for r in records if "fit" in r)
    signed = {name: signature(name, task.tokenize) for name in ("chrf", "bleu") if name in found}
    return {"n": len(records), "groups": len(set(groups)) if groups else None, "cut": dict(cut), "metrics": found,
            **({"signatures": signed} if signed else {})}


def _beside(task: Task, records: Sequence[Record], overlap: Overlap, seed: int) -> dict[str, Any]:
    """How many items the training text holds, and the headline over the others."""
    clean = [r for r in records if r["item"] not in overlap.dirty]
    table: dict[str, Any] = dict(overlap.table())
    if clean and len(clean) < len(records):
        table["clean"] = asdict(interval(measures(task, clean)[0], len(clean), seed, groups_of(clean)))
    return table


def _answer_all(subject: Subject, name: str, task: Task, prompts: Sequence[Prompt], path: Path,
                how: How) -> list[Record]:
    size = BLOCK * how.batch
    done = _whole_blocks(path, prompts, size)
    with _bar(name, len(prompts), len(done)) as advance, open(path, "a", encoding="utf-8") as file:
        for start in range(len(done), len(prompts), size):
            try:
                records = answer(subject, task, prompts[start:start + size], how.seed + start)
            except KeyboardInterrupt as stop:
                raise Stopped(f"{name}: {len(done):,} of {len(prompts):,} items are done and kept") from stop
            file.write("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
            file.flush()
            done += records
            advance(len(records))
    return done


def _whole_blocks(path: Path, prompts: Sequence[Prompt], size: int) -> list[Record]:
    """What an earlier run wrote; a block that it didn't finish is cut off the file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]           # the last is whole or empty
    keep = len(lines) if len(lines) == len(prompts) else len(lines) // size * size
    records = [json.loads(line) for line in lines[:keep]]
    if [r["item"] for r in records] != [p.item.id for p in prompts[:keep]]:
        raise DataError(f"{path} holds answers to other items: give another --out")
    path.write_text("".join(line + "\n" for line in lines[:keep]), encoding="utf-8")
    if keep:
        say(f"{path.stem}: going on after {keep:,} items")
    return records


def _claim(out: Path, subject: Subject, asked: dict[str, Asked], how: How) -> None:
    facts = {"subject": dict(subject.facts), "how": how.model_dump(mode="json"),
             "tasks": {name: {**one.task.model_dump(mode="json"), "folder": str(one.folder), "sha256": one.sums}
                       for name, one in asked.items()}}
    path = out / "run.json"
    if path.exists():
        earlier = read_run(out)
        wrong = [key for key in facts if facts[key] != earlier.get(key)]
        if wrong:
            raise ConfigError(f"{out} holds another evaluation (another {', '.join(wrong)}): give another --out, or "
                              "remove the folder")
        return
    out.mkdir(parents=True, exist_ok=True)
    machine = {"ayllu": __version__, "torch": torch.__version__, "python": platform.python_version(),
               "platform": platform.platform(), "threads": torch.get_num_threads(),
               "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    write_json(path, {**facts, "machine": machine})


def read_run(out: Path) -> dict[str, Any]:
    """What run.json of an evaluation's folder holds."""
    try:
        found = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{out} holds no evaluation (run.json is missing): give a folder that "
                          "`ayllu evaluate --out` made") from error
    except ValueError as error:
        raise ConfigError(f"{out / 'run.json'} is damaged: {error}") from error
    if not {"subject", "how", "tasks"} <= set(found):
        raise ConfigError(f"{out / 'run.json'} is of another kind of run: give a folder that `ayllu evaluate` made")
    return dict(found)


def read_records(out: Path, name: str) -> list[Record]:
    """The answers of a task; a run that isn't finished is an error."""
    path = out / f"{name}.jsonl"
    if not (out / "scores.json").exists() or not path.exists():
        raise ConfigError(f"{out} isn't finished: run the same `ayllu evaluate` again, and it goes on")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sums_of(task: Task, folder: Path) -> dict[str, str]:
    """SHA-256 of each file that a task reads."""
    files = [f for f in (task.file, task.shots_file) if f is not None]
    if missing := [f for f in files if not (folder / f).is_file()]:
        raise DataError(f"no file at {folder / missing[0]}: --data FOLDER says where the tasks' files lie")
    return {file: sha256(folder / file) for file in files}


@contextmanager
def _bar(name: str, total: int, done: int) -> Iterator[Any]:
    """A bar on a terminal, and a line every half minute elsewhere: items, rate and time left."""
    console = Console(stderr=True)
    start = said = time.monotonic()
    n = 0

    def advance(more: int) -> None:
        nonlocal n, said
        n += more
        now = time.monotonic()
        rate = n / max(now - start, 1e-9)
        bar.update(row, advance=more, rate=f"{rate:,.1f} items/s")
        if bar.disable and now - said >= EVERY_S:
            left = timedelta(seconds=round((total - done - n) / rate))
            say(f"{name}: {done + n:,} of {total:,} items, {rate:,.1f} items/s; {left} left")
            said = now

    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                  TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=console, transient=True,
                  disable=not console.is_terminal) as bar:
        row = bar.add_task(name, total=total, completed=done, rate="")
        yield advance
