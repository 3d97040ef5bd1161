"""`ayllu translate --serve` in a real browser: links, forms, assets, what scripts bring, and what is no page."""

import http.server
import threading
from urllib.parse import parse_qs, urlsplit

import pytest
from apps.scripted import ScriptedSpeaker
from apps.translate.test_translator import german

from ayllu.apps.translate.document import translate_bytes
from ayllu.apps.translate.fetch import Limits
from ayllu.apps.translate.site import Mirror, server_of
from ayllu.apps.translate.translator import Translator

HEAD = '<!doctype html><html lang="en"><meta charset="utf-8"><title>dogs</title><link rel=stylesheet href=/own.css>'
PAGES = {
    "/": ("text/html", HEAD + """<h1 id=h>Hello</h1><a href="docs">world</a> <a id=far href="SITE/docs/">dogs</a>
<form action="/search"><input name=q><button>world</button></form>
<form action="/send" method=post><input name=who><button id=send>dogs</button></form>
<img id=i src="dot.svg" alt="dogs"><p id=late></p><a id=file href="data.json" download>world</a>
<script src="late.js"></script>"""),
    "/docs/": ("text/html", HEAD + '<p id=p>dogs</p><a href="../">Hello</a><img id=i src="../dot.svg">'),
    "/own.css": ("text/css", "h1 { color: rgb(1, 2, 3) }"),
    "/late.js": ("text/javascript", "fetch('data.json').then((r) => r.json()).then((d) => { "
                 "document.getElementById('late').textContent = d.dogs; });"),
    "/data.json": ("application/json", '{"dogs": "from a script"}'),
    "/dot.svg": ("image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><text>a</text></svg>'),
    "/plain.html": ("text/html", "<html lang=en><title>world</title><p id=p>big</p>")}


class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        parts = urlsplit(self.path)
        if parts.path == "/docs":
            return self.answer(301, "text/html", "", location="/docs/")
        if parts.path == "/search":
            said = f"<p>dogs</p><p id=q translate=no>{parse_qs(parts.query)['q'][0]}</p>"
            return self.answer(200, "text/html; charset=utf-8", said)
        if parts.path == "/me":
            said = f"<p>Hello</p><p id=q translate=no>{self.headers.get('cookie') or 'nobody'}</p>"
            return self.answer(200, "text/html; charset=utf-8", said)
        if parts.path not in PAGES:
            return self.answer(404, "text/html", "<p>no</p>")
        return self.answer(200, *PAGES[parts.path])

    def do_POST(self):
        sent = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        self.answer(200, "text/html", f"<meta charset=utf-8><p>Hello</p><p id=q translate=no>{sent['who'][0]}</p>",
                    cookie="who=1; Path=/me; HttpOnly")

    def answer(self, status, media, text, location=None, cookie=None):
        data = text.replace("SITE", f"http://{self.headers['host']}").encode()
        self.send_response(status)
        self.send_header("content-type", media)
        self.send_header("content-length", str(len(data)))
        for name, value in (("location", location), ("set-cookie", cookie)):
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def copy():
    def translate(raw, format, charset, name):
        return translate_bytes(raw, format, "de", lambda pair: Translator(ScriptedSpeaker(german), pair), source="en",
                               header=charset)

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    mirror = server_of(Mirror(f"http://127.0.0.1:{site.server_address[1]}", translate, Limits(allow_private=True)), 0)
    for server in (site, mirror):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{mirror.server_address[1]}"
    for server in (mirror, site):
        server.shutdown()
        server.server_close()


def test_a_site_is_walked_through_in_another_language(opened, copy):
    page = opened(copy, waits=False)
    page.get_by_role("heading", name="hallo").wait_for()
    assert page.title() == "Hunde"
    assert page.evaluate("document.documentElement.lang") == "de"
    assert page.evaluate("getComputedStyle(document.getElementById('h')).color") == "rgb(1, 2, 3)"
    assert page.evaluate("document.getElementById('i').naturalWidth") == 9
    page.locator("#late").get_by_text("from a script").wait_for()
    assert page.get_by_alt_text("Hunde").count() == 1
    with page.expect_download() as waited:
        page.locator("#file").click()
    assert waited.value.path().read_text() == PAGES["/data.json"][1]
    page.get_by_role("link", name="Welt").first.click()
    page.locator("#p").get_by_text("Hunde").wait_for()
    assert page.url == f"{copy}/docs/"                   # told of the redirect, so that what is relative is right
    assert page.evaluate("document.getElementById('i').naturalWidth") == 9
    page.get_by_role("link", name="hallo").click()
    page.locator("#far").click()                         # the site's own address leads into the copy
    page.wait_for_url(f"{copy}/docs/")
    page.go_back()
    page.locator("[name=q]").fill("Grüße & Küsse")
    page.get_by_role("button", name="Welt").click()
    page.get_by_text("Hunde").wait_for()
    assert page.locator("#q").inner_text() == "Grüße & Küsse"
    page.go_back()
    page.locator("[name=who]").fill("Jürgen")
    page.locator("#send").click()
    page.get_by_text("hallo").wait_for()
    assert page.locator("#q").inner_text() == "Jürgen"
    page.goto(f"{copy}/me")                              # the form was a login
    assert page.locator("#q").inner_text() == "who=1"
    cookie, = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["name"] == "who") == (True, "Lax", False)
    other = opened(f"{copy}/me", waits=False)            # another browser's
    assert other.locator("#q").inner_text() == "nobody"
    page.goto(f"{copy}/plain.html")                      # says nothing of its encoding
    assert page.locator("#p").inner_text() == "große"
    assert page.goto(f"{copy}/none").status == 404
