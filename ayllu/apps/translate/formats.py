"""The one table of formats, and bytes as text and back: what is not translated keeps its bytes."""

import codecs
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath

from ayllu.apps.translate import bilingual, docx, files, markdown, pages, po
from ayllu.apps.translate.splice import Segment
from ayllu.data.encodings import MOST_BAD, japanese_or_korean
from ayllu.errors import DataError


def _same(source: str, to: str) -> str:
    return source


@dataclass(frozen=True)
class Format:
    """How the texts of a kind of file are found; `prepare` names the target language where the format does."""

    name: str
    suffixes: tuple[str, ...]
    split: Callable[[str], list[Segment]]
    prepare: Callable[[str, str], str] = _same
    beside: Callable[[Segment, str, str, str, str], str] | None = None       # (segment, old, new, from, to)
    finish: Callable[[str], str] | None = None           # of a bilingual file
    unencodable: str = "strict"                          # the codec's way with letters that the encoding hasn't


FORMATS = (
    Format("html", (".html", ".htm"), pages.split_html, pages.set_language, bilingual.beside_html, bilingual.style_html,
           "xmlcharrefreplace"),
    Format("xhtml", (".xhtml", ".xht"), partial(pages.split_html, xml=True), pages.set_language, bilingual.beside_html,
           bilingual.style_html, "xmlcharrefreplace"),
    Format("markdown", (".md", ".markdown"), markdown.split_markdown, beside=bilingual.beside_markdown),
    Format("text", (".txt", ".text"), files.split_text, beside=bilingual.beside_lines, finish=bilingual.even_lines),
    Format("subtitles", (".srt", ".vtt"), files.split_subtitles, beside=bilingual.beside_lines,
           finish=bilingual.even_lines),
    Format("json", (".json",), files.split_json),
    Format("po", (".po", ".pot"), po.split_po, po.prepare),
    Format("docx", (".docx",), docx.split_docx, beside=bilingual.beside_docx),
)
SUFFIXES = tuple(suffix for one in FORMATS for suffix in one.suffixes)
_META = re.compile(rb"<meta[^>]{0,400}?charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
_XML = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]+)")
_PO = re.compile(rb"Content-Type:[^\n]{0,100}charset=([\w.:-]+)")
LABELS = {"iso-8859-1": "cp1252", "latin-1": "cp1252", "latin1": "cp1252", "ascii": "cp1252", "us-ascii": "cp1252",
          "gb2312": "gb18030", "gbk": "gb18030", "gb_2312-80": "gb18030", "x-gbk": "gb18030",
          "utf8": "utf-8", "big5": "big5hkscs", "shift_jis": "cp932", "x-sjis": "cp932", "euc-kr": "cp949",
          "ks_c_5601-1987": "cp949"}                     # as browsers take them (WHATWG Encoding)
MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def format_of(name: str, kind: str | None = None) -> Format:
    """By its name's ending, or by the media type that came with it."""
    suffix = PurePath(name.lower()).suffix
    if kind is not None and "html" in kind:
        suffix = ".html" if suffix not in (".xhtml", ".xht") else suffix
    for one in FORMATS:
        if suffix in one.suffixes:
            return one
    raise DataError(f"{name}: files that end in {suffix or 'nothing'} aren't translated; {', '.join(SUFFIXES)} are")


@dataclass(frozen=True)
class Text:
    """Decoded bytes; `note` says where they weren't what they declare."""

    text: str
    encoding: str
    note: str = ""


def decode(raw: bytes, header: str | None = None) -> Text:
    """Text that gives the same bytes again. First what the bytes begin with, then what they declare, then UTF-8, then
    what Chinese and Western files have been written in; bytes of no encoding stay as they are."""
    for mark, encoding in MARKS:
        if raw.startswith(mark):
            return Text(_exact(raw, encoding) or _lossless(raw), encoding)
    if b"\0" in raw[:4096]:
        raise DataError("this isn't text: it holds zero bytes")
    declared = _declared(raw, header)
    for encoding in dict.fromkeys([*([declared] if declared else []), "utf-8"]):
        if (text := _exact(raw, encoding)) is not None:
            return Text(text, encoding, f"declared as {declared}, read as utf-8" if encoding != (declared or encoding)
                        else "")
    bad = _lossless(raw)
    n_bad = sum("\udc80" <= c <= "\udcff" for c in bad)
    if n_bad <= MOST_BAD * len(bad):
        return Text(bad, "utf-8", f"{n_bad} bytes are no UTF-8; they were kept as they are")
    said = f"declared as {declared}" if declared else "no encoding is declared"
    for encoding in filter(None, (japanese_or_korean(raw), "gb18030", "cp1252")):
        text = _exact(raw, encoding)
        if text is not None and (encoding != "gb18030" or _is_chinese(text)):
            return Text(text, encoding, f"{said}, read as {encoding}")
    return Text(bad, "utf-8", f"{n_bad} bytes are no UTF-8; they were kept as they are")


def names_no_encoding(raw: bytes) -> bool:
    """Whether a whole page of ASCII leaves the encoding to the browser's guess, which is right for ASCII alone."""
    start = raw[:4096].lower()
    is_page = any(mark in start for mark in (b"<!doctype", b"<html", b"<head"))
    return is_page and raw.isascii() and not _META.search(start)


def encode(text: str, like: Text, unencodable: str) -> tuple[bytes, str]:
    """The bytes, in the source's encoding; where it lacks letters of the target language, as references (HTML), or all
    of it as UTF-8, with a note."""
    try:
        return text.encode(like.encoding, "surrogateescape"), ""
    except UnicodeEncodeError:
        if unencodable == "xmlcharrefreplace":
            return b"".join(_referenced(c, like.encoding) for c in text), ""
        return text.encode("utf-8", "surrogateescape"), f"written as UTF-8, for {like.encoding} lacks its letters"


def _referenced(character: str, encoding: str) -> bytes:
    try:
        return character.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return character.encode(encoding, "xmlcharrefreplace")


def _declared(raw: bytes, header: str | None) -> str | None:
    found = next((m.group(1).decode("ascii", "replace") for m in
                  (p.search(raw[:4096]) for p in (_XML, _META, _PO)) if m), None)
    label = (header or found or "").lower()
    label = LABELS.get(label, label)
    try:
        codecs.lookup(label)
    except LookupError:
        return None
    return None if label.startswith(("utf-16", "utf-32", "utf_16", "utf_32")) else label


def _exact(raw: bytes, encoding: str) -> str | None:
    try:
        text = raw.decode(encoding)
        return text if text.encode(encoding) == raw else None
    except (UnicodeError, LookupError):
        if encoding != "cp1252":
            return None
        text = raw.decode(encoding, "surrogateescape")   # five bytes have no letter there
        return text if text.encode(encoding, "surrogateescape") == raw else None


def _lossless(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _is_chinese(text: str) -> bool:
    other = [c for c in text if c > "\x7f"]
    return sum("一" <= c <= "鿿" or c in "，。、；：？！“”（）" for c in other) > 0.7 * max(1, len(other))


def unique(notes: Sequence[str]) -> list[str]:
    """Notes that say something, each once."""
    return list(dict.fromkeys(filter(None, notes)))
