"""HTML: its texts by place. Block tags, links, code and every byte between texts stay; inline tags are marks."""

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from ayllu.apps.translate.marks import Tag, has_letters
from ayllu.apps.translate.splice import Piece, Segment, segments_of
from ayllu.apps.translate.tokens import RAW, Attribute, Token, tokens

INLINE = frozenset({"a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "del", "dfn", "em", "font", "i", "ins",
                    "label", "mark", "q", "s", "small", "span", "strike", "strong", "sub", "sup", "time", "u"})
VOID_INLINE = frozenset({"img", "wbr"})
OPAQUE_INLINE = frozenset({"code", "kbd", "samp", "var", "tt", "svg", "math", "data", "output", "meter", "progress"})
OPAQUE = frozenset({"pre", "listing", "template", "canvas", "object", "audio", "video", "datalist"}) | RAW - {"title"}
VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source",
                  "track", "wbr"})
TRANSLATED = frozenset({"title", "alt", "placeholder", "aria-label", "aria-description", "summary"})
DESCRIBED = frozenset({"description", "og:title", "og:description", "twitter:title", "twitter:description",
                       "og:image:alt", "twitter:image:alt"})
BUTTONS = frozenset({"submit", "button", "reset"})
ENDS = {"li": {"li"}, "dt": {"dt", "dd"}, "dd": {"dt", "dd"}, "tr": {"tr", "td", "th"}, "td": {"td", "th"},
        "th": {"td", "th"}, "option": {"option"}}        # an open tag here ends such an element right above it
_SPACE = re.compile(r"[ \t\n\f\r]+")
_BREAKABLE = re.compile(r"[\ue000-\uf8ff\ud800-\udfff\ufffd]+")         # no words: icon fonts, bytes of no encoding


def split_html(source: str, xml: bool = False) -> list[Segment]:
    """The segments of a page, attributes and titles among them, in the order of the source."""
    return list(_Reader(source, list(tokens(source, xml)), xml).segments())


def set_language(source: str, to: str) -> str:
    """The page with the language of its <html> tag named anew, where it names one."""
    for token in tokens(source[:20_000]):
        if token.kind == "open" and token.name == "html":
            edits = [a for a in token.attributes if a.name in ("lang", "xml:lang")]
            for a in sorted(edits, key=lambda a: -a.start):
                quotes = ("", "") if a.quote else ('"', '"')
                old = source[a.start:a.end]
                if old.lower().split("-")[0] != to.lower().split("-")[0]:
                    source = source[:a.start] + to.join(quotes) + source[a.end:]
            break
    return source


def write_text(text: str) -> str:
    """Words as HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\xa0", "&nbsp;")


def write_attribute(text: str, quote: str) -> str:
    """Words as the value of an attribute."""
    text = write_text(text)
    if quote:
        return text.replace(quote, "&quot;" if quote == '"' else "&#39;")
    return '"' + text.replace('"', "&quot;") + '"'       # a value without quotation marks gets some


@dataclass
class _Reader:
    source: str
    all: list[Token]
    xml: bool

    def segments(self) -> Iterator[Segment]:
        ends = matches(self.all, self.xml)
        run: list[Piece | Tag] = []
        i = 0
        while i < len(self.all):
            token = self.all[i]
            if token.kind == "open":
                end = ends[i]
                opaque = self._opaque(token)
                if opaque is not None:
                    last = self._last(i, end)
                    if opaque == "inline":
                        run.append(Tag("hole", i, token.start, self.all[last].end, hides=self._said(i, last)))
                    else:
                        yield from self._flush(run)
                    i = last + 1
                    continue
                yield from self._attributes(token)
                if token.name in VOID_INLINE:
                    run.append(Tag("hole", i, token.start, token.end))
                elif token.name in INLINE:
                    run.append(Tag("open", i, token.start, token.end))
                else:
                    yield from self._flush(run, "raw" if token.name in ("option", "optgroup") else "text")
            elif token.kind == "close":
                if token.name in INLINE:
                    run.append(Tag("close", self._partner.get(i, -i - 1), token.start, token.end))
                else:
                    yield from self._flush(run, "raw" if token.name in ("option", "optgroup", "select") else "text")
            elif token.kind == "comment":
                run.append(Tag("hole", i, token.start, token.end))
            elif token.kind == "text":
                run += pieces(self.source, token.start, token.end, html.unescape)
            elif token.name == "title":
                yield from segments_of(self.source, pieces(self.source, token.start, token.end, html.unescape),
                                       write_text, "raw")
            if token.kind == "open" and ends[i] < len(self.all) and self.all[ends[i]].name == token.name:
                self._partner[ends[i]] = i
            i += 1
        yield from self._flush(run)

    def __post_init__(self) -> None:
        self._partner: dict[int, int] = {}               # of a closing tag: the number of what it closes

    def _flush(self, run: list[Piece | Tag], kind: str = "text") -> Iterator[Segment]:
        for part in self._links_apart(run) if run else ():
            yield from segments_of(self.source, part, write_text, kind)
        run.clear()

    def _links_apart(self, run: list[Piece | Tag]) -> list[list[Piece | Tag]]:
        """Links in a row with no word between them are a menu: each is a text of its own."""
        parts: list[list[Piece | Tag]] = [[]]
        depth = n_links = 0
        for item in run:
            if isinstance(item, Piece) and depth == 0:
                if has_letters(item.text):
                    return [run]
                parts.append([])
                continue
            if isinstance(item, Tag) and item.kind == "open":
                is_link = self.source[item.start + 1:item.start + 3].lower() in ("a ", "a>", "a\n")
                if depth == 0 and not is_link:
                    return [run]
                n_links += depth == 0
            depth += {"open": 1, "close": -1, "hole": 0}[item.kind] if isinstance(item, Tag) else 0
            parts[-1].append(item)
            if depth == 0:
                parts.append([])
        return parts if n_links > 1 and depth == 0 else [run]

    def _opaque(self, token: Token) -> str | None:
        values = {a.name: self.source[a.start:a.end].lower() for a in token.attributes
                  if a.name in ("translate", "class")}
        keeps = values.get("translate") == "no" or "notranslate" in values.get("class", "").split()
        if token.name in OPAQUE_INLINE or (keeps and token.name in INLINE):
            return "inline"
        if token.name in OPAQUE:
            return "block"
        return "block" if keeps and token.name not in VOID | {"html"} else None

    def _last(self, i: int, end: int) -> int:
        """The last token of the opaque element that begins at i; `end` closed it, or something around it."""
        if self.all[i].is_closed and (self.xml or self.all[i].name in ("svg", "math")):
            return i
        if end < len(self.all) and self.all[end].kind == "close" and self.all[end].name == self.all[i].name:
            return end
        return max(i, end - 1)

    def _said(self, i: int, last: int) -> str:
        """What a reader sees there, where it is short: a masked word still counts as a word of its sentence."""
        texts = [self.source[t.start:t.end] for t in self.all[i:last + 1][:8] if t.kind == "text"]
        return html.unescape("".join(texts))[:80]

    def _attributes(self, token: Token) -> Iterator[Segment]:
        if not token.attributes:
            return
        values = {a.name: self.source[a.start:a.end] for a in token.attributes}
        for a in token.attributes:
            if a.name in TRANSLATED or self._is_described(token, a, values):
                yield from self._attribute(a)

    def _is_described(self, token: Token, a: Attribute, values: dict[str, str]) -> bool:
        match token.name, a.name:
            case "meta", "content":
                return (values.get("name") or values.get("property") or "").lower() in DESCRIBED
            case "input", "value":
                return values.get("type", "").lower() in BUTTONS
            case ("option" | "optgroup" | "track"), "label":
                return True
        return False

    def _attribute(self, a: Attribute) -> Iterator[Segment]:
        parts = pieces(self.source, a.start, a.end, html.unescape)
        for segment in segments_of(self.source, parts, partial(write_attribute, quote=a.quote), a.name):
            yield segment if a.quote else replace(segment, start=a.start, end=a.end)


def pieces(source: str, start: int, end: int, decode: Callable[[str], str]) -> list[Piece | Tag]:
    """A stretch of text, its blanks as single spaces; characters that no model can read are marks."""
    found: list[Piece | Tag] = []
    place = start
    for match in _BREAKABLE.finditer(source, start, end):
        found += [Piece(place, match.start(), _SPACE.sub(" ", decode(source[place:match.start()]))),
                  Tag("hole", -match.start() - 1, *match.span())]
        place = match.end()
    found.append(Piece(place, end, _SPACE.sub(" ", decode(source[place:end]))))
    return [one for one in found if one.end > one.start]


def matches(all: list[Token], xml: bool = False) -> list[int]:
    """For each open tag the token that ends its element: its closing tag, or what ends an element around it."""
    ends = [len(all)] * len(all)
    stack: list[int] = []
    count: dict[str, int] = {}

    def pop(i: int) -> None:
        top = stack.pop()
        ends[top] = i
        count[all[top].name] -= 1

    for i, token in enumerate(all):
        if token.kind == "open":
            while stack and not xml and all[stack[-1]].name in ENDS.get(token.name, ()):
                pop(i)
            if stack and not xml and all[stack[-1]].name == "p" and token.name not in INLINE | VOID | OPAQUE_INLINE:
                pop(i)
            if (token.name in VOID and not xml) or (token.is_closed and (xml or token.name in ("svg", "math"))):
                ends[i] = i
                continue
            stack.append(i)
            count[token.name] = count.get(token.name, 0) + 1
        elif token.kind == "close" and count.get(token.name):
            while all[stack[-1]].name != token.name:
                pop(i)
            pop(i)
    return ends
