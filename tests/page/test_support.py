"""Customer service in a browser: the room of the people of the business, and the widget in a page of another origin."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from media.small import write_small
from page.acting import record
from page.test_access import FAULTS
from playwright.sync_api import expect
from server.live import hearing, serving

from ayllu.server.gate import Door
from ayllu.server.keys import Keys, key_of
from ayllu.server.speaker import ServedSpeaker
from ayllu.server.start import attach_senses
from ayllu.server.workspace import Workspace

WIDGET, OPERATOR = "a-key-for-the-widget-1234", "a-key-for-the-operator-1234"
KEYS = Keys([key_of(WIDGET, "web", "shop", ("support",)), key_of(OPERATOR, "ana", "shop", ("generate", "operate"))])


@pytest.fixture(scope="module")
def desk(chat_checkpoint, tmp_path_factory):
    with serving(chat_checkpoint, workspace=Workspace(tmp_path_factory.mktemp("desk"))) as live:
        yield live


def ask(page, text):
    """Write as a customer into the widget."""
    page.locator("ayllu-support input").fill(text)
    page.locator("ayllu-support input").press("Enter")
    page.locator("ayllu-support .customer").filter(has_text=text).last.wait_for()
    page.locator("ayllu-support form button[type=submit]:enabled").wait_for()


def test_the_room(opened, desk):
    page = opened(f"{desk.url}/#/support", waits=False)
    page.get_by_text("Paper Crane is a sample").wait_for()
    page.get_by_text("Nobody has written yet").wait_for()
    page.get_by_role("button", name="Try it as a customer").click()
    page.locator("ayllu-support").get_by_text("a program, not a person").wait_for()
    expect(page.locator("ayllu-support .speak")).to_be_hidden()                  # the model hears nothing
    ask(page, "How long is the warranty on lamps?")
    page.locator("ayllu-support").get_by_text("Lamps have 3 years").wait_for()
    page.locator("ayllu-support").get_by_text("From our pages: How long the warranty lasts").wait_for()
    page.locator("ayllu-support").get_by_role("button", name="Helpful", exact=True).click()
    ask(page, "Do you sell bicycles?")
    ask(page, "yes please")
    page.locator("ayllu-support").get_by_text("Waiting for a person").wait_for()
    page.locator("ayllu-support .toggle").click()

    page.locator(".talk .state").filter(has_text="waits for a person").wait_for()
    tiles = page.locator(".fact")
    expect(tiles.filter(has_text="wait for a person").locator("strong")).to_have_text("1")
    expect(tiles.filter(has_text="needed no person").locator("strong")).to_have_text("0 %")
    expect(tiles.filter(has_text="satisfaction")).to_contain_text("1 thumbs up")
    expect(page.locator(".asked")).to_have_text("Do you sell bicycles?")
    expect(page.locator(".ticket")).to_contain_text("warranty on lamps")
    expect(page.locator(".bubble", has_text="Lamps have 3 years")).to_contain_text("confidence 100 %")
    assert page.evaluate(FAULTS) == []
    page.get_by_label("Answer as a person").fill("Ana here: we sell <b>lamps</b>.")
    page.get_by_role("button", name="Send the answer").click()
    page.locator(".bubble[data-role=operator]").get_by_text("<b>lamps</b>").wait_for()      # text stays text
    page.get_by_role("button", name="Close", exact=True).click()
    page.locator("ayllu-support .toggle").click()
    page.locator("ayllu-support .operator").get_by_text("Ana here: we sell <b>lamps</b>.").wait_for()
    page.locator("ayllu-support").get_by_role("button", name="5 of 5").click()
    page.locator("ayllu-support").get_by_text("Thank you.").wait_for()
    expect(tiles.filter(has_text="satisfaction").locator("strong")).to_have_text("5.0")
    page.get_by_text("No ticket is open.").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("ayllu-support").get_by_role("button", name="Delete this conversation").click()
    page.get_by_text("Nobody has written yet").wait_for()


def test_many_conversations_keep_their_height(opened, desk):
    for n in range(12):
        httpx.post(f"{desk.url}/v1/support/messages", json={"text": "hello", "customer": f"Customer {n}"},
                   timeout=60).raise_for_status()
    page = opened(f"{desk.url}/#/support", waits=False)
    page.locator(".talks .entry").nth(11).wait_for()
    assert page.evaluate("[...document.querySelectorAll('.talks .entry')].every(e => e.clientHeight >= e.scrollHeight)")
    page.locator(".talks .entry").last.click()
    page.on("dialog", lambda dialog: dialog.accept())
    for n in range(12):
        page.locator(".talk").get_by_role("button", name="Delete").click()
        expect(page.locator(".talks .entry")).to_have_count(11 - n)


def test_a_customer_speaks(speaking, chat_checkpoint, tmp_path, monkeypatch):
    words = "How long is the warranty on lamps?"
    monkeypatch.setattr(ServedSpeaker, "__init__", hearing(ServedSpeaker.__init__, words))
    with serving(chat_checkpoint, workspace=Workspace(tmp_path / "data")) as live:
        attach_senses(live.served, "tiny", write_small(tmp_path / "senses"), "cpu")
        page = speaking(f"{live.url}/#/support")
        page.get_by_role("button", name="Try it as a customer").click()
        page.locator("ayllu-support").get_by_text("a program, not a person").wait_for()
        record(page)
        page.locator("ayllu-support .customer").get_by_text(words).wait_for()
        page.locator("ayllu-support").get_by_text("Lamps have 3 years").wait_for()
        assert page.evaluate(FAULTS) == []


@pytest.mark.slow
def test_the_room_in_chinese_on_a_phone(opened, desk):
    page = opened(f"{desk.url}/#/support", waits=False, width=390, locale="zh-CN", color_scheme="dark")
    page.get_by_role("button", name="像顾客一样试试").click()
    page.locator("ayllu-support").get_by_text("我是程序，不是真人").wait_for()
    ask(page, "怎样退货？")
    page.locator("ayllu-support").get_by_text("退货单").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("ayllu-support").get_by_role("button", name="关闭对话").first.click()
    page.locator(".bubble").get_by_text("退货单").first.wait_for()
    page.locator("ayllu-support .toggle").click()
    ask(page, "转人工")
    page.locator("ayllu-support").get_by_role("button", name="关闭对话").first.click()
    page.locator(".bubble").get_by_text("转人工：要求人工").wait_for()
    page.locator(".ticket").get_by_text("主题：要求人工").wait_for()
    assert page.evaluate("document.querySelector('.room-page').scrollWidth <= innerWidth")


@contextlib.contextmanager
def shop_page(html):
    """A web server of somebody else, with one page."""
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(html[0].encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.mark.slow
def test_the_widget_in_a_page_of_another_origin(opened, chat_checkpoint, tmp_path):
    html = [""]
    with shop_page(html) as shop, serving(chat_checkpoint, door=Door(keys=KEYS, origins=frozenset({shop})),
                                          workspace=Workspace(tmp_path)) as live:
        html[0] = (f'<!doctype html><html lang="en"><style>button {{ color: red }}</style><h1>Shop</h1>'
                   f'<script src="{live.url}/ui/widget.js" data-key="{WIDGET}" data-customer="c-7" defer></script>')
        page = opened(shop, waits=False)
        page.locator("ayllu-support").get_by_role("button", name="Open the chat").click()
        page.get_by_text("Hello, I am Lumi").wait_for()
        ask(page, "how much does express shipping cost")
        page.get_by_text("Express shipping costs 9.90 euros").wait_for()
        send = page.locator("ayllu-support form button[type=submit]")
        assert send.evaluate("b => getComputedStyle(b).color") != "rgb(255, 0, 0)"
        page.reload()                                    # the tab remembers the conversation
        page.locator("ayllu-support").get_by_role("button", name="Open the chat").click()
        page.get_by_text("Express shipping costs 9.90 euros").wait_for()

        room = opened(f"{live.url}/#/support", waits=False)
        dialog = room.get_by_role("dialog", name="This server wants a key")
        dialog.get_by_label("API key").fill(OPERATOR)
        room.keyboard.press("Enter")
        room.locator(".entry", has_text="Customer c-7").wait_for()
        room.get_by_label("Answer as a person").fill("This is Ana.")
        room.get_by_role("button", name="Send the answer").click()
        page.bring_to_front()
        page.locator("ayllu-support .operator").get_by_text("This is Ana.").wait_for()
        page.keyboard.press("Escape")
        expect(page.locator("ayllu-support .panel")).to_be_hidden()
