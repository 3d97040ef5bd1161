"""What benchmarks/retrieval.py --choose fits, on the separate parts."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_answers import judged
from retrieval_sets import Library, Part, parts, place_of

from ayllu.apps.collection import DEEP, DENSE, DENSE_SHORT
from ayllu.apps.docqa.extract import FOUND, extract, read
from ayllu.apps.docqa.overlap import WEIGHTS
from ayllu.apps.index.ranking import fused, mixed

Ranked = list[tuple[int, float]]

WORTH, TIES = 0.005, 0.001                                # half a point of MRR; a weight that only orders ties
WEIGHTS_TRIED = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7)
Table = dict[str, dict[float, float]]                    # way of putting two rankings together: MRR by weight


def hybrid_table(part: Part, folder: Path, limit: int) -> Table:
    """The mean reciprocal rank of scores mixed and of reciprocal ranks fused, by the weight of the vectors; weight 0 is
    words alone, 1 vectors alone."""
    library = Library(part, folder)
    found = [(library.both(one.text), one.right)
             for one in random.Random(4).sample(part.asked, min(limit, len(part.asked)))]

    def mrr(put: Callable[[Ranked, Ranked, float], Ranked], weight: float) -> float:
        return float(np.mean([1 / (place_of(library.passages(put(said, near, weight)), right) or np.inf)
                              for (said, near), right in found]))

    def by_rank(said: Ranked, near: Ranked, weight: float) -> Ranked:
        return fused([(1 - weight, [i for i, _ in said]), (weight, [i for i, _ in near])])

    table = {"scores": {w: mrr(lambda a, b, w: mixed(a, b, w, DEEP), w) for w in (0.0, *WEIGHTS_TRIED, 1.0)},
             "ranks": {w: mrr(by_rank, w) for w in (0.0, *WEIGHTS_TRIED, 1.0)}}
    for way, row in table.items():
        print(f"{part.name:<10} {way:<6} MRR by weight: " + "  ".join(f"{w}: {100 * v:.2f}" for w, v in row.items()),
              flush=True)
    return table


def best_weight(tables: list[Table]) -> float:
    """The best on average, where it gains WORTH over words alone and is below neither way alone in any of the sets;
    else one with which vectors only order what words leave equal."""
    safe = [w for w in WEIGHTS_TRIED if all(t["scores"][w] >= max(t["scores"][0.0], t["scores"][1.0]) for t in tables)]
    mean = {w: np.mean([t["scores"][w] for t in tables]) for w in (0.0, *safe)}
    best = max(mean, key=lambda w: mean[w])
    return best if mean[best] >= mean[0.0] + WORTH else TIES


def choose(data: Path, folder: Path, limit: int) -> dict[str, Any]:
    """The weight of the vectors, the weights of a sentence's features, and the calibration, on the separate parts."""
    from scipy.optimize import minimize
    ways = {name: hybrid_table(part, folder, limit) for part in parts(data, is_test=False) for name in [part.name]}
    best = {is_short: best_weight([table for name, table in ways.items() if (name == "banking77") == is_short])
            for is_short in (False, True)}
    print(f"weight of the vectors: {best[False]} among passages, {best[True]} among short texts (in use: {DENSE}, "
          f"{DENSE_SHORT})")
    chosen = [part for part in parts(data, is_test=False) if part.name != "banking77"]
    grid = sentence_grid(chosen, folder, min(limit, 400))
    print(f"weights of a sentence's features: {grid} (in use: {WEIGHTS.tolist()})")
    points = [point for part in chosen for point in judged(part, folder, min(limit, 600))]
    X = np.array([[1.0, f[0], f[0] + f[1], f[0] + f[1] + f[2], f[3]] for _, _, f in points])
    y = np.array([is_there for is_there, _, _ in points], float)
    fit = minimize(lambda w: float(np.logaddexp(0, -(2 * y - 1) * (X @ w)).mean() + 1e-4 * w @ w), FOUND)
    print(f"calibration: {fit.x.round(2).tolist()} (in use: {FOUND.tolist()})")
    return {"weights": ways, "best": {"passages": best[False], "short": best[True]}, "sentence": grid,
            "calibration": fit.x.tolist()}


def sentence_grid(chosen: list[Part], folder: Path, limit: int) -> list[float]:
    """Coordinate by coordinate: the share of questions whose best sentence holds the answer."""
    rows_: list[tuple[np.ndarray, np.ndarray]] = []
    for part in chosen:
        library = Library(part, folder, vectors=False)
        for asked in random.Random(5).sample(part.asked, min(limit, len(part.asked))):
            found = extract(read(asked.text, library.collection), library.collection.search(asked.text))
            if found:
                rows_.append((np.stack([f.values for f in found]),
                              np.array([any(a in f.span.text for a in asked.answers) for f in found])))
    weights = WEIGHTS.copy()
    for _ in range(2):
        for i in range(1, len(weights)):
            def right(value: float, i: int = i) -> float:
                tried = weights.copy()
                tried[i] = value
                return float(np.mean([holds[(f @ tried).argmax()] for f, holds in rows_]))
            weights[i] = max((-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0), key=right)
    print(f"best sentence holds the answer: {np.mean([h[(f @ WEIGHTS).argmax()] for f, h in rows_]):.3f} as in use, "
          f"{np.mean([h[(f @ weights).argmax()] for f, h in rows_]):.3f} as fitted, n = {len(rows_)}")
    return weights.tolist()
