"""One document from a file, by its suffix. `read_document` raises Unreadable with what a person can do about it."""

from pathlib import Path

from ayllu.apps.documents.book import read_epub
from ayllu.apps.documents.document import Document, Limits, Unreadable, check_length
from ayllu.apps.documents.office import read_docx, read_xlsx
from ayllu.apps.documents.pdf import read_pdf
from ayllu.apps.documents.plain import read_csv, read_html, read_markdown, read_text
from ayllu.errors import AylluError

READERS = {
    ".txt": read_text, ".text": read_text, ".log": read_text, ".md": read_markdown, ".markdown": read_markdown,
    ".html": read_html, ".htm": read_html, ".xhtml": read_html, ".pdf": read_pdf, ".docx": read_docx,
    ".csv": read_csv, ".tsv": read_csv, ".xlsx": read_xlsx, ".epub": read_epub,
}
_OLD = {".doc": "DOCX", ".xls": "XLSX", ".ppt": "PDF", ".pptx": "PDF", ".rtf": "DOCX", ".odt": "DOCX", ".ods": "XLSX"}


def read_document(path: str | Path, limits: Limits | None = None) -> Document:
    """The text of a file with its pages."""
    path, limits = Path(path), limits or Limits()
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise Unreadable(_unknown(path.suffix.lower()))
    try:
        size = path.stat().st_size
        if size == 0:
            raise Unreadable("the file is empty")
        if size > limits.file_bytes:
            raise Unreadable(f"{size:,} bytes, the most is {limits.file_bytes:,}: cut it into smaller documents")
        document = reader(path, limits, limits.clock())
    except AylluError:
        raise
    except OSError as error:
        raise Unreadable(f"can't be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise Unreadable("needs more memory than there is: cut it into smaller documents") from error
    except RecursionError as error:
        raise Unreadable("is nested too deeply: save it anew with the program that it is from") from error
    check_length(len(document.text), limits)
    if not document.text.strip():
        raise Unreadable("; ".join((_EMPTY.get(document.kind, "holds no text"), *document.notes)))
    return document


_EMPTY = {"pdf": "holds no text, perhaps only pictures of pages: run a text recognition (OCR) over it first"}


def _unknown(suffix: str) -> str:
    known = ", ".join(READERS)
    if suffix in _OLD:
        return f"{suffix} can't be read: save it as {_OLD[suffix]} (known are {known})"
    return f"don't know how to read {suffix or 'a file without a suffix'}; known are {known}"
