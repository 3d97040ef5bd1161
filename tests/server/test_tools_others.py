"""Tools over Anthropic's, Ollama's and OpenAI's newer API, with the official clients."""


import anthropic
import jsonschema
import openai
import pytest
from server.tooled import CHAT, SCHEMA, tooled

CLAUDES = [{"name": name, "description": f"Does {name}.", "input_schema": schema} for name, schema in SCHEMA.items()]
FLAT = [{"type": "function", "name": name, "parameters": schema, "strict": True} for name, schema in SCHEMA.items()]


@pytest.fixture(scope="module", params=["hermes", *(pytest.param(family, marks=pytest.mark.slow) for family in
                                                    ("ayllu", "llama", "mistral", "none"))])
def live(request, tmp_path_factory):
    with tooled(request.param, tmp_path_factory.mktemp("model")) as found:
        yield found


@pytest.fixture(scope="module")
def claude(live):
    with anthropic.Anthropic(base_url=live.url, api_key="none", max_retries=0,
                             _strict_response_validation=True) as found:
        yield found


@pytest.fixture(scope="module")
def client(live):
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0,
                       _strict_response_validation=True) as found:
        yield found


def fits(name, arguments):
    jsonschema.validate(arguments, SCHEMA[name])
    return True


def said(message):
    """Its text and its calls without their ids; those that were cut show what came of them in a stream only."""
    return [block.text if block.type == "text" else (block.name, block.input) for block in message.content
            if block.type == "text" or (block.input and message.stop_reason == "tool_use")]


def message(claude, **options):
    return claude.messages.create(**{"model": "tiny", "max_tokens": 250, "messages": CHAT, "tools": CLAUDES,
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
        with claude.messages.stream(model="tiny", max_tokens=250, messages=CHAT, tools=CLAUDES, tool_choice=choice,
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
