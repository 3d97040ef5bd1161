"""Ranking: words by BM25, as FTS5 counts it, and rankings put together by their scores or by their places.

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
            if df and not _common(df, n)]
    if not rare:
        return []
    query = " OR ".join(f'"{word}"' for word in rare[:MOST])
    condition, values = filtered(where)
    rows = store.rows(f"SELECT rowid AS id, bm25(found, 1.0, {TITLE}) AS score FROM found WHERE found MATCH ? "
                      f"{condition and f'AND rowid IN (SELECT id FROM chunks WHERE document IN ({condition}))'} "
                      "ORDER BY score, rowid LIMIT ?", (query, *values, k))
    return [(row["id"], -row["score"]) for row in rows]


def _common(df: int, n: int) -> bool:
    """Beyond half of the chunks FTS5 gives a word no weight."""
    return n >= 4 and df > n / 2


def unfound(store: Store, question: str) -> str:
    """Why `by_words` has found no chunk, for people."""
    n, found = store.one("SELECT count(*) FROM chunks") or 0, frequencies(store, words(question))
    absent = ", ".join(word for word, df in found.items() if not df)
    common = ", ".join(word for word, df in found.items() if _common(df, n))
    reasons = [said + those for said, those in (
        ("in no passage: ", absent),
        ("in more than half of the passages, which tells none of them from the others: ", common)) if those]
    if not found:
        return "Nothing is found: there are no words in the question"
    if not all(df == 0 or _common(df, n) for df in found.values()):
        return "Nothing is found: other words stand in none of those that --where keeps"
    return f"Nothing is found. Words {'; '.join(reasons)}. Try other words"


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


def mixed(said: Sequence[tuple[int, float]], near: Sequence[tuple[int, float]], weight: float,
          deep: int) -> list[tuple[int, float]]:
    """What words and vectors found, `deep` chunks of each at most, by one score: a convex combination of both, each
    scaled to 0..1 (Bruch, Gai and Ingber 2022, arXiv:2210.11934). `weight` is that of the vectors.

    Chunks that a whole list has no room for count as its last one; where few share a word, the others score 0.
    """
    score: dict[int, float] = {}
    for share, ranking, least in ((1 - weight, said, 0.0), (weight, near, -1.0)):
        if ranking and share > 0:
            floor = ranking[-1][1] if len(ranking) == deep else least
            span = ranking[0][1] - floor or 1.0
            for number, value in ranking:
                score[number] = score.get(number, 0.0) + share * (value - floor) / span
    return sorted(score.items(), key=lambda item: -item[1])


def fused(rankings: Sequence[tuple[float, Sequence[int]]]) -> list[tuple[int, float]]:
    """Reciprocal rank fusion: sum over rankings of weight / (RANK + place), best first; ties keep the first ranking's
    order. A ranking of weight 0 changes nothing."""
    score: dict[int, float] = {}
    for weight, ranking in rankings:
        if weight > 0:
            for place, number in enumerate(ranking, start=1):
                score[number] = score.get(number, 0.0) + weight / (RANK + place)
    return sorted(score.items(), key=lambda item: -item[1])
