"""What the page does when the server is full, away, wants a key or says no; settings, comparison, the token view."""

import json
import re

from page.acting import KEY, SSE, answer_with, answers, events, finished, refuse, say, set_value, short
from playwright.sync_api import expect
from server.live import serving

from ayllu.server.gate import Door
from ayllu.server.keys import Keys, key_of


def test_without_a_key_it_asks_for_one_and_keeps_it_in_the_tab(opened, chat_checkpoint):
    with serving(chat_checkpoint, door=Door(keys=Keys([key_of(KEY)]))) as live:
        page = opened(live.url, waits=False)
        dialog = page.get_by_role("dialog", name="This server wants a key")
        dialog.get_by_label("API key").fill("wrong-wrong-wrong-wrong")
        page.keyboard.press("Enter")
        dialog.get_by_text("doesn't know this key").wait_for()
        dialog.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        page.locator(".welcome .beginning:enabled").first.wait_for()
        assert KEY in page.evaluate("JSON.stringify(sessionStorage)")
        assert KEY not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
        page.reload()
        page.locator(".welcome .beginning:enabled").first.wait_for()


def test_a_full_server_is_asked_again(page):
    calls = []

    def full_twice(route):
        calls.append(route.request.post_data_json)
        if len(calls) <= 2:
            refuse(route, 503, "full", code="queue_full", headers={"retry-after": str(len(calls) * 30 - 29)})
        else:
            route.fulfill(status=200, headers=SSE, body=events("here"))

    page.route("**/v1/chat/completions", full_twice)
    say(page, "hello")
    page.get_by_text("The server is full. Trying again in").wait_for()
    page.get_by_text("Trying again in 3").wait_for()     # the second wait: 31 s, which nobody has to sit out
    now = page.get_by_role("button", name="Now")
    now.focus()
    left = page.locator(".waiting .left")
    expect(left).not_to_have_text(left.text_content())
    assert now.evaluate("button => button === document.activeElement")       # the countdown leaves the button alone
    now.click()
    finished(page)
    assert answers(page) == ["here"]
    assert calls[0] == calls[2]


def test_a_broken_stream_is_taken_up_where_it_ended(page):
    bodies = []

    def breaks_once(route):
        bodies.append(route.request.post_data_json)
        body = events("Half ", finish=None) if len(bodies) == 1 else events("of it.")
        route.fulfill(status=200, headers=SSE, body=body)

    page.route("**/v1/chat/completions", breaks_once)
    set_value(page, "Most tokens", "10")
    say(page, "hello")
    page.locator(".body.answer").filter(has_text="of it.").wait_for()        # the broken half has its figures already
    finished(page)
    assert answers(page) == ["Half of it."]
    assert bodies[1]["continue_final_message"] is True
    assert bodies[1]["messages"][-1] == {"role": "assistant", "content": "Half "}
    assert bodies[1]["max_tokens"] == 9


def test_an_error_is_told_and_can_be_tried_again(page):
    page.route("**/v1/chat/completions", lambda route: refuse(route, 400, "too <b>long</b>", param="messages"))
    say(page, "hello")
    alert = page.get_by_role("alert")
    alert.get_by_text("too <b>long</b>").wait_for()
    alert.get_by_text("Field: messages").wait_for()
    page.unroute("**/v1/chat/completions")
    answer_with(page, "fine")
    alert.get_by_role("button", name="Try again").click()
    finished(page)
    assert answers(page) == ["fine"]
    assert page.locator(".versions").count() == 0


def test_near_the_end_of_the_context_an_answer_is_shorter_and_says_so(page):
    short(page, "500")                                                       # of a context of 128
    say(page, "the fox")
    finished(page)
    stats = page.locator(".stats").last.inner_text()
    room = re.search(r"the context had room for (\d+) of 500", stats)
    assert room, stats
    assert f"{room[1]} tokens" in stats
    assert int(room[1]) + int(re.search(r"(\d+) read", stats)[1]) == 128
    say(page, "full " * 150)                            # a prompt that has no room at all is an error still
    page.locator(".fault").filter(has_text="context takes 128").wait_for()


def test_a_server_that_is_away_is_looked_for(opened, server):
    page = opened(waits=False, ready=lambda page: page.route("**/v1/models", lambda route: route.abort()))
    page.get_by_text("The server can't be reached.").wait_for()
    assert page.get_by_role("button", name="Send").is_disabled()
    page.unroute("**/v1/models")
    page.locator(".welcome .beginning:enabled").first.wait_for()


def test_every_setting_reaches_the_server(page):
    bodies = answer_with(page, "yes")
    values = {"Temperature": "0.5", "Top p": "0.9", "Min p": "0.02", "Top k": "7", "Typical p": "0.8",
              "Repetition penalty": "1.2", "Presence penalty": "0.1", "Frequency penalty": "-0.1", "Most tokens": "9",
              "Fewest tokens": "2", "Seed": "77", "Stop texts": "END\n\\n", "Stop ids": "3, 4",
              "Logit bias": '{"5": -100}', "Template variables": '{"a": 1}', "System prompt": "Be kind.",
              "JSON schema": '{"type": "object"}'}
    for label, value in values.items():
        set_value(page, label, value)
    page.locator("#drawer").get_by_label("Write on past the end token").check()
    assert page.get_by_label("Preset", exact=True).locator("option:checked").inner_text() == "Your own values"
    page.get_by_role("combobox", name="Model", exact=True).select_option("other")
    say(page, "hello")
    finished(page)
    body = bodies[0]
    assert body["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]
    expected = {"temperature": 0.5, "top_p": 0.9, "min_p": 0.02, "top_k": 7, "typical_p": 0.8, "seed": 77,
                "model": "other", "repetition_penalty": 1.2, "presence_penalty": 0.1, "frequency_penalty": -0.1,
                "max_tokens": 9, "min_tokens": 2, "stop": ["END", "\n"], "stop_token_ids": [3, 4],
                "logit_bias": {"5": -100}, "chat_template_kwargs": {"a": 1}, "ignore_eos": True, "stream": True}
    assert {name: body[name] for name in expected} == expected
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_what_the_server_can_not_do_and_what_nobody_can_read_is_said(page):
    set_value(page, "JSON schema", "{")
    page.locator("#schema-note").get_by_text("can't be read").wait_for()
    set_value(page, "JSON schema", '{"type": "object"}')
    page.route("**/v1/chat/completions", lambda route: refuse(route, 400, "not built", param="response_format"))
    say(page, "hello")
    page.locator("#schema-note").get_by_text("This server can't do it yet: not built").wait_for()
    set_value(page, "Top k", "-3")
    assert page.get_by_label("Top k").get_attribute("aria-invalid") == "true"


def test_the_schema_box_holds_the_answer_to_its_form(page):
    schema = {"type": "object", "properties": {"is_red": {"type": "boolean"}}, "required": ["is_red"],
              "additionalProperties": False}
    set_value(page, "JSON schema", json.dumps(schema))
    set_value(page, "Most tokens", "60")
    say(page, "the fox")
    finished(page)
    assert set(json.loads(answers(page)[0])) == {"is_red"}


def test_presets(page):
    set_value(page, "Temperature", "0.33")
    page.get_by_role("button", name="Save as a preset").click()
    page.get_by_role("dialog").get_by_label("Name of the preset").fill("mine")
    page.keyboard.press("Enter")
    preset = page.get_by_label("Preset", exact=True)
    preset.select_option("Precise")
    assert page.get_by_label("Temperature", exact=True).first.input_value() == "0"
    page.reload()
    page.get_by_role("button", name="Settings", exact=True).click()
    preset.select_option("mine")
    assert page.get_by_label("Temperature", exact=True).first.input_value() == "0.33"
    page.get_by_role("button", name="Delete this preset").click()
    assert "mine" not in preset.inner_text()


def test_two_settings_side_by_side_with_the_same_seed(page):
    bodies = answer_with(page, "answer")
    page.get_by_role("button", name="Compare two").click()
    page.get_by_role("combobox", name="Model B").select_option("other")
    set_value(page, "Temperature", "0.1")
    page.locator("#drawer").get_by_label("B", exact=True).dispatch_event("click")
    set_value(page, "Temperature", "1.5")
    say(page, "hello")
    finished(page, 2)
    assert page.locator(".pair .message").count() == 2
    a, b = sorted(bodies, key=lambda body: body["temperature"])
    assert (a["temperature"], b["temperature"]) == (0.1, 1.5)
    assert a["seed"] == b["seed"]
    assert b["model"] == "other"
    page.get_by_role("button", name="Use this one").last.click()
    assert page.locator(".pair").count() == 0
    page.get_by_text("2/2").wait_for()


def test_the_same_seed_and_settings_give_the_same_answer(page):
    short(page)
    page.get_by_role("button", name="Compare two").click()
    page.locator("[aria-controls=drawer]").click()
    page.locator("#drawer").get_by_label("B", exact=True).dispatch_event("click")
    set_value(page, "Most tokens", "12")
    page.locator("#drawer").get_by_label("Write on past the end token").check()
    say(page, "the stars")
    finished(page, 2)
    one, two = answers(page)
    assert one == two


def test_the_token_view_shows_alternatives_and_goes_on_from_one(page):
    short(page)
    page.get_by_label("Close the settings").wait_for(state="hidden")
    say(page, "the fox")
    finished(page)
    page.get_by_role("button", name="Tokens", exact=True).click()
    page.locator(".token").nth(11).wait_for()
    assert page.locator(".token").count() == 12
    assert page.locator(".token[tabindex='0']").count() == 1                # one stop for Tab, arrows within
    page.locator(".token").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    assert page.locator(".token[tabindex='0']").count() == 1
    choice = page.get_by_role("dialog", name="Instead of")
    shares = [float(text.rstrip("%")) for text in choice.locator(".share").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 101
    assert len(shares) >= 10
    other = choice.locator("button:not([aria-current])").first
    bodies = []
    page.on("request", lambda r: bodies.append(json.loads(r.post_data)) if r.url.endswith("/v1/completions") else None)
    other.click()
    page.get_by_text("2/2").wait_for()
    page.locator(".stats").filter(has_text="seed").wait_for()
    assert all(isinstance(id, int) for id in bodies[0]["prompt"])
    assert bodies[0]["stream"] is True
