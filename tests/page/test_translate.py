"""The room Translate, and the language switch in a page from elsewhere, in a real browser with the bundled model."""

import base64
import html as HTML
import http.server
import io
import threading
from collections.abc import Iterator

import docx
import pytest
from server.live import Live, serving

from ayllu.server.gate import Door
from ayllu.server.workspace import Workspace

PAGE = """<!DOCTYPE html><html lang="en"><head><title>I like dogs.</title></head><body>
<h1>I like dogs.</h1>
<p id="p">I like <b id="b">dogs</b>. <a id="a" href="#x" title="I like dogs.">Tom</a> is a boy. <code>a_b</code></p>
<pre id="pre">I like dogs.</pre><p id="no" translate="no">I like dogs.</p><button id="button">I like dogs.</button>
<div id="late"></div>
<script src="SERVER/ui/translate.js" data-to="zh" defer></script></body></html>"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[http.server.ThreadingHTTPServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = PAGE.replace("SERVER", self.server.ayllu).encode()
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture(scope="module")
def translating(elsewhere, tmp_path_factory) -> Iterator[Live]:
    origin = f"http://127.0.0.1:{elsewhere.server_address[1]}"
    with serving("ayllu-mini-chat", door=Door(origins=frozenset({origin})),
                 workspace=Workspace(tmp_path_factory.mktemp("room"))) as live:
        elsewhere.ayllu, elsewhere.origin = live.url, origin
        yield live


@pytest.fixture
def room(opened, translating):
    page = opened(f"{translating.url}#/translate", waits=False)
    page.get_by_role("heading", name="Translate", level=1).wait_for()
    return page


def test_a_text_with_marks_of_doubt_and_a_correction(room):
    room.get_by_label("Text", exact=True).fill("I like dogs.\nClick the button to open the file.")
    room.get_by_role("button", name="Translate", exact=True).click()
    rows = room.locator(".tr-row")
    rows.nth(1).wait_for()
    assert rows.nth(0).locator(".tr-words").inner_text() == "我喜欢狗。"
    assert "low" not in rows.nth(0).get_attribute("class")
    assert "low" in rows.nth(1).get_attribute("class")
    assert "% sure" in rows.nth(1).inner_text()
    room.get_by_role("button", name="Correct the translation of “Click").click()
    rows.nth(1).locator("textarea").fill("点击按钮打开文件。")
    room.get_by_role("button", name="Keep").click()
    room.locator(".tr-row.low").wait_for(state="detached")
    room.get_by_role("button", name="Translate", exact=True).click()
    room.get_by_text("your own words").wait_for()
    assert rows.nth(1).locator(".tr-words").inner_text() == "点击按钮打开文件。"


def test_files_survive_a_reload(room, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<p>I like <b>dogs</b>.</p>")
    (tmp_path / "bad.json").write_text("{")
    room.locator("input[type=file]").set_input_files([str(path), str(tmp_path / "bad.json")])
    room.locator(".uploads li button").nth(1).wait_for()
    room.get_by_role("button", name="Translate the files").click()
    room.locator(".tr-file").wait_for()
    assert "bad.json was left out" in room.locator(".job").inner_text()
    room.reload()
    with room.expect_download() as waited:
        room.get_by_role("button", name="Save page.zh.html").click()
    assert waited.value.suggested_filename == "page.zh.html"
    assert waited.value.path().read_text(encoding="utf-8") == "<p>我喜欢<b>狗</b>。</p>"


def test_a_server_that_is_gone_is_told_while_a_job_waits_for_it(room):
    job = {"id": "j1", "kind": "translate", "label": "a.html into Chinese", "state": "running", "progress": 0.4,
           "result": None, "error": None, "created_s": 1.0, "started_s": 1.0, "finished_s": None}
    room.route("**/v1/jobs?kind=translate", lambda route: route.fulfill(json={"data": [job]}))
    room.route("**/v1/jobs/j1", lambda route: route.abort())
    room.reload()
    told = room.locator(".job").get_by_text("The server can't be reached")
    told.wait_for()
    room.wait_for_timeout(1500)                          # it stays as long as that is so
    assert told.is_visible()
    room.unroute("**/v1/jobs/j1")
    room.route("**/v1/jobs/j1", lambda route: route.fulfill(json=job | {"progress": 0.5}))
    room.locator(".job").get_by_text("50 %").wait_for()
    assert not told.is_visible()


def dropped(page, *files: tuple[str, bytes]) -> None:
    """Files let go over the room's zone."""
    page.locator(".drop").wait_for()
    page.evaluate("""(files) => {
        const held = new DataTransfer();
        for (const [name, data] of files)
            held.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name));
        const all = { bubbles: true, cancelable: true, dataTransfer: held };
        document.querySelector(".drop").dispatchEvent(new DragEvent("drop", all));
    }""", [[name, base64.b64encode(data).decode()] for name, data in files])
    page.locator(".uploads li button").nth(len(files) - 1).wait_for()


def word(*paragraphs: str) -> bytes:
    out, document = io.BytesIO(), docx.Document()
    for text in paragraphs:
        document.add_paragraph(text).add_run(" Tom is a boy.").bold = True
    document.save(out)
    return out.getvalue()


def test_a_page_a_document_and_subtitles_by_drop_through_a_reload(room):
    """Names in Chinese, a job that is seen at work, and everything but the words as it was."""
    cues = "".join(f"{i}\r\n00:00:{i:02},000 --> 00:00:{i:02},900\r\n<i>I like {i} dogs.</i>\r\n\r\n"
                   for i in range(1, 31))
    page = '<!doctype html><title>I like dogs.</title><p>I like <a href="a.html?x=1&amp;y=2">dogs</a>.</p><pre>x</pre>'
    dropped(room, ("页面 一.html", page.encode()), ("报告.docx", word("I like dogs.")), ("字幕.srt", cues.encode()))
    room.get_by_role("button", name="Translate the files").click()
    room.locator(".job progress").first.wait_for()
    room.reload()
    room.locator(".job").first.locator(".tr-file").nth(2).wait_for()
    saved = {}
    for name in ("页面 一.zh.html", "报告.zh.docx", "字幕.zh.srt"):
        with room.expect_download() as waited:
            room.get_by_role("button", name=f"Save {name}").click()
        assert waited.value.suggested_filename == name
        saved[name] = waited.value.path().read_bytes()
    html = saved["页面 一.zh.html"].decode()
    assert html.startswith("<!doctype html><title>")
    assert '<a href="a.html?x=1&amp;y=2">' in html
    assert html.endswith("</p><pre>x</pre>")
    assert "狗" in HTML.unescape(html)
    runs = docx.Document(io.BytesIO(saved["报告.zh.docx"])).paragraphs[0].runs
    assert any("狗" in run.text for run in runs)
    assert any(run.bold for run in runs)
    lines, before = saved["字幕.zh.srt"].decode().split("\r\n"), cues.split("\r\n")
    assert len(lines) == len(before)
    assert [a for a, b in zip(lines, before, strict=True) if "dogs" not in b] == [b for b in before if "dogs" not in b]
    assert all(line.startswith("<i>") and line.endswith("</i>") for line in lines[2::4] if line)


@pytest.fixture
def foreign(opened, translating, elsewhere):
    page = opened(elsewhere.origin, waits=False)
    page.get_by_label("Language").wait_for()
    return page


def test_the_switch_translates_and_gives_back(foreign):
    before = foreign.evaluate("document.body.innerHTML")
    foreign.evaluate("window.clicked = 0; "
                     "document.getElementById('b').addEventListener('click', () => window.clicked++)")
    foreign.get_by_label("Language").select_option("zh")
    foreign.get_by_role("heading", name="我喜欢狗").wait_for()
    foreign.wait_for_function("document.getElementById('a').title === '我喜欢狗。'")
    foreign.wait_for_function("document.title === '我喜欢狗。'")
    foreign.wait_for_function("document.getElementById('b').textContent.includes('狗')")
    foreign.locator("#b").click()
    assert foreign.evaluate("window.clicked") == 1       # the same element, with what listens to it
    assert foreign.locator("#a").get_attribute("href") == "#x"
    assert foreign.locator("code").inner_text() == "a_b"
    assert foreign.locator("#button").inner_text() == "我喜欢狗。"
    assert foreign.locator("#pre").inner_text() == foreign.locator("#no").inner_text() == "I like dogs."
    assert foreign.evaluate("document.documentElement.lang") == "zh"
    foreign.get_by_label("Language").select_option("")
    assert foreign.evaluate("document.body.innerHTML") == before
    assert foreign.title() == "I like dogs."
    assert foreign.evaluate("document.documentElement.lang") == "en"


def test_what_the_server_had_no_time_for_is_asked_again(foreign):
    answers = iter([429])

    def busy(route):
        if next(answers, None):
            return route.fulfill(status=429, json={"error": {"message": "wait 1 s"}}, headers={
                "access-control-allow-origin": "*", "access-control-expose-headers": "retry-after", "retry-after": "1"})
        return route.continue_()

    foreign.route("**/v1/translate", busy)
    foreign.get_by_label("Language").select_option("zh")
    foreign.get_by_text("wait 1 s").wait_for()
    foreign.get_by_role("heading", name="我喜欢狗").wait_for()


def test_the_switch_leaves_the_other_corner_to_the_widget(foreign):
    switch = foreign.locator(".notranslate").bounding_box()
    assert switch["x"] + switch["width"] < foreign.viewport_size["width"] / 2


def test_late_content_is_translated_and_the_choice_is_kept(foreign):
    foreign.get_by_label("Language").select_option("zh")
    foreign.get_by_role("heading", name="我喜欢狗").wait_for()
    foreign.evaluate("document.getElementById('late').append(Object.assign(document.createElement('p'), "
                     "{textContent: 'I like dogs.'}))")
    foreign.locator("#late").get_by_text("我喜欢狗").wait_for()
    foreign.evaluate("document.querySelector('#late p').firstChild.data = 'Tom is a boy.'")
    foreign.wait_for_function("!document.querySelector('#late p').textContent.includes('Tom is')")
    foreign.evaluate("document.title = 'I like dogs. (2)'")
    foreign.wait_for_function("document.title.includes('狗') && document.title.includes('2')")
    calls = []
    foreign.on("request", lambda request: calls.append(request.url) if "/v1/translate" in request.url else None)
    foreign.reload()
    foreign.get_by_role("heading", name="我喜欢狗").wait_for()
    assert calls == []                                   # this browser has kept them
