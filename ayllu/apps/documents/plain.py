"""Text, Markdown, web pages and CSV: what needs no unpacking. Encodings are found by ayllu/data/encodings.py."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ayllu.apps.documents.document import Clock, Document, Limits, Unreadable, check_length, clean
from ayllu.data.encodings import MOST_BAD, decode, guess, guess_page, japanese_or_korean
from ayllu.data.html import html_text
from ayllu.data.rows import BadRow

_TITLE = re.compile(r"<title[^>]*>(.{0,300}?)</title", re.IGNORECASE | re.DOTALL)
_HEADING = re.compile(r"^#{1,3} +(.+?)[ #]*$", re.MULTILINE)
_DELIMITERS = ",;\t|"


def read_text(path: Path, limits: Limits, clock: Clock) -> Document:
    """The text as it stands in the file, so that places in it are places in the file."""
    text, notes = _decoded(path.read_bytes())
    return Document(text, "text", notes=notes)


def read_markdown(path: Path, limits: Limits, clock: Clock) -> Document:
    """As it stands in the file, too; the title is the first heading."""
    text, notes = _decoded(path.read_bytes())
    heading = _HEADING.search(text)
    return Document(text, "markdown", heading[1] if heading else "", notes=notes)


def read_html(path: Path, limits: Limits, clock: Clock) -> Document:
    """The main part of a page, without menus and scripts."""
    data = path.read_bytes()
    if len(data) > limits.html_bytes:
        raise Unreadable(f"{len(data):,} bytes of HTML, the most is {limits.html_bytes:,}: cut it into smaller pages, "
                         "or save its text")
    page, notes = _decoded(data, is_page=True)
    return Document(clean(html_text(page, rows=True)), "html", title_of(page), notes=notes)


def title_of(page: str) -> str:
    """What stands in `<title>`."""
    found = _TITLE.search(page[:100_000])
    return " ".join(html_text(f"<p>{found[1]}").split()) if found else ""


def read_csv(path: Path, limits: Limits, clock: Clock) -> Document:
    """Each row as one line, `column: value; column: value`, so that a row says by itself what it is about."""
    csv.field_size_limit(limits.file_bytes)
    text, said = _decoded(path.read_bytes())
    first = text.lstrip().partition("\n")[0]
    delimiter = max(_DELIMITERS, key=lambda d: (first.count(d), -_DELIMITERS.index(d)))
    notes = [*said]
    try:
        lines = rows_as_lines(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), limits, clock, notes)
        return Document(clean("\n".join(lines)), "csv", notes=tuple(notes))
    except csv.Error as error:
        raise Unreadable(f"not valid CSV ({error})") from error


def rows_as_lines(rows: Iterable[Iterable[object]], limits: Limits, clock: Clock, notes: list[str]) -> Iterator[str]:
    """The first row that holds something names the columns. Cells are cut at a limit, which `notes` tell."""
    header: list[str] | None = None
    n_cells = n_characters = n_cut = 0
    for row in rows:
        clock.check()
        cells = [" ".join(str(cell).removesuffix(" 00:00:00").split()) if cell is not None else "" for cell in row]
        n_cut += sum(len(cell) > limits.cell for cell in cells)
        cells = [cell[:limits.cell] for cell in cells]
        n_cells += len(cells)
        if n_cells > limits.cells:
            raise Unreadable(f"more than {limits.cells:,} cells: cut it into smaller tables")
        if not any(cells):
            continue
        if header is None:
            header = cells
            line = " | ".join(filter(None, cells))
        else:
            names = [*header, *[""] * (len(cells) - len(header))]
            line = "; ".join(f"{name}: {cell}" if name else cell for name, cell in zip(names, cells, strict=False)
                             if cell)
        n_characters += len(line) + 1
        check_length(n_characters, limits)
        yield line
    if n_cut:
        notes.append(f"{n_cut} cell{'s were' if n_cut > 1 else ' was'} cut after {limits.cell:,} characters")


def _decoded(data: bytes, is_page: bool = False) -> tuple[str, tuple[str, ...]]:
    """The text and what there is to say of its bytes: a few bad ones cost no document."""
    encoding, notes = (guess_page if is_page else guess)(data), tuple[str, ...]()
    try:
        text = decode(data, encoding)
    except BadRow as error:
        other = japanese_or_korean(data)
        text = data.decode(other or encoding, "replace")
        n = text.count("\ufffd")
        if n > MOST_BAD * len(text):
            raise Unreadable(f"its encoding isn't known ({str(error).partition(':')[0]}): save it as UTF-8") from error
        notes = tuple(note for note, is_so in (
            (f"no encoding is declared, read as {other}", other),
            (f"{n} byte{'s' if n > 1 else ''} of another encoding became \ufffd: save it as UTF-8", n)) if is_so)
    text, start = clean(text), text[:100_000]
    if sum(start.count(c) for c in map(chr, (0, 1, 2, 3))) > len(start) // 100:
        raise Unreadable("is no text, but bytes of a program or a picture: give it the suffix that it should have")
    return text, notes
