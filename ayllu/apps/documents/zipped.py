"""Formats that are zip files (DOCX, XLSX, EPUB), opened with care: bombs, encryption, entities, damage."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ayllu.apps.documents.document import Limits, Unreadable

_OLE = bytes.fromhex("d0cf11e0a1b11ae1")                 # Microsoft's older container: .doc, .xls, and encrypted files
_HEAD = 2**16                                            # bytes of an XML part before whose end its first tag must be
_FIRST_TAG = re.compile(rb"<\x00?[A-Za-z_]")
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, KeyError)


@contextmanager
def opened(path: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """The zip file, checked before anything is unpacked. Python's zipfile never gives more bytes than a part claims."""
    with open(path, "rb") as file:
        if file.read(8) == _OLE:
            raise Unreadable("is encrypted with a password, or of an older Office format under a new suffix: open it "
                             "in the program that it is from and save it without a password")
    try:
        with zipfile.ZipFile(path) as whole:
            _check(whole, limits)
            yield whole
    except DAMAGED as error:
        raise Unreadable(f"is damaged, or no {path.suffix[1:].upper()} ({error or type(error).__name__}): save it "
                         "anew with the program that it is from") from error


def _check(whole: zipfile.ZipFile, limits: Limits) -> None:
    parts = whole.infolist()
    if len(parts) > limits.parts:
        raise Unreadable(f"{len(parts):,} parts inside, the most is {limits.parts:,}")
    total = sum(part.file_size for part in parts)
    if total > limits.unpacked_bytes:
        raise Unreadable(f"unpacks to {total:,} bytes, the most is {limits.unpacked_bytes:,}: it may be a zip bomb")
    for part in parts:
        if part.flag_bits & 1:
            raise Unreadable("is encrypted: save it without a password")
        if part.file_size > 2**20 and part.file_size > limits.unpacked_ratio * max(part.compress_size, 1):
            raise Unreadable(f"{part.filename!r} inside unpacks to {part.file_size:,} bytes, "
                             f"{part.file_size // max(part.compress_size, 1):,} times its size: it may be a zip bomb")


def refuse_entities(whole: zipfile.ZipFile) -> None:
    """Office's XML has no document type: one that has brings entities, which grow or fetch files when resolved."""
    for part in whole.infolist():
        if part.filename.lower().endswith((".xml", ".rels")):
            with whole.open(part) as file:
                head = file.read(_HEAD)
            first = _FIRST_TAG.search(head)
            if b"<!" in re.sub(rb"<!--.*?-->", b"", head[:first.start() if first else None].replace(b"\0", b""),
                               flags=re.DOTALL) or (not first and len(head) == _HEAD):
                raise Unreadable(f"{part.filename!r} inside declares entities, which no Office file does: it isn't "
                                 "read, for it may be made to do harm")
