"""Two evaluations over the same items: is one better, by how much, and how sure is that? In plain sentences.

The difference is resampled over the items that both answered, so that what is hard for both doesn't blur it. A
difference counts as shown where its 95 % interval leaves out 0 and, for right or wrong answers, McNemar's exact test
agrees.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ayllu.errors import ConfigError, DataError
from ayllu.evaluate.intervals import Paired, compare
from ayllu.evaluate.run import read_records, read_run
from ayllu.evaluate.scores import LOWER_IS_BETTER, SHARES, Record, groups_of, measures
from ayllu.evaluate.task import read_task

FEW = 30                                                 # items below which a bootstrap is rough
POINTS = SHARES | {"bleu", "chrf"}                       # told in points of 100
FEW_EN = "; these are few items, and the interval is rough"
FEW_ZH = "；题目很少，区间只是粗略的"
KEPT = ("folder", "sha256")                              # of a run's tasks, besides their own keys


def compare_runs(a: Path, b: Path, seed: int = 0) -> dict[str, Any]:
    """Every metric of every task that both folders hold, B minus A, with sentences in English and Chinese."""
    runs = read_run(a), read_run(b)
    shared = [name for name in runs[0]["tasks"] if name in runs[1]["tasks"]]
    if not shared:
        raise ConfigError(f"{a} and {b} have no task in common ({', '.join(runs[0]['tasks'])} and "
                          f"{', '.join(runs[1]['tasks'])}): evaluate both on the same tasks")
    alone = [name for run in runs for name in run["tasks"] if name not in shared]
    return {"a": str(a), "b": str(b), "models": [run["subject"].get("model") for run in runs], "not_in_both": alone,
            "tasks": {name: _task(name, a, b, runs, seed) for name in shared}}


def _task(name: str, a: Path, b: Path, runs: tuple[dict[str, Any], dict[str, Any]], seed: int) -> dict[str, Any]:
    first, second = _aligned(name, read_records(a, name), read_records(b, name))
    task = read_task({key: value for key, value in runs[0]["tasks"][name].items() if key not in KEPT})
    other = read_task({key: value for key, value in runs[1]["tasks"][name].items() if key not in KEPT})
    if (task.kind, task.convention, task.tokenize) != (other.kind, other.convention, other.tokenize):
        raise DataError(f"task {name}: the two runs count differently ({task.kind}, {task.convention}, {task.tokenize} "
                        f"against {other.kind}, {other.convention}, {other.tokenize}): evaluate both by one task")
    groups = groups_of(first)
    found = {}
    for x, y in zip(measures(task, first), measures(other.model_copy(update={"metric": task.metric}), second),
                    strict=True):
        values = None if x.values is None or y.values is None else (x.values, y.values)
        paired = compare(x.statistic, y.statistic, len(first), values, seed=seed, groups=groups,
                         is_binary=x.name != "f1")
        found[x.name] = {**asdict(paired), "is_shown": paired.is_shown, "en": sentence(x.name, paired),
                         "zh": sentence_zh(x.name, paired)}
    prompts = sum(x["ids"] != y["ids"] for x, y in zip(first, second, strict=True))
    return {"n": len(first), "groups": len(set(groups)) if groups else None, "other_prompts": prompts, "metrics": found}


def _aligned(name: str, a: list[Record], b: list[Record]) -> tuple[list[Record], list[Record]]:
    """Both in A's order; an error where they aren't the same items."""
    second = {r["item"]: r for r in b}
    only_a = [r["item"] for r in a if r["item"] not in second]
    only_b = sorted(set(second) - {r["item"] for r in a})
    if only_a or only_b:
        raise DataError(f"task {name}: the items differ: A has {len(a):,}, of which {len(only_a):,} aren't in B"
                        f"{_first(only_a)}; B has {len(b):,}, of which {len(only_b):,} aren't in A{_first(only_b)}. "
                        "Evaluate both with the same file, --limit and --seed")
    pairs = [(r, second[r["item"]]) for r in a]
    other = [x["item"] for x, y in pairs if x["expected"] != y["expected"]]
    if other:
        raise DataError(f"task {name}: {len(other):,} items have other answers in B{_first(other)}: the tasks differ")
    return [x for x, _ in pairs], [y for _, y in pairs]


def _first(items: list[str]) -> str:
    return f" (first {items[0]})" if items else ""


def sentence(metric: str, paired: Paired) -> str:
    """What a person reads, in English."""
    winner, value, low, high = _in_words(metric, paired)
    unit = "points" if metric in POINTS else f"of {metric}"
    facts = "".join(f", {name} {text}" for name, text in _facts(paired))
    head = (f"{winner} is better by {value} {unit}" if winner else f"no difference shown: B minus A is {value} {unit}")
    return f"{metric}: {head}, 95 % interval {low} to {high}{facts}" + (FEW_EN if paired.difference.n < FEW else "")


def sentence_zh(metric: str, paired: Paired) -> str:
    """The same in Chinese."""
    winner, value, low, high = _in_words(metric, paired)
    unit = "个点" if metric in POINTS else f"（{metric}）"
    names = {"n =": "题数", "effect size d =": "效应量 d =", "McNemar's p =": "McNemar 检验 p ="}
    facts = "".join(f"，{names[name]} {text}" for name, text in _facts(paired))
    head = f"{winner} 更好，高 {value} {unit}" if winner else f"未显示出差异：B 减 A 为 {value} {unit}"
    if winner and metric in LOWER_IS_BETTER:
        head = f"{winner} 更好，低 {value} {unit}"
    return f"{metric}：{head}，95 % 区间 {low} 到 {high}{facts}" + (FEW_ZH if paired.difference.n < FEW else "")


def _in_words(metric: str, paired: Paired) -> tuple[str, str, str, str]:
    """Who is better ("": nobody is shown to be) and by how much; where nobody is, B minus A."""
    d = paired.difference
    sign = 1.0
    winner = ""
    if paired.is_shown:
        winner = "B" if (d.value > 0) != (metric in LOWER_IS_BETTER) else "A"
        sign = 1.0 if d.value > 0 else -1.0              # a gain is said as a positive number
    scale = 100.0 if metric in SHARES else 1.0
    low, high = sorted((sign * d.low, sign * d.high))
    digits = 1 if metric in POINTS else 4
    value, low, high = (scale * x + 0.0 for x in (sign * d.value, low, high))
    return winner, f"{value:.{digits}f}", f"{low:.{digits}f}", f"{high:.{digits}f}"


def _facts(paired: Paired) -> list[tuple[str, str]]:
    found = [("n =", f"{paired.difference.n:,}")]
    found += [] if paired.effect is None else [("effect size d =", f"{paired.effect:.2f}")]
    return found + ([] if paired.mcnemar is None else [("McNemar's p =", f"{paired.mcnemar:.2g}")])
