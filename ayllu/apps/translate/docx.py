"""DOCX: words of the paragraphs of a ZIP of XML, spliced by place; styles, pictures, fields and all other parts stay.

Word cuts a paragraph into runs, often in the middle of a word. Neighbouring runs of one look are one text here; the
look that most of a paragraph has is its own, and the others are pairs of marks that follow their words. The XML
is never given to a parser, so that no entity can grow in it.
"""

import html
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ayllu.apps.translate.marks import Parts, Tag, has_letters, numbered, tags, words
from ayllu.apps.translate.splice import Segment
from ayllu.errors import DataError

TRANSLATED = re.compile(r"word/(?:document|header\d*|footer\d*|footnotes|endnotes)\.xml")
MOST_BYTES = 300_000_000                                 # of all parts unpacked
MOST_RATIO = 300                                         # unpacked to packed, past a megabyte
_PARAGRAPH = re.compile(r"<w:p(?:\s[^<>]*[^/])?>((?:(?!<w:p[\s>]).)*?)</w:p>", re.DOTALL)       # the innermost ones
_CHILD = re.compile(r"<(?P<name>w:r|w:hyperlink|w:ins)(?:\s[^<>]*[^/])?>.*?</(?P=name)>|<w:pPr>.*?</w:pPr>|<w:pPr/>|"
                    r"<[^<>]*>", re.DOTALL)
_RUN = re.compile(r"<w:r(?:\s[^<>]*[^/])?>(?P<look><w:rPr>.*?</w:rPr>|<w:rPr/>)?(?P<inner>.*?)</w:r>", re.DOTALL)
_TEXT = re.compile(r"\s*(?:<w:lastRenderedPageBreak/>\s*)*<w:t(?:\s[^<>]*)?>([^<]*)</w:t>\s*")
_NOISE = re.compile(r"<w:(?:proofErr|lang|noProof|bCs|iCs|szCs)(?:\s[^<>]*)?/>|\s*w:(?:rsid\w*|hint)=\"[^\"]*\"|"
                    r"<w:rPr/>")


@dataclass(frozen=True)
class Package:
    """A file's parts: which are translated, and all of them as they were."""

    raw: bytes
    parts: dict[str, str]

    def written(self, parts: dict[str, str]) -> bytes:
        """The file with other words in these parts; every other part has its bytes."""
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(self.raw)) as old, zipfile.ZipFile(out, "w") as new:
            for info in old.infolist():
                data = parts[info.filename].encode() if info.filename in parts else old.read(info)
                new.writestr(info, data, info.compress_type)
        return out.getvalue()


def open_docx(raw: bytes) -> Package:
    """The texts of a DOCX; what is no such file, encrypted or a bomb is refused."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as file:
            infos = file.infolist()
            total = sum(info.file_size for info in infos)
            if total > MOST_BYTES or (total > 1_000_000 and total > MOST_RATIO * len(raw)):
                raise DataError(f"the DOCX would unpack to {total:,} bytes from {len(raw):,}: it is refused as a bomb")
            if any(info.flag_bits & 1 for info in infos):
                raise DataError("the DOCX is encrypted: save it without a password")
            found = {info.filename: file.read(info).decode("utf-8") for info in infos
                     if TRANSLATED.fullmatch(info.filename)}
    except (zipfile.BadZipFile, UnicodeDecodeError, EOFError, OSError, NotImplementedError, zlib.error) as error:
        if raw.startswith(b"\xd0\xcf\x11\xe0"):
            raise DataError("this is an old or encrypted Word file: save it as DOCX without a password") from error
        raise DataError(f"this is no readable DOCX ({error}): save it again in Word or LibreOffice") from error
    if "word/document.xml" not in found:
        raise DataError("the ZIP has no word/document.xml, so it is no DOCX")
    return Package(raw, found)


def split_docx(source: str) -> list[Segment]:
    """One segment for each paragraph of one part."""
    if "<!DOCTYPE" in source[:2000] or "<!ENTITY" in source:
        raise DataError("the DOCX declares entities, which Word never does: it is refused")
    return [segment for match in _PARAGRAPH.finditer(source) for segment in _paragraph(source, *match.span(1))]


@dataclass(frozen=True)
class _Run:
    start: int
    end: int
    text: str | None                                     # None: something else than words, kept as it is
    begin: str = ""                                      # XML that opens a text of this look
    close: str = ""

    @property
    def look(self) -> str:
        """The same for runs that look the same."""
        return _NOISE.sub("", self.begin)


def _paragraph(source: str, start: int, end: int) -> list[Segment]:
    groups = _texts_apart(list(_runs(source, start, end)))
    return [segment for group in groups for segment in _segment(group)]


def _runs(source: str, start: int, end: int) -> Iterator[_Run]:
    depth = 0
    for child in _CHILD.finditer(source, start, end):
        raw = child.group()
        if "w:fldChar" in raw or depth:                  # a field, from its beginning to its end
            depth += raw.count('w:fldCharType="begin"') - raw.count('w:fldCharType="end"')
            yield _Run(*child.span(), None)
        elif child.group("name") == "w:r" and (run := _RUN.fullmatch(raw)) and (text := _TEXT.fullmatch(run["inner"])):
            begin = f'<w:r>{run["look"] or ""}<w:t xml:space="preserve">'
            yield _Run(*child.span(), html.unescape(text[1]), begin, "</w:t></w:r>")
        elif child.group("name") == "w:hyperlink" and (link := _link(raw)):
            yield _Run(*child.span(), *link)
        elif not raw.startswith(("<w:proofErr", "<w:lastRendered")):
            yield _Run(*child.span(), None)


def _link(raw: str) -> tuple[str, str, str] | None:
    head = raw[:raw.index(">") + 1]
    inner = raw[len(head):-len("</w:hyperlink>")]
    runs = list(_RUN.finditer(inner))
    texts = [_TEXT.fullmatch(run["inner"]) for run in runs]
    if not runs or not all(texts) or "".join(run.group() for run in runs) != inner:
        return None
    begin = f'{head}<w:r>{runs[0]["look"] or ""}<w:t xml:space="preserve">'
    return html.unescape("".join(t[1] for t in texts if t)), begin, "</w:t></w:r></w:hyperlink>"


def _texts_apart(runs: list[_Run]) -> Iterator[list[_Run]]:
    """Words between things that stay at their place (breaks, tabs, pictures) at both ends; such a thing in the midst of
    words stays among them."""
    group = list(runs)
    while group and group[0].text is None:
        group.pop(0)
    while group and group[-1].text is None:
        group.pop()
    if group:
        yield group


def _segment(group: list[_Run]) -> Iterator[Segment]:
    texts = [run for run in group if run.text is not None]
    sizes: dict[str, int] = {}
    for run in texts:
        sizes[run.look] = sizes.get(run.look, 0) + (0 if "hyperlink" in run.begin else len(run.text or ""))
    base = max(sizes, key=lambda look: sizes[look])
    own = next(run for run in texts if run.look == base)
    if sizes[base] == 0:                                 # links alone: words beside them need a run of their own
        own = _Run(0, 0, "", '<w:r><w:t xml:space="preserve">', "</w:t></w:r>")
    items: list[str | Tag] = []
    for i, run in enumerate(group):
        if run.text is None:
            items.append(Tag("hole", i, run.start, run.end))
        elif run.look == own.look:
            items.append(run.text)
        else:
            items += [Tag("open", i, text=run.begin), run.text, Tag("close", i, text=run.close)]
    parts = numbered(items)
    if has_letters(words(parts)):
        yield Segment(group[0].start, group[-1].end, parts, escaped, "docx", render=_Render(own.begin, own.close))


@dataclass(frozen=True)
class _Render:
    """Parts as runs: words get the look of the pair around them, or the paragraph's own."""

    begin: str
    close: str

    def __call__(self, parts: Parts, original: Callable[[Tag], str]) -> str:
        closes = {tag.number: tag.text or "" for tag in tags(parts) if tag.kind == "close"}
        look, out, said = (self.begin, self.close), "", ""
        for part in (*parts, None):
            if isinstance(part, str) or (part is not None and part.kind == "hole" and part.text is not None):
                said += escaped(part if isinstance(part, str) else part.text or "")
                continue
            out, said = out + (look[0] + said + look[1] if said else ""), ""
            if part is not None and part.kind == "hole":
                out += original(part)
            elif part is not None:
                is_open = part.kind == "open"
                look = (part.text or "", closes[part.number]) if is_open else (self.begin, self.close)
        return out


def escaped(text: str) -> str:
    """Words as XML, without characters that XML has not."""
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
