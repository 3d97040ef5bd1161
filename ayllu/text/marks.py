"""Find in a rendered prompt what came from people and what from the template.

Contents are rendered a second time between marks (Unicode noncharacters, which no text holds). Without the marks both
renderings must be equal; the marks say which characters are content.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

Span = tuple[int, int]

_NONCHARACTERS = [chr(c) for c in range(0xFDD0, 0xFDF0)]


@dataclass(frozen=True)
class Marks:
    """Characters that open and close four kinds of text; `controls` matches special tokens in what people wrote.

    An assistant may write markers such as `<think>`, which are ordinary by its vocabulary's own account, but nobody
    may write special tokens. The marks around a content may be cut apart by a template that keeps only a part of it
    (some drop what stands before `</think>`); those around each special token stay with it, so none passes unseen.
    """

    controls: re.Pattern[str]
    specials: re.Pattern[str]                            # those that an assistant may not write either
    content: tuple[str, str]
    answer: tuple[str, str]                              # an assistant's content
    generation: tuple[str, str]                          # a {% generation %} block
    control: tuple[str, str]

    @classmethod
    def absent_from(cls, text: str, controls: re.Pattern[str], specials: re.Pattern[str]) -> "Marks | None":
        """Marks that the text does not hold; None if it holds nearly all noncharacters."""
        free = [c for c in _NONCHARACTERS if c not in text]
        return cls(controls, specials, *zip(free[:4], free[4:8], strict=True)) if len(free) >= 8 else None

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All four kinds."""
        return self.content, self.answer, self.generation, self.control

    def wrap(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message with marks around each text and around special tokens in it; its role stays as it is."""
        answers = message.get("role") == "assistant"
        pattern = self.specials if answers else self.controls
        out = self.wrap_controls(message)
        for key, value in message.items():
            if key == "content":
                pair = self.answer if answers and isinstance(value, str) else self.content
                out[key] = each_text(value, partial(self._around, pair=pair, pattern=pattern))
        return out

    def wrap_controls(self, message: dict[str, Any]) -> dict[str, Any]:
        """Marks around special tokens only, for templates that look at how a text begins or how long it is."""
        pattern = self.specials if message.get("role") == "assistant" else self.controls
        return {key: value if key == "role" else each_text(value, lambda text: self._each(text, pattern))
                for key, value in message.items()}

    def _around(self, text: str, pair: tuple[str, str], pattern: re.Pattern[str]) -> str:
        """Marks inside the white space at both ends, so that a template may trim; none where there is nothing else."""
        core = text.strip()
        if not core:
            return text
        start = text.index(core)
        return text[:start] + pair[0] + self._each(core, pattern) + pair[1] + text[start + len(core):]

    def _each(self, text: str, pattern: re.Pattern[str]) -> str:
        return pattern.sub(lambda m: self.control[0] + m[0] + self.control[1], text)


@dataclass(frozen=True)
class Found:
    """A rendering without its marks, and where they were."""

    text: str
    contents: list[Span]                                 # of anybody, with special tokens in them
    answers: list[Span]                                  # of an assistant; start -1 where the template cut it
    generations: list[Span]


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """The same structure with every string changed, except keys and the names of kinds."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [each_text(v, change) for v in value]
    if isinstance(value, dict):
        return {k: v if k == "type" else each_text(v, change) for k, v in value.items()}
    return value


def texts_in(value: Any) -> Iterator[str]:
    """Every string of a structure, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for v in value:
            yield from texts_in(v)
    elif isinstance(value, dict):
        for k, v in value.items():
            yield from texts_in(k)
            yield from texts_in(v)


def find(marked: str, marks: Marks) -> Found:
    """Take the marks out; an end whose beginning the template cut away has the start -1."""
    kind_of = {mark: n for n, pair in enumerate(marks.pairs) for mark in pair}
    closing = {pair[1] for pair in marks.pairs}
    spans: list[list[Span]] = [[], [], [], []]
    begun: list[int | None] = [None] * 4
    text: list[str] = []
    at = 0
    for part in re.split("([" + "".join(kind_of) + "])", marked):
        if part not in kind_of:
            text.append(part)
            at += len(part)
            continue
        kind = kind_of[part]
        if part in closing:
            spans[kind].append((-1 if begun[kind] is None else begun[kind] or 0, at))
        begun[kind] = None if part in closing else at
    whole = [span for kind in (0, 1, 3) for span in spans[kind] if span[0] >= 0]
    return Found("".join(text), sorted(whole), spans[1], spans[2])


MEDIA = {"image": "\ufdee", "audio": "\ufdef"}           # what stands for a medium in a content until it is rendered


def with_media(found: Found, texts: dict[str, str]) -> Found:
    """A rendering in which each stand-in has become its special token's text, which is no content: so it counts as
    the template's own. `texts` maps stand-ins to tokens."""
    pieces = re.split("([" + "".join(texts) + "])", found.text)
    shifts: list[tuple[int, int, int]] = []              # (old place, new place, characters more) of each stand-in
    at = grown = 0
    for piece in pieces:
        if piece in texts:
            shifts.append((at, at + grown, len(texts[piece]) - 1))
            grown += len(texts[piece]) - 1
        at += len(piece)

    def moved(place: int) -> int:
        return place if place < 0 else place + sum(more for old, _, more in shifts if old < place)

    def split(span: Span) -> Iterator[Span]:
        start, end = moved(span[0]), moved(span[1])
        for _, new, more in shifts:
            if start <= new < end:
                yield start, new
                start = new + more + 1
        yield start, end

    contents = [part for span in found.contents for part in split(span) if part[0] < part[1]]
    move = [[(moved(a), moved(b)) for a, b in spans] for spans in (found.answers, found.generations)]
    return Found("".join(texts.get(piece, piece) for piece in pieces), contents, *move)
