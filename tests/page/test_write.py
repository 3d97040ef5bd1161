"""The Write room in a real browser: a text is checked, changed, compared, saved; a batch survives a reload."""

import json

import pytest
from playwright.sync_api import expect
from server.live import serving

from ayllu.server.workspace import Workspace

TEXT = "# Sea\n\n## Cold\n\nThe sea is cold in 1999. The sea is cold in 1999.\n\n## Warm\n\nIt is warm.\n"
CHECKS = {"length": 14, "target": 20, "unit": "words", "faults": ["length", "points", "keywords"], "repetition": 0.1,
          "points": [{"point": "salt", "covered": False, "share": 0.0}], "missing": ["gull"], "forbidden": [],
          "repeated": [], "copies": [],
          "claims": [{"start": 16, "end": 40, "text": TEXT[16:40]}]}


@pytest.fixture(scope="module")
def kept(chat_checkpoint, tmp_path_factory):
    learned = tmp_path_factory.mktemp("learned") / "train.jsonl"
    learned.write_text(json.dumps({"story": "Say: the sea is cold in 1999, the sea is cold in 1999."}) +
                       '\n{"id": 2}\n')
    with serving(chat_checkpoint, workspace=Workspace(tmp_path_factory.mktemp("data")), training=(learned,)) as live:
        yield live


@pytest.fixture
def room(opened, kept):
    def open_(**options):
        page = opened(f"{kept.url}/#/write", waits=False, **options)
        page.locator(".room-page").wait_for()
        return page
    return open_


def scripted(page, text=TEXT):
    """From now on the network writes this text."""
    parts = [{"type": "outline", "outline": ["Cold", "Warm"]}, {"type": "section", "index": 0, "text": "Cold"},
             {"type": "text", "index": 0, "text": "The sea is cold in 1999."},
             {"type": "done", "outline": ["Cold", "Warm"], "text": text, "checks": CHECKS, "draft": None}]
    body = "".join(f"data: {json.dumps(part)}\n\n" for part in parts) + "data: [DONE]\n\n"
    asked = []

    def fulfil(route):
        asked.append(route.request.post_data_json)
        route.fulfill(status=200, headers={"content-type": "text/event-stream"}, body=body)

    page.route("**/v1/write", fulfil)
    return asked


def brief(page, topic="fox", length="20"):
    page.get_by_label("Topic").fill(topic)
    page.get_by_label("Kind").select_option("Post")
    page.get_by_label("Length", exact=True).fill(length)


def test_a_brief_becomes_a_text_with_its_checks(room):
    page = room()
    asked = scripted(page)
    expect(page.get_by_role("button", name="Write", exact=True)).to_be_disabled()
    page.locator("input[type=file]").last.focus()        # far below: the room scrolls, and not what holds it
    assert page.evaluate("document.querySelector('.room-page').scrollTop") > 0
    assert page.evaluate("document.getElementById('app').scrollTop") == 0
    brief(page, "  the sea ")
    page.get_by_label("Must be covered").fill("salt\n\n wind ")
    page.get_by_label("Keywords").fill("gull， sea ")
    page.get_by_role("button", name="Write", exact=True).click()
    checks = page.get_by_role("region", name="Checks")
    checks.get_by_text("Missing: salt").wait_for()
    checks.get_by_text("Keywords that don't occur: gull").wait_for()
    assert asked[0]["brief"] == {"topic": "  the sea ", "keywords": ["gull", "sea"], "kind": "post",
                                 "language": "auto", "audience": "", "tone": "",
                                 "points": ["salt", "wind"], "forbidden": [], "length": 20}
    assert page.locator(".paper h3").inner_text() == "Sea"
    assert page.locator(".plan li").all_inner_texts() == ["Cold", "Warm"]
    assert checks.locator(".unmet").count() == 3
    checks.get_by_role("button", name="The sea is cold").click()
    field = page.locator("textarea.paper")
    assert field.evaluate("e => e.value.slice(e.selectionStart, e.selectionEnd)") == TEXT[16:40]


@pytest.mark.parametrize(("locale", "again", "unread"), [
    ("en-US", "Check again", "1 rows of the training text can't be read, the first train.jsonl, row 2"),
    ("zh-CN", "重新检查", "训练文本中有 1 行无法读取，没有比较，第一处是 train.jsonl, row 2")])
def test_what_stands_in_the_training_text_is_flagged(room, locale, again, unread):
    page = room(locale=locale)
    scripted(page)
    page.locator("textarea").first.fill("sea")
    page.locator("form button[type=submit]").first.click()
    page.get_by_role("button", name=again).click()
    checks = page.locator(".checks")
    expect(checks).to_contain_text("train.jsonl, row 1")
    expect(checks).to_contain_text(unread)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_keywords_are_enough_without_a_topic(room, kept):
    page = room()
    brief(page, topic="")
    page.get_by_label("Keywords").fill("fox, river")
    page.get_by_role("button", name="Write", exact=True).click()
    page.get_by_role("combobox", name="Versions").wait_for()
    assert page.locator(".paper h3").inner_text() == "fox, river"
    page.reload()
    page.get_by_role("combobox", name="Versions").wait_for()
    assert [page.get_by_label(label).input_value() for label in ("Topic", "Keywords")] == ["fox, river"] * 2


def test_a_real_text_is_kept_changed_compared_and_saved(room, kept):
    page = room()
    brief(page)
    page.get_by_role("button", name="Write", exact=True).click()
    versions = page.get_by_role("combobox", name="Versions")
    versions.wait_for()
    assert "/#/write/" in page.url
    text = page.locator(".paper.answer").inner_text()
    page.reload()                                        # the address finds it again
    versions.wait_for()
    assert page.locator(".paper.answer").inner_text() == text
    assert page.get_by_label("Topic").input_value() == "fox"

    page.get_by_text("Edit", exact=True).click()
    field = page.locator("textarea.paper")
    field.fill("# fox\n\nThe red fox runs.")
    field.evaluate("e => { e.setSelectionRange(e.value.indexOf('red'), e.value.indexOf('red') + 3) }")
    page.route("**/v1/write/revise", lambda route: route.fulfill(
        status=200, headers={"content-type": "text/event-stream"},
        body='data: {"type": "text", "text": "quick"}\n\ndata: {"type": "done", "text": "quick"}\n\ndata: [DONE]\n\n'))
    page.get_by_role("button", name="Rewrite").click()
    expect(versions.locator("option")).to_have_count(2)
    assert field.input_value() == "# fox\n\nThe quick fox runs."
    field.fill("# fox\n\nThe quick fox walks.")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Version 3 is kept.").wait_for()
    page.get_by_role("button", name="Compare with the version before").click()
    page.locator(".diff ins").wait_for()
    assert (page.locator(".diff del").inner_text(), page.locator(".diff ins").inner_text()) == ("runs", "walks")
    versions.select_option(label="Version 2, Rewrite")
    expect(field).to_have_value("# fox\n\nThe quick fox runs.")
    with page.expect_download() as found:
        page.get_by_role("button", name="Save as DOCX").click()
    assert found.value.suggested_filename == "fox.docx"


def test_a_batch_is_dropped_survives_a_reload_and_its_results_are_saved(room, tmp_path):
    page = room()
    (tmp_path / "notes.pdf").write_bytes(b"x")
    (tmp_path / "briefs.csv").write_text("topic,kind,length\nfox,post,20\n,post,20\nbird,post,20\n")
    section = page.get_by_role("region", name="Many texts at once")
    section.locator("input[type=file]").set_input_files(tmp_path / "notes.pdf")
    section.get_by_text("is none of .csv").wait_for()
    section.locator("input[type=file]").set_input_files(tmp_path / "briefs.csv")
    section.get_by_text("briefs.csv, 52 B").wait_for()
    section.get_by_role("button", name="Write all").click()
    section.locator(".job").wait_for()
    page.reload()
    section.get_by_text("2 texts").wait_for()
    section.get_by_text("briefs.csv:3: topic").wait_for()
    with page.expect_download() as found:
        section.get_by_role("button", name="Save briefs.texts.zip").click()
    assert found.value.suggested_filename == "briefs.texts.zip"
    section.get_by_role("button", name="Delete “briefs.csv” with its results").click()
    section.get_by_text("Nothing has been done here yet.").wait_for()


def test_the_rooms_by_keyboard_on_a_phone_in_both_languages(room):
    page = room(width=360, height=740)
    scripted(page)
    for language, write, chat in (("en", "Write", "Chat"), ("zh", "写作", "聊天")):
        page.locator(".room-page select").first.select_option(language)
        tab = page.get_by_role("link", name=chat)
        tab.focus()
        page.keyboard.press("Enter")
        page.locator("#composer").wait_for()
        assert page.evaluate("document.activeElement.localName") == "main"
        page.get_by_role("link", name=write).click()
        page.locator("#write-topic").wait_for()
        page.locator("#write-topic").fill("狐狸")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator("main").evaluate("main => main.scrollWidth - main.clientWidth") == 0
        assert page.get_by_role("link", name=write).get_attribute("aria-current") == "page"
    page.go_back()
    page.locator("#composer").wait_for()


def test_a_server_that_keeps_nothing_says_so(opened, server):
    page = opened(f"{server.url}/#/write", waits=False)
    page.locator(".room-notes").get_by_text("ayllu serve --data FOLDER").wait_for()
    brief(page)
    page.get_by_role("button", name="Write", exact=True).click()
    page.get_by_role("region", name="Checks").wait_for()
    assert page.get_by_role("region", name="Many texts at once").count() == 0
