"""The sets that benchmarks/retrieval.py asks, and their passages as collections."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from ayllu.apps.collection import DEEP, Collection


@dataclass(frozen=True)
class Asked:
    """A question, the passages that are right, and its answers."""

    text: str
    right: frozenset[int]
    answers: tuple[str, ...]
    group: str


@dataclass(frozen=True)
class Part:
    """Passages with questions."""

    name: str
    passages: list[str]
    asked: list[Asked]

    @property
    def convention(self) -> Any:
        return "squad" if self.name in ("xquad_en", "banking77") else "cmrc"


def rows(data: Path, file: str) -> list[dict[str, Any]]:
    with open(data / file, "rb") as packed:
        return [json.loads(line) for line in zstandard.ZstdDecompressor().stream_reader(packed).read().splitlines()]


def reading(name: str, found: list[dict[str, Any]], keep: Callable[[dict[str, Any]], bool] = lambda row: True) -> Part:
    """A set of questions on passages; `keep` says which are asked, the passages are always all of them."""
    passages = list(dict.fromkeys(row["context"] for row in found))
    place = {text: i for i, text in enumerate(passages)}
    return Part(name, passages, [Asked(row["question"], frozenset([place[row["context"]]]), tuple(row["answers"]),
                                       row["context"]) for row in found if keep(row)])


def banking(data: Path, is_test: bool) -> Part:
    """Right is every passage of the question's intent. For choosing, 1,500 of the training side are asked."""
    train = rows(data, "banking77/train.jsonl.zst")
    random.Random(0).shuffle(train)
    asked, known = (rows(data, "banking77/test.jsonl.zst"), train) if is_test else (train[:1500], train[1500:])
    by_label: dict[str, set[int]] = {}
    for i, row in enumerate(known):
        by_label.setdefault(row["label"], set()).add(i)
    return Part("banking77", [row["text"] for row in known],
                [Asked(row["text"], frozenset(by_label[row["label"]]), (), row["label"]) for row in asked])


def is_separate(row: dict[str, Any]) -> bool:
    """XQuAD has no dev part: 3 in 10 of its articles are for choosing."""
    return row["article"] % 10 in (0, 3, 6)


def parts(data: Path, is_test: bool) -> Iterator[Part]:
    yield reading("cmrc2018", rows(data, f"cmrc2018/{'trial' if is_test else 'dev'}.jsonl.zst"))
    yield reading("drcd", rows(data, f"drcd/{'test' if is_test else 'dev'}.jsonl.zst"))
    for language in ("en", "zh"):
        yield reading(f"xquad_{language}", rows(data, f"xquad_en_zh/test_{language}.jsonl.zst"),
                      lambda row: is_separate(row) != is_test)
    yield banking(data, is_test)


class Library:
    """A part's passages as a collection. Passages are named by their numbers, which say nothing."""

    def __init__(self, part: Part, folder: Path, vectors: bool = True) -> None:
        self.part = part
        self.collection = Collection(folder / f"{part.name}-{len(part.passages)}.sqlite")
        self.collection.add_texts({f"{i:06d}": text for i, text in enumerate(part.passages)})
        if vectors:
            self.collection.add_vectors()
        self.place = {row["id"]: int(row["source"]) for row in self.collection.store.rows(
            "SELECT c.id, d.source FROM chunks c JOIN documents d ON d.id = c.document")}

    def passages(self, ranked: Sequence[tuple[int, float]]) -> list[int]:
        """The passages that chunks belong to, each once."""
        return list(dict.fromkeys(self.place[number] for number, _ in ranked))

    def both(self, question: str) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
        """By words, and by vectors."""
        return self.collection.ranked(question, DEEP, way="words"), self.collection.ranked(question, DEEP, way="dense")


def place_of(found: Sequence[int], right: frozenset[int]) -> int | None:
    return next((i for i, passage in enumerate(found, start=1) if passage in right), None)
