"""Markdown: its prose by place. Code, addresses, front matter, definitions and the marks of blocks stay.

Blocks are read as CommonMark 0.31 reads them, line by line, as far as it takes to know what is prose; HTML within is
read as HTML.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ayllu.apps.translate.marks import Tag
from ayllu.apps.translate.pages import pieces, split_html
from ayllu.apps.translate.splice import Piece, Segment, segments_of

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_PREFIX = re.compile(r"(?: {0,3}>[ ]?)*(?:[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+(?:\[[ xX]\][ \t]+)?)*[ \t]*"
                     r"(?:#{1,6}[ \t]+|\[\^[^\]\s]+\]:[ \t]*)?")
_RULE = re.compile(r"[ \t>]*(?:[-*_=][ \t]*){2,}\r?$|[ \t>]*$")
_TABLE_RULE = re.compile(r"[ \t>]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*\r?$")
_DEFINITION = re.compile(r" {0,3}\[(?!\^)[^\]]+\]:(?!\S*\s*\S*\s[a-z]+\s)\s*\S+")
_HTML = re.compile(r" {0,3}<(?:[a-zA-Z/!?])")
_DIRECTIVE = re.compile(r"[ \t]*(?::::|\{%|\.\. )")
_SPAN = re.compile(r"""
    (?P<code>(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))
  | (?P<math>\$\$.+?\$\$|\$(?=\S)[^$\n]+?(?<=\S)\$(?!\d))
  | (?P<auto><(?:[a-zA-Z][\w+.-]*:|[\w.+-]+@)[^\s<>]*>)
  | (?P<tag><(?P<slash>/?)(?P<name>[a-zA-Z][\w-]*)(?:\s[^<>]*)?(?P<void>/?)>|<!--.*?-->)
  | (?P<note>\[\^[^\]\s]+\])
  | (?P<close>\]\((?:<[^<>\n]*>|(?:[^\s()<>]|\([^\s()]*\))*)(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)|\]\[[^\]\n]*\])
  | (?P<open>!?\[)
  | (?P<bare>\])
  | (?P<strong>\*\*\*|\*\*|\*|___|__|_|~~)
  | (?P<escape>\\[!-/:-@\[-`{-~])
  | (?P<break>\ {2,}\r?\n|\\\r?\n)
""", re.VERBOSE | re.DOTALL)


def split_markdown(source: str) -> list[Segment]:
    """The segments of a document in their order."""
    return [segment for block in _blocks(source) for segment in block]


def _blocks(source: str) -> Iterator[list[Segment]]:
    lines = [m.span() for m in re.finditer(r"[^\n]*\n|[^\n]+$", source)]
    i, blank_before = _front_matter(source, lines), True
    while i < len(lines):
        start, end = lines[i]
        line = source[start:end]
        fence = _FENCE.match(source, start + _quote(line), end)
        if fence:
            i = _after_fence(source, lines, i, fence.group(1))
        elif _HTML.match(line):
            last = i
            while last + 1 < len(lines) and source[slice(*lines[last + 1])].strip():
                last += 1
            yield _moved(split_html(source[start:lines[last][1]]), start)
            i = last + 1
        elif _RULE.match(line) or _DEFINITION.match(line) or _DIRECTIVE.match(line) or \
                (blank_before and re.match(r"(?: {4}|\t)\s*(?![-*+] |\d+[.)] )\S", line)):
            i += 1
        elif "|" in line and (_is_table(source, lines, i + 1) or _in_table(source, lines, i)):
            if not _TABLE_RULE.match(line):
                yield _cells(source, start, end)
            i += 1
        else:
            last = _paragraph_end(source, lines, i)
            yield _paragraph(source, lines[i:last])
            i = last
        blank_before = i == 0 or not source[slice(*lines[i - 1])].strip()


def _front_matter(source: str, lines: list[tuple[int, int]]) -> int:
    if lines and source[slice(*lines[0])].strip() in ("---", "+++"):
        mark = source[slice(*lines[0])].strip()
        for i in range(1, len(lines)):
            if source[slice(*lines[i])].strip() == mark:
                return i + 1
    return 0


def _quote(line: str) -> int:
    match = re.match(r"(?:[ \t]*>[ ]?)*(?:[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+)*[ \t]*", line)
    return match.end() if match else 0


def _after_fence(source: str, lines: list[tuple[int, int]], i: int, fence: str) -> int:
    for j in range(i + 1, len(lines)):
        bare = source[slice(*lines[j])].strip(" \t>\r\n")
        if bare.startswith(fence) and not bare.strip(fence[0]):
            return j + 1
    return len(lines)


def _is_table(source: str, lines: list[tuple[int, int]], i: int) -> bool:
    return i < len(lines) and "-" in source[slice(*lines[i])] and bool(_TABLE_RULE.match(source[slice(*lines[i])]))


def _in_table(source: str, lines: list[tuple[int, int]], i: int) -> bool:
    while i > 0 and "|" in source[slice(*lines[i])]:
        if _is_table(source, lines, i):
            return True
        i -= 1
    return False


def _paragraph_end(source: str, lines: list[tuple[int, int]], i: int) -> int:
    """Lines that go on with the paragraph: the first one that begins something else ends it."""
    if source[lines[i][0]:lines[i][1]].lstrip(" \t>").startswith("#"):
        return i + 1
    j = i + 1
    while j < len(lines):
        line = source[slice(*lines[j])]
        bare = line.lstrip(" \t>")
        begins_quote = ">" in line[:len(line) - len(bare)] and ">" not in source[lines[i][0]:lines[i][1]][:4]
        begins_table = "|" in line and _is_table(source, lines, j + 1)
        if begins_quote or begins_table or _RULE.match(line) or _FENCE.match(bare) or _HTML.match(line) or \
                re.match(r"(?:[-*+]|\d{1,9}[.)])\s|#{1,6}\s|\[\^[^\]\s]+\]:", bare):
            break
        j += 1
    return j


def _paragraph(source: str, lines: list[tuple[int, int]]) -> list[Segment]:
    items: list[Piece | Tag] = []
    first = _PREFIX.match(source, *lines[0])
    start = first.end() if first else lines[0][0]
    is_heading = first is not None and first.group().rstrip().endswith("#")
    for number, (low, high) in enumerate(lines):
        low = start if number == 0 else low + _continued(source[low:high])
        if number:
            items.append(Piece(lines[number - 1][1] - 1, low, " "))
        text = source[low:high].rstrip("\r\n")
        if is_heading:
            text = re.sub(r"[ \t]+#+[ \t]*$", "", text)
        hard = number < len(lines) - 1 and re.search(r"(?: {2,}|\\)$", text)
        items += _inline(source, low, low + len(text) - (len(hard.group()) if hard else 0))
        if hard:                                         # a break that was meant: a tag without partner, so a boundary
            items.append(Tag("close", -low - 10**9, low + len(text) - len(hard.group()), low + len(text)))
    return segments_of(source, _paired(source, items), partial(write_markdown, at_start=not is_heading))


def _continued(line: str) -> int:
    match = re.match(r"[ \t]*(?:>[ ]?[ \t]*)*", line)
    return match.end() if match else 0


def _cells(source: str, start: int, end: int) -> list[Segment]:
    found: list[Segment] = []
    for match in re.finditer(r"(?:\\\||`[^`\n]*`|[^|\n\r])+", source[start:end]):
        items = _paired(source, list(_inline(source, start + match.start(), start + match.end())))
        found += segments_of(source, items, partial(write_markdown, is_cell=True))
    return found


def _inline(source: str, start: int, end: int) -> Iterator[Piece | Tag]:
    place = start
    for match in _SPAN.finditer(source, start, end):
        if match.start() > place:
            yield from pieces(source, place, match.start(), html.unescape)
        place = match.end()
        span, number = match.span(), match.start() + 1
        kind = match.lastgroup if match.lastgroup not in ("ticks", "slash", "name", "void") else \
            "code" if match.group("code") else "tag"
        if kind in ("open", "close"):
            yield Tag("open" if kind == "open" else "close", 0, *span)
        elif kind == "strong":
            yield Tag("open", -1, *span)                 # which of both it is, its neighbours tell
        elif kind == "escape":
            yield Piece(*span, match.group()[1])
        elif kind == "tag" and match.group("name") and not match.group("void") \
                and match.group("name").lower() not in ("br", "img", "hr", "input", "wbr"):
            yield Tag("close" if match.group("slash") else "open", -2, *span)
        elif kind == "bare":
            yield Piece(*span, "]")
        else:
            said = match.group() if kind in ("code", "math", "auto") else ""
            yield Tag("hole", number, *span, hides=said.strip("`"))
    if place < end:
        yield from pieces(source, place, end, html.unescape)


def _paired(source: str, items: list[Piece | Tag]) -> list[Piece | Tag]:
    """Marks with the numbers of their partners; a bracket or an asterisk that has none is text."""
    result: list[Piece | Tag] = list(items)
    stack: list[tuple[int, str]] = []
    done: set[int] = set()
    for i, item in enumerate(items):
        if not isinstance(item, Tag) or item.kind == "hole" or item.number < -2:
            continue
        said = source[item.start:item.end]
        key = "[" if item.number == 0 else said if item.number == -1 else re.sub(r"[<>/]|\s.*", "", said).lower()
        if item.number == -1:
            closes = any(k == key for _, k in stack) and not source[item.start - 1:item.start].isspace()
            opens = item.end < len(source) and not source[item.end].isspace() and not (
                said[0] == "_" and source[item.start - 1:item.start].isalnum())
            if not closes and not opens:
                continue
        else:
            closes = item.kind == "close"
        place = next((k for k in range(len(stack) - 1, -1, -1) if stack[k][1] == key), None) if closes else None
        if closes and place is not None:
            first = stack[place][0]
            del stack[place:]
            opener = items[first]
            assert isinstance(opener, Tag)
            result[first] = Tag("open", opener.start + 1, opener.start, opener.end)
            result[i] = Tag("close", opener.start + 1, item.start, item.end)
            done |= {first, i}
        elif not closes:
            stack.append((i, key))
    for i, item in enumerate(items):
        if isinstance(item, Tag) and item.kind != "hole" and item.number >= -2 and i not in done:
            is_html = item.number == -2
            result[i] = Tag("hole", item.start + 1, item.start, item.end) if is_html else \
                Piece(item.start, item.end, source[item.start:item.end])
    return result


def write_markdown(text: str, at_start: bool = False, is_cell: bool = False) -> str:
    """Words as Markdown: what would begin emphasis, code, a link or a tag is escaped."""
    text = re.sub(r"([\\`*\[\]<])|(?<!\w)_|_(?!\w)", lambda m: "\\" + m.group(), text)
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    if at_start:
        text = re.sub(r"^(\s*)(#{1,6}\s|[-+>]\s|=+\s*$|~~~)", r"\1\\\2", text)
        text = re.sub(r"^(\s*\d{1,9})([.)]\s)", r"\1\\\2", text)
    return text.replace("|", "\\|") if is_cell else text


def _moved(segments: list[Segment], by: int) -> list[Segment]:
    return [replace(s, start=s.start + by, end=s.end + by,
                    parts=tuple(p if isinstance(p, str) or p.text is not None else
                                replace(p, start=p.start + by, end=p.end + by) for p in s.parts)) for s in segments]
