"""Words, pairs of words and runs of 1 to 5 characters of a text, weighted by TF-IDF: what names it as a bag; and what
the lexicon says of its words, so that a word that no row had tells something, too (as in arXiv:1308.6242).

A gram is known by a hash of 52 bits (of 32 for words), so that a vocabulary is an array of numbers; two grams rarely
share one, and then share a weight. Weights are (1 + ln count) (ln((1 + n) / (1 + rows with it)) + 1), and those of a
text's characters have length 1 (scikit-learn's sublinear TF-IDF), those of its words the share of its letters that
stand in them: one Latin word isn't half of a Chinese text. The lexicon's have a tenth; it knows some dozens of things.
Chinese has words where rjieba cuts them, else runs of characters alone: a vocabulary's form says which.

n rows  F grams  N outputs
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ayllu.data.units import chinese_cutter
from ayllu.errors import MissingExtra
from ayllu.log import warn
from ayllu.text.lexicon import read

WORD = re.compile(r"[^\W\u3400-\u9fff]+")
HAN = re.compile(r"[\u3400-\u9fff]+")
RUN = re.compile(rf"{WORD.pattern}|{HAN.pattern}")
LONGEST = 5                                              # characters
WORDS = 1 << 52                                          # where the numbers of words begin; float64 still holds them
SIGNS = WORDS + (1 << 32)                                # where those of the lexicon's signs begin
SIGNED = 0.1                                             # the length of signs beside 1 of characters
PLAIN, CUT = 2, 3                                        # forms; CUT has Chinese words; 1 had others' lengths
EDGES = (-4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4)    # between which the sum of polarities lies


@dataclass(frozen=True)
class Sparse:
    """(n, F) numbers, mostly 0: the columns and values of each row, one row after the other."""

    columns: Tensor                                      # (entries,) long
    values: Tensor                                       # (entries,) float32
    starts: Tensor                                       # (n,) long: where each row begins

    def times(self, dense: Tensor) -> Tensor:                                 # (F, N) -> (n, N)
        """The matrix product."""
        return F.embedding_bag(self.columns, dense, self.starts, mode="sum", per_sample_weights=self.values)

    def chosen(self, rows: Tensor) -> "Sparse":                               # (n,) of yes and no
        """Those rows alone."""
        sizes = torch.diff(self.starts, append=torch.tensor([len(self.columns)]))
        inside, left = torch.repeat_interleave(rows, sizes), sizes[rows]
        return Sparse(self.columns[inside], self.values[inside], left.cumsum(0) - left)

    def transposed(self, width: int) -> "Sparse":
        """(F, n), F being the width."""
        sizes = torch.diff(self.starts, append=torch.tensor([len(self.columns)]))
        rows = torch.repeat_interleave(torch.arange(len(self.starts)), sizes)
        order = self.columns.argsort(stable=True)
        counts = torch.bincount(self.columns, minlength=width)
        return Sparse(rows[order], self.values[order], counts.cumsum(0) - counts)


@dataclass(frozen=True)
class Vocabulary:
    """The grams that count, in the order of their numbers, and how rare each is."""

    keys: np.ndarray                                     # (F,) int64, ascending
    rarity: np.ndarray                                   # (F,) float32: the second factor above
    form: int = PLAIN

    @classmethod
    def of(cls, texts: Sequence[str], form: int = PLAIN) -> "Vocabulary":
        """All words, pairs of words and signs of the texts, and the runs of characters that stand in two texts."""
        each = [np.unique(part) for text in texts for part in grams(text, form)]
        keys, rows = np.unique(np.concatenate([np.zeros(0, np.int64), *each]), return_counts=True)
        kept = (rows > 1) | (keys >= WORDS)
        return cls(keys[kept], (np.log((1 + len(texts)) / (1 + rows[kept])) + 1).astype(np.float32), form)

    def __len__(self) -> int:
        return len(self.keys)

    def matrix(self, texts: Iterable[str]) -> Sparse:
        """The weights of the texts' grams (n, F); what isn't in the vocabulary isn't there."""
        columns, values, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)], [0]
        for text in texts:
            lengths = (in_words(text, self.form), 1.0, SIGNED)
            parts = [self._row(part, length) for part, length in zip(grams(text, self.form), lengths, strict=True)]
            columns += [found for found, _ in parts]
            values += [weights for _, weights in parts]
            sizes.append(sum(len(found) for found, _ in parts))
        return Sparse(torch.from_numpy(np.concatenate(columns)), torch.from_numpy(np.concatenate(values)),
                      torch.tensor(sizes[:-1]).cumsum(0))

    def _row(self, part: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray]:
        if not len(self):
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        keys, counts = np.unique(part, return_counts=True)
        at = np.searchsorted(self.keys, keys).clip(max=len(self) - 1)
        known = self.keys[at] == keys
        weights = (1 + np.log(counts[known])).astype(np.float32) * self.rarity[at[known]]
        return at[known], weights * (length / max(float(np.linalg.norm(weights)), 1e-12))


def form_of(texts: Iterable[str]) -> int:
    """CUT where there is Chinese and what cuts it is installed."""
    if not any(map(HAN.search, texts)):
        return PLAIN
    try:
        chinese_cutter("knowing Chinese by its words")
    except MissingExtra as error:
        warn(f"these texts are known by their characters alone: {error}")
        return PLAIN
    return CUT


def grams(text: str, form: int = PLAIN) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers (int64) of a text's words and pairs of words, of its runs of characters and of its signs, each as it
    comes."""
    marks = np.array([SIGNS + crc32(sign.encode()) for sign in signs(text)], dtype=np.int64)
    text = " ".join(text.lower().split())
    words = WORD.findall(text) if form == PLAIN else _cut(text)
    pairs = [f"{a} {b}" for a, b in pairwise(words)]
    numbers = [WORDS + crc32(gram.encode("utf-8", "surrogatepass")) for gram in (*words, *pairs)]
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    runs, state = [np.zeros(0, np.uint64)], np.zeros(len(letters), np.uint64)
    for n in range(min(LONGEST, len(letters))):
        state = _mixed(state[:len(letters) - n] + letters[n:] + np.uint64(1))    # of each run of n + 1
        runs.append(state)
    return np.array(numbers, dtype=np.int64), (np.concatenate(runs) >> np.uint64(12)).astype(np.int64), marks


def in_words(text: str, form: int = PLAIN) -> float:
    """The share of a text's letters that stand in words, not counting spaces."""
    letters = "".join(text.split())
    return sum(map(len, (WORD if form == PLAIN else RUN).findall(letters))) / max(len(letters), 1)


def _cut(text: str) -> list[str]:
    cut = chinese_cutter("a head that knows Chinese by its words").cut
    return [word for run in RUN.findall(text) for word in (cut(run) if HAN.match(run) else (run,))]


def signs(text: str) -> list[str]:
    """What the lexicon finds in a text: emotions, aspects, degrees; polarities, where their sum lies, and the last."""
    found = read(text)
    weights = [one.weight for one in found if one.weight]
    total = sum(weights) / math.sqrt(max(len(weights), 1))
    named = [name for one in found for name in (*one.entry.emotions, *one.entry.aspects, one.entry.modifies) if name]
    edges = [f"{'over' if total > edge else 'below'} {edge}" for edge in EDGES if weights]
    each = [sign for weight in weights for sign in ("+" if weight > 0 else "-", f"one {weight:+.0f}")]
    return [*named, *edges, *each, *(f"last {weight:+.0f}" for weight in weights[-1:])]


def _mixed(x: np.ndarray) -> np.ndarray:                                      # (entries,) uint64
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): every bit of it hangs on every bit of x."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
