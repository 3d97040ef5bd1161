"""A business's pages as sections: what one answer is made of, each with its place in the document."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ayllu.apps.support.phrases import language_of

HEADING = re.compile(r"^(#{1,6})[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
PARAGRAPH = re.compile(r"\S.*?(?=\n\s*\n|\s*\Z)", re.DOTALL)
CELL = re.compile(r"(?:^|; )[^:;]+: (.*?)(?=; [^:;]+: |$)")


@dataclass(frozen=True)
class Section:
    """`text` is what stands in `source` from `start` to `end`."""

    source: str                                          # the document's name, below the folder of pages
    title: str                                           # of the document
    heading: str                                         # of the section; in a table the row's first cell
    text: str
    start: int
    end: int
    language: str | None = None


def sections_of(source: str, kind: str, title: str, text: str) -> list[Section]:
    """Markdown by its headings, tables by their rows, all else by its paragraphs."""
    cut = _by_heading if kind == "markdown" else _by_row if kind in ("csv", "xlsx") else _by_paragraph
    return [Section(source, title, heading, text[start:end], start, end, language_of(text[start:end]))
            for heading, start, end in cut(text) if text[start:end].strip()]


def _by_heading(text: str) -> Iterator[tuple[str, int, int]]:
    found = list(HEADING.finditer(text))
    begins = [("", 0), *((match[2], match.end()) for match in found)]
    ends = [*(match.start() for match in found), len(text)]
    for (heading, start), end in zip(begins, ends, strict=True):
        body = text[start:end]
        yield heading, start + len(body) - len(body.lstrip()), start + len(body.rstrip())


def _by_row(text: str) -> Iterator[tuple[str, int, int]]:
    at = 0
    for number, line in enumerate(text.split("\n")):
        if number and (first := CELL.match(line)):       # the first line names the columns
            yield first[1], at, at + len(line)
        at += len(line) + 1


def _by_paragraph(text: str) -> Iterator[tuple[str, int, int]]:
    for match in PARAGRAPH.finditer(text):
        yield "", match.start(), match.end()
