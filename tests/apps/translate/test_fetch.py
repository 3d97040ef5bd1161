"""Addresses: what is fetched, what is refused, and a site that is seen translated."""

import http.client
import http.cookiejar
import http.server
import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from apps.scripted import ScriptedSpeaker
from apps.translate.test_translator import german

from ayllu.apps.translate import fetch as fetching
from ayllu.apps.translate.document import translate_bytes
from ayllu.apps.translate.fetch import Limits, NoPage, fetch, public_address
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
                       "/docs": (301, b"", {"location": "/docs/"}),
                       "/docs/": (200, f"<a href={self.server.own}/page>Hello</a>".encode(),
                                  {"content-type": "text/html"}),
                       "/large": (200, b"x" * 20_000, {})}
            status, body, headers = answers.get(self.path, (404, b"", {}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            sent = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(303 if sent == b"to=page" else 200)
            self.send_header("location", "/page")
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<p>Hello</p><!--" + sent + self.headers["content-type"].encode() + b"-->")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.own = f"http://127.0.0.1:{server.server_address[1]}"
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


def get(url: str, form: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, form, headers), timeout=10) as answer:
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
    assert get(by_address + "/none")[0] == 404
    assert get(by_folder + "/bad.html")[0] == 502
    assert get(by_folder + "/", Host="evil.example")[0] == 403


def test_what_lies_elsewhere_is_told_to_the_browser(mirrored):
    """Else the page's own links would be read from the wrong place."""
    by_folder, by_address = mirrored
    for url, to in ((by_folder + "/sub", "/sub/"), (by_address + "/docs", "/docs/"), (by_address + "/moved", "/page")):
        connection = http.client.HTTPConnection(url.split("/")[2])
        connection.request("GET", "/" + url.split("/", 3)[3])
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("location")) == (302, to)
        connection.close()
    assert get(by_folder + "/../site")[0] == get(by_folder + "/..")[0] == 404
    assert get(by_address + "/docs/") == (200, b"<a href=/page>hallo</a>")


def test_forms_reach_a_site_and_no_folder(mirrored):
    by_folder, by_address = mirrored
    form = b"application/x-www-form-urlencoded"
    assert get(by_address + "/page", b"q=1") == (200, b"<p>hallo</p><!--q=1" + form + b"-->")
    assert get(by_address + "/page", b"to=page") == (200, b"<p>hallo</p>")
    status, said = get(by_folder + "/", b"q=1")
    assert status == 502
    assert b"nothing in it answers to forms" in said


def test_who_leaves_early_is_no_fault(folder, capfd):
    server = server_of(Mirror(folder, translate), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (folder / "large.bin").write_bytes(bytes(8_000_000))
    with socket.create_connection(server.server_address) as left:
        left.sendall(b"GET /large.bin HTTP/1.1\r\nHost: localhost:1\r\n\r\n")
        left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert get(f"http://127.0.0.1:{server.server_address[1]}/style.css")[0] == 200
    server.shutdown()
    server.server_close()                                # waits for every answer
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def shop() -> Iterator[tuple[str, list[str]]]:
    """A site with a login, which it keeps in a cookie; and what cookies it was sent."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            cookies = self.headers.get("cookie") or ""
            seen.append(f"{self.headers['host'].partition(':')[0]}{self.path} {cookies}")
            elsewhere = f"http://localhost:{self.server.server_address[1]}/other"
            status, headers, body = {
                "/account": (200, {}, b"<p>Hello Ann</p>" if "sid=1" in cookies else b"<p>Hello</p>"),
                "/away": (302, {"location": elsewhere, "set-cookie": "here=1"}, b""),
                "/other": (200, {"set-cookie": "sid=9; Domain=127.0.0.1"}, b"<p>Hello</p>")}[self.path]
            self.answer(status, {"content-type": "text/html", **headers}, body)

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.answer(303, {"location": "/account", "set-cookie": "sid=1; Path=/account; HttpOnly"}, b"")

        def answer(self, status, headers, body):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    server.server_close()


@pytest.fixture
def browsers(shop):
    """`browsers()` is one with cookies of its own, which walks through the copy of the shop."""
    server = server_of(Mirror(shop[0], translate, LOCAL), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"

    def new():
        jar = http.cookiejar.CookieJar()
        opened = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        return jar, lambda path, form=None: opened.open(url + path, form, timeout=10).read()
    yield new
    server.shutdown()
    server.server_close()


def test_a_login_holds_for_the_browser_that_made_it(shop, browsers):
    (jar, ann), (none, other) = browsers(), browsers()
    assert b"Hallo Ann" not in ann("/account")
    assert [*jar] == []                                  # a site without cookies gives none
    assert b"Ann" in ann("/login", b"name=ann")
    assert b"Ann" in ann("/account")
    assert b"Ann" not in other("/account")
    mark, = jar                                          # the site's cookies stay with the copy
    assert (mark.value == "1", "HttpOnly" in mark._rest, mark.get_nonstandard_attr("SameSite")) == (
        False, True, "Lax")
    assert "sid" not in mark.name
    assert [*none] == []


def test_cookies_go_to_the_host_that_set_them_and_to_no_other(shop, browsers):
    _, ann = browsers()
    ann("/login", b"name=ann")
    shop[1].clear()
    ann("/away")                                         # the browser is told to go to the other host by itself
    assert shop[1] == ["127.0.0.1/away ", *["localhost/other "] * 2]                    # no sid: its path is another
    assert b"Ann" in ann("/account")                     # the other host's sid is none of this one's
    assert shop[1][-1] == "127.0.0.1/account sid=1; here=1"


def test_cookies_of_other_services_of_this_machine_reach_no_site(shop):
    """A browser sends them to every port of the machine."""
    server = server_of(Mirror(shop[0], translate, LOCAL), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    get(f"http://127.0.0.1:{server.server_address[1]}/account", cookie="notebook=secret; sid=1")
    server.shutdown()
    server.server_close()
    assert shop[1] == ["127.0.0.1/account "]


def test_a_part_of_a_site(site):
    mirror = Mirror(f"{site}/docs/", translate, LOCAL)
    assert mirror.get("/") == (b"<a href=/page>hallo</a>", "text/html")
    with pytest.raises(NoPage):
        mirror.get("/none")
