"""Tools over Anthropic's, Ollama's and OpenAI's newer API, with the official clients."""

import json

import anthropic
import httpx
import ollama
import openai
import pytest
from server.tooled import CHAT, SCHEMA, TOOLS, fits, live_families

CLAUDES = [{"name": name, "description": f"Does {name}.", "input_schema": schema} for name, schema in SCHEMA.items()]
FLAT = [{"type": "function", "name": name, "parameters": schema, "strict": True} for name, schema in SCHEMA.items()]


live = live_families("hermes", "llama", "mistral")


def said(message):
    """Its text and its calls without their ids; those that were cut show what came of them in a stream only."""
    return [block.text if block.type == "text" else (block.name, block.input) for block in message.content
            if block.type == "text" or (block.input and message.stop_reason == "tool_use")]


def message(claude, **options):
    return claude.messages.create(**{"model": "tiny", "max_tokens": 150, "messages": CHAT, "tools": CLAUDES,
                                     "extra_body": {"temperature": 0}, **options})


ONE = {"type": "any", "disable_parallel_tool_use": True}


def test_anthropic_whole_and_streamed(claude):
    found = message(claude, tool_choice=ONE)
    assert found.stop_reason == "tool_use"
    assert [block.type for block in found.content] == ["tool_use"]
    assert fits(found.content[0].name, found.content[0].input)
    named = message(claude, tool_choice={"type": "tool", "name": "count"}, extra_body={})
    assert {block.name for block in named.content} == {"count"}
    none = message(claude, tool_choice={"type": "none"}, max_tokens=20)
    assert [block.type for block in none.content] == ["text"]
    for choice in (ONE, {"type": "auto"}):
        whole = message(claude, tool_choice=choice)
        with claude.messages.stream(model="tiny", max_tokens=150, messages=CHAT, tools=CLAUDES, tool_choice=choice,
                                    extra_body={"temperature": 0}) as stream:
            events = list(stream)
            final = stream.get_final_message()
        assert final.stop_reason == whole.stop_reason
        assert said(final) == said(whole)
        kinds = [e.type for e in events if e.type in ("content_block_start", "content_block_stop")]
        assert kinds == ["content_block_start", "content_block_stop"] * len(final.content)


def test_anthropic_results_go_back(claude, live):
    first = message(claude, tool_choice=ONE)
    id = first.content[0].id
    history = [*CHAT, {"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in first.content]},
               {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "42"},
                                            {"type": "text", "text": "Go on."}]}]
    count = claude.messages.count_tokens(model="tiny", messages=history, tools=CLAUDES).input_tokens
    assert count > claude.messages.count_tokens(model="tiny", messages=CHAT, tools=CLAUDES).input_tokens
    assert message(claude, messages=history, max_tokens=8).usage.output_tokens == 8
    for change, says in (({"tool_use_id": "toolu_x"}, "messages.2.content.0.tool_use_id"),
                         ({"content": [{"type": "image"}]}, "image")):
        wrong = [*history[:2], {"role": "user", "content": [{**history[2]["content"][0], **change}]}]
        with pytest.raises(anthropic.BadRequestError, match=says):
            message(claude, messages=wrong)
    with pytest.raises(anthropic.BadRequestError, match="tool_choice"):
        message(claude, tool_choice={"type": "tool", "name": "fly"})
    with pytest.raises(anthropic.BadRequestError, match=r"tools\.0\.input_schema"):
        message(claude, tools=[{"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "x"}}}}])


def test_anthropic_a_call_that_is_cut(claude):
    found = message(claude, tool_choice={"type": "tool", "name": "note"}, max_tokens=28)
    assert found.stop_reason == "max_tokens"
    assert all(block.type == "text" or block.input == {} or fits(block.name, block.input) for block in found.content)


def respond(client, **options):
    return client.responses.create(**{"model": "tiny", "input": "Count.", "max_output_tokens": 150, "tools": FLAT,
                                      "temperature": 0, **options})


def called(response):
    return [(item.name, item.arguments, item.status) for item in response.output if item.type == "function_call"]


def test_responses_whole_and_streamed(client):
    for choice in ("required", {"type": "function", "name": "count"}, "auto"):
        whole = respond(client, tool_choice=choice, parallel_tool_calls=False)
        assert whole.status == ("incomplete" if whole.incomplete_details else "completed")
        for name, arguments, status in called(whole):
            assert status == "completed"
            assert fits(name, json.loads(arguments))
        assert choice == "auto" or (len(whole.output) == 1 and whole.output[0].type == "function_call")
        assert whole.tools[0].name == "note"
        with client.responses.stream(model="tiny", input="Count.", max_output_tokens=150, tools=FLAT, temperature=0,
                                     tool_choice=choice, parallel_tool_calls=False) as stream:
            events = list(stream)
            final = events[-1].response                  # the client's own last word is for completed ones only
        assert called(final) == called(whole)
        assert final.output_text == whole.output_text
        assert [e.sequence_number for e in events] == list(range(len(events)))
        kinds = [e.type for e in events if "output_item" in e.type]
        assert kinds == ["response.output_item.added", "response.output_item.done"] * len(final.output)
        for n, item in enumerate(final.output):
            if item.type == "function_call":
                deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"
                          and e.output_index == n and e.item_id == item.id]
                assert "".join(deltas) == item.arguments


def test_responses_results_go_back(client):
    first = respond(client, tool_choice="required", parallel_tool_calls=False)
    call = first.output[0]
    history = [{"role": "user", "content": "Count."}, call.model_dump(exclude_none=True),
               {"type": "function_call_output", "call_id": call.call_id, "output": "42"}]
    found = respond(client, input=history, max_output_tokens=8)
    assert found.usage.input_tokens > first.usage.input_tokens
    for change, param in (({"call_id": "call_x"}, "input.2.call_id"), ({"type": "reasoning"}, "input")):
        with pytest.raises(openai.BadRequestError) as error:
            respond(client, input=[*history[:2], {**history[2], **change}])
        assert error.value.param == param
    with pytest.raises(openai.BadRequestError) as error:
        respond(client, tools=[{"type": "web_search"}])
    assert error.value.param.startswith("tools.0")
    cut = respond(client, tool_choice={"type": "function", "name": "note"}, max_output_tokens=30, temperature=0)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert called(cut) == [] or called(cut)[-1][2] == "incomplete"


def test_ollama(live, llama):
    options = {"temperature": 1.5, "num_predict": 150, "seed": 3}
    whole = llama.chat("tiny", CHAT, tools=TOOLS, options=options)
    parts = list(llama.chat("tiny", CHAT, tools=TOOLS, options=options, stream=True))
    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert [c.function for c in calls] == [c.function for c in whole.message.tool_calls or ()]
    assert "".join(p.message.content or "" for p in parts) == whole.message.content
    assert all(fits(c.function.name, dict(c.function.arguments)) for c in calls)
    assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True]
    history = [*CHAT, {"role": "assistant", "tool_calls": [{"function": {"name": "count", "arguments": {
        "n": 3, "exact": True}}}]}, {"role": "tool", "tool_name": "count", "content": "3"}]
    found = llama.chat("tiny", history, tools=TOOLS, options={"num_predict": 4})
    assert found.prompt_eval_count > whole.prompt_eval_count
    assert llama.chat("tiny", history, options={"num_predict": 4}).prompt_eval_count < found.prompt_eval_count
    with pytest.raises(ollama.ResponseError, match=r"messages\.2\.tool_name"):
        llama.chat("tiny", [*history[:2], {**history[2], "tool_name": "fly"}], tools=TOOLS)
    with pytest.raises(ollama.ResponseError, match="two functions named"):
        llama.chat("tiny", CHAT, tools=[TOOLS[0], TOOLS[0]])

    def add(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: The first.
            b: The second.
        """

    assert llama.chat("tiny", CHAT, tools=[add], options={"num_predict": 4}).eval_count == 4
    assert ("tools" in llama.show("tiny").capabilities) == (live.family != "none")


def test_ollama_gives_the_calls_that_were_made(live):
    """Its API can't ask for a call, so the model's own grammar is made to."""
    from ayllu.server import ollama as route

    class Forced(route.ToolUse):
        def __init__(self, tools, mode="required", *rest, **more):
            super().__init__(tools, "required", *rest, **more, several=False)

    kept, route.ToolUse = route.ToolUse, Forced
    try:
        for stream in (False, True):
            body = {"model": "tiny", "messages": CHAT, "tools": TOOLS, "stream": stream, "options": {"seed": 4}}
            lines = [json.loads(line) for line in httpx.post(f"{live.url}/api/chat", json=body, timeout=60).text
                     .splitlines()]
            calls = [call for line in lines for call in line["message"].get("tool_calls", ())]
            assert len(calls) == 1
            assert fits(calls[0]["function"]["name"], calls[0]["function"]["arguments"])
            assert lines[-1]["done_reason"] == "stop"
            cut = httpx.post(f"{live.url}/api/chat", json={**body, "options": {"num_predict": 12}}, timeout=60).text
            assert "tool_calls" not in cut
            assert json.loads(cut.splitlines()[-1])["done_reason"] == "length"
    finally:
        route.ToolUse = kept
