"""A text in Markdown (headings, lists, strong words) as a file: Markdown, HTML, DOCX. All else stays text."""

import html
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ayllu.apps.write.measure import language_of
from ayllu.errors import extra

Format = Literal["md", "html", "docx"]
_STRONG = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")      # larger models write it
_PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def export(text: str, form: Format, title: str = "") -> bytes:
    """The bytes of the file."""
    match form:
        case "md":
            return text.encode("utf-8", "replace")
        case "html":
            return _html(text, title).encode("utf-8", "replace")
        case "docx":
            return _docx(text, title)


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """("h1" to "h6", [line]), ("list", [items]), ("numbers 3", [items from 3 on]), ("p", [lines]), in their order."""
    for part in re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip("\n")):
        kind = "p"
        lines: list[str] = []
        for line in part.split("\n"):
            heading = re.match(r"(#{1,6})\s+(.*)", line)
            item = re.match(r"\s*[-*+]\s+(.*)", line)
            number = re.match(r"\s*(\d{1,3})[.)]\s+(.*)", line)
            if number and kind == "p" and lines and number[1] != "1":        # within a paragraph, as CommonMark has it
                number = None
            new = f"h{len(heading[1])}" if heading else "list" if item else "p"
            if number:
                new = kind if kind.startswith("numbers") else f"numbers {number[1]}"
            if (new != kind or heading) and lines:
                yield kind, lines
                lines = []
            kind = new
            lines.append(number[2] if number else heading[2] if heading else item[1] if item else line)
        if any(line.strip() for line in lines):
            yield kind, lines


def _html(text: str, title: str) -> str:
    parts = []
    for kind, lines in blocks(text):
        safe = [_STRONG.sub(r"<strong>\1</strong>", html.escape(line)) for line in lines]
        if kind == "list":
            parts.append("<ul>" + "".join(f"<li>{line}</li>" for line in safe) + "</ul>")
        elif kind.startswith("numbers"):
            parts.append(f'<ol start="{kind[8:]}">' + "".join(f"<li>{line}</li>" for line in safe) + "</ol>")
        else:
            parts.append(f"<{kind}>" + "<br>\n".join(safe) + f"</{kind}>")
    language = "zh-CN" if language_of(text) == "zh" else "en"
    return _PAGE.format(language=language, title=html.escape(title), body="\n".join(parts))


def _docx(text: str, title: str) -> bytes:
    with extra("documents", "writing DOCX"):
        import docx
    document = docx.Document()
    document.core_properties.title = _xml(title)[:255]
    document.core_properties.author = ""
    for kind, lines in blocks(text):
        if kind == "list":
            for line in lines:
                _runs(document.add_paragraph(style="List Bullet"), line)
        elif kind.startswith("numbers"):
            _numbered(document, lines, int(kind[8:]))
        elif kind == "p":
            _runs(document.add_paragraph(), "\n".join(lines))
        else:
            _runs(document.add_heading(level=int(kind[1])), lines[0])
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def _numbered(document: Any, lines: list[str], start: int) -> None:
    """A list that counts by itself from `start`: all lists of the style would count on from each other."""
    numbering, style = document.part.numbering_part.element, document.styles["List Number"].element
    number = numbering.add_num(numbering.num_having_numId(style.pPr.numPr.numId.val).abstractNumId.val)
    number.add_lvlOverride(ilvl=0).add_startOverride(start)
    for line in lines:
        paragraph = document.add_paragraph(style="List Number")
        paragraph._p.get_or_add_pPr().get_or_add_numPr().get_or_add_numId().val = number.numId
        _runs(paragraph, line)


def _runs(paragraph: Any, text: str) -> None:
    for number, piece in enumerate(_STRONG.split(_xml(text))):
        if piece:
            paragraph.add_run(piece).bold = True if number % 2 else None


def _xml(text: str) -> str:
    """Without the characters that XML 1.0 can't hold."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)
