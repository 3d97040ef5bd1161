"""What a text is counted in: words, and single characters where words aren't written apart (Chinese, Japanese)."""

import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from ayllu.errors import extra

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
KANA = "\u3040-\u30ff"
_RUN = re.compile(rf"[{HAN}{KANA}]+|[^\W{HAN}{KANA}_]+(?:['’][^\W{HAN}{KANA}_]+)*")
_SINGLE = re.compile(f"[{HAN}{KANA}]")
_HAN = re.compile(f"[{HAN}]+")
_LETTERS = re.compile(r"[^\W\d_]+")                      # and a few signs such as ½, which are no letters
ODD = np.uint64(0x9E3779B97F4A7C15)                     # any odd number: products stay spread over all 64 bits


@lru_cache(maxsize=2)                                    # several steps ask for the same document's
def units(text: str) -> tuple[str, ...]:
    """Lower-case words and single Han or Kana characters in their order; punctuation is no unit."""
    found: list[str] = []
    for run in _RUN.findall(text.lower()):
        if run[0] >= "\u3040" and _SINGLE.match(run):    # a run is one or the other; most words end the test here
            found += run
        else:
            found.append(run)
    return tuple(found)


@lru_cache(maxsize=2)
def unit_hashes(text: str) -> np.ndarray:
    """The hashes of a document's units; not to be written to."""
    return hash_units(units(text))


@lru_cache(maxsize=2)
def is_chinese(text: str) -> bool:
    """Whether at least 3 in 10 letters are Han characters: then lengths and n-grams are counted in characters."""
    letters = count_letters(text)
    return letters > 0 and sum(map(len, _HAN.findall(text))) >= 0.3 * letters


def chinese_cutter(what: str) -> Any:
    """rjieba, which finds words in Chinese; `what` needs it."""
    with extra("chinese", what):
        import rjieba
    return rjieba


def count_letters(text: str) -> int:
    """How many characters are letters, as `str.isalpha` says."""
    found = "".join(_LETTERS.findall(text))
    return len(found) if found.isalpha() else sum(map(str.isalpha, found))


def hash_units(found: Iterable[str]) -> np.ndarray:
    """A 64-bit hash of each unit, (units,) uint64, equal on every machine."""
    return np.fromiter(map(_HASHES.__getitem__, found), dtype=np.int64).view(np.uint64)


def hash_ngrams(hashes: np.ndarray, n: int) -> np.ndarray:
    """A 64-bit hash of each run of n units, (units - n + 1,) uint64; empty where there are fewer.

    Polynomial in the units' hashes modulo 2^64: two different runs are equal by chance in about one of 2^64 pairs.
    """
    count = len(hashes) - n + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    out = np.zeros(count, dtype=np.uint64)
    for i in range(n):
        out = out * ODD + hashes[i:i + count]
    return out


class _Hashes(dict[str, int]):
    """Hashes asked for before, up to 200,000: words come again and again. Signed, which numpy takes faster."""

    def __missing__(self, unit: str) -> int:
        if len(self) >= 200_000:
            self.clear()
        value = int.from_bytes(blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little",
                               signed=True)
        self[unit] = value
        return value


_HASHES = _Hashes()
