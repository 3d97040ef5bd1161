"""What is counted: macro-F1, calibration, matches of answers, perplexity and bits per byte. Free of torch.

N items  C classes
"""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ayllu.errors import DataError

Convention = Literal["squad", "cmrc"]                    # words as SQuAD counts, or characters as CMRC 2018 does
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# What CMRC 2018 takes out of answers before it compares them (its evaluation script names these), and ASCII's
_CMRC_MARKS = frozenset("，。：？！“”；’《》…·、「」（）－～『』‘—【】" + string.punctuation)
_HAN = re.compile(r"[㐀-鿿豈-﫿]")


def macro_f1_of(expected: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:      # (N,), (N,) of 0 to C - 1
    """The mean of the classes' F1, each class counting the same; a class that occurs on either side has one."""
    hits = np.bincount(expected[expected == predicted], minlength=n_classes)
    both = np.bincount(expected, minlength=n_classes) + np.bincount(predicted, minlength=n_classes)
    occurs = both > 0
    return float((2 * hits[occurs] / both[occurs]).mean())                   # F1 = 2 TP / (TP + FN + TP + FP)


def calibration_error(confidence: Sequence[float] | np.ndarray, correct: Sequence[bool] | np.ndarray,
                      bins: int = 15) -> float:
    """Expected calibration error: |accuracy - mean confidence| over bins of equal width, weighted by their items
    (Guo et al. 2017, arXiv:1706.04599, eq. 3). A bin holds its upper edge; the first holds 0 too."""
    _same_length(confidence, correct)
    p, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not ((p >= 0) & (p <= 1 + 1e-9)).all():
        raise DataError(f"a confidence of {p[(p < 0) | (p > 1)][:1]} is no probability: give values from 0 to 1")
    place = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=right - p, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def exact_match(predicted: str, answers: Sequence[str], convention: Convention = "squad") -> float:
    """1 where the prediction is one of the answers, both normalised."""
    _need_answers(answers)
    return float(any(normalise(predicted, convention) == normalise(a, convention) for a in answers))


def answer_f1(predicted: str, answers: Sequence[str], convention: Convention = "squad") -> float:
    """The best F1 over the answers: shared words for SQuAD, the longest shared run of characters for CMRC and DRCD."""
    _need_answers(answers)
    return max(_f1(pieces(predicted, convention), pieces(a, convention), convention) for a in answers)


def normalise(text: str, convention: Convention = "squad") -> str:
    """How an answer is compared: SQuAD v1.1's rule (lower case, no punctuation, no articles, single spaces), or that
    of CMRC 2018 (lower case, no marks of either script, no spaces)."""
    if convention == "cmrc":
        return "".join(c for c in text.lower() if c not in _CMRC_MARKS and not c.isspace())
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def pieces(text: str, convention: Convention) -> list[str]:
    """What F1 counts: words; for CMRC each Han character, and each run of other letters and digits."""
    if convention == "squad":
        return normalise(text).split()
    spaced = "".join(" " if c in _CMRC_MARKS else f" {c} " if _HAN.match(c) else c for c in text.lower())
    return spaced.split()


def _f1(predicted: list[str], answer: list[str], convention: Convention) -> float:
    if not predicted or not answer:
        return float(predicted == answer)
    shared = (_longest_run(predicted, answer) if convention == "cmrc"
              else sum((Counter(predicted) & Counter(answer)).values()))
    return 2 * shared / (len(predicted) + len(answer))


def _longest_run(a: list[str], b: list[str]) -> int:
    """The length of the longest run that both hold."""
    best, above = 0, [0] * (len(b) + 1)
    for x in a:
        row = [0] * (len(b) + 1)
        for j, y in enumerate(b, start=1):
            row[j] = above[j - 1] + 1 if x == y else 0
        best, above = max(best, *row), row
    return best


def perplexity(logprob: float, n_tokens: int) -> float:
    """exp of the mean negative log-probability (nats) of the tokens."""
    return math.exp(min(-logprob / n_tokens, 700.0))     # past 1e304 a float has no room


def bits_per_byte(logprob: float, n_bytes: int) -> float:
    """What compressing the text by the model would take: the same whatever the tokenizer."""
    return -logprob / math.log(2) / n_bytes


def _same_length(a: Sequence[object] | np.ndarray, b: Sequence[object] | np.ndarray) -> None:
    if len(a) != len(b) or len(a) == 0:
        raise DataError(f"{len(a)} items against {len(b)}: a metric needs as many of one as of the other, and some")


def _need_answers(answers: Sequence[str]) -> None:
    if not answers:
        raise DataError("a question has no answer to compare with: give at least one")
