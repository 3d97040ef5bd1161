"""One file made ready for the index: read, hashed, cut, its words found. `python -m` runs it as a worker of pool.py.

A worker is asked in lines of JSON and answers in lines of JSON; what it imports has no torch, so it starts in a moment.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

from ayllu.apps.documents.document import Document, Limits, Unreadable
from ayllu.apps.documents.read import read_document
from ayllu.apps.index.cut import COLUMNS, cut, page_of
from ayllu.apps.index.words import words
from ayllu.data.duplicates import Duplicates, fingerprint, signature
from ayllu.errors import MissingExtra
from ayllu.files import sha256

MEMORY = 6 * 2**30                                       # bytes of addresses that a worker may take
ALIKE = Duplicates(threshold=0.8)


@dataclass(frozen=True)
class Ask:
    """What a worker is asked: a file, what the index knows of it, and how it is cut."""

    path: str
    digest: str                                          # of the file when it was read last; "" at first
    columns: int
    limits: dict[str, Any]


@dataclass(frozen=True)
class Chunk:
    """A part of a document, and the words it is found by, with spaces between."""

    start: int
    end: int
    page: int | None
    words: str


@dataclass(frozen=True)
class Prepared:
    """A document with everything that the index keeps of it; only the digest where the file is still the same."""

    digest: str
    is_same: bool = False
    kind: str = ""
    title: str = ""
    text: str = ""
    pages: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    fingerprint: str = ""                                # hexadecimal, as `signature`: by which doubles are found
    signature: str = ""


def prepare(ask: Ask) -> Prepared:
    """Raises Unreadable, or MissingExtra."""
    digest = _digest(ask.path)
    if digest == ask.digest:
        return Prepared(digest, is_same=True)
    return prepared(read_document(ask.path, Limits(**ask.limits)), digest, ask.columns)


def prepared(document: Document, digest: str, columns: int = COLUMNS) -> Prepared:
    """A document that is read."""
    text = document.text
    chunks = tuple(Chunk(a, b, page_of(a, document.pages), " ".join(words(text[a:b])))
                   for a, b in cut(text, document.pages, columns))
    return Prepared(digest, False, document.kind, document.title, text, document.pages, document.notes, chunks,
                    fingerprint(text).hex(), _signature(text))


def _digest(path: str) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise Unreadable(f"can't be read ({error.strerror or error})") from error


def _signature(text: str) -> str:
    try:
        return signature(text, ALIKE).tobytes().hex()
    except MissingExtra:                                 # without datasketch only exact doubles are recognised
        return ""


def main() -> None:
    """Answer one line after another until stdin ends. What a library prints can't come between: stdout is moved."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _limit_memory()
    for line in sys.stdin:
        ask = Ask(**json.loads(line))
        try:
            said: dict[str, Any] = {"prepared": asdict(prepare(ask))}
        except (Unreadable, MissingExtra) as error:
            said = {"unreadable": str(error)}
        except (MemoryError, RecursionError) as error:
            said = {"unreadable": f"took too much memory to read ({type(error).__name__})"}
        except Exception as error:                       # one file's fault mustn't end the others' work
            said = {"unreadable": f"reading it failed ({type(error).__name__}: {str(error)[:200]})"}
        answers.write(json.dumps(said) + "\n")
        answers.flush()


def as_prepared(said: dict[str, Any]) -> Prepared:
    """What a worker answered."""
    chunks = tuple(Chunk(**chunk) for chunk in said["chunks"])
    return Prepared(**{**said, "pages": tuple(said["pages"]), "notes": tuple(said["notes"]), "chunks": chunks})




def _limit_memory() -> None:
    try:
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, ValueError, OSError):           # not everywhere: then the machine's memory is the limit
        pass


if __name__ == "__main__":
    main()
