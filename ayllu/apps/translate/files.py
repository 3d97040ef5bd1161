"""Plain text, subtitles and JSON: what is text in them, by place."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial

from ayllu.apps.translate.marks import Tag, has_letters, is_nested, numbered, words
from ayllu.apps.translate.pages import INLINE, pieces
from ayllu.apps.translate.sentences import HAN
from ayllu.apps.translate.splice import Piece, Segment, segments_of
from ayllu.apps.translate.tokens import tokens
from ayllu.errors import DataError

_PARAGRAPH = re.compile(r"(?:[^\n]*\S[^\n]*(?:\n|$))+")
_BULLET = re.compile(r"[ \t\ufeff]*(?:(?:[-*•–—>#]+|\d{1,3}[.)])[ \t]+)?")
_LINE = re.compile(r"[^\r\n]+")
WRAPPED = 50                                             # columns from which a line counts as broken by hand
CUE = re.compile(r"^[^\n]*\d\d?:\d\d[.,:]\d\d[^\n]*-->[^\n]*\r?\n((?:[^\r\n]+(?:\r?\n|$))*)", re.MULTILINE)
_CUE_TAG = re.compile(r"</?[a-zA-Z][^<>\n]*>|<\d[\d:.]*>|\{\\[^{}\n]*\}")
CUE_LINE = 42                                            # columns of a line of a subtitle; a Chinese letter takes two
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NO_TEXT = re.compile(r"[\w.-]*[_./:@\\#][^\s]*|#?[0-9a-fA-F]{3,8}|[a-z]{2}-[A-Z]{2}")


def split_text(source: str) -> list[Segment]:
    """Paragraphs whose lines were broken by hand are one segment each; else every line is one."""
    found: list[Segment] = []
    for block in _PARAGRAPH.finditer(source):
        lines = [m.span() for m in _LINE.finditer(source, *block.span())]
        whole = len(lines) > 1 and all(_width(source[a:b]) >= WRAPPED for a, b in lines[:-1]) \
            and not any(source[a] in " \t-*•>|" for a, _ in lines[1:])
        for start, end in [(lines[0][0], lines[-1][1])] if whole else lines:
            start = _after_bullet(source, start, end)
            found += segments_of(source, pieces(source, start, end, str))
    return found


def _after_bullet(source: str, start: int, end: int) -> int:
    match = _BULLET.match(source, start, end)
    return match.end() if match else start


def _width(text: str) -> int:
    return len(text) + len(HAN.findall(text))


def split_subtitles(source: str) -> list[Segment]:
    """The words of each cue of SubRip or WebVTT; times, numbers, notes and styles stay."""
    found: list[Segment] = []
    for cue in CUE.finditer(source):
        lines = [m.span() for m in _LINE.finditer(source, *cue.span(1))]
        if len(lines) > 1 and all(source[a] in "-–—" for a, _ in lines):     # two people, a line each
            spans = lines
        else:
            spans = [(lines[0][0], lines[-1][1])] if lines else []
        for start, end in spans:
            write = partial(wrapped, lines=len(lines) if len(spans) == 1 else 1)
            found += segments_of(source, list(_cue_items(source, _after_bullet(source, start, end), end)), write)
    return found


def _cue_items(source: str, start: int, end: int) -> Iterator[Piece | Tag]:
    place = start
    opened: list[tuple[str, int]] = []
    for match in _CUE_TAG.finditer(source, start, end):
        yield from pieces(source, place, match.start(), str)
        name = re.match(r"</?([a-zA-Z]+)", match.group())
        place = match.end()
        if not name:
            yield Tag("hole", -match.start() - 1, *match.span())
        elif match.group().startswith("</"):
            number = next((i for n, i in reversed(opened) if n == name.group(1)), -match.start() - 1)
            opened = [pair for pair in opened if pair[1] != number]
            yield Tag("close", number, *match.span())
        else:
            opened.append((name.group(1), match.start()))
            yield Tag("open", match.start(), *match.span())
    yield from pieces(source, place, end, str)


def wrapped(text: str, lines: int) -> str:
    """A cue's text, on two lines near its middle where the source had several and it is long."""
    text = text.replace("-->", "→").replace("<", "‹")    # neither may begin anything in a subtitle
    if lines < 2 or _width(text) <= CUE_LINE:
        return text
    middle = len(text) // 2
    cuts = [i if c == " " else i + 1 for i, c in enumerate(text[:-1]) if c in " ，。！？；、"] or [middle]
    cut = min(cuts, key=lambda i: abs(i - middle))
    return text[:cut].rstrip() + "\n" + text[cut:].lstrip()


def split_json(source: str) -> list[Segment]:
    """String values that are texts: keys, addresses, identifiers and colours stay."""
    try:
        json.loads(source.removeprefix("\ufeff"))
    except RecursionError as error:
        raise DataError("the JSON is nested too deep to be read: flatten it") from error
    except ValueError as error:
        raise DataError(f"this is no JSON ({error}): mend it, or give it another ending") from error
    found: list[Segment] = []
    is_ascii = source.isascii() and "\\u" in source
    for match in _STRING.finditer(source):
        after = match.end()
        while source[after:after + 1] in (" ", "\t", "\n", "\r") and after < len(source):
            after += 1
        if source[after:after + 1] == ":":
            continue
        text = json.loads(match.group(), strict=False)
        if _NO_TEXT.fullmatch(text.strip()) is None:
            items = text_items(text, match.start() + 1, match.end() - 1)
            found += value_segments(items, match.start() + 1, match.end() - 1, partial(write_json, is_ascii=is_ascii))
    return found


def write_json(text: str, is_ascii: bool = False) -> str:
    """Words within the quotation marks of JSON."""
    return json.dumps(text, ensure_ascii=is_ascii)[1:-1]


def text_items(text: str, start: int, end: int) -> list[Piece | Tag]:
    """A decoded string, HTML tags in it as marks that are written as they are."""
    items: list[Piece | Tag] = []
    opened: list[tuple[str, int]] = []
    for token in tokens(text):
        said = text[token.start:token.end]
        if token.kind == "text":
            items.append(Piece(start, end, said))
        elif token.kind == "open" and token.name in INLINE:
            opened.append((token.name, token.start))
            items.append(Tag("open", token.start, text=said))
        elif token.kind == "close" and any(name == token.name for name, _ in opened):
            number = next(i for name, i in reversed(opened) if name == token.name)
            opened = [pair for pair in opened if pair[1] != number]
            items.append(Tag("close", number, text=said))
        else:
            items.append(Tag("hole", -token.start - 1, text=said, hides=said))
    return items


def value_segments(items: list[Piece | Tag], start: int, end: int, write: Callable[[str], str]) -> list[Segment]:
    """One segment for a whole value; its blanks at both ends are written as they were."""
    parts = numbered([item if isinstance(item, Tag) else item.text for item in items])
    if not has_letters("".join(p for p in parts if isinstance(p, str))):
        return []
    if not is_nested(parts):
        parts = (words(tuple(p if isinstance(p, str) else p.text or "" for p in parts)),)
    first, last = parts[0], parts[-1]
    lead = first[:len(first) - len(first.lstrip())] if isinstance(first, str) else ""
    trail = last[len(last.rstrip()):] if isinstance(last, str) else ""
    inner = [*parts]
    if isinstance(inner[0], str):
        inner[0] = inner[0].lstrip()
    if isinstance(inner[-1], str):
        inner[-1] = inner[-1].rstrip()
    return [Segment(start, end, tuple(p for p in inner if p != ""), write, frame=(write(lead), write(trail)))]
