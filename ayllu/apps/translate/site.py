"""A folder of pages: translated as a whole into another one, or page by page as somebody looks at it."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path
from secrets import token_hex, token_urlsafe
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ayllu.apps.translate.document import Done
from ayllu.apps.translate.fetch import Form, Limits, NoPage, fetch, new_jar
from ayllu.apps.translate.formats import SUFFIXES, Format, format_of
from ayllu.errors import AylluError, DataError
from ayllu.files import write_bytes
from ayllu.log import warn

MOST_JARS = 100                                          # browsers that are remembered, the last ones
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
        write_bytes(target, done.data)
        yield {"file": str(name), **done.report}


@dataclass
class Mirror:
    """A site as it is asked for: pages translated, all else as it is. `origin` is a folder or an address."""

    origin: Path | str
    translate: Translate
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self._lock = Lock()                              # one model, one page at a time
        self._jars: dict[str, CookieJar] = {}            # the site's cookies of each browser, by a name of its own
        self._mark = f"ayllu-{token_hex(4)}"             # under which the browser keeps its name

    def jar_of(self, cookies: str) -> tuple[str, CookieJar]:
        """A browser's name and its cookies of the site. They stay here: to a browser all ports of this machine are one
        host, so it would send them to other services, and the cookies of those to the site."""
        found = re.search(rf"{self._mark}=([\w-]+)", cookies)
        name = found[1] if found and found[1] in self._jars else token_urlsafe(32)
        return name, self._jars.get(name, new_jar())

    def keep(self, name: str, jar: CookieJar) -> str | None:
        """What the browser is to remember."""
        if not len(jar):
            return None
        self._jars[name] = jar
        for old in [*self._jars][:-MOST_JARS]:
            self._jars.pop(old, None)
        return f"{self._mark}={name}; Path=/; HttpOnly; SameSite=Lax"

    def get(self, path: str, form: Form | None = None, jar: CookieJar | None = None) -> tuple[bytes, str]:
        """The bytes and media type of a path of the site; Elsewhere where they lie at another one."""
        raw, media, charset = self._raw(path, form, jar)
        if media not in ("text/html", "application/xhtml+xml"):
            return raw, media
        with self._lock:
            done = self.translate(raw, format_of("page.html" if media == "text/html" else "page.xhtml"), charset, path)
        return self._inside(done.data), media if charset is None else f"{media}; charset={charset}"

    def _inside(self, page: bytes) -> bytes:
        """Links with the site's own address lead to the copy."""
        if not isinstance(self.origin, str):
            return page
        own = re.escape(urlsplit(self.origin).netloc).encode()
        return re.sub(rb"""(\s(?:href|src|action)\s*=\s*["']?)https?://""" + own + rb"(?=/)", rb"\1", page,
                      flags=re.IGNORECASE)

    def _place(self, url: str) -> str:
        """Where an address lies in the copy; itself where it lies elsewhere."""
        own, there = urlsplit(str(self.origin).rstrip("/")), urlsplit(url)
        netlocs = {part.netloc.removeprefix("www.") for part in (own, there)}
        is_here = len(netlocs) == 1 and there.path.startswith(own.path)
        return urlunsplit(("", "", there.path.removeprefix(own.path) or "/", there.query, "")) if is_here else url

    def _raw(self, path: str, form: Form | None, jar: CookieJar | None) -> tuple[bytes, str, str | None]:
        if isinstance(self.origin, str):
            origin = self.origin.rstrip("/")
            page = fetch(origin + path, self.limits, form, jar)
            if (place := self._place(page.url)) != path: # its links are meant from where it lies
                raise Elsewhere(place)
            return page.data, page.media, page.charset
        if form is not None:
            raise DataError("this site is a folder, and nothing in it answers to forms: serve its address instead")
        asked = urlsplit(path).path
        file = (self.origin / unquote(asked).lstrip("/")).resolve()
        if not file.is_relative_to(self.origin.resolve()):
            raise FileNotFoundError(path)
        if file.is_dir() and not asked.endswith("/"):
            raise Elsewhere(f"/{asked.lstrip('/')}/")
        file = file / "index.html" if file.is_dir() else file
        if not file.is_file():
            raise FileNotFoundError(path)
        return file.read_bytes(), guess_type(file.name)[0] or "application/octet-stream", None


class Elsewhere(Exception):                              # noqa: N818 - no fault
    """Where a page lies instead."""


def server_of(mirror: Mirror, port: int) -> ThreadingHTTPServer:
    """A server on this machine alone; `serve_forever` runs it."""
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60
        browser = "", new_jar()

        def do_GET(self, form: Form | None = None) -> None:
            if (self.headers.get("host") or "").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
                return self._send(403, b"call it by 127.0.0.1 or localhost", "text/plain")
            self.browser = _, jar = mirror.jar_of(self.headers.get("cookie") or "")
            try:
                found = mirror.get(self.path, form, jar)
            except Elsewhere as place:
                return self._send(302, b"", "text/plain", str(place))
            except (FileNotFoundError, NoPage):
                return self._send(404, b"there is no such page", "text/plain")
            except (AylluError, OSError, ValueError) as error:
                warn(f"{self.path}: {error}")
                return self._send(502, str(error).encode(), "text/plain; charset=utf-8")
            return self._send(200, *found)

        def do_POST(self) -> None:
            size = self.headers.get("content-length", "")
            if not size.isdecimal() or int(size) > mirror.limits.bytes:
                self.close_connection = True
                return self._send(413, f"a form of at most {mirror.limits.bytes:,} bytes".encode(), "text/plain")
            media = self.headers.get("content-type") or "application/octet-stream"
            return self.do_GET((self.rfile.read(int(size)), media))

        def _send(self, status: int, data: bytes, media: str, location: str | None = None) -> None:
            with suppress(ConnectionError):              # who left while the page was translated
                self.send_response(status)
                for name, value in (("location", location), ("content-type", media), ("content-length", len(data)),
                                    ("set-cookie", mirror.keep(*self.browser))):
                    if value is not None:
                        self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Silence: what fails is warned of above."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
