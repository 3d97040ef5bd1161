"""Topics that nobody named: TF-IDF, a truncated SVD and k-means, k by the silhouette; names from distinctive words.

Learned from a sample of each language's posts (their words share nothing), then given to every post as it streams by.

N posts  V words  R dimensions  k topics
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ayllu.text.lexicon import entries

DIMENSIONS, MOST_WORDS, LEAST_POSTS = 40, 4000, 30
RANGE, NEAR = (3, 4, 5, 6, 8, 10), 0.04                  # of k: the smallest whose silhouette is so near the best


@dataclass(frozen=True)
class Topics:
    """What was learned: `names[i]` says topic i by its most distinctive words."""

    vocabulary: dict[str, int]
    idf: np.ndarray                                      # (V,)
    axes: np.ndarray                                     # (V, R)
    centres: np.ndarray                                  # (k, R)
    names: tuple[str, ...]
    silhouette: float

    def of(self, words: Sequence[str]) -> int | None:
        """The nearest topic; None for a text without a known word."""
        numbers, values = _weights(words, self.vocabulary, self.idf)
        place = values @ self.axes[numbers]                                  # (R,)
        length = float(np.linalg.norm(place))
        return int((self.centres @ (place / length)).argmax()) if length > 1e-9 else None


def learn(posts: Sequence[Sequence[str]], seed: int = 0) -> Topics | None:
    """Topics of posts given as content words; None where there are too few."""
    posts = [post for post in posts if post]
    counts = Counter(word for post in posts for word in set(post))
    least = 2 if len(posts) < 2000 else 5
    kept = [word for word, n in counts.most_common(MOST_WORDS) if n >= least and n <= len(posts) * 0.5]
    if len(posts) < LEAST_POSTS or len(kept) < 10:
        return None
    vocabulary = {word: i for i, word in enumerate(kept)}
    idf = np.log((1 + len(posts)) / (1 + np.array([counts[word] for word in kept]))).astype(np.float32) + 1
    rows = [_weights(post, vocabulary, idf) for post in posts]
    axes = _axes(rows, len(kept), seed)                                      # (V, R)
    x = np.stack([values @ axes[numbers] for numbers, values in rows])       # (N, R)
    lengths = np.linalg.norm(x, axis=1)
    placed = np.flatnonzero(lengths > 1e-9)
    x = x[placed] / lengths[placed, None]
    tried = [k for k in RANGE if k <= len(x) // 8] or [2]
    found = [_clustered(x, k, seed) for k in tried]
    highest = max(score for _, _, score in found)
    centres, belongs, score = next(one for one in found if one[2] >= highest - NEAR)
    grouped = [[posts[i] for i in placed[belongs == c]] for c in range(len(centres))]
    return Topics(vocabulary, idf, axes, centres, _names(grouped), score)


def _weights(words: Sequence[str], vocabulary: dict[str, int], idf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the words, and 1 + log count times idf at length 1."""
    counts = Counter(vocabulary[word] for word in words if word in vocabulary)
    numbers = np.fromiter(counts, dtype=np.int64, count=len(counts))
    values = (1 + np.log(np.fromiter(counts.values(), dtype=np.float32, count=len(counts)))) * idf[numbers]
    return numbers, values / max(float(np.linalg.norm(values)), 1e-9)


def _axes(rows: Sequence[tuple[np.ndarray, np.ndarray]], n_words: int, seed: int) -> np.ndarray:
    """The right singular vectors (V, R) of the posts' matrix, which stays sparse (arXiv:0909.4061, section 4.4)."""
    place = np.stack([np.repeat(np.arange(len(rows)), [len(n) for n, _ in rows]), np.concatenate([n for n, _ in rows])])
    matrix = torch.sparse_coo_tensor(torch.from_numpy(place), torch.from_numpy(np.concatenate([v for _, v in rows])),
                                     (len(rows), n_words), check_invariants=False).coalesce()
    rank = min(DIMENSIONS, len(rows) - 1, n_words - 1)
    random = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.sparse.mm(matrix, torch.randn(n_words, rank + 10, generator=random)))[0]
    for _ in range(4):
        q = torch.linalg.qr(torch.sparse.mm(matrix.t(), q))[0]
        q = torch.linalg.qr(torch.sparse.mm(matrix, q))[0]
    small = torch.sparse.mm(matrix.t(), q)                                   # (V, rank + 10)
    return torch.linalg.svd(small, full_matrices=False)[0][:, :rank].contiguous().numpy()


def _clustered(x: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Spherical k-means, the best of four beginnings chosen far apart, and its simplified silhouette."""
    best: tuple[np.ndarray, np.ndarray, float] | None = None
    for attempt in range(4):
        random = np.random.default_rng((seed, k, attempt))
        centres = x[random.integers(len(x))][None]
        while len(centres) < k:                                              # k-means++
            far = np.clip(1 - (x @ centres.T).max(1), 0, None) + 1e-12
            centres = np.concatenate((centres, x[random.choice(len(x), p=far / far.sum())][None]))
        for _ in range(30):
            belongs = (x @ centres.T).argmax(1)
            sums = np.stack([x[belongs == c].sum(0) if (belongs == c).any() else centres[c] for c in range(k)])
            moved = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
            if np.allclose(moved, centres, atol=1e-5):
                break
            centres = moved
        apart = np.sort(1 - x @ centres.T, axis=1)                           # (N, k) distances, the own one first
        score = float(((apart[:, 1] - apart[:, 0]) / np.maximum(apart[:, 1], 1e-9)).mean())
        if best is None or score > best[2]:
            best = (centres, (x @ centres.T).argmax(1), score)
    assert best is not None
    return best


def _names(groups: Sequence[Sequence[Sequence[str]]], n: int = 3) -> tuple[str, ...]:
    """Of each group the words that are commoner in it than elsewhere: the share within times its logarithm over the
    share in all, feelings left out, since a topic is what is spoken of."""
    known = entries()
    total = Counter(word for group in groups for post in group for word in set(post))
    all_posts = sum(len(group) for group in groups)
    out: list[str] = []
    for group in groups:
        own = Counter(word for post in group for word in set(post))
        size = max(len(group), 1)
        score = {word: count / size * np.log((count / size) / (total[word] / all_posts)) for word, count in own.items()
                 if (word not in known or known[word].aspects) and count > 1}
        best = sorted(score, key=lambda word: (-score[word], word))[:n]
        name = " · ".join(best) or "?"
        out.append(name if name not in out else f"{name} ({len(out) + 1})")
    return tuple(out)
