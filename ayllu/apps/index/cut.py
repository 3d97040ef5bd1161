"""A text cut into chunks that cover it without gaps or overlaps: the chunks one after another are the text.

Cuts lie between paragraphs where possible, else after sentences, else at white space. Pages and headings begin a chunk.
Lengths are counted in columns, of which a Chinese character takes two, as it says about as much as two letters.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

COLUMNS = 1200                                           # of a chunk: a long paragraph; five fit a context of 2,048
_WIDE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")
_PARAGRAPH = re.compile(r".*?(?:\n+|\Z)", re.DOTALL)     # with the line breaks that end it
_SENTENCE = re.compile(r"""(?:[^。！？!?.;；\n]            # a full stop within 3.5 ends nothing
                           |[.!?](?!["'”’)\]]*(?:\s|$)))*
                           (?:[。！？；;.!?…]+["'”’）)」』\]]*\s*|\n+|$)""", re.VERBOSE)
_PIECE = re.compile(r"\S{1,64}\s*|\s+", re.DOTALL)
_HEADING = re.compile(r"#{1,6} ")
Span = tuple[int, int]


def columns(text: str) -> int:
    """How wide a text is."""
    return len(text) + len(_WIDE.findall(text))


def cut(text: str, pages: Sequence[int] = (), most: int = COLUMNS) -> list[Span]:
    """The chunks of a text as places in it; a text of nothing has none."""
    borders = sorted({0, len(text), *(page for page in pages if 0 < page < len(text))})
    return [span for start, end in pairwise(borders) for span in _pack(text, start, end, most)]


def sentences(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """The sentences of a part of a text without the white space around them; a line break ends one, too."""
    found = []
    for a, b in _matches(_SENTENCE, text, start, len(text) if end is None else end):
        if said := text[a:b].strip():
            a += len(text[a:b]) - len(text[a:b].lstrip())
            found.append((a, a + len(said)))
    return found


def page_of(start: int, pages: Sequence[int]) -> int | None:
    """The page, from 1, that a place lies on."""
    return max(bisect_right(pages, start), 1) if pages else None


def _pack(text: str, start: int, end: int, most: int) -> Iterator[Span]:
    """Parts put together as long as they fit. A short rest goes to the chunk before it."""
    begun, width = start, 0
    last: Span | None = None
    for a, b in _parts(text, start, end, most):
        more = columns(text[a:b])
        if width and (width + more > most or (_HEADING.match(text, a) and width > most // 8)):
            if last:
                yield last
            last, begun, width = (begun, a), a, 0
        width += more
    if begun < end:
        if last and width < most // 8 and columns(text[last[0]:end]) <= most + most // 8:
            last, begun = (last[0], end), end
        if last:
            yield last
        if begun < end:
            yield begun, end


def _parts(text: str, start: int, end: int, most: int) -> Iterator[Span]:
    for a, b in _matches(_PARAGRAPH, text, start, end):
        if b - a <= most // 2 or columns(text[a:b]) <= most:
            yield a, b
            continue
        for c, d in _matches(_SENTENCE, text, a, b):
            if columns(text[c:d]) <= most:
                yield c, d
            else:
                yield from _matches(_PIECE, text, c, d)


def _matches(pattern: re.Pattern[str], text: str, start: int, end: int) -> Iterator[Span]:
    """Places of one match after another; together they are the whole part, whatever the pattern is."""
    at = start
    for match in pattern.finditer(text, start, end):
        if match.end() > at:
            yield at, match.end()
            at = match.end()
    if at < end:
        yield at, end
