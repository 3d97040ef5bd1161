"""A bridge to lm-evaluation-harness: its tasks, where their data is at hand, over Ayllu's engine.

Every convention is the harness's own for transformers (`HFLM`), so that numbers agree: what doesn't fit is cut on the
left (and counted here), a whole text is read in windows after BOS, and answers end at a task's stop texts.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ayllu.errors import ConfigError, DataError, MissingExtra
from ayllu.evaluate.intervals import Interval, bootstrap_mean
from ayllu.evaluate.subject import Ask, Subject
from ayllu.files import write_json
from ayllu.log import warn
from ayllu.model.params import SamplingParams

for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):   # read when the harness is imported: nothing is fetched
    os.environ.setdefault(name, "1")
try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise MissingExtra("lm-evaluation-harness isn't installed, or a part of it is missing "
                       f"({error}): pip install 'ayllu[harness]'") from error

NEW_TOKENS = 256                                         # where a task doesn't say, as in HFLM
NORMAL_95 = 1.96                                         # standard errors to each side of a metric without item values
KEYS = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}


class HarnessModel(LM):                                
    """A subject as the harness asks for it. `n_cut`: prompts that were cut on the left."""

    def __init__(self, subject: Subject, seed: int = 0) -> None:
        super().__init__()
        self.subject, self.seed, self.n_cut = subject, seed, 0

    @property
    def tokenizer_name(self) -> str:
        """What the harness keeps cached prompts by."""
        return self.subject.tokenizer.fingerprint

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy) of each continuation."""
        pairs = [self._fitted(*self.subject.encode_pair(*request.args)) for request in requests]
        return [(one.total, one.is_greedy) for one in self.subject.likelihoods(pairs)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each whole text."""
        pairs, owners = [], []
        for number, request in enumerate(requests):
            windows = get_rolling_token_windows(token_list=self.subject.encode(request.args[0]),
                                                prefix_token=self.subject.start_id,
                                                max_seq_len=self.subject.runner.config.max_context, context_len=1)
            for window in map(make_disjoint_window, windows):
                pairs.append(window)
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, one in zip(owners, self.subject.likelihoods(pairs), strict=True):
            totals[number] += one.total
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What is written after each prompt, up to a stop text."""
        asks = [self._ask(number, *request.args) for number, request in enumerate(requests)]
        return [answer.text for answer in self.subject.answer(asks)]

    def _fitted(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[list[int], list[int]]:
        over = len(context) + len(continuation) - 1 - self.subject.runner.config.max_context
        if over <= 0:
            return list(context), list(continuation)
        self.n_cut += 1
        if over >= len(context):
            raise DataError(f"a continuation of {len(continuation):,} tokens is longer than the model's context")
        return list(context[over:]), list(continuation)

    def _ask(self, number: int, text: str, keys: dict[str, Any]) -> Ask:
        if unknown := set(keys) - KEYS:
            raise ConfigError(f"the task asks for {', '.join(sorted(unknown))} in generation_kwargs; known are "
                              f"{', '.join(sorted(KEYS))}")
        until = keys.get("until") or []
        n_new = int(keys.get("max_gen_toks", NEW_TOKENS))
        room = self.subject.context - n_new
        if room < 1:
            raise ConfigError(f"the task asks for {n_new:,} new tokens, and the context has {self.subject.context:,}")
        ids = self.subject.encode(text)
        self.n_cut += len(ids) > room
        samples = keys.get("do_sample", float(keys.get("temperature") or 0) > 0)
        shape: dict[str, Any] = {"temperature": 0.0}
        if samples:
            shape = {"temperature": float(keys.get("temperature") or 1.0), "top_p": float(keys.get("top_p", 1.0)),
                     "top_k": int(keys.get("top_k", 0))}
        params = SamplingParams(max_tokens=n_new, seed=self.seed + number,
                                stop=tuple([until] if isinstance(until, str) else until), **shape)
        return Ask(tuple(ids[-room:]), params)


def run_harness(subject: Subject, tasks: Sequence[str], out: Path, *, include_path: Path | None = None,
                limit: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Run tasks of the harness; gives each metric with its interval. OUT/harness.json keeps all that it said."""
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    if unknown := [task for task in tasks if task not in manager.all_tasks]:
        raise ConfigError(f"the harness has no task {', '.join(unknown)}: --include-path FOLDER adds tasks of your own")
    model = HarnessModel(subject, seed)
    try:
        said = simple_evaluate(model=model, tasks=list(tasks), limit=limit, task_manager=manager, log_samples=True,
                               bootstrap_iters=0, random_seed=seed, numpy_random_seed=seed, torch_random_seed=seed,
                               fewshot_random_seed=seed, confirm_run_unsafe_code=False)
    except (FileNotFoundError, ConnectionError) as error:
        raise DataError(f"the data of {', '.join(tasks)} isn't at hand, and nothing is fetched "
                        f"({str(error).splitlines()[0]}): put it in the hub's cache, or give a task over local files "
                        "with --include-path") from error
    if model.n_cut:
        warn(f"{model.n_cut:,} prompts didn't fit the context and were cut on the left, as the harness does")
    found = {task: _scores(table, said["samples"].get(task, ()), seed) for task, table in said["results"].items()}
    result = {"model": subject.facts.get("model"), "harness": said["lm_eval_version"] if "lm_eval_version" in said
              else _version(), "cut": model.n_cut, "tasks": found}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "harness.json", {**result, "subject": dict(subject.facts), "seed": seed, "limit": limit,
                                      "samples": _plain(said["samples"]), "configs": _plain(said["configs"])})
    return result


def _scores(table: dict[str, Any], samples: Iterable[dict[str, Any]], seed: int) -> dict[str, Any]:
    rows, out = list(samples), {}
    for key, value in table.items():
        metric, comma, rule = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        name = metric if rule == "none" else key
        own = [row[metric] for row in rows if row.get("filter", rule) == rule and metric in row]
        interval = _interval(float(value), own, table.get(f"{metric}_stderr,{rule}"), seed)
        out[name] = asdict(interval) if interval else {"value": float(value), "n": len(rows)}
    return {"n": len({row["doc_id"] for row in rows}), "metrics": out}


def _interval(value: float, own: list[Any], error: Any, seed: int) -> Interval | None:
    """Of the items' own values where the metric is their mean, else of the harness's standard error, if it has one."""
    if own and all(isinstance(x, bool | int | float) for x in own) and abs(sum(own) / len(own) - value) < 1e-9:
        return bootstrap_mean([float(x) for x in own], seed=seed)
    if isinstance(error, int | float):
        return Interval(value, value - NORMAL_95 * error, value + NORMAL_95 * error, len(own))
    return None


def _version() -> str:
    from importlib.metadata import version

    return version("lm_eval")


def _plain(value: Any) -> Any:
    """What JSON can hold; functions of a task's config by their names."""
    match value:
        case dict():
            return {str(k): _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case str() | int() | float() | bool() | None:
            return value
        case _:
            return getattr(value, "__name__", str(value))
