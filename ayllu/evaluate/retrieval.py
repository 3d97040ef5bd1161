"""Passages found by the words of a question: BM25 (Robertson and Zaragoza 2009) as SQLite's FTS5 counts it.

Words are those of rjieba for Chinese and the units of ayllu/data for the rest. FTS5 is given a number for each word, so
that its own idea of words and its query language don't come in.
"""

import sqlite3
from collections.abc import Sequence

from ayllu.data.units import chinese_cutter, units

RANKS = (1, 5, 10)                                       # at which recall is told


class Passages:
    """An index in memory. `search` gives numbers of passages, best first."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(dict.fromkeys(texts))
        self._numbers: dict[str, int] = {}
        self._table = sqlite3.connect(":memory:")
        self._table.execute("CREATE VIRTUAL TABLE passages USING fts5(words, content='')")
        rows = ((i, self._spelled(words(text))) for i, text in enumerate(self.texts, start=1))
        self._table.executemany("INSERT INTO passages(rowid, words) VALUES (?, ?)", rows)

    def search(self, question: str, k: int) -> list[int]:
        """At most k; fewer where fewer share a word with the question."""
        known = dict.fromkeys(w for w in words(question) if w in self._numbers)
        if not known:
            return []
        query = " OR ".join(f"w{self._numbers[w]}" for w in known)
        rows = self._table.execute("SELECT rowid FROM passages WHERE passages MATCH ? ORDER BY bm25(passages), rowid "
                                   "LIMIT ?", (query, k))
        return [rowid - 1 for rowid, in rows]

    def _spelled(self, found: Sequence[str]) -> str:
        return " ".join(f"w{self._numbers.setdefault(word, len(self._numbers))}" for word in found)


def words(text: str) -> list[str]:
    """Lower-case words; of Chinese, the words that rjieba finds, long ones with their parts."""
    found: list[str] = []
    for piece in chinese_cutter("finding words in passages").cut_for_search(text.lower()):
        if piece.isascii() or len(piece) == 1:
            found += units(piece)
        elif any(map(str.isalnum, piece)):
            found.append(piece)
    return found


def rank_of(found: Sequence[int], wanted: int) -> int | None:
    """The place of a passage among those found, from 1; None: it isn't there."""
    return found.index(wanted) + 1 if wanted in found else None
