"""DOCX by python-docx and XLSX by openpyxl, the text and values only: no macros, links or pictures are followed."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ayllu.apps.documents.document import Clock, Document, Limits, Unreadable, clean, joined
from ayllu.apps.documents.plain import rows_as_lines
from ayllu.apps.documents.zipped import DAMAGED, opened, refuse_entities
from ayllu.errors import extra


def read_docx(path: Path, limits: Limits, clock: Clock) -> Document:
    """Paragraphs and tables in their order; headers, footers, notes and comments are left out."""
    with extra("documents", "reading DOCX"):
        import docx
        from docx.opc.exceptions import PackageNotFoundError
        from lxml.etree import XMLSyntaxError
    with opened(path, limits) as whole:
        refuse_entities(whole)
    try:
        file = docx.Document(str(path))
        text = clean("\n".join(_blocks(file, limits, clock, 0)))
        title = file.core_properties.title or ""
    except (PackageNotFoundError, XMLSyntaxError, ValueError, AttributeError, *DAMAGED) as error:
        raise Unreadable(f"is damaged, or no DOCX ({str(error)[:120]})") from error
    return Document(text, "docx", title.strip()[:300])


def _blocks(holder: Any, limits: Limits, clock: Clock, depth: int) -> Iterator[str]:
    """The lines of a document or a cell; a row of a table is one line, with its cells apart."""
    if depth > limits.depth:
        raise Unreadable(f"tables nested more than {limits.depth} deep")
    for block in holder.iter_inner_content():
        clock.check()
        if hasattr(block, "rows"):
            for row in block.rows:
                clock.check()
                cells = {cell._tc: cell for cell in row.cells}           # a merged cell stands for several
                said = (" ".join("\n".join(_blocks(one, limits, clock, depth + 1)).split()) for one in cells.values())
                if line := " | ".join(text for text in said if text):
                    yield line
        elif block.text.strip():
            level = (block.style.name or "").removeprefix("Heading ") if block.style is not None else ""
            yield "#" * int(level) + " " + block.text if level.isdecimal() and level != "0" else block.text


def read_xlsx(path: Path, limits: Limits, clock: Clock) -> Document:
    """Each sheet is a page that begins with its name; each row a line as in plain.py. Values, not formulas."""
    with extra("documents", "reading XLSX"):
        import openpyxl
    notes: list[str] = []
    with opened(path, limits) as whole:
        refuse_entities(whole)
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
