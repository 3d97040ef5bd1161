"""From items to records: prompts that fit, what the model gave for them, and what each item scores.

A record is one row of a run's TASK.jsonl: prompt, ids, seed, output and scores, so that every number can be traced and
repeated.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ayllu.errors import ContextTooLong
from ayllu.evaluate import metrics
from ayllu.evaluate.likelihood import Likelihood
from ayllu.evaluate.rules import keeps
from ayllu.evaluate.span import best_span
from ayllu.evaluate.subject import Ask, Subject
from ayllu.evaluate.task import WRITTEN, Item, Task
from ayllu.model.params import SamplingParams

TooLong = Literal["error", "drop-examples", "truncate-left"]
Record = dict[str, Any]
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Prompt:
    """An item as the model reads it."""

    item: Item
    text: str
    ids: list[int]
    continuations: list[list[int]] = field(default_factory=list)
    stop: tuple[str, ...] = ()
    fit: str = ""                                        # what was done to make it fit


def prepare(subject: Subject, name: str, task: Task, items: Sequence[Item], too_long: TooLong) -> list[Prompt]:
    """Prompts of all items. One that doesn't fit is an error, or made to fit and marked: never passed over silently."""
    prompts = [_prompt(subject, task, item, item.examples) for item in items]
    over = [i for i, p in enumerate(prompts) if _excess(subject, task, p) > 0]
    if over and too_long == "error":
        worst = max(_excess(subject, task, prompts[i]) for i in over)
        raise ContextTooLong(f"task {name}: {len(over):,} of {len(items):,} prompts don't fit the context of "
                             f"{subject.context:,} tokens, the longest by {worst:,}: choose --too-long drop-examples "
                             "or --too-long truncate-left, or lower the task's shots or max_tokens")
    for i in over:
        prompts[i] = _fitted(subject, name, task, prompts[i], too_long)
    return prompts


def _fitted(subject: Subject, name: str, task: Task, prompt: Prompt, too_long: TooLong) -> Prompt:
    item = prompt.item
    if too_long == "drop-examples":
        for n in range(1, len(item.examples) + 1):
            shorter = _prompt(subject, task, item, item.examples[n:])
            if _excess(subject, task, shorter) <= 0:
                return Prompt(item, shorter.text, shorter.ids, shorter.continuations, shorter.stop,
                              f"dropped {n} examples")
        raise ContextTooLong(f"task {name}: item {item.id} doesn't fit the context of {subject.context:,} tokens even "
                             "without examples: choose --too-long truncate-left")
    cut = _excess(subject, task, prompt)
    first = prompt.ids[:1] if prompt.ids[0] == subject.tokenizer.bos_id else []
    kept = prompt.ids[len(first) + cut:]
    if not kept:
        raise ContextTooLong(f"task {name}: item {item.id} leaves no room for its prompt: lower max_tokens")
    return Prompt(item, prompt.text, first + kept, prompt.continuations, prompt.stop, f"cut {cut} tokens")


def _excess(subject: Subject, task: Task, prompt: Prompt) -> int:
    """Tokens too many."""
    if task.kind == "perplexity":
        return 0                                         # read in windows
    if task.kind in WRITTEN or task.kind == "span":
        return len(prompt.ids) + task.max_tokens - subject.context
    return len(prompt.ids) + max(map(len, prompt.continuations)) - 1 - subject.context


def _prompt(subject: Subject, task: Task, item: Item, examples: Sequence[tuple[str, str]]) -> Prompt:
    if task.kind == "perplexity":
        return Prompt(item, item.prompt, subject.encode(item.prompt))
    if task.chat:
        messages = [{"role": role, "content": text} for prompt, answer in examples
                    for role, text in (("user", prompt), ("assistant", answer))]
        ids, stop = subject.encode_chat([*messages, {"role": "user", "content": item.prompt}])
        rest = [subject.encode_rest(task.join + option) for option in item.options]
        return Prompt(item, item.prompt, ids, rest, (*task.stop, *stop))
    shown = [f"{prompt}{task.join}{answer}{task.separator}" for prompt, answer in examples]
    text = "".join(shown) + item.prompt
    if not item.options:
        return Prompt(item, text, subject.encode(text), [], task.stop)
    pairs = [subject.encode_pair(text, task.join + option) for option in item.options]
    return Prompt(item, text, pairs[0][0], [rest for _, rest in pairs], task.stop)


def answer(subject: Subject, task: Task, prompts: Sequence[Prompt], seed: int) -> list[Record]:
    """The records of some items; `seed` is the first one's, and the next ones count on from it."""
    match task.kind:
        case "choice" | "classify":
            return _choose(subject, task, prompts)
        case "span":
            return [_point(subject, task, prompt) for prompt in prompts]
        case "perplexity":
            return _read(subject, prompts)
        case _:
            return _write(subject, task, prompts, seed)


def _record(prompt: Prompt, expected: Any, output: Any, scores: dict[str, float], **more: Any) -> Record:
    group = {} if prompt.item.group is None else {"group": prompt.item.group}
    fit = {"fit": prompt.fit} if prompt.fit else {}
    return {"item": prompt.item.id, **group, "prompt": prompt.text, "ids": prompt.ids, "expected": expected,
            "output": output, "scores": {**scores, **prompt.item.ranks}, **more, **fit}


def _choose(subject: Subject, task: Task, prompts: Sequence[Prompt]) -> list[Record]:
    pairs = [(p.ids, rest) for p in prompts for rest in p.continuations]
    found = iter(subject.likelihoods(pairs))
    out = []
    for p in prompts:
        each = [next(found) for _ in p.continuations]
        logits = np.array([_normalised(task, one, option) for one, option in zip(each, p.item.options, strict=True)])
        chosen, shares = int(logits.argmax()), np.exp(logits - logits.max())
        shares = shares / shares.sum()
        right = float(chosen == p.item.expected)
        out.append(_record(p, p.item.expected, chosen, {"accuracy": right}, confidence=float(shares[chosen]),
                           options=list(p.item.options), logprobs=[one.total for one in each]))
    return out


def _normalised(task: Task, one: Likelihood, option: str) -> float:
    match task.normalise or ("bytes" if task.kind == "choice" else "none"):
        case "bytes":
            return one.total / max(len(option.encode()), 1)
        case "tokens":
            return one.total / len(one.logprobs)
        case _:
            return one.total


def _write(subject: Subject, task: Task, prompts: Sequence[Prompt], seed: int) -> list[Record]:
    seeds = [seed + i for i in range(len(prompts))]
    asks = [Ask(tuple(p.ids), SamplingParams(max_tokens=task.max_tokens, temperature=task.temperature, stop=p.stop,
                                             seed=s, num_beams=task.beams))
            for p, s in zip(prompts, seeds, strict=True)]
    return [_record(p, p.item.expected, a.text, score_text(task, p.item, a.text), output_ids=list(a.ids), seed=s,
                    finish=a.finish)
            for p, a, s in zip(prompts, subject.answer(asks), seeds, strict=True)]


def score_text(task: Task, item: Item, text: str) -> dict[str, float]:
    """What a written answer scores by itself; translations are counted over all of them, in scores.py."""
    text = text.strip()
    match task.kind:
        case "qa" | "span":
            return {"f1": metrics.answer_f1(text, item.expected, task.convention),
                    "em": metrics.exact_match(text, item.expected, task.convention)}
        case "arithmetic":
            return {"accuracy": float(number_of(text) == number_of(str(item.expected[0])) is not None)}
        case "instruct":
            kept = [keeps(rule, text, item.prompt) for rule in item.expected]
            return {"prompt_accuracy": float(all(kept)), "kept": sum(kept), "rules": len(kept)}
        case _:
            return {}


def number_of(text: str) -> float | None:
    """The number that an answer gives: what stands behind `####` (GSM8K), else the last number; None: there is none."""
    _, mark, behind = text.rpartition("####")
    found = _NUMBER.findall(behind if mark else text)
    if not found:
        return None
    return float((found[0] if mark else found[-1]).replace(",", ""))


def _point(subject: Subject, task: Task, prompt: Prompt) -> Record:
    passage = str(prompt.item.row[task.context])
    span, is_exact = best_span(subject, prompt.ids, passage, task.join, task.starts, task.max_tokens - 1,
                               task.normalise == "tokens")
    text = passage[span.start:span.end]
    return _record(prompt, prompt.item.expected, text, score_text(task, prompt.item, text), span=[span.start, span.end],
                   logprob=span.logprob, exact=is_exact)


def _read(subject: Subject, prompts: Sequence[Prompt]) -> list[Record]:
    pairs, owners = [], []
    for number, p in enumerate(prompts):
        for pair in windows(p.ids, subject.context):
            pairs.append(pair)
            owners.append(number)
    sums, counts = [0.0] * len(prompts), [0] * len(prompts)
    for number, one in zip(owners, subject.likelihoods(pairs), strict=True):
        sums[number] += one.total
        counts[number] += len(one.logprobs)
    return [_record(p, None, None, {"logprob": total, "tokens": n, "bytes": len(p.text.encode())})
            for p, total, n in zip(prompts, sums, counts, strict=True)]


def windows(ids: Sequence[int], context: int) -> list[tuple[list[int], list[int]]]:
    """(given, predicted) so that each id but a first BOS is predicted once, past the first window with at least half a
    context before it. A text without BOS gives its first id away: nothing stands before it."""
    half = max(context // 2, 1)
    out, at = [], 1
    while at < len(ids):
        end = min(len(ids), context + 1 if at == 1 else at + half)
        begin = max(0, end - context - 1)
        out.append((list(ids[begin:at]), list(ids[at:end])))
        at = end
    return out
