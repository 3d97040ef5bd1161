"""How sure a score is: bootstrap intervals, and comparisons of two models over the same items. Free of torch.

A statistic takes the numbers of items (they may repeat) and gives their score, so that accuracy, macro-F1 and BLEU are
all treated alike. Items that hang together (questions on one passage) are drawn together: `groups`.

N items  S resamples
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ayllu.errors import DataError

Statistic = Callable[[np.ndarray], float]
SAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A score and where it would lie, were other items of the same kind taken."""

    value: float
    low: float
    high: float
    n: int                                               # items
    level: float = LEVEL

    @property
    def excludes_zero(self) -> bool:
        """Whether all of it lies on one side."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Paired:
    """B minus A over the same items."""

    difference: Interval
    effect: float | None                                 # Cohen's d of the items' differences; None: no spread
    mcnemar: float | None                                # p, where each item is right or wrong; else None

    @property
    def is_shown(self) -> bool:
        """Whether a difference is shown: the interval lies off 0, and McNemar's test, where there is one, agrees."""
        return self.difference.excludes_zero and (self.mcnemar is None or self.mcnemar < 1 - self.difference.level)


def mean(values: Sequence[float] | np.ndarray) -> Statistic:
    """The statistic that most scores are: the mean of the items' own values."""
    array = np.asarray(values, dtype=np.float64)
    return lambda items: float(array[items].mean())


def bootstrap(statistic: Statistic, n: int, *, samples: int = SAMPLES, seed: int = 0, level: float = LEVEL,
              groups: Sequence[object] | None = None, is_share: bool = False) -> Interval:
    """A percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13) of a statistic of n items. `is_share`: of
    what is right. Where all of it is, or nothing is, resamples know nothing else: then the bound is the exact one of a
    binomial share of n items or groups (Clopper and Pearson 1934)."""
    scores = [statistic(items) for items in draws(n, samples, seed, groups)]
    found = Interval(statistic(np.arange(n)), *_percentiles(scores, level), n, level)
    if not is_share or found.value not in (0.0, 1.0):
        return found
    far = ((1 - level) / 2) ** (1 / (n if groups is None else len(set(groups))))
    return Interval(found.value, far if found.value else 0.0, 1.0 if found.value else 1 - far, n, level)


def bootstrap_mean(values: Sequence[float] | np.ndarray, *, samples: int = SAMPLES, seed: int = 0,
                   level: float = LEVEL, groups: Sequence[object] | None = None) -> Interval:
    """The same of a mean, which is a share where all values are 0, or all are 1."""
    array = np.asarray(values, dtype=np.float64)
    return bootstrap(mean(array), len(array), samples=samples, seed=seed, level=level, groups=groups,
                     is_share=bool((array == array[0]).all()))


def compare(a: Statistic, b: Statistic, n: int, values: tuple[np.ndarray, np.ndarray] | None = None, *,
            samples: int = SAMPLES, seed: int = 0, level: float = LEVEL, groups: Sequence[object] | None = None,
            is_binary: bool = True) -> Paired:
    """B minus A, resampled over the same items. `values` are the items' own, where they have some; `is_binary`: where
    they are all 0 or 1, that means wrong or right."""
    found = bootstrap(lambda items: b(items) - a(items), n, samples=samples, seed=seed, level=level, groups=groups)
    if values is None:
        return Paired(found, None, None)
    return Paired(found, effect_size(*values), mcnemar(*values) if is_binary and _right_or_wrong(values) else None)


def effect_size(a: np.ndarray, b: np.ndarray) -> float | None:
    """Cohen's d of paired values: the mean difference in units of the differences' spread."""
    difference = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    return float(difference.mean()) / spread if spread > 0 else None


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """The exact two-sided p of McNemar's test: of the items that one alone has right, do both have alike many?"""
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    terms = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)]
    return min(1.0, 2 * math.fsum(map(math.exp, terms)))


def draws(n: int, samples: int, seed: int, groups: Sequence[object] | None = None) -> Iterator[np.ndarray]:
    """Resamples of the numbers 0 to n - 1, drawn with replacement: items, or whole groups of them."""
    if n == 0:
        raise DataError("there are no items: a score needs at least one")
    random = np.random.default_rng(seed)
    if groups is None:
        yield from (random.integers(n, size=n) for _ in range(samples))
        return
    if len(groups) != n:
        raise DataError(f"{len(groups)} groups for {n} items: give each item its own")
    members: dict[object, list[int]] = {}
    for item, group in enumerate(groups):
        members.setdefault(group, []).append(item)
    parts = [np.array(items) for items in members.values()]
    for _ in range(samples):
        yield np.concatenate([parts[i] for i in random.integers(len(parts), size=len(parts))])


def _percentiles(scores: Sequence[float], level: float) -> tuple[float, float]:
    low, high = np.quantile(np.asarray(scores), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _right_or_wrong(values: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(np.isin(v, (0.0, 1.0)).all() for v in values)
