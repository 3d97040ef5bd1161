"""What a text is counted in: words, and single characters where words aren't written apart (Chinese, Japanese)."""

import re
from functools import lru_cache
from hashlib import blake2b

import numpy as np

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
KANA = "\u3040-\u30ff"
_UNIT = re.compile(rf"[{HAN}{KANA}]|[^\W{HAN}{KANA}_]+(?:['’][^\W{HAN}{KANA}_]+)*")
_HAN = re.compile(f"[{HAN}]")
_ODD = np.uint64(0x9E3779B97F4A7C15)                     # any odd number: products stay spread over all 64 bits


def units(text: str) -> list[str]:
    """Lower-case words and single Han or Kana characters in their order; punctuation is no unit."""
    return _UNIT.findall(text.lower())


def is_chinese(text: str) -> bool:
    """Whether at least 3 in 10 letters are Han characters: then lengths and n-grams are counted in characters."""
    letters = sum(map(str.isalpha, text))
    return letters > 0 and len(_HAN.findall(text)) >= 0.3 * letters


def hash_units(found: list[str]) -> np.ndarray:
    """A 64-bit hash of each unit, (units,) uint64, equal on every machine."""
    return np.array([_hash(u) for u in found], dtype=np.uint64)


def hash_ngrams(hashes: np.ndarray, n: int) -> np.ndarray:
    """A 64-bit hash of each run of n units, (units - n + 1,) uint64; empty where there are fewer.

    Polynomial in the units' hashes modulo 2^64: two different runs are equal by chance in about one of 2^64 pairs.
    """
    count = len(hashes) - n + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    out = np.zeros(count, dtype=np.uint64)
    for i in range(n):
        out = out * _ODD + hashes[i:i + count]
    return out


@lru_cache(maxsize=2**17)
def _hash(unit: str) -> int:
    return int.from_bytes(blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
