"""From the records of a task to its scores, each with its interval, and as statistics that two runs are compared by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ayllu.errors import DataError
from ayllu.evaluate import metrics, translation
from ayllu.evaluate.intervals import Interval, Statistic, bootstrap, bootstrap_mean, mean
from ayllu.evaluate.task import Task

LOWER_IS_BETTER = {"bits_per_byte", "perplexity", "calibration_error"}
SHARES = {"accuracy", "macro_f1", "calibration_error", "f1", "em", "prompt_accuracy", "rule_accuracy", "recall@1",
          "recall@5", "recall@10"}
Record = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """One metric of some records. `values` are the items' own, where the metric is their mean."""

    name: str
    statistic: Statistic
    values: np.ndarray | None = None

    @property
    def scale(self) -> float:
        """What it is printed times: shares in percent."""
        return 100.0 if self.name in SHARES else 1.0


def measures(task: Task, records: Sequence[Record]) -> list[Measure]:
    """All metrics of the task's kind, the headline first."""
    if not records:
        raise DataError("nothing was answered, so there is nothing to score")
    return [_measure(name, task, records) for name in task.metrics]


def interval(measure: Measure, n: int, seed: int = 0, groups: Sequence[object] | None = None) -> Interval:
    """A measure with its interval; `groups` are drawn whole."""
    if measure.values is not None:
        return bootstrap_mean(measure.values, seed=seed, groups=groups)
    return bootstrap(measure.statistic, n, seed=seed, groups=groups, is_share=measure.name == "rule_accuracy")


def groups_of(records: Sequence[Record]) -> list[str] | None:
    """The records' groups; None: each is its own."""
    return [r["group"] for r in records] if all("group" in r for r in records) else None


def _measure(name: str, task: Task, records: Sequence[Record]) -> Measure:
    match name:
        case "macro_f1":
            expected, chosen = _column(records, "expected", int), _column(records, "output", int)
            n_classes = int(max(expected.max(), chosen.max())) + 1
            return Measure(name, lambda items: metrics.macro_f1_of(expected[items], chosen[items], n_classes))
        case "calibration_error":
            sure = _column(records, "confidence")
            right = _scored(records, "accuracy")
            return Measure(name, lambda items: metrics.calibration_error(sure[items], right[items]))
        case "bleu" | "chrf":
            written, references = [r["output"].strip() for r in records], [r["expected"] for r in records]
            return Measure(name, translation.corpus("bleu" if name == "bleu" else "chrf", written, references,
                                                    task.tokenize))
        case "rule_accuracy":
            kept, rules = _scored(records, "kept"), _scored(records, "rules")
            return Measure(name, lambda items: float(kept[items].sum() / max(rules[items].sum(), 1)))
        case "bits_per_byte" | "perplexity":
            total = _scored(records, "logprob")
            n = _scored(records, "bytes" if name == "bits_per_byte" else "tokens")
            if not n.sum():
                raise DataError("the texts have nothing to predict: they are empty, or one token each")
            count = metrics.bits_per_byte if name == "bits_per_byte" else metrics.perplexity
            return Measure(name, lambda items: count(float(total[items].sum()), max(int(n[items].sum()), 1)))
        case _:
            values = _scored(records, name)
            return Measure(name, mean(values), values)


def _scored(records: Sequence[Record], name: str) -> np.ndarray:
    return np.array([r["scores"][name] for r in records], dtype=np.float64)


def _column(records: Sequence[Record], name: str, kind: type = float) -> np.ndarray:
    return np.array([r[name] for r in records], dtype=kind)
