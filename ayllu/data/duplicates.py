"""Duplicates: exact by a hash of the normalised text, near ones by MinHash and locality-sensitive hashing (datasketch).

The first of equals stays, in the order of the documents. Memory: about 3 kB for each document that stays.
"""

import unicodedata
from functools import cache, partial
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ayllu.config import Settings
from ayllu.data.units import hash_ngrams, unit_hashes, units
from ayllu.errors import extra

_BLOCK = 256                                             # shingles: 128 kB of products
Verdict = Literal["exact", "near"]


class Duplicates(Settings):
    """How alike two documents are before the later one is dropped."""

    exact: bool = True
    near: bool = True
    threshold: float = Field(default=0.8, gt=0, lt=1)    # Jaccard similarity of the sets of shingles, as estimated
    shingle: int = Field(default=5, ge=1)                # units of a shingle: words, or characters of Chinese
    permutations: int = Field(default=128, ge=16)        # error of the estimate: about 1 / sqrt(permutations)


def fingerprint(text: str) -> bytes:
    """16 bytes that are equal for texts of the same units: case, spaces, punctuation and NFKC differences don't count.

    A text without any unit (only signs) is hashed as it stands.
    """
    found = units(unicodedata.normalize("NFKC", text))
    return blake2b("\x1f".join(found).encode() if found else b"\x00" + text.encode(), digest_size=16).digest()


def signature(text: str, how: Duplicates) -> np.ndarray:
    """The MinHash signature (permutations,) of a text: the share of equal places estimates the Jaccard similarity.

    The values of datasketch's scheme "affine32" (a test compares): the least of a h + b modulo 2^32 over all shingles,
    where h is murmur3's final mix of a shingle's hash. Computed in blocks that stay in the cache.
    """
    a, b = _permutations(how.permutations)
    h = shingles(text, how.shingle).astype(np.uint32)[:, None]              # (shingles, 1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    h ^= h >> np.uint32(16)
    least = np.full(how.permutations, 0xFFFFFFFF, dtype=np.uint32)
    block = np.empty((_BLOCK, how.permutations), dtype=np.uint32)
    for start in range(0, len(h), _BLOCK):
        rows = block[:len(h) - start]
        np.multiply(h[start:start + _BLOCK], a, out=rows)
        rows += b
        np.minimum(least, rows.min(axis=0), out=least)
    return least


def shingles(text: str, n: int) -> np.ndarray:
    """Hashes of the runs of n units, (shingles,) uint64; a shorter text is one shingle."""
    hashes = unit_hashes(text)
    return hash_ngrams(hashes, min(n, max(len(hashes), 1)))


@cache
def _permutations(count: int) -> np.ndarray:
    permutations: np.ndarray = _datasketch().MinHash(num_perm=count, scheme="affine32").permutations
    return permutations


class Seen:
    """The documents so far; asked for one after another, in their order."""

    def __init__(self, how: Duplicates) -> None:
        self.how = how
        self._exact: dict[bytes, str] = {}
        self._lsh: Any = None
        self._wrap: Any = None
        if how.near:
            datasketch = _datasketch()
            self._lsh = datasketch.MinHashLSH(threshold=how.threshold, num_perm=how.permutations)
            self._wrap = partial(datasketch.MinHash, hashfunc=int, scheme="affine32",
                                 permutations=_permutations(how.permutations))
            self._signatures: dict[str, np.ndarray] = {}
            self._order: dict[str, int] = {}

    def judge(self, name: str, exact: bytes, near: np.ndarray | None) -> tuple[Verdict, str] | None:
        """Why a document goes, and the name of the first one like it; None where it stays, and is remembered."""
        if self.how.exact:
            if exact in self._exact:
                return "exact", self._exact[exact]
            self._exact[exact] = name
        if self._lsh is not None and near is not None:
            minhash = self._wrap(hashvalues=near)
            alike = [other for other in self._lsh.query(minhash)
                     if (self._signatures[other] == near).mean() >= self.how.threshold]
            if alike:
                return "near", min(alike, key=self._order.__getitem__)
            self._lsh.insert(name, minhash, check_duplication=False)
            self._signatures[name], self._order[name] = near, len(self._order)
        return None


def _datasketch() -> Any:
    with extra("data", "finding near duplicates", "; or set data.prepare.duplicates.near=false"):
        import datasketch
    return datasketch
