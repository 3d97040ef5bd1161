"""The same evaluation once more, from what its folder says, and whether it gave the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ayllu.errors import ConfigError, DataError
from ayllu.evaluate.run import How, evaluate, read_records, read_run, sums_of
from ayllu.evaluate.subject import Subject
from ayllu.evaluate.task import Task, read_task


def repeat(folder: Path, out: Path | None = None) -> dict[str, Any]:
    """Run it again beside the first folder. `equal`: each record is, down to the last bit of its numbers."""
    earlier = read_run(folder)
    facts, how = earlier["subject"], How.model_validate(earlier["how"])
    subject = Subject.load(facts["model"], adapter=facts["adapter"], dtype=facts["dtype"], device=facts["device"],
                           batch=how.batch)
    for key in ("fingerprint", "adapter_fingerprint"):
        if subject.facts[key] != facts[key]:
            raise ConfigError(f"{facts['model']} isn't the model that {folder} was made with (its {key} differs): "
                              "put that one back, or evaluate anew")
    subject = replace(subject, facts=facts)
    tasks, sums = _tasks(earlier["tasks"])
    if changed := [name for name, (task, place) in tasks.items() if sums_of(task, place) != sums[name]]:
        raise DataError(f"the files of {', '.join(changed)} are others than those that {folder} was made with")
    out = out or folder.with_name(f"{folder.name}-repeat")
    evaluate(subject, tasks, out, how)
    found = {name: _compared(read_records(folder, name), read_records(out, name)) for name in tasks}
    return {"equal": all(one["different"] == 0 for one in found.values()), "tasks": found, "out": str(out)}


def _tasks(tables: dict[str, Any]) -> tuple[dict[str, tuple[Task, Path]], dict[str, Any]]:
    tasks, sums = {}, {}
    for name, table in tables.items():
        own = {key: value for key, value in table.items() if key not in ("folder", "sha256")}
        tasks[name], sums[name] = (read_task(own), Path(table["folder"])), table["sha256"]
    return tasks, sums


def _compared(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> dict[str, Any]:
    """How many records differ, and the first that does."""
    different = [a["item"] for a, b in zip(first, second, strict=True) if a != b]
    return {"n": len(first), "different": len(different), "first": different[0] if different else None}
