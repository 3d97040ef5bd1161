"""What a model gives away of its training text: canaries, extraction, membership.

- Exposure of canaries (Carlini et al. 2019, arXiv:1802.08232): how far up a planted secret ranks among random ones.
- Extraction (Carlini et al. 2023, arXiv:2202.07646): how often the next tokens of a training text come out word for
  word, greedily, when the model is given the ones before.
- Membership (Yeom et al. 2018; zlib ratio: Carlini et al. 2021, arXiv:2012.07805; min-k%: Shi et al. 2023,
  arXiv:2310.16789): how well training texts are told from others. 0.5 is chance.

Each number means something beside texts of the same kind that the model did not see, so those are asked for.
"""

import math
import random
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import Field

from ayllu.config import Settings
from ayllu.errors import DataError
from ayllu.evaluate.intervals import SAMPLES, Interval, bootstrap_mean
from ayllu.evaluate.subject import Ask, Subject
from ayllu.model.params import SamplingParams

MIN_K = 0.2                                              # the share of tokens that min-k% takes: the least likely
AT_FALSE = 0.01                                          # members found where one in a hundred others is taken for one
LEAST_TOKENS = 8                                         # texts shorter than this tell too little


class Canary(Settings):
    """A secret that was planted in the training text: `format` with `{}` where it stands."""

    format: str
    secret: str = Field(min_length=1)
    alphabet: str = "0123456789"

    def text(self, secret: str) -> tuple[str, str]:
        """(what stands before, the secret and what stands behind)."""
        before, mark, behind = self.format.partition("{}")
        if not mark or set(secret) - set(self.alphabet):
            raise DataError(f"the canary {self.format!r} needs {{}} where the secret stands, and a secret of the "
                            f"letters {self.alphabet!r} (found {secret!r})")
        return before, secret + behind


class Audit(Settings):
    """How much is tried."""

    references: int = 1000                               # random secrets that a canary is ranked among
    prefix: int = 32                                     # tokens that are given
    suffix: int = 16                                     # tokens that must come out
    length: int = 256                                    # tokens of a text that membership looks at
    seed: int = 0


@dataclass(frozen=True)
class Exposure:
    """log2(secrets) - log2(rank), at most `most`, where nothing random was likelier."""

    format: str
    exposure: float
    rank: int
    most: float


def exposure(subject: Subject, canary: Canary, settings: Audit) -> Exposure:
    """Rank a secret among random ones of its length; 1 bit is what chance gives in the mean, roughly."""
    rng = random.Random(f"{settings.seed}/{canary.format}")
    room = len(set(canary.alphabet)) ** len(canary.secret)
    others: set[str] = set()
    while len(others) < min(settings.references, room - 1):
        drawn = "".join(rng.choice(canary.alphabet) for _ in canary.secret)
        others |= {drawn} - {canary.secret}
    pairs = [subject.encode_pair(*canary.text(secret)) for secret in (canary.secret, *sorted(others))]
    own, *rest = (one.total for one in subject.likelihoods(pairs))
    rank = 1 + sum(other >= own for other in rest)
    most = math.log2(len(rest) + 1)
    return Exposure(canary.format, most - math.log2(rank), rank, most)


def extracted(subject: Subject, texts: Sequence[str], settings: Audit) -> list[bool]:
    """For each text that is long enough: does its suffix come out?"""
    n = settings.prefix + settings.suffix
    rows = [ids[:n] for ids in map(subject.encode, texts) if len(ids) >= n]
    params = SamplingParams(max_tokens=settings.suffix, temperature=0, ignore_eos=True)
    found = subject.answer([Ask(tuple(ids[:settings.prefix]), params) for ids in rows])
    return [list(answer.ids) == ids[settings.prefix:] for answer, ids in zip(found, rows, strict=True)]


def signs(subject: Subject, texts: Sequence[str], settings: Audit) -> dict[str, np.ndarray]:
    """Of each text, three numbers that are higher where the model has seen it."""
    rows = [ids[:settings.length] for ids in map(subject.encode, texts)]
    rows = [ids for ids in rows if len(ids) >= LEAST_TOKENS]
    found = subject.likelihoods([(ids[:1], ids[1:]) for ids in rows])
    out: dict[str, list[float]] = {"loss": [], "min_k": [], "zlib": []}
    for ids, one in zip(rows, found, strict=True):
        logprobs = np.sort(np.array(one.logprobs))
        out["loss"].append(float(logprobs.mean()))
        out["min_k"].append(float(logprobs[:max(1, round(MIN_K * len(logprobs)))].mean()))
        out["zlib"].append(float(logprobs.sum()) / len(zlib.compress(subject.tokenizer.decode(ids[1:]).encode())))
    return {name: np.array(values) for name, values in out.items()}


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """The chance that a member's number is above another text's; ties count half."""
    values = np.sort(others)
    below, upto = np.searchsorted(values, members, "left"), np.searchsorted(values, members, "right")
    return float((below + upto).mean() / 2 / len(values))


def found_at(members: np.ndarray, others: np.ndarray, false: float = AT_FALSE) -> float:
    """The share of members above all but `false` of the others (Carlini et al. 2022, arXiv:2112.03570)."""
    return float((members > np.quantile(others, 1 - false, method="higher")).mean())


def membership(members: np.ndarray, others: np.ndarray, seed: int) -> dict[str, Any]:
    """AUC with its interval: both sides resampled."""
    rng = np.random.default_rng(seed)
    drawn = [auc(rng.choice(members, len(members)), rng.choice(others, len(others))) for _ in range(SAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    interval = Interval(auc(members, others), float(low), float(high), len(members) + len(others))
    return {"auc": asdict(interval), "found_at_1_percent": found_at(members, others)}


def audit(subject: Subject, members: Sequence[str], others: Sequence[str], canaries: Sequence[Canary],
          settings: Audit) -> dict[str, Any]:
    """All three. `members` were in the training text, `others` were not; either may be left out with what needs it."""
    report: dict[str, Any] = {"settings": settings.model_dump()}
    if canaries:
        report["canaries"] = [asdict(exposure(subject, canary, settings)) for canary in canaries]
    sides = {"training": members, "held_out": others}
    rates = {name: extracted(subject, texts, settings) for name, texts in sides.items() if texts}
    report["extraction"] = {name: asdict(bootstrap_mean([float(hit) for hit in hits], seed=settings.seed))
                            for name, hits in rates.items() if hits}
    sizes = {name: np.array([len(subject.encode(text)) for text in texts]) for name, texts in sides.items()}
    report["too_short"] = {what: {name: int((size < least).sum()) for name, size in sizes.items()} for what, least in (
        ("extraction", settings.prefix + settings.suffix), ("membership", LEAST_TOKENS))}
    if members and others:
        inside, outside = signs(subject, members, settings), signs(subject, others, settings)
        if not len(inside["loss"]) or not len(outside["loss"]):
            raise DataError(f"membership needs texts of {LEAST_TOKENS} tokens or more on both sides: give longer ones")
        report["membership"] = {name: membership(inside[name], outside[name], settings.seed) for name in inside}
    return report
