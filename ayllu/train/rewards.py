"""What an answer is worth: rules that are built in, and a Python function of one's own.

    def reward(prompt: str, completion: str, row: dict) -> float: ...

`row` holds all columns of the prompt's row.
"""

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from ayllu.config import Settings
from ayllu.data.label_loader import Texts
from ayllu.data.prompts import Prompt
from ayllu.errors import ConfigError, DataError
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.heads_loss import logits_of
from ayllu.train.labeller import Labeller

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
Rule = Callable[["Answered"], float]
Rules = Callable[[Sequence["Answered"]], list[float]]    # of many answers at once
ROWS = 16                                                # that a reward model reads at once


class Reward(Settings):
    """One part of the reward; parts are added up, each times its weight."""

    kind: Literal["exact", "regex", "length", "python", "model"]  # docs/preferences.md
    value: str = ""                                      # the pattern; the number of ids; module:function; a folder
    weight: float = 1.0

    @model_validator(mode="after")
    def _has_its_value(self) -> "Reward":
        if (self.kind == "exact") == bool(self.value):
            raise ValueError(f"kind={self.kind} takes {'no value' if self.kind == 'exact' else 'a value'}, found "
                             f"{self.value!r}")
        if self.kind == "length" and not (self.value.isdecimal() and int(self.value)):
            raise ValueError(f"length takes a number of ids above 0, found {self.value!r}")
        return self

    @classmethod
    def of(cls, text: str) -> "Reward":
        """What `--reward` says: exact, regex:PATTERN, length:40, model:FOLDER, or module:function."""
        kind, _, value = text.partition(":")
        if kind in ("exact", "regex", "length", "model"):
            return cls.model_validate({"kind": kind, "value": value})
        return cls(kind="python", value=text)


@dataclass(frozen=True)
class Answered:
    """One answer to one prompt."""

    prompt: Prompt
    text: str
    ids: tuple[int, ...]                                 # with the one that ends it, if it stopped by itself


def rule(reward: Reward, tokenizer: Tokenizer) -> Rules:
    """The function that gives answers their part of the reward. `tokenizer` is that of their ids."""
    match reward.kind:
        case "exact":
            return _each(exact)
        case "model":
            return _model(reward.value, tokenizer)
        case "regex":
            try:
                pattern = re.compile(reward.value, re.DOTALL)
            except re.error as error:
                raise ConfigError(f"the reward's pattern {reward.value!r} is no regular expression: {error}") from error
            return _each(lambda answer: float(pattern.fullmatch(answer.text.strip()) is not None))
        case "length":
            wanted = int(reward.value)
            return _each(lambda answer: max(0.0, 1 - abs(len(answer.ids) - wanted) / wanted))
        case "python":
            return _each(_python(reward.value))


def _each(one: Rule) -> Rules:
    return lambda answers: [one(answer) for answer in answers]


def _model(folder: str, tokenizer: Tokenizer) -> Rules:
    """The number that a reward model gives prompt and answer."""
    judge = Labeller.load(folder)
    if judge.facts.head.kind != "regression":
        raise ConfigError(f"{folder} gives labels, no number: train one with `ayllu prefer method=reward`")
    if judge.reading.tokenizer.fingerprint != tokenizer.fingerprint:
        raise ConfigError(f"{folder} has another tokenizer than the model that is trained: train the reward model on "
                          "a base with the same one")

    def score(answers: Sequence[Answered]) -> list[float]:
        ids = [[*answer.prompt.ids, *answer.ids] for answer in answers]
        found = logits_of(judge.model, Texts(ids, [0.0] * len(ids)), ROWS, judge.device)
        return [logits[0].item() * judge.facts.spread + judge.facts.mean for logits in found]

    return score


def exact(answer: Answered) -> float:
    """1 where the last number of the answer is that of the row's column `answer`, whose last number counts, too."""
    if "answer" not in answer.prompt.row:
        raise DataError(f"{answer.prompt.place}: the reward `exact` needs a column `answer`: name it "
                        "(columns.answer = \"...\")")
    found, wanted = (last_number(str(text)) for text in (answer.text, answer.prompt.row["answer"]))
    if wanted is None:
        raise DataError(f"{answer.prompt.place}: the column `answer` holds no number: correct it, or use another "
                        "reward")
    return float(found == wanted)


def last_number(text: str) -> float | None:
    """The value of the last number in a text."""
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _python(name: str) -> Rule:
    """A function that is imported from the working directory or from what is installed."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigError(f"the reward {name!r} should be exact, regex:PATTERN, length:NUMBER, model:FOLDER or "
                          "module:function")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the reward {name!r} can't be imported: {error}. It is looked for from {Path.cwd()}") \
            from error

    def call(answer: Answered) -> float:
        value: Any = function(answer.prompt.text, answer.text, answer.prompt.row)
        if not isinstance(value, int | float) or value != value:
            raise ConfigError(f"the reward {name} gave {value!r} for {answer.prompt.place}: it should give a number")
        return float(value)

    return call


class Rewards:
    """All parts together."""

    def __init__(self, parts: tuple[Reward, ...], tokenizer: Tokenizer) -> None:
        self.parts = [(part.weight, rule(part, tokenizer)) for part in parts]

    def __call__(self, answers: Sequence[Answered]) -> list[float]:
        columns = [[weight * value for value in rules(answers)] for weight, rules in self.parts]
        return [sum(row) for row in zip(*columns, strict=True)]
