"""Citations: a quote with its place, looked up again in the collection before anybody sees it."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ayllu.apps.collection import Collection, Passage
from ayllu.apps.docqa.overlap import held, numbers, telling
from ayllu.apps.index.cut import columns, sentences

SUPPORTED = 0.6                                          # share of a sentence's telling words that a source must hold
ROW = 400                                                # columns of a table's row that is quoted whole
_WRAP = re.compile(r"(?<=[^\n]{50})(?<![.!?:;|\s])\n[ \t]*(?=[^\W\d_])")      # a line ended by its width alone


@dataclass(frozen=True)
class Citation:
    """`quote` stands in the document `source` from the character `start` to `end`; `page` is None where it has none."""

    number: int
    source: str
    quote: str
    start: int
    end: int
    page: int | None
    document: int
    title: str = ""

    def as_json(self) -> dict[str, Any]:
        """For --json and the API."""
        return asdict(self)


@dataclass(frozen=True)
class Span:
    """A place in a passage."""

    passage: Passage
    start: int                                           # in the document
    end: int

    @property
    def text(self) -> str:
        """What stands there."""
        return self.passage.text[self.start - self.passage.start:self.end - self.passage.start]


class Citations:
    """Those of one answer, numbered as they come; the same place keeps its number."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self.found: list[Citation] = []

    def cite(self, span: Span) -> Citation | None:
        """None where the source doesn't say this at that place."""
        for known in self.found:
            if (known.document, known.start, known.end) == (span.passage.document, span.start, span.end):
                return known
        if not span.text or self._collection.text(span.passage.document, span.start, span.end) != span.text:
            return None
        self.found.append(Citation(len(self.found) + 1, span.passage.source, span.text, span.start, span.end,
                                   span.passage.page, span.passage.document, span.passage.title))
        return self.found[-1]

    def part(self, of: Citation, start: int, end: int) -> Citation | None:
        """A piece of a quote, by its places in it, with the quote's number; looked up as every quote is."""
        one = replace(of, quote=of.quote[start:end], start=of.start + start, end=of.start + end)
        return one if self._collection.text(one.document, one.start, one.end) == one.quote else None


def spans_of(passage: Passage) -> list[Span]:
    """Its sentences, whole where a text's width broke their lines; of a table its rows: a cell says nothing alone."""
    is_table, text = passage.kind in ("csv", "xlsx"), passage.text
    if passage.kind in ("text", "markdown"):
        text = _WRAP.sub(lambda m: " " * len(m[0]), text)
    lines = [m.span() for m in re.finditer(r"[^\n]+" if is_table else r"(?s).+", text)]
    return [Span(passage, passage.start + a, passage.start + b) for x, y in lines
            for a, b in ([(x, y)] if is_table and columns(text[x:y]) <= ROW else sentences(text, x, y))]


def support(sentence: str, passages: Sequence[Passage], first: Sequence[int] = ()) -> tuple[Span | None, float]:
    """The place that says most of what a sentence says, and the share of its telling words there, 0 to 1.

    Numbers must stand there, all of them: a right sentence with a wrong number isn't supported. Passages of the numbers
    `first` (from 1) win ties, as the model named them. A place is a sentence, or two neighbours.
    """
    wanted, digits = telling(sentence), numbers(sentence)
    best: tuple[float, float, Span | None] = (0.0, 0.0, None)             # two sentences must say a tenth more than one
    for passage in (passages[i] for i in sorted(range(len(passages)), key=lambda i: i + 1 not in first)):
        spans = spans_of(passage)
        for i, span in enumerate(spans):
            for last in spans[i:i + 2]:
                place = Span(passage, span.start, last.end)
                share = sum(held(wanted, place.text).values()) / max(len(wanted), 1)
                worth = share if last is span else share - 0.1
                if digits <= numbers(place.text) and worth > best[0]:
                    best = worth, share, place
    return best[2], best[1]
