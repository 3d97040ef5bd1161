"""Answers of a given form, as each API asks for it; the model's weights are random, so only the grammar makes it."""

import json
import re

import httpx
import pytest

SCHEMA = {"type": "object", "properties": {"kind": {"enum": ["fox", "bird"]}, "is_wild": {"type": "boolean"}},
          "required": ["kind", "is_wild"], "additionalProperties": False, "x-guidance": {"whitespace_flexible": False}}
CHAT = [{"role": "user", "content": "Which?"}]


def fits(text):
    found = json.loads(text)
    return set(found) == {"kind", "is_wild"} and found["kind"] in ("fox", "bird") and isinstance(found["is_wild"], bool)


def chat(client, **options):
    return client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=60, seed=3, **options)


def test_response_format(client):
    form = {"type": "json_schema", "json_schema": {"name": "animal", "schema": SCHEMA, "strict": True}}
    for temperature in (0, 2):
        found = chat(client, response_format=form, temperature=temperature)
        assert fits(found.choices[0].message.content)
        assert found.choices[0].finish_reason == "stop"
    chunks = chat(client, response_format=form, temperature=0, stream=True)
    assert fits("".join(c.choices[0].delta.content or "" for c in chunks))
    assert all(fits(c.message.content) for c in chat(client, response_format=form, n=3, temperature=1.5).choices)
    assert chat(client, response_format={"type": "json_object"}, temperature=0).choices[0].message.content[0] == "{"


@pytest.mark.parametrize(("form", "fits"), [
    ({"choice": ["the river", "the stars"]}, r"the (river|stars)"), ({"regex": "[ab]{3}c"}, r"[ab]{3}c"),
    ({"grammar": 'start: "fox" ("!" | "?")'}, r"fox[!?]"),
    ({"json": {"type": "integer", "minimum": 3, "maximum": 5}}, r"[345]"),
])
def test_structured_outputs(client, form, fits):
    found = chat(client, extra_body={"structured_outputs": form}, temperature=1)
    assert re.fullmatch(fits, found.choices[0].message.content)
    text = client.completions.create(model="tiny", prompt="The", max_tokens=60, extra_body={"structured_outputs": form})
    assert re.fullmatch(fits, text.choices[0].text)


def test_responses_messages_and_ollama(client, claude, llama):
    text = {"format": {"type": "json_schema", "name": "animal", "schema": SCHEMA}}
    found = client.responses.create(model="tiny", input="Which?", text=text, max_output_tokens=60)
    assert fits(found.output_text)
    assert found.text.format.schema_ == SCHEMA
    message = claude.messages.create(model="tiny", max_tokens=60, messages=CHAT,
                                     output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    assert fits(message.content[0].text)
    assert message.stop_reason == "end_turn"
    assert fits(llama.chat("tiny", CHAT, format=SCHEMA, options={"num_predict": 60}).message.content)
    assert llama.generate("tiny", "Which?", format="json", options={"num_predict": 60}).response.startswith("{")


@pytest.mark.parametrize(("body", "param"), [
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}}, "response_format"),
    ({"structured_outputs": {"regex": "("}}, "structured_outputs"),
    ({"structured_outputs": {"grammar": "start: missing"}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
    ({"structured_outputs": {"grammar": "start: " + '"a" ' * 50_000}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "structured_outputs"),
    ({"guided_regex": "a"}, "guided_regex"), ({"grammar": "root ::= x"}, "grammar"),
])
def test_a_form_that_cant_be_followed_is_the_callers_fault(live, body, param):
    found = httpx.post(f"{live.url}/v1/completions", json={"prompt": "x", **body}, timeout=30)
    assert (found.status_code, found.json()["error"]["param"]) == (400, param)
