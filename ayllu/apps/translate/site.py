"""A folder of pages: translated as a whole into another one, or page by page as somebody looks at it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

from ayllu.apps.translate.document import Done
from ayllu.apps.translate.fetch import Limits, fetch
from ayllu.apps.translate.formats import SUFFIXES, Format, format_of
from ayllu.errors import AylluError, DataError
from ayllu.files import atomic_path
from ayllu.log import warn

Translate = Callable[[bytes, Format, str | None, str], Done]                 # bytes, format, charset of a header, name


def translate_folder(folder: Path, out: Path, translate: Translate,
                     keep: tuple[str, ...] = (".json", ".txt")) -> Iterator[dict[str, Any]]:
    """Each file's report as it is done; what isn't translated is copied. One bad file stops no other. `keep`: endings
    that a site uses for other things than texts."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{out} lies within {folder}: give --out a folder elsewhere")
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = path.relative_to(folder)
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() not in SUFFIXES or path.suffix.lower() in keep:
            shutil.copyfile(path, target)
            yield {"file": str(name), "copied": True}
            continue
        try:
            done = translate(path.read_bytes(), format_of(path.name), None, str(name))
        except DataError as error:
            shutil.copyfile(path, target)
            yield {"file": str(name), "copied": True, "error": str(error)}
            continue
        with atomic_path(target) as temporary:
            temporary.write_bytes(done.data)
        yield {"file": str(name), **done.report}


@dataclass
class Mirror:
    """A site as it is asked for: pages translated, all else as it is. `origin` is a folder or an address."""

    origin: Path | str
    translate: Translate
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self._lock = Lock()                              # one model, one page at a time

    def get(self, path: str) -> tuple[bytes, str]:
        """The bytes and media type of a path of the site."""
        raw, media, charset = self._raw(path)
        if media not in ("text/html", "application/xhtml+xml"):
            return raw, media
        with self._lock:
            done = self.translate(raw, format_of("page.html" if media == "text/html" else "page.xhtml"), charset, path)
        return done.data, media if charset is None else f"{media}; charset={charset}"

    def _raw(self, path: str) -> tuple[bytes, str, str | None]:
        if isinstance(self.origin, str):
            page = fetch(self.origin.rstrip("/") + path, self.limits)
            return page.data, page.media, page.charset
        place = (self.origin / unquote(urlsplit(path).path).lstrip("/")).resolve()
        place = place / "index.html" if place.is_dir() else place
        if not place.is_relative_to(self.origin.resolve()) or not place.is_file():
            raise FileNotFoundError(path)
        return place.read_bytes(), guess_type(place.name)[0] or "application/octet-stream", None


def server_of(mirror: Mirror, port: int) -> ThreadingHTTPServer:
    """A server on this machine alone; `serve_forever` runs it."""
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self) -> None:
            if (self.headers.get("host") or "").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
                return self._send(403, b"call it by 127.0.0.1 or localhost", "text/plain")
            try:
                return self._send(200, *mirror.get(self.path))
            except FileNotFoundError:
                return self._send(404, b"there is no such page", "text/plain")
            except (AylluError, OSError, ValueError) as error:
                warn(f"{self.path}: {error}")
                return self._send(502, str(error).encode(), "text/plain; charset=utf-8")

        def _send(self, status: int, data: bytes, media: str) -> None:
            self.send_response(status)
            self.send_header("content-type", media)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Silence: what fails is warned of above."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
