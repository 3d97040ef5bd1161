"""PDF by pypdf, page by page; the lines of a page become paragraphs again."""

import logging
import math
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ayllu.apps.documents.document import Clock, Document, Limits, Unreadable, joined
from ayllu.errors import MissingExtra, extra

_ENDS = tuple("。！？；：.!?;:”」』)）")
# A font has one glyph for a radical and the character, and a file may name either: ⻛ is written for 风
_RADICALS = {c: unicodedata.normalize("NFKC", chr(c)) for c in range(0x2F00, 0x2FD6)} | str.maketrans(
    "⺟⺠⻄⻅⻆⻉⻋⻑⻓⻔⻘⻙⻚⻛⻜⻝⻢⻣⻤⻥⻦⻧⻨⻩⻬⻮⻰⻳",
    "母民西见角贝车長长门青韦页风飞食马骨鬼鱼鸟卤麦黄齐齿龙龟")
_WIDE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")


def read_pdf(path: Path, limits: Limits, clock: Clock) -> Document:
    """Encrypted files are tried with the empty password, which opens those that only forbid printing or copying."""
    notes: list[str] = []
    with _opened(path, limits) as reader:
        text, starts = joined(_pages(reader, notes), limits, clock)
        title = str(reader.metadata.title or "") if reader.metadata else ""
    return Document(text, "pdf", title.strip()[:300], starts, tuple(notes))


def pictures(path: Path, limits: Limits) -> Iterator[tuple[str, bytes | str]]:
    """The pictures on the pages by their places: their bytes as a file of their own, or why they can't be read."""
    clock = limits.clock()
    with _opened(path, limits) as reader:
        for number, page in enumerate(reader.pages, start=1):
            for n, key in enumerate(page.images.keys(), start=1):
                clock.check()
                try:
                    found: bytes | str = page.images[key].data
                except Exception as error:               # as below
                    found = f"it can't be decoded ({type(error).__name__}: {str(error)[:120]})"
                yield f"page {number}, picture {n}", found


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[Any]:
    """A reader; what it raises while it is used is told, too."""
    with extra("documents", "reading PDF"):
        import pypdf
    logging.getLogger("pypdf").setLevel(logging.ERROR)   # it warns of every fault that it mends
    try:
        reader = pypdf.PdfReader(path, strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("is encrypted with a password: save it without one")
        n_pages = len(reader.pages)
        if n_pages > limits.pages:
            raise Unreadable(f"{n_pages:,} pages, the most is {limits.pages:,}: cut it into smaller documents")
        yield reader
    except (Unreadable, MemoryError, RecursionError):
        raise
    except pypdf.errors.DependencyError as error:
        raise MissingExtra(f"this PDF needs another package ({error}): pip install cryptography") from error
    except Exception as error:                           # pypdf lets through whatever a damaged file brings about
        raise Unreadable(f"is damaged, or no PDF ({type(error).__name__}: {str(error)[:120]}): download or save it "
                         "anew") from error


def _pages(reader: Any, notes: list[str]) -> Iterator[str]:
    for number, page in enumerate(reader.pages, start=1):
        try:
            yield paragraphs(page.extract_text() or "")
        except (MemoryError, RecursionError, Unreadable):
            raise
        except Exception as error:
            notes.append(f"page {number} can't be read ({type(error).__name__})")
            yield ""


def paragraphs(page: str) -> str:
    """Lines that were broken by the page's width are joined: without a space between Chinese characters, and without
    the hyphen that breaks a word. A line that ends a sentence or is clearly short ends its paragraph."""
    lines = [" ".join(line.split()) for line in page.translate(_RADICALS).split("\n")]
    widths = sorted(width for line in lines if (width := _width(line)))
    full = 0.75 * widths[math.ceil(0.8 * (len(widths) - 1))] if widths else 0
    out: list[str] = []
    goes_on = False
    for line in lines:
        if not line:
            goes_on = False
        elif goes_on and out:
            out[-1] = _join(out[-1], line)
        else:
            out.append(line)
        if line:
            goes_on = _width(line) >= full and not (line.endswith(_ENDS) and _width(line) < full / 0.75 * 0.9)
    return "\n".join(out)


def _width(line: str) -> int:
    return len(line) + len(_WIDE.findall(line))


def _join(a: str, b: str) -> str:
    if _WIDE.match(a[-1]) or _WIDE.match(b[0]):
        return a + b
    if a.endswith("-") and len(a) > 1 and a[-2].isalpha() and b[0].islower():
        return a[:-1] + b
    return f"{a} {b}"
