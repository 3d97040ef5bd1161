"""Learns the weights of the reader (ayllu/apps/docqa/reader.py): which span of a sentence answers a question.

    python recipes/reader/make.py --data ../shared/data --out ayllu/weights/ayllu-reader/weights.npy

From the dev parts of cmrc2018 and drcd, and the articles of xquad_en_zh that benchmarks/retrieval.py keeps for
choosing, in both languages; the parts that are tested on are never read. One passage in ten is held out, and says when
to stop. All of the sets are under CC BY-SA, and so is what learns from them. Minutes on one core.

Q questions  S spans of one  F facts of one
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from ayllu.apps.docqa.reader import SENTENCE, SIZE, Asked, Line, Reader
from ayllu.apps.index.cut import sentences
from ayllu.data.units import is_chinese
from ayllu.evaluate.metrics import answer_f1, exact_match

FILES = ("cmrc2018/dev", "drcd/dev", "xquad_en_zh/test_en", "xquad_en_zh/test_zh")
FOR_CHOOSING = (0, 3, 6)                                 # the last digit of XQuAD's articles that nothing is tested on
OTHERS, BATCH = 100, 32                                  # wrong spans of a question that are learned from; questions


@dataclass(frozen=True)
class Lesson:
    """A question with the sentence that holds its answer."""

    question: str
    sentence: str
    start: int
    end: int
    answers: list[str]
    is_held_out: bool


def rows(data: Path) -> Iterator[dict[str, Any]]:
    """Questions that may be learned from."""
    for file in FILES:
        with open(data / f"{file}.jsonl.zst", "rb") as packed:
            for line in zstandard.ZstdDecompressor().stream_reader(packed).read().splitlines():
                row = json.loads(line)
                if "article" not in row or row["article"] % 10 in FOR_CHOOSING:
                    yield row


def lesson(row: dict[str, Any]) -> Lesson | None:
    """None where the answer isn't within one sentence."""
    context, answer = row["context"], row["answers"][0]
    start = (row.get("answer_starts") or [row.get("answer_start")])[0]
    end = start + len(answer)
    around = next(((a, b) for a, b in sentences(context) if a <= start and end <= b), None)
    if around is None or not answer or context[start:end] != answer:
        return None
    return Lesson(row["question"], context[around[0]:around[1]], start - around[0], end - around[0], row["answers"],
                  sha256(context.encode()).digest()[0] < 26)


def example(one: Lesson, rng: random.Random) -> np.ndarray | None:           # (S, F), the right span first
    """Some of the spans; None where the answer isn't one of them."""
    line = Line(Asked(one.question), one.sentence)
    if len(line.words) > SENTENCE:
        return None
    inside = [i for i, (a, b) in enumerate(line.places) if a < one.end and one.start < b]
    right, spans = (inside[0], inside[-1]), list(line.spans())
    if right not in spans:
        return None
    wrong = [span for span in spans if span != right]
    near = [s for s in wrong if s[0] <= right[1] and right[0] <= s[1]]        # the hardest ones overlap it
    chosen = rng.sample(near, min(len(near), OTHERS // 2))
    rest = [s for s in wrong if not (s[0] <= right[1] and right[0] <= s[1])]
    chosen += rng.sample(rest, min(len(rest), OTHERS - len(chosen)))
    return np.stack([line.facts(i, j) for i, j in (right, *chosen)])


def learn(examples: list[np.ndarray], check: list[Lesson], epochs: int, rate: float, decay: float) -> np.ndarray:
    """The weights (SIZE,) of the epoch that reads the held-out sentences best, by F1."""
    weights, seen = np.zeros(SIZE, np.float32), np.full(SIZE, 1e-8, np.float32)
    order, best = random.Random(0), (-1.0, weights)
    for epoch in range(1, epochs + 1):
        order.shuffle(examples)
        total = 0.0
        for first in range(0, len(examples), BATCH):
            gradient = decay * weights
            for spans in (batch := examples[first:first + BATCH]):
                loss, slope = span_loss(weights, spans)
                total += loss
                gradient += np.bincount(spans.ravel(), np.repeat(slope / len(batch), spans.shape[1]), SIZE)
            seen += gradient**2                          # AdaGrad (Duchi et al. 2011): what is rare moves far
            weights = weights - rate * gradient / np.sqrt(seen)
        found = weights.astype(np.float32)
        f1 = measured(Reader(found), check)
        print(f"epoch {epoch}: loss {total / len(examples):.3f}, held out: " +
              ", ".join(f"{name} {100 * value:.1f}" for name, value in f1.items()), flush=True)
        best = max(best, (f1["f1"], found), key=lambda pair: pair[0])
    return best[1]


def span_loss(weights: np.ndarray, spans: np.ndarray) -> tuple[float, np.ndarray]:
    """-log p of the first span (S, F), and the loss's slope by each one's score (S,)."""
    scores = weights[spans].sum(1)
    p = np.exp(scores - scores.max())
    p /= p.sum()
    slope = p.copy()
    slope[0] -= 1
    return -float(np.log(max(p[0], 1e-30))), slope


def measured(reader: Reader, lessons: list[Lesson]) -> dict[str, float]:
    """Exact answers, F1, and F1 of the whole sentence, on the sentence that holds the answer."""
    found = []
    for one in lessons:
        short = reader.answer(one.question, one.sentence)
        said = one.sentence[short.start:short.end] if short else one.sentence
        convention: Any = "cmrc" if is_chinese(one.question) else "squad"
        found.append([exact_match(said, one.answers, convention), answer_f1(said, one.answers, convention),
                      answer_f1(one.sentence, one.answers, convention)])
    return dict(zip(("em", "f1", "f1 of the sentence"), np.mean(found, axis=0).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("ayllu/weights/ayllu-reader/weights.npy"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--decay", type=float, default=1e-5)
    options = parser.parse_args()
    rng = random.Random(0)
    lessons = [found for row in rows(options.data) if (found := lesson(row)) is not None]
    held = [one for one in lessons if one.is_held_out]
    examples = [found for one in lessons if not one.is_held_out and (found := example(one, rng)) is not None]
    print(f"{len(examples):,} questions to learn from, {len(held):,} held out", flush=True)
    weights = learn(examples, held, options.epochs, options.rate, options.decay)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.save(options.out, weights.astype(np.float16))
    print(f"{options.out}: {np.count_nonzero(weights):,} weights, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
