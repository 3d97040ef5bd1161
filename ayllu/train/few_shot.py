"""`ayllu fewshot`: what a model makes of 0 to 16 examples of each label, by prompt and by learning, over many draws.

Each result is a line of results.jsonl as soon as it is there, so that a run that was stopped goes on. The examples of a
seed are nested: those of k = 2 are among those of k = 4.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydantic import Field
from torch import Tensor

from ayllu.checkpoint.load import load_checkpoint
from ayllu.config import Settings
from ayllu.data.label_loader import Texts
from ayllu.data.labelled import Labelled, check_known, names_of, position, read_labelled, split
from ayllu.errors import ConfigError, DataError
from ayllu.evaluate.metrics import calibration_error, macro_f1_of
from ayllu.files import write_json
from ayllu.log import say, warn
from ayllu.model.llama import Llama
from ayllu.model.step import EagerRunner
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.few_learners import adapter, features, nearest, probe
from ayllu.train.few_prompts import EMPTY, TEMPLATE, Example, Prompts, batch_calibrated, contextual

Source = Literal["random", "similar", "probe", "lora"]
Row = dict[str, Any]
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], float]      # items, their answers, how sure these were
SAMPLES = 300                                            # of the bootstrap


class FewShot(Settings):
    """What is measured. `shots` are examples of each label."""

    model: str = "ayllu-mini"
    path: str
    test: str | None = None                              # a file to measure on; None: a share of `path`
    text: str = "text"
    label: str = "label"
    rename: dict[str, str] = Field(default_factory=dict)     # what a prompt calls a label: {"1": "good"}
    template: str = TEMPLATE
    shots: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    seeds: int = Field(default=10, gt=0)
    sources: tuple[Source, ...] = get_args(Source)
    test_share: float = Field(default=0.3, gt=0, lt=1)
    rows: int = Field(default=200, gt=0)                 # that are measured on, at most; the first by a fixed hash


@dataclass(frozen=True)
class FewShotLesson:
    """The model, the rows to draw from and those to answer."""

    config: FewShot
    body: Llama
    tokenizer: Tokenizer
    names: tuple[str, ...]
    pool: Sequence[Labelled]
    asked: Sequence[Labelled]

    @cached_property
    def prompts(self) -> Prompts:
        """How examples and questions are written."""
        names = tuple(self.config.rename.get(name, name) for name in self.names)
        return Prompts(EagerRunner(self.body), self.tokenizer, names, self.config.template)

    @cached_property
    def near(self) -> tuple[Tensor, Tensor]:
        """Features (M, D) of the pool, and (N, D) of what is asked."""
        return features(self.body, self.ids(self.pool)), features(self.body, self.ids(self.asked))

    def ids(self, rows: Sequence[Labelled]) -> list[list[int]]:
        """As the learners read them: as many first tokens as the model takes."""
        has_bos = self.tokenizer.bos_id is not None
        return [self.tokenizer.encode(str(row.text), bos=has_bos)[:self.body.config.max_context] for row in rows]

    def numbers(self, rows: Sequence[Labelled]) -> list[int]:
        """Labels as numbers."""
        return [self.names.index(str(row.label)) for row in rows]

    def examples(self, numbers: Sequence[int]) -> list[Example]:
        """Rows of the pool, for a prompt."""
        return [(str(self.pool[i].text), self.names.index(str(self.pool[i].label))) for i in numbers]


def opened(config: FewShot) -> FewShotLesson:
    """Read rows and model; DataError where the rows can't do what is asked."""
    rows = read_labelled(Path(config.path), "single", config.text, config.label)
    names = names_of(rows)
    if len(names) < 2:
        raise DataError(f"{config.path} has the one label {names[0]!r}: few-shot needs two or more")
    if unknown := sorted(set(config.rename) - set(names)):
        raise DataError(f"{config.path}: no row has the label {unknown[0]!r}; there are {', '.join(names[:20])}: "
                        "correct --rename LABEL=WORD")
    pool, asked = rows, []
    if config.test:
        asked = read_labelled(Path(config.test), "single", config.text, config.label)
        check_known(asked, names)
    else:
        asked, pool = split(rows, [config.test_share])
    counts = Counter(str(row.label) for row in pool)
    short = [name for name in names if counts[name] < max(config.shots)]
    if short or not asked:
        what = f"label {short[0]!r} has {counts[short[0]]} rows" if short else "no row is left to measure on"
        raise DataError(f"{config.path}: {what} after {len(asked):,} of {len(rows):,} were kept to measure on, and "
                        f"--shots asks for {max(config.shots)} of each: lower --shots, or give more rows")
    asked = sorted(asked, key=lambda row: position(row.text))[:config.rows]
    loaded = load_checkpoint(config.model, dtype="float32")
    if loaded.tokenizer is None:
        raise ConfigError(f"{config.model} has no tokenizer: put tokenizer.json or tokenizer.model beside its weights")
    return FewShotLesson(config, loaded.model.requires_grad_(False), loaded.tokenizer, names, pool, asked)


def draw(labels: Sequence[int], k: int, seed: int) -> list[int]:
    """The numbers of k rows of each label, in turns, so that a prompt that keeps the first ones stays balanced."""
    shuffled = np.random.default_rng(seed).permutation(len(labels)).tolist()
    seen = Counter[int]()
    turns: list[tuple[int, int, int]] = []
    for i in shuffled:
        if seen[labels[i]] < k:
            turns.append((seen[labels[i]], len(turns), i))
            seen[labels[i]] += 1
    return [i for _, _, i in sorted(turns)]


def run(lesson: FewShotLesson, out: Path, tick: Callable[[int, int], None] = lambda done, of: None) -> list[Row]:
    """Measure all that isn't in OUT/results.jsonl yet; gives all rows. `tick` is told how far it has come."""
    key = _claim(lesson, out)
    jobs = list(_jobs(lesson.config))
    done = {(row["source"], row["k"], row["seed"]): row["rows"] for row in _stored(out / "results.jsonl", key)}
    cut = sum(lesson.prompts.is_cut(str(row.text)) for row in lesson.asked)
    if cut:
        warn(f"{cut:,} of {len(lesson.asked):,} texts take more than half of the context: prompts read their beginning")
    for i, job in enumerate(jobs):
        tick(i, len(jobs))
        if job in done:
            continue
        done[job] = _measured(lesson, *job)
        with open(out / "results.jsonl", "a", encoding="utf-8") as file:
            line = {"key": key, "source": job[0], "k": job[1], "seed": job[2], "rows": done[job]}
            file.write(json.dumps(line) + "\n")
    tick(len(jobs), len(jobs))
    rows = [row for job in jobs for row in done[job]]
    if left := sum(row["left_out"] for row in rows if not row["method"].partition("+")[1]):
        say(f"{left:,} examples were left out of prompts that would have passed the context of "
            f"{lesson.body.config.max_context:,} tokens; the table says how many on average")
    return rows


def _jobs(config: FewShot) -> Iterator[tuple[str, int, int]]:
    """(source, k, seed); without examples there is nothing to draw, nothing near and nothing to learn."""
    for k in config.shots:
        for source in config.sources:
            if k or source == "random":
                once = not k or source == "similar"      # which doesn't depend on a draw
                yield from ((source, k, seed) for seed in range(1 if once else config.seeds))


def _measured(lesson: FewShotLesson, source: str, k: int, seed: int) -> list[Row]:
    labels = lesson.numbers(lesson.pool)
    picked = draw(labels, k, seed)
    left = 0.0
    if source in ("random", "similar"):
        found, left = _by_prompt(lesson, source, k, picked)
    elif source == "probe":
        pool, asked = lesson.near
        found = {"": probe(pool[picked], [labels[i] for i in picked], len(lesson.names), asked)}
    else:
        examples = Texts(lesson.ids([lesson.pool[i] for i in picked]), [labels[i] for i in picked])
        asked_texts = Texts(lesson.ids(lesson.asked), [0] * len(lesson.asked))
        found = {"": adapter(lesson.body, examples, len(lesson.names), asked_texts, seed)}
    return [{"method": source + how, "k": k, "seed": seed, "left_out": left, **_answers(log_p)}
            for how, log_p in found.items()]


def _by_prompt(lesson: FewShotLesson, source: str, k: int, picked: list[int]) -> tuple[dict[str, Tensor], float]:
    prompts, texts = lesson.prompts, [str(row.text) for row in lesson.asked]
    longest = max(len(prompts.question(text)) for text in (*texts, *EMPTY))
    if source == "random":
        context, left = prompts.shown(lesson.examples(picked), longest)
        contexts, missed = [context] * len(texts), float(left)
    else:
        pool, asked = lesson.near
        chosen = [prompts.shown(lesson.examples(near[::-1]), longest)
                  for near in nearest(asked, pool, lesson.numbers(lesson.pool), k)]
        contexts, missed = [ids for ids, _ in chosen], sum(n for _, n in chosen) / len(chosen)
    log_p = prompts.log_p(texts, contexts)
    found = {"": log_p, "+batch": batch_calibrated(log_p)}
    if source == "random":                               # else each text has a context, and a bias, of its own
        found["+contextual"] = contextual(log_p, prompts.log_p(EMPTY, [contexts[0]] * len(EMPTY)))
    return found, missed


def _answers(log_p: Tensor) -> dict[str, list[Any]]:
    """What was answered, and how sure: all that scores need."""
    sure, which = log_p.exp().clamp(max=1).max(-1)
    return {"predicted": which.tolist(), "confidence": [round(p, 6) for p in sure.tolist()]}


def summary(lesson: FewShotLesson, rows: Sequence[Row]) -> list[Row]:
    """A row for each method and k: means over the draws, with 95 % intervals over draws and texts like these."""
    expected, out = np.array(lesson.numbers(lesson.asked)), []
    n = len(lesson.names)
    scores: dict[str, Score] = {
        "accuracy": lambda items, which, sure: float((which == expected[items]).mean()),
        "macro_f1": lambda items, which, sure: macro_f1_of(expected[items], which, n),
        "calibration_error": lambda items, which, sure: calibration_error(sure, which == expected[items])}
    for k, method in dict.fromkeys((row["k"], row["method"]) for row in rows):
        some = [row for row in rows if (row["k"], row["method"]) == (k, method)]
        answers = [(np.array(row["predicted"]), np.array(row["confidence"])) for row in some]
        out.append({"method": method, "k": k, "draws": len(some),
                    "left_out": sum(row["left_out"] for row in some) / len(some),
                    **{name: _interval(score, answers, len(expected)) for name, score in scores.items()}})
    return out


def _interval(score: Score, answers: list[tuple[np.ndarray, np.ndarray]], n: int) -> dict[str, float]:
    """A percentile bootstrap that draws both the draws of examples and the texts anew."""
    def mean(draws: Sequence[int], items: np.ndarray) -> float:
        return float(np.mean([score(items, answers[d][0][items], answers[d][1][items]) for d in draws]))

    random = np.random.default_rng(0)
    found = [mean(random.integers(len(answers), size=len(answers)).tolist(), random.integers(n, size=n))
             for _ in range(SAMPLES)]
    low, high = np.quantile(found, [0.025, 0.975])
    return {"value": mean(range(len(answers)), np.arange(n)), "low": float(low), "high": float(high)}


def _claim(lesson: FewShotLesson, out: Path) -> str:
    """What the results depend on; a folder that holds others is refused."""
    shown = [(row.text, row.label) for row in (*lesson.pool, *lesson.asked)]
    settings = lesson.config.model_dump(mode="json", exclude={"shots", "seeds", "sources"})
    key = hashlib.sha256(repr((settings, shown)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    old = out / "fewshot.json"
    if old.exists() and (then := json.loads(old.read_text(encoding="utf-8"))["key"]) != key:
        raise ConfigError(f"{out} holds results of other rows or settings ({then}, now {key}): name another folder "
                          "with --out")
    write_json(old, {"key": key, **lesson.config.model_dump(mode="json")})
    return key


def _stored(file: Path, key: str) -> Iterator[Row]:
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:                               # the line that a stopped run was writing
            continue
        if row["key"] == key:
            yield row
