"""HTML as tokens with exact offsets: what a browser's tokenizer sees (WHATWG HTML, section 13.2.5), unchanged.

html.parser gives lines and columns, and no place for attributes; here each token is a slice of the source, and together
they are all of it. Time is linear, and no depth of nesting matters.
"""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal

RAW = frozenset({"script", "style", "xmp", "iframe", "noembed", "noframes", "textarea", "title"})
FOREIGN = frozenset({"svg", "math"})
_BLANKS = re.compile(r"[ \t\n\f\r/]*")
_NAME = re.compile(r"=?[^ \t\n\f\r/>=]*")
_VALUE = re.compile(r"""[ \t\n\f\r]*=[ \t\n\f\r]*(?:"([^"]*)"|'([^']*)'|(?!["'])([^ \t\n\f\r>]*))""")
_OPEN_QUOTE = re.compile(r"""[ \t\n\f\r]*=[ \t\n\f\r]*["']""")
_TAG = re.compile(r"<(/?)([a-zA-Z][^ \t\n\f\r/>]*)")
_COMMENT_END = re.compile(r"--!?>")


@dataclass(frozen=True, slots=True)
class Attribute:
    """`start` and `end`: the value's place, without its quotation marks; quote is one of them, or empty."""

    name: str
    start: int
    end: int
    quote: str


@dataclass(frozen=True, slots=True)
class Token:
    """A slice of the source. `raw` is the text of an element that holds no tags (script, title)."""

    kind: Literal["text", "open", "close", "comment", "raw"]
    start: int
    end: int
    name: str = ""
    attributes: tuple[Attribute, ...] = ()
    is_closed: bool = False                              # ends in "/>"


def tokens(source: str, xml: bool = False) -> Iterator[Token]:
    """All of the source. In XML `<script/>` is empty, and sections of CDATA are kept as they are."""
    place, foreign = 0, 0
    while place < len(source):
        start = source.find("<", place)
        if start < 0:
            start = len(source)
        if start > place:
            yield Token("text", place, start)
            place = start
            continue
        token = _markup(source, start, xml or foreign > 0)
        if token is None:                                # a bare "<" is text, up to the next one
            after = source.find("<", start + 1)
            place = after if after > 0 else len(source)
            yield Token("text", start, place)
            continue
        yield token
        place = token.end
        if token.name in FOREIGN and not token.is_closed:
            foreign = max(0, foreign + (1 if token.kind == "open" else -1))
        if token.kind == "open" and token.name in RAW and not foreign and not (xml and token.is_closed):
            place = yield from _raw(source, token)
        elif token.kind == "open" and token.name == "plaintext" and not xml:
            yield Token("raw", place, len(source), "plaintext")
            place = len(source)


def _raw(source: str, token: Token) -> Generator[Token, None, int]:
    match = re.compile(rf"</{token.name}(?=[ \t\n\f\r/>])", re.IGNORECASE).search(source, token.end)
    end = match.start() if match else len(source)
    if end > token.end:
        yield Token("raw", token.end, end, token.name)
    return end


def _markup(source: str, start: int, xml: bool) -> Token | None:
    match = _TAG.match(source, start)
    if match:
        return _tag(source, start, match)
    if source.startswith("<!--", start):
        for short in ("<!-->", "<!--->"):
            if source.startswith(short, start):
                return Token("comment", start, start + len(short))
        end = _COMMENT_END.search(source, start + 4)
        return Token("comment", start, end.end() if end else len(source))
    if xml and source.startswith("<![CDATA[", start):
        found = source.find("]]>", start)
        return Token("comment", start, found + 3 if found >= 0 else len(source))
    if source.startswith(("<!", "<?", "</"), start) and len(source) > start + 2:
        found = source.find(">", start)
        return Token("comment", start, found + 1 if found >= 0 else len(source))
    return None


def _tag(source: str, start: int, match: re.Match[str]) -> Token:
    kind: Literal["open", "close"] = "close" if match.group(1) else "open"
    name, place = match.group(2).lower(), match.end()
    attributes: list[Attribute] = []
    while True:
        blanks = _BLANKS.match(source, place)
        assert blanks is not None                        # it matches nothing at least
        place = blanks.end()
        if place >= len(source):                         # the tag never ends: no element, and no text either
            return Token("comment", start, len(source))
        if source[place] == ">":
            return Token(kind, start, place + 1, name, tuple(attributes), blanks.group().endswith("/"))
        found = _NAME.match(source, place)
        assert found is not None
        value = _VALUE.match(source, found.end())
        if value is None and _OPEN_QUOTE.match(source, found.end()):
            return Token("comment", start, len(source))
        place = value.end() if value else found.end()
        group = (value.lastindex or 0) if value else 0
        at = value.span(group) if value else (place, place)
        attributes.append(Attribute(found.group().lower(), *at, ("", '"', "'", "")[group]))
