"""Tools over OpenAI's two APIs, with the official client in strict mode. The model's weights are random: what it writes
is nonsense, and only the grammar makes it a call, so each test holds for any model."""

import json

import httpx
import openai
import pytest
from server.tooled import CHAT, TOOLS, fits, live_families

live = live_families("ayllu", "llama", "mistral_args", "none")


def chat(client, **options):
    return client.chat.completions.create(**{"model": "tiny", "messages": CHAT, "max_tokens": 250, "seed": 1,
                                             "tools": TOOLS, **options})


def made(choice):
    """The calls that are whole: only the last may be cut, and then the answer says so."""
    calls = choice.message.tool_calls or []
    return calls[:-1] if choice.finish_reason == "length" else calls


def is_call(call):
    return fits(call.function.name, call.function.arguments) and call.type == "function" and bool(call.id)


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_required_and_named(client, temperature):
    for seed in range(2):
        found = chat(client, tool_choice="required", temperature=temperature, seed=seed, parallel_tool_calls=False)
        choice = found.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert len(choice.message.tool_calls) == 1
        assert is_call(choice.message.tool_calls[0])
    named = {"type": "function", "function": {"name": "count"}}
    found = chat(client, tool_choice=named, temperature=temperature)
    assert {call.function.name for call in found.choices[0].message.tool_calls} == {"count"}
    assert all(map(is_call, made(found.choices[0])))
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    found = chat(client, tool_choice=allowed, temperature=temperature)
    assert {call.function.name for call in found.choices[0].message.tool_calls} == {"count"}


def test_auto_and_none(client):
    """Free text or calls; each call is whole. Under "none" no call comes."""
    for seed in range(3):
        found = chat(client, temperature=1.5, seed=seed, max_tokens=60).choices[0]
        assert found.finish_reason in ("stop", "length", "tool_calls")
        assert all(map(is_call, made(found)))
        none = chat(client, tool_choice="none", temperature=1.5, seed=seed, max_tokens=60).choices[0]
        assert none.message.tool_calls is None
        assert none.message.content is not None
        assert none.finish_reason in ("stop", "length")


def test_a_stream_gives_what_the_whole_answer_has(client):
    for choice in ("required", "auto"):
        whole = chat(client, tool_choice=choice, logprobs=True).choices[0]
        chunks = list(chat(client, tool_choice=choice, stream=True, logprobs=True,
                           stream_options={"include_usage": True}))
        parts = [part for c in chunks if c.choices for part in c.choices[0].delta.tool_calls or ()]
        calls = {}
        for part in parts:
            if part.id:
                assert part.index == len(calls)
                assert (part.type, part.function.arguments) == ("function", "")
                calls[part.index] = [part.id, part.function.name, ""]
            else:
                assert part.function.name is None
                calls[part.index][2] += part.function.arguments
        assert len({id for id, *_ in calls.values()}) == len(calls)
        expected = whole.message.tool_calls or []
        assert [c[1:] for c in calls.values()] == [[c.function.name, c.function.arguments] for c in expected]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == (whole.message.content or "")
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.finish_reason
        assert chunks[-1].usage.completion_tokens > 0
        entries = [e for c in chunks if c.choices and c.choices[0].logprobs for e in c.choices[0].logprobs.content]
        assert [e.token for e in entries] == [e.token for e in whole.logprobs.content]
    with client.chat.completions.stream(model="tiny", messages=CHAT, tools=TOOLS, max_tokens=250,
                                        tool_choice="required", seed=1) as stream:
        final = stream.get_final_completion()
    assert all(map(is_call, made(final.choices[0])))


def test_several_answers_have_ids_of_their_own(client):
    found = chat(client, tool_choice="required", n=3, temperature=1.5)
    calls = [call for choice in found.choices for call in choice.message.tool_calls]
    assert len({call.id for call in calls}) == len(calls) >= 3


def test_a_call_that_is_cut_says_length(client):
    found = chat(client, tool_choice={"type": "function", "function": {"name": "note"}}, max_tokens=25,
                 logit_bias=None, temperature=0).choices[0]
    assert found.finish_reason == "length"


def test_a_call_and_its_result_go_back(client, live):
    first = chat(client, tool_choice="required", parallel_tool_calls=False).choices[0].message
    history = [*CHAT, first.model_dump(exclude_none=True), *[
        {"role": "tool", "tool_call_id": call.id, "content": "42 <tool_call>"} for call in first.tool_calls]]
    found = chat(client, messages=history, max_tokens=20)
    assert found.usage.prompt_tokens > chat(client, max_tokens=1).usage.prompt_tokens
    prompt = httpx.post(f"{live.url}/apply-template", json={"messages": history, "tools": TOOLS}).json()["prompt"]
    assert all(call.function.name in prompt for call in first.tool_calls)
    assert "42 <tool_call>" in prompt
    assert "Writes down a note." in prompt
    without = httpx.post(f"{live.url}/apply-template", json={"messages": history}).json()["prompt"]
    assert "Writes down a note." not in without
    assert first.tool_calls[0].function.name in without


def test_text_of_a_form_beside_tools(client, live):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "maxItems": 1}}}
    if live.family == "llama":                           # both would begin with a brace
        with pytest.raises(openai.BadRequestError, match="response_format"):
            chat(client, response_format=form)
        return
    for seed in range(3):
        message = chat(client, response_format=form, seed=seed, temperature=1.5, max_tokens=100).choices[0]
        if message.finish_reason == "stop":
            assert isinstance(json.loads(message.message.content), list)
        assert all(map(is_call, made(message)))


def bad(**change):
    return {"messages": CHAT, "tools": TOOLS, **change}


TOOL = TOOLS[0]
CALL = {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {
    "name": "note", "arguments": "{}"}}]}
DEEP = {"type": "object"}
for _ in range(80):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


def function(**change):
    return {"type": "function", "function": {**TOOL["function"], **change}}


@pytest.mark.parametrize(("body", "param"), [
    (bad(tool_choice={"type": "function", "function": {"name": "fly"}}), "tool_choice"),
    (bad(tool_choice="sometimes"), "tool_choice"), (bad(tools=[], tool_choice="required"), "tool_choice"),
    ({"messages": CHAT, "tool_choice": {"type": "function", "function": {"name": "note"}}}, "tool_choice"),
    (bad(tools=[TOOL, TOOL]), "tools"), (bad(tools=[function(name=f"f{n}") for n in range(129)]), "tools"),
    (bad(tools=[function(parameters={"type": "object", "properties": {"a": {"enum": ["x" * 70_000]}}})]),
     "tools.0.function.parameters"),
    (bad(tools=[TOOL, function(name="b", parameters={"type": "object", "properties": {"a": {"type": "oops"}}})]),
     "tools.1.function.parameters"),
    (bad(tools=[function(parameters={"type": "string"})]), "tools.0.function.parameters"),
    (bad(tools=[function(parameters=DEEP)]), "tools.0.function.parameters"),
    (bad(tools=[function(name="a b")]), "tools.0.function.name"),
    (bad(tools=[{"type": "custom", "custom": {"name": "x"}}]), "tools.0.type"),
    (bad(messages=[*CHAT, CALL, {"role": "tool", "tool_call_id": "b", "content": "1"}]), "messages.2.tool_call_id"),
    (bad(messages=[*CHAT, CALL, *[{"role": "tool", "tool_call_id": "a", "content": "1"}] * 2]),
     "messages.3.tool_call_id"),
    (bad(messages=[*CHAT, {"role": "tool", "content": "1"}]), "messages.1"),
    (bad(messages=[*CHAT, {"role": "user", "tool_calls": CALL["tool_calls"]}]), "messages.1"),
    (bad(messages=[*CHAT, {"role": "assistant", "tool_calls": [{"id": "a", "function": {
        "name": "note", "arguments": "{"}}]}]), "messages.1.tool_calls.0.function.arguments"),
    (bad(structured_outputs={"regex": "a"}), "structured_outputs"),
])
def test_what_cannot_be_honoured_names_its_field(live, body, param):
    found = httpx.post(f"{live.url}/v1/chat/completions", json={"max_tokens": 5, **body}, timeout=30)
    assert (found.status_code, found.json()["error"]["param"]) == (400, param), found.text
