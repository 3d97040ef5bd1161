"""The reader: where in a sentence the answer to a question stands.

A linear model over all spans of a sentence, as Rajpurkar et al. 2016 (arXiv:1606.05250, section 5) have it for SQuAD:
each span's score is the sum of the weights of what is true of it, and a softmax over the spans gives probabilities.
What is true of a span is a name ("it begins after `by`", "the question asks for a number, and it is one"), and a hash
of the name is its place among the weights. `recipes/reader/make.py` learns them.

N pieces of the sentence  S spans  F facts of one
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from zlib import crc32

import numpy as np

from ayllu.apps.docqa.overlap import STOP, asks_for
from ayllu.apps.index.words import cutter
from ayllu.data.units import HAN, is_chinese
from ayllu.errors import CheckpointError

FILE = Path(__file__).resolve().parents[2] / "weights" / "ayllu-reader" / "weights.npy"
SIZE = 1 << 16                                           # places of weights
SENTENCE, LONGEST = 160, 16                              # pieces of a sentence that is read, and of an answer
Place = tuple[int, int]                                  # (start, end) in the text
_PIECE = re.compile(rf"[{HAN}]+|\d+(?:[.,]\d+)*|[^\W\d_{HAN}]+(?:['’-][^\W\d_{HAN}]+)*|\S")
_ASKS = re.compile("什么|甚么|什麼|甚麼|哪|谁|誰|何|几|幾|多少|多[大高长長久远遠]|怎"
                   r"|\b(?:what|which|who|whom|whose|when|where|why|how)\b", re.IGNORECASE)
_LIGHT = frozenset({"个", "個", "一", "一个", "一個", "位", "种", "種", "些", "了", "的", "年", "里", "裡",
                    "many", "much", "the", "a", "an", "of", "kind", "type"})
_WHY = frozenset({"reason", "how", "why", "怎", "怎么", "怎麼", "怎样", "怎樣", "如何", "为何", "為何"})
_OPEN, _CLOSE = "《「『“\"(（‘〈", "》」』”\")）’〉"


def pieces(text: str) -> list[Place]:
    """Where words lie, in Chinese rjieba's, and signs one by one: an answer may begin and end there."""
    found = []
    for match in _PIECE.finditer(text):
        at = match.start()
        for word in cutter().cut(match[0]) if re.match(f"[{HAN}]", match[0]) else [match[0]]:
            found.append((at, at + len(word)))
            at += len(word)
    return found


@dataclass(frozen=True)
class Short:
    """An answer's place in its sentence, and the probability that it's this one and no other."""

    start: int
    end: int
    sure: float


class Asked:
    """What a question tells of its answer."""

    def __init__(self, text: str) -> None:
        self.text = text.lower()
        places = pieces(text)
        found = _ASKS.search(text)
        at = next((i for i, (_, b) in enumerate(places) if found and b > found.start()), len(places))
        words = [self.text[a:b] for a, b in places]
        self.words = frozenset(words)
        self.before = words[at - 1] if found and at else ""
        self.after = [word for word in words[at + 1:] if word not in _LIGHT][:2] if found else []
        self.kind = asks_for(text) or (words[at] if found else "")
        self.language = "zh" if is_chinese(text) else "en"


class Line:
    """A sentence's pieces against one question."""

    def __init__(self, asked: Asked, sentence: str) -> None:
        self.asked, self.places = asked, pieces(sentence)
        self.words = [sentence[a:b].lower() for a, b in self.places]
        self.kinds = [_kind(sentence[a:b]) for a, b in self.places]
        self.said = [word in asked.words or (len(word) > 1 and word in asked.text) for word in self.words]
        self.telling = [said and word not in STOP and kind != "mark"
                        for said, word, kind in zip(self.said, self.words, self.kinds, strict=True)]

    def word(self, i: int) -> str:
        """A piece; "" before and behind the sentence."""
        return self.words[i] if 0 <= i < len(self.words) else ""

    def heard(self, i: int) -> bool:
        """Whether the question has it."""
        return 0 <= i < len(self.said) and self.said[i]

    def spans(self) -> Iterator[Place]:
        """(first, last) piece, both in it. No answer begins or ends with a mark, but for what encloses it."""
        n = len(self.words)
        for i in range(n):
            if self.kinds[i] != "mark" or self.words[i] in _OPEN:
                for j in range(i, min(n, i + LONGEST)):
                    if self.kinds[j] != "mark" or self.words[j] in _CLOSE + "%":
                        yield i, j

    @cached_property
    def begins(self) -> list[np.ndarray]:
        """The facts of a span that begins at each piece."""
        return [_hashed(self._begin(i)) for i in range(len(self.words))]

    @cached_property
    def ends(self) -> list[np.ndarray]:
        """The facts of a span that ends with each piece."""
        return [_hashed(self._end(j)) for j in range(len(self.words))]

    def _begin(self, i: int) -> list[str]:
        asks, kind, before = self.asked.kind, self.kinds[i], self.word(i - 1)
        return ["b", f"b<{before}", f"b<{before} {asks}", f"b={kind} {asks}", f"b={self.words[i]}",
                f"b={self.words[i]} {asks}", f"b<{_kind(before)}={kind}", f"b?{self.heard(i)}<{self.heard(i - 1)}",
                f"b<<{self.heard(i - 2)}{self.heard(i - 1)} {asks}",
                f"b<q{bool(before) and before == self.asked.before}", f"b<after{before in self.asked.after}",
                f"b<near{sum(self.telling[max(0, i - 5):i])}"]

    def _end(self, j: int) -> list[str]:
        asks, kind, after, word = self.asked.kind, self.kinds[j], self.word(j + 1), self.words[j]
        head = self.asked.after[0] if self.asked.after else ""
        return [f"e>{after}", f"e>{after} {asks}", f"e={kind} {asks}", f"e={word}", f"e={word} {asks}",
                f"e={word[-1]} {asks}", f"e>{_kind(after)}={kind}", f"e?{self.heard(j)}>{self.heard(j + 1)}",
                f"e>>{self.heard(j + 1)}{self.heard(j + 2)} {asks}", f"e>q{bool(after) and after in self.asked.after}",
                f"e=head{bool(head) and word == head}", f"e=tail{bool(head) and word[-1] == head[-1]} {asks}",
                f"e>near{sum(self.telling[j + 1:j + 6])}"]

    def between(self, i: int, j: int) -> list[str]:
        """What is true of a span as a whole."""
        asks, n, inside = self.asked.kind, j - i + 1, self.kinds[i:j + 1]
        length = n if n < 6 else 6 + (n > 7) + (n > 10)
        marks = min(inside.count("mark"), 2)
        here = sum(self.telling[i:j + 1])
        whole = "".join(kind[0] for kind in inside) if n < 4 else ""
        is_enclosed = bool(self.word(i - 1)) and self.word(i - 1) in _OPEN and self.word(j + 1) in _CLOSE
        open_ = sum(w in _OPEN for w in self.words[i:j + 1]) - sum(w in _CLOSE for w in self.words[i:j + 1])
        head = self.asked.after[0] if self.asked.after else ""
        return [f"n{length} {asks}", f"n{length} {self.asked.language}", f"marks{marks} {asks}", f"here{min(here, 3)}",
                f"all{here == n}", f"whole{whole} {asks}", f"number{'number' in inside} {asks}",
                f"enclosed{is_enclosed} {asks}", f"open{open_ != 0}",
                f"head{bool(head) and head in self.words[i:j + 1]}", f"name{'name' in inside} {asks}",
                f"sides{self.heard(i - 1)}{self.heard(j + 1)}"]

    def facts(self, i: int, j: int) -> np.ndarray:                            # (F,)
        """Places of the weights of all that is true of a span."""
        return np.concatenate([self.begins[i], self.ends[j], _hashed(self.between(i, j))])


class Reader:
    """The weights at work."""

    def __init__(self, weights: np.ndarray) -> None:     # (SIZE,)
        self.weights = weights.astype(np.float32)

    @classmethod
    def load(cls, file: Path = FILE) -> "Reader":
        """The bundled ones."""
        try:
            weights = np.load(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} holds no reader ({error}): learn one by recipes/reader/make.py, or install "
                                  "Ayllu again") from error
        if weights.shape != (SIZE,) or not np.isfinite(weights).all():
            raise CheckpointError(f"{file} holds {weights.shape} numbers, expected {SIZE:,} finite ones")
        return cls(weights)

    def answer(self, question: str, sentence: str) -> Short | None:
        """The likeliest span; None where the sentence is too long or has none."""
        line = Line(Asked(question), sentence)
        spans = list(line.spans()) if len(line.words) <= SENTENCE else []
        if not spans:
            return None
        begin, end = ([float(self.weights[facts].sum()) for facts in side] for side in (line.begins, line.ends))
        scores = np.array([begin[i] + end[j] + float(self.weights[_hashed(line.between(i, j))].sum())
                           for i, j in spans])           # (S,)
        best = int(scores.argmax())
        i, j = spans[best]
        return Short(line.places[i][0], line.places[j][1], 1 / math.fsum(np.exp(scores - scores[best])))


@lru_cache(maxsize=1)
def _bundled() -> Reader:
    return Reader.load()


def short_answer(question: str, sentence: str) -> Short | None:
    """By the bundled reader, where the question asks for a thing that a few words can name and isn't about reasons."""
    asked = Asked(question)
    return _bundled().answer(question, sentence) if asked.kind and asked.kind not in _WHY else None


@lru_cache(maxsize=200_000)
def _place(fact: str) -> int:
    return crc32(fact.encode()) % SIZE


def _hashed(facts: list[str]) -> np.ndarray:
    return np.array([_place(fact) for fact in facts], np.int64)


def _kind(piece: str) -> str:
    """name (with a capital), number, han, word or mark; "" of nothing."""
    if not piece:
        return ""
    if piece[0].isdigit():
        return "number"
    if not piece[0].isalpha():
        return "mark"
    return "han" if piece[0] > "\u2e80" else "name" if piece[0].isupper() else "word"
