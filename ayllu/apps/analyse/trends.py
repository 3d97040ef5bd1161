"""What changed: counts and shares over time, each bucket against those before it, by exact tests with few false alarms.

A count is compared with the counts of the window before it by the conditional test of two Poisson rates (Przyborowski
and Wilenski 1940), widened where the window itself varies more than chance allows; a share by Fisher's exact test. Of
all tests of a run, Benjamini and Hochberg (1995) choose those that are told, so that of the told ones a share of Q is
false on average. Buckets that stand out are left out of later windows.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Literal

Q = 0.05                                                 # the false discovery rate
WINDOW, LEAST_WINDOW = 8, 4                              # buckets that one is compared with
SUSPECT = 0.001                                          # a bucket with a smaller p is left out of later windows
Unit = Literal["hour", "day", "week", "month"]
PERIODS: dict[Unit, int] = {"hour": 24, "day": 7}        # after which habits come again
_SECONDS: dict[Unit, int] = {"hour": 3600, "day": 86400, "week": 7 * 86400, "month": 30 * 86400}


@dataclass(frozen=True)
class Change:
    """A sudden change of a series: what it was expected to be and was, and how likely chance alone makes that."""

    of: str                                              # the series, e.g. "topic: delivery"
    what: Literal["posts", "negative share"]
    bucket: int
    found: float
    expected: float
    p: float


@dataclass(frozen=True)
class Buckets:
    """Equal stretches of time; a month is a calendar month."""

    unit: Unit
    start: datetime

    @classmethod
    def over(cls, first: float, last: float, posts: int, unit: Unit | None = None) -> "Buckets":
        """The finest unit with at most 70 buckets and 12 posts in each on average, unless one is named."""
        span = last - first
        fitting: Iterable[Unit] = (u for u, s in _SECONDS.items() if span / s <= min(70, max(posts / 12, WINDOW)))
        chosen: Unit = next(iter(fitting), "month") if unit is None else unit
        start = datetime.fromtimestamp(first, UTC).replace(minute=0, second=0, microsecond=0)
        if chosen != "hour":
            start = start.replace(hour=0)
        if chosen == "week":
            start -= timedelta(days=start.weekday())
        return cls(chosen, start.replace(day=1) if chosen == "month" else start)

    def of(self, time: float) -> int:
        """The number of a moment's bucket."""
        if self.unit == "month":
            at = datetime.fromtimestamp(time, UTC)
            return (at.year - self.start.year) * 12 + at.month - self.start.month
        return int((time - self.start.timestamp()) // _SECONDS[self.unit])

    def is_open(self, last: float) -> bool:
        """Whether the last bucket isn't over by the last moment: more than a twentieth of it is missing."""
        return self.of(last + _SECONDS[self.unit] / 20) == self.of(last)

    def name(self, bucket: int) -> str:
        """Its first moment, as people write it."""
        if self.unit == "month":
            month = self.start.month - 1 + bucket
            return f"{self.start.year + month // 12}-{month % 12 + 1:02d}"
        at = self.start + timedelta(seconds=bucket * _SECONDS[self.unit])
        return at.strftime("%Y-%m-%d %H:00" if self.unit == "hour" else "%Y-%m-%d")


def changes(series: Mapping[str, tuple[Sequence[int], Sequence[int]]], q: float = Q, period: int = 1) -> list[Change]:
    """The sudden changes in all series of (posts, negative posts) by bucket, the least likely first. `period`: buckets
    after which a habit comes again, such as 7 days."""
    tested = [change for name, (posts, negative) in series.items()
              for change in (*_counts(name, posts, habits(posts, period)), *_shares(name, posts, negative))]
    return discovered(tested, q)


def discovered(tested: Sequence[Change], q: float) -> list[Change]:
    """Benjamini and Hochberg's step-up: of m tests the k least likely, for the greatest k with p_(k) <= k q / m."""
    ranked = sorted(tested, key=lambda change: change.p)
    k = max((i for i, change in enumerate(ranked, 1) if change.p <= i * q / len(ranked)), default=0)
    return ranked[:k]


def habits(posts: Sequence[int], period: int) -> list[float]:
    """What a bucket usually has beside others: 1 for all, or its weekday's (hour's) median where these differ by more
    than chance and there are three of each."""
    if period < 2 or len(posts) < 3 * period:
        return [1.0] * len(posts)
    phases = [posts[i::period] for i in range(period)]
    means = [sum(phase) / len(phase) for phase in phases]
    mean = sum(means) / period
    excess = sum(len(phase) * (m - mean) ** 2 for phase, m in zip(phases, means, strict=True)) / max(mean, 1e-9)
    if excess < 3 * (period - 1):                        # chi-square over its degrees of freedom: about 1 by chance
        return [1.0] * len(posts)
    usual = [median(phase) + 0.5 for phase in phases]
    return [usual[i % period] for i in range(len(posts))]


def _counts(name: str, posts: Sequence[int], usual: Sequence[float]) -> Iterable[Change]:
    left_out: set[int] = set()
    for i, x in enumerate(posts):
        before = _before(i, left_out)
        y, weight = sum(posts[j] for j in before), sum(usual[j] for j in before)
        if len(before) < LEAST_WINDOW or x + y < 8:
            continue
        p = two_sided(x, x + y, usual[i] / (usual[i] + weight),
                      spread([posts[j] for j in before], [usual[j] * y / weight for j in before]))
        if p < SUSPECT:
            left_out.add(i)
        yield Change(name, "posts", i, x, y * usual[i] / weight, p)


def _shares(name: str, posts: Sequence[int], negative: Sequence[int]) -> Iterable[Change]:
    left_out: set[int] = set()
    for i, (n, bad) in enumerate(zip(posts, negative, strict=True)):
        before = _before(i, left_out)
        others, bads = sum(posts[j] for j in before), sum(negative[j] for j in before)
        if len(before) < LEAST_WINDOW or n < 5 or others < 10:
            continue
        p = fisher(bad, n, bads, others)
        if p < SUSPECT:
            left_out.add(i)
        yield Change(name, "negative share", i, bad / n, bads / others, p)


def _before(i: int, left_out: set[int]) -> list[int]:
    return [j for j in range(i - 1, -1, -1) if j not in left_out][:WINDOW]


def spread(window: Sequence[int], expected: Sequence[float]) -> float:
    """Pearson's dispersion of counts, at least 1: 1 is chance alone (Poisson)."""
    each = [(x - e) ** 2 / e for x, e in zip(window, expected, strict=True) if e]
    return max(1.0, sum(each) / (len(window) - 1))


def two_sided(x: int, n: int, share: float, wide: float = 1.0) -> float:
    """How likely a binomial of n with this share is as far from its mean as x: twice the smaller tail. With counts that
    vary `wide` times as much as chance allows, x and n are divided by that (quasi-Poisson)."""
    n, x = max(round(n / wide), 1), min(round(x / wide), max(round(n / wide), 1))
    logs = [_log_choose(n, k) + k * math.log(share) + (n - k) * math.log1p(-share) for k in range(n + 1)]
    return _twice_smaller(logs, x)


def fisher(a: int, n: int, b: int, m: int) -> float:
    """Whether a of n and b of m have one share: twice the smaller tail of the hypergeometric distribution."""
    low, high = max(0, a + b - m), min(n, a + b)
    logs = [_log_choose(n, k) + _log_choose(m, a + b - k) - _log_choose(n + m, a + b) for k in range(low, high + 1)]
    return _twice_smaller(logs, a - low)


def _twice_smaller(logs: Sequence[float], at: int) -> float:
    below = math.fsum(math.exp(v) for v in logs[:at + 1])
    above = math.fsum(math.exp(v) for v in logs[at:])
    return min(1.0, 2 * min(below, above))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def named(change: Change, buckets: Buckets) -> dict[str, object]:
    """For JSON."""
    return {"of": change.of, "what": change.what, "when": buckets.name(change.bucket), "found": round(change.found, 4),
            "expected": round(change.expected, 4), "p": change.p, "posts": []}
