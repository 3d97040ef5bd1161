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
from ayllu.apps.speaker import SMALL
from ayllu.checkpoint.load import load_checkpoint
from ayllu.data.labelled import names_of, read_labelled
from ayllu.errors import CheckpointError, ConfigError, DataError
from ayllu.log import warn
from ayllu.model.account import n_parameters
from ayllu.model.llama import Llama
from ayllu.model.step import EagerRunner
from ayllu.text.lexicon import positive, read
from ayllu.text.tokenizer import Tokenizer
from ayllu.train.calibrate import temperature
from ayllu.train.few_learners import features, probe
from ayllu.train.few_prompts import EMPTY, Prompts, contextual
from ayllu.train.labeller import Labeller

FOLDS = 5                                                # of the rows that few-shot's probabilities are calibrated on
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)                      # of what was learned beside the lexicon
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
    """Logistic regression on a model's mean hidden states, calibrated on rows that each fold didn't learn from.

    For two labels of sentiment it is mixed with the lexicon, in the share that these rows are likeliest with: few rows
    lean on the lexicon, many don't need it.
    """

    def __init__(self, base: Base, file: str, name: str) -> None:
        rows = read_labelled(Path(file))
        self.labels, self._base = names_of(rows), base
        if len(self.labels) < 2:
            raise DataError(f"{file} has the one label {self.labels[0]!r}: few-shot needs two or more")
        texts = [str(row.text) for row in rows]
        self._numbers = [self.labels.index(str(row.label)) for row in rows]
        self._x = base.features(texts)
        self._up: int | None = None                      # the number of the positive label, where there are two
        if name == SENTIMENT and len(self.labels) == 2:
            self._up = self.labels.index(next(iter(sides(self.labels)[0])))
        self._share, self._temperature = self._fitted(texts)
        self.told = f"few-shot on {len(rows):,} rows of {Path(file).name}, by {base.name}"
        if self._up is not None:
            self.told += f", {1 - self._share:.0%} the lexicon"

    def __call__(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """The examples are learned anew with each batch, which takes less than reading it."""
        log_p = probe(self._x, self._numbers, len(self.labels), self._base.features(texts))
        mixed = self._mixed(log_p, texts, self._share) / self._temperature
        return [dict(zip(self.labels, p, strict=True)) for p in mixed.softmax(-1).tolist()]

    def _mixed(self, log_p: Tensor, texts: Sequence[str], share: float) -> Tensor:               # (N, C)
        if self._up is None or share == 1:
            return log_p
        p = torch.tensor([positive(read(text)) for text in texts], dtype=torch.float64)
        words = torch.stack((p, 1 - p) if self._up == 0 else (1 - p, p), 1)
        return share * log_p + (1 - share) * words.clamp(min=0.01).log()

    def _fitted(self, texts: Sequence[str]) -> tuple[float, float]:
        """The share of what was learned, and the temperature, that make the rows likeliest."""
        place = torch.arange(len(self._x)) % FOLDS
        log_p, labels = torch.zeros(len(self._x), len(self.labels), dtype=torch.float64), torch.tensor(self._numbers)
        for fold in range(FOLDS):
            test, train = place == fold, place != fold
            if test.any() and train.any():
                log_p[test] = probe(self._x[train], labels[train].tolist(), len(self.labels), self._x[test])
        tried = []
        for share in SHARES if self._up is not None else (1.0,):
            mixed = self._mixed(log_p, texts, share)
            by = temperature(mixed, labels, "single")
            tried.append((torch.nn.functional.cross_entropy(mixed / by, labels).item(), share, by))
        return min(tried)[1:]


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
        base = Base.load(self._settings.model)
        if self._settings.zero_shot and n_parameters(base.body.config) < SMALL:
            warn(f"{base.name} is small: labels without examples are a guess (ayllu-mini: 50.5 % right on sst2, 34.8 % "
                 "on waimai_10k, of two labels; benchmarks/analyse.py --sides zero); use 7 billion parameters or more, "
                 "--examples or --head")
        return base

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
