"""Addresses: what is fetched, what is refused, and a site that is seen translated."""

import http.server
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from apps.scripted import ScriptedSpeaker
from apps.translate.test_translator import german

from ayllu.apps.translate import fetch as fetching
from ayllu.apps.translate.document import translate_bytes
from ayllu.apps.translate.fetch import Limits, fetch, public_address
from ayllu.apps.translate.site import Mirror, server_of, translate_folder
from ayllu.apps.translate.translator import Translator
from ayllu.errors import DataError, Refused

LOCAL = Limits(allow_private=True, timeout_s=5, bytes=10_000)


@pytest.fixture
def site() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answers = {"/page": (200, b"<p>Hello</p>", {"content-type": "text/html; charset=utf-8"}),
                       "/moved": (302, b"", {"location": "/page"}),
                       "/loop": (302, b"", {"location": "/loop"}),
                       "/inside": (302, b"", {"location": "http://169.254.169.254/secret"}),
                       "/file": (302, b"", {"location": "file:///etc/passwd"}),
                       "/large": (200, b"x" * 20_000, {})}
            status, body, headers = answers.get(self.path, (404, b"", {}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_page_and_a_redirect(site):
    for path in ("/page", "/moved"):
        page = fetch(site + path, LOCAL)
        assert (page.data, page.media, page.charset) == (b"<p>Hello</p>", "text/html", "utf-8")
        assert page.url == f"{site}/page"


@pytest.mark.parametrize(("path", "says"), [("/loop", "redirects more than"), ("/large", "more than 10,000 bytes"),
                                            ("/none", "answered 404")])
def test_pages_that_cannot_be_had(site, path, says):
    with pytest.raises(DataError, match=says):
        fetch(site + path, LOCAL)


def test_private_addresses_are_refused(site):
    with pytest.raises(Refused, match=r"no public address.*--allow-private"):
        fetch(site + "/page")
    with pytest.raises(Refused, match="no plain http"):
        fetch(site + "/file", LOCAL)


def test_a_redirect_inwards_is_refused(site, monkeypatch):
    real = fetching.public_address
    monkeypatch.setattr(fetching, "public_address",                          # the first hop alone may be private
                        lambda host, port, allow: real(host, port, allow or host == "127.0.0.1"))
    with pytest.raises(Refused, match=r"169\.254\.169\.254"):
        fetch(site + "/inside", Limits())


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.1.1", "0.0.0.0", "::1", "fe80::1",
                                     "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "100.64.0.1", "224.0.0.1",
                                     "2002:7f00:1::"])
def test_what_is_private(address, monkeypatch):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [(family, 1, 6, "", (address, 80))])
    with pytest.raises(Refused):
        public_address("a.example", 80, False)
    assert public_address("a.example", 80, True)


def test_one_private_address_among_public_ones_is_enough(monkeypatch):
    both = [(socket.AF_INET, 1, 6, "", (a, 80)) for a in ("93.184.216.34", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: both)
    with pytest.raises(Refused):
        public_address("a.example", 80, False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: both[:1])
    assert public_address("a.example", 80, False) == "93.184.216.34"


def test_the_connection_goes_to_the_address_that_was_checked(site, monkeypatch):
    port = int(site.rpartition(":")[2])
    monkeypatch.setattr(fetching, "public_address", lambda host, port, allow: "127.0.0.1")
    assert fetch(f"http://no-such-name.invalid:{port}/page", Limits(timeout_s=5)).data == b"<p>Hello</p>"


def translate(raw, format, charset, name):
    return translate_bytes(raw, format, "de", lambda pair: Translator(ScriptedSpeaker(german), pair), source="en",
                           header=charset)


@pytest.fixture
def folder(tmp_path) -> Path:
    found = tmp_path / "site"
    (found / "sub").mkdir(parents=True)
    (found / "index.html").write_text("<p>Hello <a href=sub/a.html>world</a></p>")
    (found / "sub" / "a.html").write_text("<p>dogs</p>")
    (found / "bad.html").write_bytes(b"\0\0")
    (found / "style.css").write_text("p{}")
    (tmp_path / "secret.txt").write_text("secret")
    (found / "link.txt").symlink_to(tmp_path / "secret.txt")
    return found


def test_a_folder(folder, tmp_path):
    reports = {r["file"]: r for r in translate_folder(folder, tmp_path / "out", translate)}
    assert (tmp_path / "out" / "index.html").read_text() == "<p>hallo <a href=sub/a.html>Welt</a></p>"
    assert (tmp_path / "out" / "style.css").read_text() == "p{}"
    assert "zero bytes" in reports["bad.html"]["error"]
    assert set(reports) == {"index.html", "sub/a.html", "bad.html", "style.css"}
    with pytest.raises(DataError, match="lies within"):
        list(translate_folder(folder, folder / "out", translate))


@pytest.fixture
def mirrored(folder, site) -> Iterator[tuple[str, str]]:
    servers = [server_of(Mirror(origin, translate, LOCAL), 0) for origin in (folder, site)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tuple(f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    for server in servers:
        server.shutdown()
        server.server_close()


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_site_is_seen_translated(mirrored):
    by_folder, by_address = mirrored
    assert get(by_folder + "/") == (200, b"<p>hallo <a href=sub/a.html>Welt</a></p>")
    assert get(by_folder + "/style.css") == (200, b"p{}")
    assert get(by_address + "/page") == (200, b"<p>hallo</p>")
    for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/link.txt", "/none"):
        assert get(by_folder + path)[0] == 404
    assert get(by_folder + "/bad.html")[0] == 502
    assert get(by_folder + "/", Host="evil.example")[0] == 403
