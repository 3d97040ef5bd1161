"""How good a head is on rows it didn't learn from, beside an answer that ignores the text, with intervals.

B rows (or words)  N labels
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ayllu.data.label_loader import Texts
from ayllu.evaluate.intervals import bootstrap, bootstrap_mean
from ayllu.evaluate.metrics import calibration_error, macro_f1_of
from ayllu.model.heads import Kind
from ayllu.train.calibrate import probabilities
from ayllu.train.heads_loss import flat

SAMPLES = 1000


def measure(logits: list[Tensor], texts: Texts, kind: Kind, by: float, cuts: Sequence[float], usual: Tensor,
            names: Sequence[str], spread: float = 1.0, mean: float = 0.0) -> dict[str, Any]:
    """What is printed and kept. `usual` is what training saw most: a class, a row of labels, or the mean."""
    found, labels = flat(logits, texts, kind)
    groups = None if kind != "tokens" else [row for row, some in enumerate(logits) for _ in some]
    if kind == "regression":
        return _numbers((found[:, 0] * spread + mean).numpy(), labels.numpy(), float(usual) * spread + mean)
    p = probabilities(found.double(), kind, by)
    if kind == "multi":
        return _many(p, labels, torch.tensor(cuts), usual)
    before = probabilities(found.double(), kind, 1.0)
    expected, predicted = labels.numpy(), p.argmax(-1).numpy()
    out = {"rows": len(texts), **_classes(expected, predicted, len(names), groups),
           "calibration_error": _ece(p, expected), "calibration_error_before": _ece(before, expected),
           "majority": _plain(expected, np.full_like(expected, int(usual)), len(names))}
    if kind == "tokens":
        sizes = [len(some) for some in logits]
        out |= {"words": len(expected), "span_f1": _span_f1(expected, predicted, sizes, names)}
    return out


def _classes(expected: np.ndarray, predicted: np.ndarray, n: int, groups: Sequence[object] | None) -> dict[str, Any]:
    right = (expected == predicted).astype(float)
    f1 = bootstrap(lambda items: macro_f1_of(expected[items], predicted[items], n), len(expected), samples=SAMPLES,
                   groups=groups)
    return {"accuracy": _table(bootstrap_mean(right, samples=SAMPLES, groups=groups)), "macro_f1": _table(f1)}


def _plain(expected: np.ndarray, predicted: np.ndarray, n: int) -> dict[str, float]:
    return {"accuracy": float((expected == predicted).mean()), "macro_f1": macro_f1_of(expected, predicted, n)}


def _many(p: Tensor, labels: Tensor, cuts: Tensor, usual: Tensor) -> dict[str, Any]:
    expected, predicted = labels.bool().numpy(), (p >= cuts).numpy()
    exact = (expected == predicted).all(1).astype(float)
    f1 = bootstrap(lambda items: many_f1(expected[items], predicted[items]), len(expected), samples=SAMPLES)
    always = np.broadcast_to(usual.bool().numpy(), expected.shape)
    sure = torch.where(p >= 0.5, p, 1 - p).flatten().numpy()
    return {"rows": len(expected), "accuracy": _table(bootstrap_mean(exact, samples=SAMPLES)), "macro_f1": _table(f1),
            "calibration_error": calibration_error(sure, ((p >= 0.5).numpy() == expected).flatten()),
            "majority": {"accuracy": float((expected == always).all(1).mean()), "macro_f1": many_f1(expected, always)}}


def many_f1(expected: np.ndarray, predicted: np.ndarray) -> float:         # (B, N) of booleans
    """The mean over labels of F1 = 2 TP / (2 TP + FP + FN); a label on neither side has none."""
    hits, both = (expected & predicted).sum(0), expected.sum(0) + predicted.sum(0)
    return float((2 * hits[both > 0] / both[both > 0]).mean()) if (both > 0).any() else 0.0


def _numbers(predicted: np.ndarray, expected: np.ndarray, usual: float) -> dict[str, Any]:
    error, plain = np.abs(predicted - expected), np.abs(usual - expected)
    r = np.corrcoef(predicted, expected)[0, 1] if predicted.std() and expected.std() else 0.0
    return {"rows": len(expected), "mean_absolute_error": _table(bootstrap_mean(error, samples=SAMPLES)),
            "correlation": float(r), "majority": {"mean_absolute_error": float(plain.mean())}}


def _span_f1(expected: np.ndarray, predicted: np.ndarray, sizes: Sequence[int], names: Sequence[str]) -> float:
    """F1 of whole spans: right are those with the same first word, last word and kind (as CoNLL-2003 counts)."""
    hits = n_expected = n_predicted = at = 0
    for size in sizes:
        wanted, given = (spans([names[i] for i in side[at:at + size]]) for side in (expected, predicted))
        hits, n_expected, n_predicted, at = hits + len(wanted & given), n_expected + len(wanted), \
            n_predicted + len(given), at + size
    return 2 * hits / max(n_expected + n_predicted, 1)


def spans(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(first word, past the last one, kind) of BIO tags; an I after another kind begins a span, too."""
    out, start, kind = set[tuple[int, int, str]](), 0, ""
    for i, tag in enumerate([*tags, "O"]):
        mark, _, here = tag.partition("-")
        goes_on = mark == "I" and here == kind
        if kind and not goes_on:
            out.add((start, i, kind))
        if not goes_on:
            start, kind = i, here if mark in ("B", "I") else ""
    return out


def _ece(p: Tensor, expected: np.ndarray) -> float:
    sure, which = p.max(-1)
    return calibration_error(sure.numpy(), which.numpy() == expected)


def _table(found: Any) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}


