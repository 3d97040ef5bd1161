"""EPUB: a zip file whose package names its chapters, which are web pages, in reading order (EPUB 3.3, section 5)."""

import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ayllu.apps.documents.document import Clock, Document, Limits, Unreadable, joined
from ayllu.apps.documents.zipped import opened
from ayllu.data.encodings import guess_page
from ayllu.data.html import html_text
from ayllu.errors import extra

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"


def read_epub(path: Path, limits: Limits, clock: Clock) -> Document:
    """Each chapter is a page."""
    with opened(path, limits) as whole:
        rootfile = _tree(whole, _CONTAINER).find(".//{*}rootfile")
        if rootfile is None:
            raise Unreadable("is no EPUB: its container names no package")
        package_name = rootfile.get("full-path", "")
        package = _tree(whole, package_name)
        names = list(_chapters(package, posixpath.dirname(package_name)))
        if len(names) > limits.pages:
            raise Unreadable(f"{len(names):,} chapters, the most is {limits.pages:,}")
        if set(names) & _encrypted(whole):
            raise Unreadable("is encrypted (DRM): only the reader that it was bought for can open it")
        notes: list[str] = []
        text, pages = joined(_texts(whole, names, limits, notes), limits, clock)
        title = package.findtext(".//{http://purl.org/dc/elements/1.1/}title") or ""
    return Document(text, "epub", title.strip()[:300], pages, tuple(notes))


def _texts(whole: zipfile.ZipFile, names: list[str], limits: Limits, notes: list[str]) -> Iterator[str]:
    for name in names:
        if name not in whole.NameToInfo:
            notes.append(f"chapter {name!r} is missing")
            yield ""
        elif whole.NameToInfo[name].file_size > limits.html_bytes:
            notes.append(f"chapter {name!r} is too large")
            yield ""
        else:
            data = whole.read(name)
            yield html_text(data.decode(guess_page(data), "replace"), rows=True)


def _chapters(package: Any, folder: str) -> Iterator[str]:
    items = {item.get("id"): item for item in package.iterfind(".//{*}manifest/{*}item")}
    for reference in package.iterfind(".//{*}spine/{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is not None and "html" in item.get("media-type", "html"):
            yield posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))


def _encrypted(whole: zipfile.ZipFile) -> set[str]:
    """What is encrypted; fonts often are, which is no hindrance."""
    if _ENCRYPTION not in whole.NameToInfo:
        return set()
    return {unquote(found.get("URI", "")) for found in _tree(whole, _ENCRYPTION).iter("{*}CipherReference")}


def _tree(whole: zipfile.ZipFile, name: str) -> Any:
    """XML without entities, the network or huge trees."""
    with extra("documents", "reading EPUB"):
        from lxml import etree
    if name not in whole.NameToInfo:
        raise Unreadable(f"is no EPUB: {name or 'its package'} is missing")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)
    try:
        return etree.fromstring(whole.read(name), parser)
    except etree.XMLSyntaxError as error:
        raise Unreadable(f"is a damaged EPUB: {name} isn't valid XML ({str(error)[:120]})") from error
