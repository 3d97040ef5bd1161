"""BM25 (Robertson et al., Okapi at TREC-3, 1994) over a few thousand sections in memory."""

import math
from collections import Counter
from collections.abc import Sequence

from ayllu.apps.index.words import words

K1, B = 1.2, 0.75                                        # as SQLite's FTS5 has them


class Bm25:
    """Texts by their words: how well each fits a question."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._having: dict[str, dict[int, int]] = {}     # word -> {text: how often}
        self._lengths = []
        for number, text in enumerate(texts):
            counts = Counter(words(text))
            self._lengths.append(counts.total())
            for word, n in counts.items():
                self._having.setdefault(word, {})[number] = n
        self._mean = sum(self._lengths) / max(len(texts), 1) or 1

    def scores(self, question: str) -> dict[int, float]:
        """The score of each text that has a word of the question."""
        found: dict[int, float] = {}
        for word in set(words(question)):
            having = self._having.get(word, {})
            idf = math.log(1 + (len(self._lengths) - len(having) + 0.5) / (len(having) + 0.5))
            for number, k in having.items():
                length = 1 - B + B * self._lengths[number] / self._mean
                found[number] = found.get(number, 0.0) + idf * k * (K1 + 1) / (k + K1 * length)
        return found
