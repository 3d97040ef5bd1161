"""Dense search: the vectors of chunks, compared exactly by numpy up to 100,000, by faiss's inverted lists beyond.

N chunks  D width
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ayllu.apps.index.embedding import Embedder
from ayllu.apps.index.ranking import Where, filtered
from ayllu.apps.index.store import Store
from ayllu.errors import extra

EXACT = 100_000                                          # chunks up to which all are compared
BLOCK = 8192                                             # rows in float32 at a time
SAMPLE = 20_000                                          # vectors that a correction is fitted on
POWER, RIDGE = 0.75, 0.3                                 # chosen on dev parts, see docs/documents.md
PROBES = 0.1                                             # share of faiss's lists that a question looks into


@dataclass(frozen=True)
class Corrected:
    """Vectors without their mean, the directions in which they vary most weakened: x -> (x - mean) W, of length 1.

    W = U diag((s + ridge mean(s)) ** (-power / 2)) with the covariance U diag(s) U'. Power 1 is whitening, and taking
    the first directions out altogether is "all but the top" (Mu and Viswanath 2018, arXiv:1702.01417); between them is
    better than both here. Few vectors know little of their covariance: the ridge grows.
    """

    mean: np.ndarray                                     # (D,)
    turn: np.ndarray                                     # (D, D)

    @classmethod
    def of(cls, vectors: np.ndarray) -> "Corrected":     # (N, D)
        """Fitted on a sample."""
        n, width = vectors.shape
        mean = vectors.mean(axis=0)
        spread, directions = np.linalg.eigh(np.cov(vectors - mean, rowvar=False) if n > 1 else np.zeros((width, width)))
        ridge = RIDGE * (1 + width / n) * max(float(spread.mean()), 1e-12)
        return cls(mean, directions * (np.maximum(spread, 0) + ridge) ** (-POWER / 2))

    def __call__(self, vectors: np.ndarray) -> np.ndarray:          # (N, D) -> (N, D), rows of length 1 or 0
        turned = (vectors - self.mean) @ self.turn
        return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)


class Vectors:
    """Those of a collection, in memory in half precision (51 MB for 100,000 of 256), made anew when it changes."""

    def __init__(self, store: Store, exact: int = EXACT) -> None:
        self._store, self._exact = store, exact
        self._stamp: tuple[int, int] | None = None
        self._lock = threading.Lock()                    # one thread at a time: what is in memory may be made anew

    def search(self, embedder: Embedder, question: str, k: int, where: Where | None = None) -> list[tuple[int, float]]:
        """The k nearest chunks, nearest first: (id, cosine)."""
        with self._lock:
            return self._search(embedder, question, k, where)

    def _search(self, embedder: Embedder, question: str, k: int, where: Where | None) -> list[tuple[int, float]]:
        self._load()
        if not len(self._ids):
            return []
        query = self._correct(embedder.embed([question]))[0].astype(np.float32)              # (D,)
        allowed = self._allowed(where)
        if self._index is not None and allowed is None:
            scores, places = self._index.search(query[None], k)
            return [(int(self._ids[i]), float(s)) for i, s in zip(places[0], scores[0], strict=True) if i >= 0]
        return self._compare(query, k, allowed)

    def _compare(self, query: np.ndarray, k: int, allowed: np.ndarray | None) -> list[tuple[int, float]]:
        """Every vector against the question's, a block at a time."""
        scores = np.concatenate([self._rows[i:i + BLOCK].astype(np.float32) @ query
                                 for i in range(0, len(self._rows), BLOCK)])                 # (N,)
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        best = np.argpartition(-scores, min(k, len(scores) - 1))[:k] if k < len(scores) else np.arange(len(scores))
        best = best[np.lexsort((self._ids[best], -scores[best]))]
        return [(int(self._ids[i]), float(scores[i])) for i in best if np.isfinite(scores[i])]

    def _allowed(self, where: Where | None) -> np.ndarray | None:
        condition, values = filtered(where)
        if not condition:
            return None
        rows = self._store.rows(f"SELECT id FROM chunks WHERE document IN ({condition})", values)
        return np.isin(self._ids, [row["id"] for row in rows])

    def _load(self) -> None:
        stamp = self._store.stamp
        if stamp == self._stamp:
            return
        n = self._store.one("SELECT count(*) FROM chunks WHERE vector IS NOT NULL")
        sample = list(_blocks(self._store, "ORDER BY (id * 2654435761) % 4294967296 LIMIT ?", (min(n, SAMPLE),)))
        self._ids, self._index = np.zeros(0, np.int64), None
        if sample:
            self._correct = Corrected.of(np.concatenate([rows for _, rows in sample]))
            width = sample[0][1].shape[1]
            self._ids, self._rows, at = np.empty(n, np.int64), np.empty((n, width), np.float16), 0
            for ids, rows in _blocks(self._store, "ORDER BY id", ()):
                self._ids[at:at + len(ids)], self._rows[at:at + len(ids)] = ids, self._correct(rows)
                at += len(ids)
            self._index = _faiss(self._rows) if n > self._exact else None
        self._stamp = stamp


def add_vectors(store: Store, embedder: Embedder) -> Iterator[int]:
    """Vectors for all chunks that have none; gives how many are done, so that the caller can stop between blocks."""
    if store.fact("embedder") != embedder.name:
        with store.write() as db:
            db.execute("UPDATE chunks SET vector = NULL WHERE vector IS NOT NULL")
        store.set_fact("embedder", embedder.name)
    done = 0
    while rows := store.rows("SELECT id, text FROM chunks WHERE vector IS NULL ORDER BY id LIMIT 256"):
        vectors = embedder.embed([row["text"] for row in rows]).astype(np.float16)
        with store.write() as db:
            db.executemany("UPDATE chunks SET vector = ? WHERE id = ?",
                           ((vector.tobytes(), row["id"]) for row, vector in zip(rows, vectors, strict=True)))
        done += len(rows)
        yield done


def _blocks(store: Store, order: str, values: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    numbers = [row["id"] for row in store.rows(f"SELECT id FROM chunks WHERE vector IS NOT NULL {order}", values)]
    for i in range(0, len(numbers), BLOCK):
        part = numbers[i:i + BLOCK]
        marks = ", ".join(map(str, part))
        rows = store.rows(f"SELECT id, vector FROM chunks WHERE id IN ({marks}) ORDER BY id")
        yield (np.array([row["id"] for row in rows], np.int64),
               np.stack([np.frombuffer(row["vector"], np.float16) for row in rows]).astype(np.float32))


def _faiss(rows: np.ndarray) -> Any:
    """Inverted lists: a question is compared with the lists whose centres are nearest."""
    with extra("vectors", f"comparing so many chunks ({len(rows):,})", "; or search by words (way='words')"):
        import faiss
    n, width = rows.shape
    lists = int(4 * n ** 0.5)
    index: Any = faiss.index_factory(width, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    chosen = np.random.default_rng(0).choice(n, min(n, 40 * lists), replace=False)
    index.train(rows[chosen].astype(np.float32))
    for i in range(0, n, BLOCK):
        index.add(rows[i:i + BLOCK].astype(np.float32))
    index.nprobe = max(8, int(PROBES * lists))
    return index
