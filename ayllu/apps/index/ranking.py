"""Ranking: words by BM25, as FTS5 counts it, and several rankings fused by reciprocal rank.

BM25: Robertson and Zaragoza 2009, with FTS5's k1 = 1.2 and b = 0.75. A title's words count, too, less than the text's.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ayllu.apps.index.store import Store
from ayllu.apps.index.words import words

TITLE = 0.5                                              # weight of a word in a title or a file's name
RANK = 60                                                # Cormack, Clarke and Büttcher 2009
MOST = 32                                                # rarest words of a question that are looked up
Where = Mapping[str, str]


def by_words(store: Store, question: str, k: int, where: Where | None = None) -> list[tuple[int, float]]:
    """The best k chunks that share a word with the question, best first: (id, score)."""
    n = store.one("SELECT count(*) FROM chunks") or 0
    rare = [word for word, df in sorted(frequencies(store, words(question)).items(), key=lambda x: (x[1], x[0]))
            if df and (df <= n / 2 or n < 4)]            # beyond half of the chunks FTS5 gives a word no weight
    if not rare:
        return []
    query = " OR ".join(f'"{word}"' for word in rare[:MOST])
    condition, values = filtered(where)
    rows = store.rows(f"SELECT rowid AS id, bm25(found, 1.0, {TITLE}) AS score FROM found WHERE found MATCH ? "
                      f"{condition and f'AND rowid IN (SELECT id FROM chunks WHERE document IN ({condition}))'} "
                      "ORDER BY score, rowid LIMIT ?", (query, *values, k))
    return [(row["id"], -row["score"]) for row in rows]


def frequencies(store: Store, found: Iterable[str]) -> dict[str, int]:
    """In how many chunks each word stands, 0 where in none; in the words' order."""
    distinct = list(dict.fromkeys(found))
    return {word: store.one("SELECT count(*) FROM found WHERE found MATCH ?", (f'"{word}"',)) for word in distinct}


def weights(store: Store, found: Iterable[str]) -> dict[str, float]:
    """How much each word tells, ln(1 + (N - n + 0.5) / (n + 0.5)), as BM25 counts it but never below 0."""
    n = store.one("SELECT count(*) FROM chunks") or 0
    return {word: math.log(1 + max(n - df + 0.5, 0.5) / (df + 0.5)) for word, df in frequencies(store, found).items()}


def filtered(where: Where | None) -> tuple[str, list[Any]]:
    """SQL that gives the ids of documents that fit: `source` is a pattern with *, `kind` a format, others stand in the
    documents' own metadata."""
    parts, values = [], list[Any]()
    for name, value in (where or {}).items():
        match name:
            case "source":
                parts.append("source GLOB ?")
                values.append(value)
            case "kind":
                parts.append("kind = ?")
                values.append(value)
            case _:
                parts.append("EXISTS (SELECT 1 FROM json_each(documents.meta) WHERE key = ? AND value = ?)")
                values += [name, value]
    return f"SELECT id FROM documents WHERE {' AND '.join(parts)}" if parts else "", values


def fused(rankings: Sequence[tuple[float, Sequence[int]]]) -> list[tuple[int, float]]:
    """Reciprocal rank fusion: sum over rankings of weight / (RANK + place), best first; ties keep the first ranking's
    order. A ranking of weight 0 changes nothing."""
    score: dict[int, float] = {}
    for weight, ranking in rankings:
        if weight > 0:
            for place, number in enumerate(ranking, start=1):
                score[number] = score.get(number, 0.0) + weight / (RANK + place)
    return sorted(score.items(), key=lambda item: -item[1])
