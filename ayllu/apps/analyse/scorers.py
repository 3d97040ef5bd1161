"""Who says what a post is: a trained head, a few labelled rows, labels that a model ranks, or the lexicon.

N texts  M examples  C labels  D width
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ayllu.apps.analyse.config import SENTIMENT, Analysis
from ayllu.apps.analyse.lexicon import positive, read
from ayllu.checkpoint.load import load_checkpoint
from ayllu.data.labelled import names_of, read_labelled
from ayllu.errors import CheckpointError, ConfigError, DataError
from ayllu.model.llama import Llama
from ayllu.model.step import EagerRunner
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.calibrate import temperature
from ayllu.train.few_learners import features, probe
from ayllu.train.few_prompts import EMPTY, Prompts, contextual
from ayllu.train.labeller import Labeller

FOLDS = 5                                                # of the rows that few-shot's probabilities are calibrated on
COUNTED = 256                                            # times that the lexicon's verdict stands beside hidden states
POSITIVE = frozenset(["positive", "pos", "good", "1", "正面", "积极", "好评", "正向"])
NEGATIVE = frozenset(["negative", "neg", "bad", "0", "-1", "负面", "消极", "差评", "负向"])


class Scorer(Protocol):
    """Texts in, for each a probability of each label out."""

    @property
    def labels(self) -> tuple[str, ...]:
        """What it tells apart."""
        ...

    @property
    def told(self) -> str:
        """What it is, for the report."""
        ...

    def __call__(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """One table for each text, in order."""
        ...


@dataclass(frozen=True)
class Words:
    """Sentiment by the lexicon."""

    labels: tuple[str, ...] = ("negative", "positive")
    told: str = "the bilingual lexicon of Ayllu"

    def __call__(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Linear in the words that were found."""
        found = [positive(read(text)) for text in texts]
        return [{"negative": 1 - p, "positive": p} for p in found]


@dataclass(frozen=True)
class Head:
    """A trained head, with the probabilities that it was calibrated to."""

    labeller: Labeller
    told: str

    @property
    def labels(self) -> tuple[str, ...]:
        """As it was trained."""
        return self.labeller.facts.names

    def __call__(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Texts past the head's context are cut as its `too_long` says."""
        return [answer.probabilities for answer in self.labeller(texts)]


@dataclass(frozen=True)
class Base:
    """A model that few-shot and zero-shot share."""

    name: str
    body: Llama
    tokenizer: Tokenizer

    @classmethod
    def load(cls, name: str) -> "Base":
        """In float32; its weights stay as they are."""
        loaded = load_checkpoint(name, dtype="float32")
        if loaded.tokenizer is None or not isinstance(loaded.model, Llama):
            raise ConfigError(f"{name} is no Llama with a tokenizer: few-shot and zero-shot need one")
        return cls(name, loaded.model.requires_grad_(False), loaded.tokenizer)

    def features(self, texts: Sequence[str]) -> Tensor:                       # (N, D)
        """Mean hidden states."""
        has_bos, most = self.tokenizer.bos_id is not None, min(self.body.config.max_context, 512)
        return features(self.body, [self.tokenizer.encode(text, bos=has_bos)[:most] for text in texts])


class FewShot:
    """Logistic regression on a model's mean hidden states and the lexicon's verdict, calibrated on rows that each fold
    didn't learn from."""

    def __init__(self, base: Base, file: str, name: str) -> None:
        rows = read_labelled(Path(file))
        self.labels, self._base, self._with_words = names_of(rows), base, name == SENTIMENT
        if len(self.labels) < 2:
            raise DataError(f"{file} has the one label {self.labels[0]!r}: few-shot needs two or more")
        self._numbers = [self.labels.index(str(row.label)) for row in rows]
        self._x = self._read([str(row.text) for row in rows])
        self._temperature = self._calibrated()
        self.told = f"few-shot on {len(rows):,} rows of {Path(file).name}, by {base.name}"

    def __call__(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """The examples are learned anew with each batch, which takes less than reading it."""
        log_p = probe(self._x, self._numbers, len(self.labels), self._read(texts)) / self._temperature
        return [dict(zip(self.labels, p, strict=True)) for p in log_p.softmax(-1).tolist()]

    def _read(self, texts: Sequence[str]) -> Tensor:
        x = self._base.features(texts)
        if not self._with_words:
            return x
        p = torch.tensor([positive(read(text)) for text in texts]).clamp(0.01, 0.99)
        return torch.cat((x, torch.logit(p)[:, None].expand(-1, COUNTED).float()), 1)

    def _calibrated(self) -> float:
        place = torch.arange(len(self._x)) % FOLDS
        log_p = torch.zeros(len(self._x), len(self.labels), dtype=torch.float64)
        for fold in range(FOLDS):
            test, train = place == fold, place != fold
            if test.any() and train.any():
                numbers = torch.tensor(self._numbers)[train].tolist()
                log_p[test] = probe(self._x[train], numbers, len(self.labels), self._x[test])
        return temperature(log_p, torch.tensor(self._numbers), "single")


class ZeroShot:
    """Labels by how likely a model finds them after the text, over what it says of texts without content."""

    def __init__(self, base: Base, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._prompts = Prompts(EagerRunner(base.body), base.tokenizer, self.labels)
        bos = base.tokenizer.bos_id
        self._context = [bos] if bos is not None else base.tokenizer.encode("\n")
        self._empty = self._prompts.log_p(EMPTY, [self._context] * len(EMPTY))
        self.told = f"zero-shot by {base.name}"

    def __call__(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """With contextual calibration (arXiv:2102.09690)."""
        log_p = contextual(self._prompts.log_p(texts, [self._context] * len(texts)), self._empty)
        return [dict(zip(self.labels, p, strict=True)) for p in log_p.exp().tolist()]


class Scorers:
    """All that a run asks, by name."""

    def __init__(self, settings: Analysis) -> None:
        self._settings = settings
        names = [*settings.heads, *settings.examples, *settings.zero_shot]
        if double := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"{double[0]!r} is given in two ways: choose a head, labelled rows or labels for it")
        self.by_name: dict[str, Scorer] = {
            **{name: _head(path) for name, path in settings.heads.items()},
            **{name: FewShot(self._base, file, name) for name, file in settings.examples.items()},
            **{name: ZeroShot(self._base, labels) for name, labels in settings.zero_shot.items()}}
        self.by_name.setdefault(SENTIMENT, Words())
        self._sides = sides(self.by_name[SENTIMENT].labels)

    @cached_property
    def _base(self) -> Base:
        return Base.load(self._settings.model)

    @property
    def others(self) -> dict[str, Scorer]:
        """All but sentiment."""
        return {name: scorer for name, scorer in self.by_name.items() if name != SENTIMENT}

    def sentiment(self, texts: Sequence[str]) -> list[float]:
        """The probability of positive; what is neither counts half."""
        up, down = self._sides
        return [sum(p for label, p in table.items() if label in up)
                + sum(p for label, p in table.items() if label not in up and label not in down) / 2
                for table in self.by_name[SENTIMENT](texts)]


def sides(labels: Sequence[str]) -> tuple[set[str], set[str]]:
    """Which labels are positive and which negative; of three or more numbers, those above and below the middle one."""
    if len(labels) > 2 and all(label.isdecimal() for label in labels):
        ranked = sorted(labels, key=int)
        half = len(ranked) // 2
        return set(ranked[-half:]), set(ranked[:half])
    up = {label for label in labels if label.lower() in POSITIVE}
    down = {label for label in labels if label.lower() in NEGATIVE}
    if not up or not down:
        raise ConfigError(f"the labels {', '.join(labels)} don't say which is positive and which negative: call them "
                          "positive and negative, or give the head another name than sentiment")
    return up, down


def _head(path: str) -> Head:
    labeller = Labeller.load(path, is_fast=True)
    if labeller.facts.head.kind not in ("single", "multi"):
        raise CheckpointError(f"{path} holds a head of kind {labeller.facts.head.kind}: posts need one that labels "
                              "whole texts")
    return Head(labeller, f"the head {Path(path).name}")
