"""DOCX by python-docx and XLSX by openpyxl, the text and values only: no macros, links or pictures are followed."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ayllu.apps.documents.document import Clock, Document, Limits, Unreadable, clean, joined
from ayllu.apps.documents.plain import rows_as_lines
from ayllu.apps.documents.zipped import DAMAGED, opened, refuse_entities
from ayllu.errors import extra

UNSAVED = re.compile(rb"(?:</f>|<f[^<>]*/>)(?:<v\s*/>|<v></v>)?</c>")         # a formula alone
AROUND = ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag")     # what may stand around what is read


def read_docx(path: Path, limits: Limits, clock: Clock) -> Document:
    """Paragraphs, tables and text boxes in their order, then notes; headers, footers and comments are left out."""
    with extra("documents", "reading DOCX"):
        import docx
        from docx.opc.exceptions import PackageNotFoundError
        from docx.oxml import parse_xml
        from lxml.etree import XMLSyntaxError
    with opened(path, limits) as whole:
        refuse_entities(whole)
    try:
        file = docx.Document(str(path))
        levels = {style.style_id: (style.name or "").removeprefix("Heading ") for style in file.styles}
        notes = [note for part in file.part.package.iter_parts() if part.partname.endswith("notes.xml")
                 for note in _within(parse_xml(part.blob), "footnote", "endnote")]
        text = clean("\n".join(line for element in (file.element.body, *notes)
                               for line in _blocks(element, levels, limits, clock, 0)))
        title = file.core_properties.title or ""
    except (PackageNotFoundError, XMLSyntaxError, ValueError, AttributeError, *DAMAGED) as error:
        raise Unreadable(f"is damaged, or no DOCX ({str(error)[:120]})") from error
    return Document(text, "docx", title.strip()[:300])


def _within(element: Any, *names: str) -> Iterator[Any]:
    """Parts of these names, those in content controls and tracked changes too."""
    for child in element.iterchildren("{*}*"):
        if (name := child.tag.rpartition("}")[2]) in names:
            yield child
        elif name in AROUND:
            yield from _within(child, *names)


def _blocks(holder: Any, levels: dict[str, str], limits: Limits, clock: Clock, depth: int) -> Iterator[str]:
    """The lines of a document or a cell; a row of a table is one line, with its cells apart."""
    if depth > limits.depth:
        raise Unreadable(f"tables nested more than {limits.depth} deep")
    for block in _within(holder, "p", "tbl"):
        clock.check()
        above: dict[int, str] = {}                       # by column: cells merged downwards speak for each row
        for row in _within(block, "tr"):
            clock.check()
            column, cells = 0, []
            for cell in _within(row, "tc"):
                if cell.vMerge != "continue":
                    above[column] = " ".join(" ".join(_blocks(cell, levels, limits, clock, depth + 1)).split())
                cells.append(above.get(column, ""))
                column += cell.grid_span
            if line := " | ".join(filter(None, cells)):
                yield line
        boxes: list[Any] = []
        if (said := "".join(_said(block, boxes))).strip():
            level = levels.get(block.style or "", "")
            yield "#" * int(level) + " " + said if level.isdecimal() and level != "0" else said
        for box in boxes:
            yield from _blocks(box, levels, limits, clock, depth + 1)


def _said(element: Any, boxes: list[Any]) -> Iterator[str]:
    """The words of a paragraph, what tracked changes added too; its text boxes are put aside."""
    for child in element.iterchildren("{*}*"):
        match child.tag.rpartition("}")[2]:
            case "t":
                yield child.text or ""
            case "tab" | "br" | "cr" | "noBreakHyphen" as name:
                yield {"tab": "\t", "noBreakHyphen": "-"}.get(name, "\n")
            case "txbxContent":
                boxes.append(child)
            case name if name not in ("pPr", "rPr", "Fallback", "del", "moveFrom", "tr"):
                yield from _said(child, boxes)


def read_xlsx(path: Path, limits: Limits, clock: Clock) -> Document:
    """Each sheet is a page that begins with its name; each row a line as in plain.py. Values, not formulas."""
    with extra("documents", "reading XLSX"):
        import openpyxl
    with opened(path, limits) as whole:
        refuse_entities(whole)
        n = sum(len(UNSAVED.findall(whole.read(part))) for part in whole.namelist() if "/worksheets/" in part)
    notes = [f"{n} formulas have no saved value: save it in a spreadsheet program, which works them out"] if n else []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")              # of styles and extensions that it doesn't know
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            try:
                text, pages = joined(_sheets(book, limits, clock, notes), limits, clock)
                title = book.properties.title or ""
            finally:
                book.close()
    except (Unreadable, MemoryError, RecursionError, OSError):
        raise
    except Exception as error:                           # openpyxl lets through whatever a damaged file brings about
        raise Unreadable(f"is damaged, or no XLSX ({type(error).__name__}: {str(error)[:120]})") from error
    return Document(text, "xlsx", title.strip()[:300], pages, tuple(notes))


def _sheets(book: Any, limits: Limits, clock: Clock, notes: list[str]) -> Iterator[str]:
    for sheet in book.worksheets:
        sheet.reset_dimensions()                         # what a file says of its own size may be anything
        rows = rows_as_lines(sheet.iter_rows(values_only=True), limits, clock, notes)
        yield "\n".join((f"# {sheet.title}", *rows))
