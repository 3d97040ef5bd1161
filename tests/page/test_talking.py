"""Conversations against a live server with a tiny model: what a person does and sees."""

import json
import re
from typing import Any

from page.acting import answer_with, answers, finished, say, set_value, short
from server.live import serving


def test_an_answer_streams_and_tells_what_it_cost(page):
    short(page)
    page.evaluate("""() => {
        const now = performance.now.bind(performance);
        let more = 0;
        performance.now = () => now() + (more += 5);     // tokens that all come at once have no speed
    }""")
    say(page, "the fox")
    finished(page)
    stats = page.locator(".stats").last.inner_text()
    assert "12 tokens" in stats
    assert "tokens/s" in stats
    assert "first after" in stats
    assert "cut: most tokens reached" in stats
    assert answers(page)[0]
    assert page.title() == "the fox · Ayllu"
    page.locator(".gauge .count").filter(has_text=re.compile("^[1-9]")).wait_for()
    assert page.get_by_role("meter").get_attribute("aria-valuemax") == "128"
    page.locator("#composer").fill("full " * 150)
    page.locator(".gauge.full .count").filter(has_text="full").wait_for()    # in words, not by colour alone
    assert page.get_by_role("meter").get_attribute("aria-label").endswith("full")


def test_what_is_sent_is_seen_also_where_the_browser_moves_the_thread(page):
    """Drawing the thread anew may move it by a pixel, of which the browser tells as of scrolling."""
    short(page)
    for text in ("one " * 150, "two " * 150, "three"):
        say(page, text)
        page.locator(".fault, .stats:has-text('seed')").nth(0).wait_for()
        page.get_by_role("button", name="Send").wait_for()
        page.evaluate("""() => {
            const main = document.querySelector("main.scroll");
            const tell = () => main.dispatchEvent(new Event("scroll"));
            new MutationObserver(tell).observe(main.firstElementChild, {childList: true});
        }""")
    at = "(({scrollHeight, scrollTop, clientHeight}) => [scrollTop, scrollHeight - scrollTop - clientHeight])"
    top, below = page.evaluate(f"{at}(document.querySelector('main.scroll'))")
    assert top > 0
    assert below < 2


def test_versions_edit_branch_and_continue(page):
    short(page)
    say(page, "the bird")
    finished(page)
    first = answers(page)[0]
    page.get_by_role("button", name="Another answer").click()
    page.get_by_text("2/2").wait_for()
    finished(page)
    assert answers(page)[0] != first
    page.get_by_role("button", name="Version before").click()
    assert answers(page) == [first]

    page.get_by_role("button", name="Continue", exact=True).click()
    page.locator(".stats").filter(has_text="24 tokens").wait_for()
    assert answers(page)[0].startswith(first.rstrip("\ufffd ")[:10])
    assert len(answers(page)[0]) > len(first)

    page.get_by_role("button", name="Edit: Your words").click()
    page.get_by_label("Edited text").fill("the river")
    page.get_by_role("button", name="Send as a new branch").click()
    finished(page)
    assert page.locator(".body.yours").inner_text() == "the river"
    page.get_by_role("button", name="Version before").first.click()
    assert page.locator(".body.yours").inner_text() == "the bird"

    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_label("Edited text").fill("my own **words**")
    page.get_by_role("button", name="Keep as a new version").click()
    assert page.locator(".body.answer strong").inner_text() == "words"
    page.get_by_text("3/3").wait_for()


def test_several_answers_at_a_time_become_versions(page):
    short(page, "5")
    set_value(page, "Answers at a time", "3")
    say(page, "a star")
    page.get_by_text("1/3").wait_for()
    finished(page)
    assert "5 tokens" in page.locator(".stats").last.inner_text()


def test_stop_keeps_what_was_written_and_frees_the_server(opened, chat_checkpoint):
    with serving(chat_checkpoint, slow_s=0.3) as live:
        free = live.pages_free()
        page = opened(live.url)
        short(page, "90")
        say(page, "walk")
        page.locator(".stats").filter(has_text="3 tokens").wait_for()
        page.keyboard.press("Escape")
        page.locator(".stats").get_by_text("stopped by you").wait_for()
        page.get_by_role("button", name="Send").wait_for()
        live.wait_until(lambda: live.pages_free() == free, 10)
        page.get_by_role("button", name="Continue", exact=True).click()
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("button", name="Send").wait_for()


def test_a_text_is_continued_and_kept_over_a_reload(page):
    page.get_by_label("Continue a text").dispatch_event("click")
    short(page)
    say(page, "Once upon a time")
    finished(page)
    whole = page.locator(".prose").inner_text()
    assert whole.startswith("Once upon a time")
    page.locator("#composer").press("Enter")             # nothing typed: it writes on
    page.locator(".stats").filter(has_text="24 tokens").wait_for()
    assert page.locator(".prose").inner_text().startswith(whole[:30])
    page.wait_for_timeout(300)
    longer = page.locator(".prose").inner_text()
    page.reload()
    page.get_by_role("button", name="Once upon a time", exact=True).first.click()
    assert page.locator(".prose").inner_text() == longer


def test_the_list_searches_renames_deletes_and_undoes(page):
    answer_with(page, "about **tea**")
    for words in ("first question", "second question"):
        page.get_by_role("button", name="New").click()
        say(page, words)
        finished(page)
    entries = page.locator(".entry")
    assert entries.all_inner_texts() == ["second question", "first question"]
    page.get_by_role("searchbox", name="Search").fill("FIRST tea")
    assert entries.all_inner_texts() == ["first question"]
    page.get_by_role("searchbox", name="Search").fill("")

    page.get_by_role("button", name="More about “first question”").click()
    page.get_by_role("menuitem", name="Rename").click()
    page.get_by_role("dialog").get_by_label("Rename").fill("<b>Tea</b>")
    page.keyboard.press("Enter")
    assert "<b>Tea</b>" in entries.all_inner_texts()

    page.get_by_role("button", name="More about “<b>Tea</b>”").click()
    page.get_by_role("menuitem", name="Delete").click()
    assert entries.all_inner_texts() == ["second question"]
    page.get_by_role("button", name="Undo").click()
    assert sorted(entries.all_inner_texts()) == ["<b>Tea</b>", "second question"]


def test_export_and_import(page, opened, tmp_path):
    answer_with(page, "**warm**")
    say(page, "what is tea")
    finished(page)
    page.get_by_role("button", name="More about").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Export as Markdown").click()
    assert download.value.suggested_filename == "what is tea.md"
    text = download.value.path().read_text(encoding="utf-8")
    assert "what is tea" in text
    assert "**warm**" in text
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all").click()
    file = tmp_path / "all.json"
    download.value.save_as(file)

    other = opened()
    other.get_by_label("Import", exact=True).and_(other.locator("input")).set_input_files(file)
    other.get_by_text("Conversations imported: 1").first.wait_for()
    assert answers(other) == ["warm"]


def hostile(**changes: Any) -> str:
    root = {"id": "root", "parent": None, "role": "root", "text": "", "children": ["a"], "active": "a"}
    a = {"id": "a", "parent": "root", "role": "user", "text": "<img src=x onerror=alert(1)>", "children": [],
         "active": None}
    one = {"id": "x", "title": "<script>alert(1)</script>", "kind": "chat", "created": 1, "updated": 1,
           "nodes": {"root": root, "a": {**a, **changes}}}
    return json.dumps({"format": "ayllu-conversations", "version": 1, "conversations": [one]})


def test_an_imported_file_is_hostile_text(page, tmp_path):
    bad = ["{", "[]", '{"format": "ayllu-conversations", "conversations": [null]}', hostile(children=["a"], active="a"),
           hostile(children=["gone"], active="gone"), hostile(role="system"), hostile(parent="__proto__"),
           hostile(children=["root"], active="root"), hostile(parent="a", children=["a"], active="a")]
    taken = page.evaluate("""async (texts) => {
      const { fromFile } = await import('/ui/js/exchange.js');
      const found = texts.map(text => fromFile(new File([text], 'x.json'), new Set()).then(() => true, () => false));
      return Promise.all(found);
    }""", [*bad, hostile()])
    assert taken == [False] * len(bad) + [True]
    field = page.get_by_label("Import", exact=True).and_(page.locator("input"))
    file = tmp_path / "file.json"
    file.write_text(bad[0], encoding="utf-8")
    field.set_input_files(file)
    page.locator(".toast").get_by_text("can't be imported").wait_for()
    assert page.locator(".entry").count() == 0
    file.write_text(hostile(), encoding="utf-8")
    field.set_input_files(file)
    page.locator(".body.yours").get_by_text("<img src=x onerror=alert(1)>").wait_for()
    assert page.locator(".entry").inner_text() == "<script>alert(1)</script>"
    assert page.locator("img").count() == 1              # the page's own sign


def test_what_is_hostile_in_an_answer_stays_text(page):
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    answer_with(page, "<img src=x onerror=alert(1)><scr", "ipt>alert(2)</script>", "[x](javascript:alert(3))")
    say(page, "<svg onload=alert(4)>")
    finished(page)
    assert "<script>alert(2)</script>" in answers(page)[0]
    assert page.locator(".thread a").count() == 0
    assert dialogs == []
