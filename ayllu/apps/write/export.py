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
    """("h1" to "h6", [line]), ("list", [items]) and ("p", [lines]), in their order."""
    for part in re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip("\n")):
        kind = "p"
        lines: list[str] = []
        for line in part.split("\n"):
            heading = re.match(r"(#{1,6})\s+(.*)", line)
            item = re.match(r"\s*[-*+]\s+(.*)", line)
            new = f"h{len(heading[1])}" if heading else "list" if item else "p"
            if (new != kind or heading) and lines:
                yield kind, lines
                lines = []
            kind = new
            lines.append(heading[2] if heading else item[1] if item else line)
        if any(line.strip() for line in lines):
            yield kind, lines


def _html(text: str, title: str) -> str:
    parts = []
    for kind, lines in blocks(text):
        safe = [_STRONG.sub(r"<strong>\1</strong>", html.escape(line)) for line in lines]
        if kind == "list":
            parts.append("<ul>" + "".join(f"<li>{line}</li>" for line in safe) + "</ul>")
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
        elif kind == "p":
            _runs(document.add_paragraph(), "\n".join(lines))
        else:
            _runs(document.add_heading(level=int(kind[1])), lines[0])
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def _runs(paragraph: Any, text: str) -> None:
    for number, piece in enumerate(_STRONG.split(_xml(text))):
        if piece:
            paragraph.add_run(piece).bold = True if number % 2 else None


def _xml(text: str) -> str:
    """Without the characters that XML 1.0 can't hold."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)
