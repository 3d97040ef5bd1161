"""Runs of units that stand in a document more than once, for several lengths at once.

What begins a repeated run of n + 1 units begins one of n units too, so each length looks only at the places that the
length before it left over: few after the first.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ayllu.data.units import ODD

_BUCKETS = 17                                            # bits


class Repeats(NamedTuple):
    """Of one length: the starts of all runs that were seen before, and how often the most frequent run stands there."""

    again: np.ndarray
    most: int


def repeats(hashes: np.ndarray, lengths: Iterable[int]) -> dict[int, Repeats]:
    """For each length n: which runs of n units, equal in `units.hash_ngrams`, repeat an earlier one."""
    found, done = {}, 0
    starts, grams = np.arange(len(hashes)), np.zeros(len(hashes), dtype=np.uint64)
    for n in sorted(lengths):
        for i in range(done, n):
            starts = starts[:np.searchsorted(starts, len(hashes) - i)]   # the last ones are too near the end
            grams = grams[:len(starts)] * ODD + hashes[starts + i]
        starts, grams, found[n] = _of_one_length(starts, grams)
        done = n
    return found


def top_share(found: Repeats, n: int, total: int) -> float:
    """The share of units in the most frequent run; 0 where none stands twice."""
    return found.most * n / total if found.most > 1 else 0.0


def repeated_share(found: Repeats, n: int, total: int) -> float:
    """The share of units inside a run that stood before; each unit counts once."""
    if not len(found.again):
        return 0.0
    covered = np.zeros(total + 1, dtype=np.int64)
    np.add.at(covered, found.again, 1)
    np.add.at(covered, found.again + n, -1)
    return float((np.cumsum(covered)[:total] > 0).mean())


def _of_one_length(starts: np.ndarray, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray, Repeats]:
    """What is left over for longer runs, and what was found. Most runs are alone in their bucket and not sorted."""
    bucket = ((grams * ODD) >> np.uint64(64 - _BUCKETS)).astype(np.int64)
    crowded = np.bincount(bucket, minlength=2**_BUCKETS)[bucket] > 1
    starts, grams = starts[crowded], grams[crowded]
    order = np.argsort(grams, kind="stable")             # the first of equals stays the first
    like_last = np.concatenate(([False], grams[order][1:] == grams[order][:-1])) if len(order) else np.empty(0, bool)
    if not like_last.any():
        return starts[:0], grams[:0], Repeats(starts[:0], min(len(bucket), 1))
    firsts = np.append(np.flatnonzero(~like_last), len(order))
    repeated = like_last | np.append(like_last[1:], False)
    left = np.sort(order[repeated])
    return starts[left], grams[left], Repeats(starts[order[like_last]], int(np.diff(firsts).max()))
