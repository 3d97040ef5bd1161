"""Tools: the box of functions, a call as a card while it is written, its result given by hand, and all of it kept."""

import json

from page.acting import SSE, answers, finished, refuse, say, set_value
from playwright.sync_api import expect
from server.tooled import tooled

WEATHER = {"name": "get_weather", "parameters": {"type": "object", "properties": {"is_warm": {"type": "boolean"}},
                                                 "required": ["is_warm"]}}


def chunk(delta, finish=None):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def called(*calls, text=None):
    """A stream that calls (id, name, pieces of arguments)."""
    found = [chunk({"content": text})] if text else []
    for n, (id, name, *pieces) in enumerate(calls):
        found += [chunk({"tool_calls": [{"index": n, "id": id, "type": "function",
                                         "function": {"name": name, "arguments": ""}}]})]
        found += [chunk({"tool_calls": [{"index": n, "function": {"arguments": piece}}]}) for piece in pieces]
    found.append({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None, "token_ids": [5, 6]}]})
    return [*found, chunk({}, "tool_calls" if calls else "stop")]


def answers_in_turn(page, *streams):
    """The network gives these streams one after the other; gives the list that the bodies of the calls go to."""
    bodies = []

    def fulfil(route):
        bodies.append(route.request.post_data_json)
        lines = [f"data: {json.dumps(one)}\n\n" for one in streams[min(len(bodies), len(streams)) - 1]]
        route.fulfill(status=200, headers=SSE, body="".join(lines) + "data: [DONE]\n\n")

    page.route("**/v1/chat/completions", fulfil)
    return bodies


def use_tools(page, tools, choice=None):
    set_value(page, "Functions that the model may call", tools if isinstance(tools, str) else json.dumps(tools))
    if choice:
        page.get_by_label("Which one it calls").select_option(label=choice)
    page.get_by_role("button", name="Close the settings").click()


TWO = called(("call_a", "get_weather", '{"ci', 'ty": "Pa', 'ris", "days": [1, 2]}'), ("call_b", "now", "{}"),
             text="I'll look.")


def test_calls_get_their_results_by_hand_and_the_chat_goes_on(page):
    bodies = answers_in_turn(page, TWO, called(text="It is warm."))
    use_tools(page, [WEATHER, {"type": "function", "function": {"name": "now"}}])
    say(page, "Weather?")
    card = page.get_by_role("group", name="Call of get_weather")
    expect(card.locator("pre")).to_have_text('{\n  "city": "Paris",\n  "days": [\n    1,\n    2\n  ]\n}')
    page.locator(".stats").get_by_text("calls a tool").wait_for()
    page.locator("#live").get_by_text("It calls get_weather, now and waits").wait_for(state="attached")
    page.get_by_label("Result of get_weather").fill('{"degrees": 20}')
    page.get_by_label("Result of now").fill("noon")
    page.keyboard.press("Control+Enter")
    page.locator(".answer").get_by_text("It is warm.").wait_for()
    assert bodies[0]["tools"] == [{"type": "function", "function": WEATHER},
                                  {"type": "function", "function": {"name": "now"}}]
    assert bodies[0]["tool_choice"] == "auto"
    call, a, b = bodies[1]["messages"][1:]
    assert call["content"] == "I'll look."
    assert [(one["id"], one["type"], one["function"]["name"]) for one in call["tool_calls"]] == [
        ("call_a", "function", "get_weather"), ("call_b", "function", "now")]
    assert json.loads(call["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris", "days": [1, 2]}
    assert a == {"role": "tool", "tool_call_id": "call_a", "content": '{"degrees": 20}'}
    assert b == {"role": "tool", "tool_call_id": "call_b", "content": "noon"}
    assert page.locator(".results").count() == 0

    page.get_by_role("button", name="Edit the results").click()            # another result: another branch
    page.get_by_label("Result of now").fill("night")
    page.get_by_role("button", name="Send as a new branch").click()
    page.locator(".message.tool").get_by_text("2/2").wait_for()
    assert [one["content"] for one in bodies[2]["messages"][2:]] == ['{"degrees": 20}', "night"]
    page.locator(".message.tool").get_by_role("button", name="Version before").click()
    assert page.locator(".message.tool pre").all_inner_texts() == ['{"degrees": 20}', "noon"]


def test_calls_are_kept_found_exported_and_imported(page, tmp_path):
    answers_in_turn(page, TWO, called(text="It is warm."))
    use_tools(page, [WEATHER, {"name": "now"}], "Only get_weather")
    say(page, "Weather?")
    page.get_by_label("Result of get_weather").fill("two words ```")
    page.get_by_role("button", name="Give to the model").click()
    page.locator(".answer").get_by_text("It is warm.").wait_for()
    page.reload()
    page.get_by_role("searchbox").fill("Paris words")                      # one is an argument, one a result
    page.locator(".entry").click()
    assert page.locator(".message.tool pre").first.inner_text() == "two words ```"
    files = []
    for kind in ("Markdown", "JSON"):
        page.get_by_role("button", name="More about").click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=f"Export as {kind}").click()
        files.append(tmp_path / download.value.suggested_filename)
        download.value.save_as(files[-1])
    assert '## Result of get_weather\n\n````\ntwo words ```\n````' in files[0].read_text(encoding="utf-8")
    page.locator("input[type=file][accept*=json]").set_input_files(files[1])
    page.get_by_text("Conversations imported: 1").wait_for()
    assert page.locator(".message.tool pre").first.inner_text() == "two words ```"
    bad = json.loads(files[1].read_text(encoding="utf-8"))
    told = next(node for node in bad["conversations"][0]["nodes"].values() if node["role"] == "tool")
    told["results"] = ["one too few"]
    files[1].write_text(json.dumps(bad), encoding="utf-8")
    page.locator("input[type=file][accept*=json]").set_input_files(files[1])
    page.get_by_text("can't be imported: conversations[0]").wait_for()
    page.locator("[aria-controls=drawer]").click()
    assert page.get_by_label("Which one it calls").input_value() == "get_weather"


def test_a_list_of_tools_that_is_wrong_is_told_at_its_box_and_sent_nowhere(page):
    bodies = answers_in_turn(page, TWO)
    box = page.get_by_label("Functions that the model may call")
    for tools, why in [("[", "JSON"), ('{"name": "a"}', "put [ ] around"), ("[null]", "function 1 needs a name"),
                       ('[{"name": "a b"}]', "function 1 needs a name"),
                       ('[{"name": "a"}, {"name": "a"}]', "two functions"),
                       ('[{"name": "a", "parameters": {"type": "string"}}]', "parameters of a must be"),
                       ('[{"name": "a", "parameters": []}]', "parameters of a must be")]:
        set_value(page, "Functions that the model may call", tools)
        expect(page.locator("#tools-note")).to_contain_text(why)
        assert box.get_attribute("aria-invalid") == "true"
    say(page, "hello")
    page.get_by_role("alert").get_by_text("Field: tools").wait_for()
    assert bodies == []
    page.get_by_role("button", name="Empty the box").last.click()
    page.get_by_role("button", name="Put in an example").click()
    expect(page.locator("#tools-note")).to_have_text("1 found: get_weather")
    page.get_by_label("Which one it calls").select_option("get_weather")
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: refuse(route, 400, "no tools here", param="tools"))
    page.get_by_role("alert").get_by_role("button", name="Try again").click()
    page.get_by_role("alert").get_by_text("no tools here").wait_for()        # a server without them says so itself


def test_a_call_that_was_cut_and_one_that_broke_off(page):
    def breaks_once(route):
        calls.append(route.request.post_data_json)
        stream = TWO[:4] if len(calls) == 1 else [*TWO[:4], chunk({}, "length")]
        body = "".join(f"data: {json.dumps(one)}\n\n" for one in stream)
        route.fulfill(status=200, headers=SSE, body=body + ("data: [DONE]\n\n" if len(calls) > 1 else ""))

    calls = []
    page.route("**/v1/chat/completions", breaks_once)
    use_tools(page, [WEATHER], "At least one")
    say(page, "hello")
    page.get_by_text("The call was cut off").wait_for()
    assert calls[0] == calls[1]                          # a call is written anew with the same seed, never twice
    assert calls[0]["tool_choice"] == "required"
    expect(page.locator(".call pre")).to_have_text('{\n  "city": "Pa')
    assert page.locator(".results").count() == 0
    page.unroute("**/v1/chat/completions")
    bodies = answers_in_turn(page, called(text="fine"))
    say(page, "go on")
    page.locator(".answer").get_by_text("fine").wait_for()
    assert [one["role"] for one in bodies[0]["messages"]] == ["user", "assistant", "user"]
    assert "tool_calls" not in bodies[0]["messages"][1]


def test_the_real_server_calls_takes_the_result_and_shows_the_calls_tokens(opened, tmp_path):
    """A tiny model of random weights: the grammar alone makes it a call."""
    with tooled("hermes", tmp_path) as live:
        page = opened(live.url)
        set_value(page, "Most tokens", "60")
        use_tools(page, [WEATHER], "Only get_weather")
        sent = []
        page.on("request", lambda r: sent.append((r.url, r.post_data_json)) if r.method == "POST" else None)
        say(page, "the fox")
        result = page.get_by_label("Result of get_weather")
        result.wait_for()
        assert set(json.loads(page.locator(".call pre").inner_text())) == {"is_warm"}
        page.get_by_role("button", name="Tokens", exact=True).click()
        page.locator(".token").nth(5).wait_for()
        prompt = next(body for url, body in sent if url.endswith("/apply-template"))
        assert prompt["tools"][0]["function"]["name"] == "get_weather"   # the ids are those of the prompt with tools
        page.locator("[aria-controls=drawer]").click()
        page.get_by_label("Which one it calls").select_option("none")
        page.get_by_role("button", name="Close the settings").click()
        result.fill("sunny")
        page.get_by_role("button", name="Give to the model").click()
        finished(page, 2)
        assert page.locator(".fault").count() == 0
        assert len(answers(page)) == 2
