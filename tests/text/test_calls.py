"""Tool calls: the form that each family's template has, and that what it writes is read back as it was."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text import kinds
from text.tool_templates import FAMILIES, XML

from ayllu.text.call_form import MARK, TOLD, call_form, told_turns
from ayllu.text.call_reader import CallReader
from ayllu.text.chat import ChatTemplate

TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather in a place.", "parameters": {
    "type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}}}


def turn(calls, content=""):
    return {"role": "assistant", "content": content, "tool_calls": [
        {"id": f"call0000{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)]}


def read(reader, text, cuts=()):
    """(shown text, calls as (name, arguments, whole))."""
    shown, calls, at = "", [], 0
    for cut in [*cuts, len(text)]:
        shown += reader.push(text[at:cut])
        at = cut
        for piece in reader.take():
            if piece.name is not None:
                assert piece.index == len(calls)
                calls.append([piece.name, "", False])
            else:
                calls[-1][1] += piece.arguments
                calls[-1][2] = piece.is_whole
    return shown + reader.flush(), calls


def test_forms():
    found = {name: call_form(source, make()) for name, (source, make) in FAMILIES.items()}
    assert (found["hermes"].begin, found["hermes"].trigger, found["hermes"].lead) == \
        ('<tool_call>\n{"name": "', "<tool_call>", "\n")
    assert found["hermes"].end == "}\n</tool_call>"
    assert (found["llama"].begin, found["llama"].trigger, found["llama"].again) == ('{"name": "', "", None)
    assert found["llama"].prelude == MARK + "<|python_tag|>"
    assert found["mistral"].begin == MARK + '[TOOL_CALLS] [{"name": "'
    assert (found["mistral"].again, found["mistral"].end, found["mistral"].has_ids) == ('}, {"name": "', "}]", True)
    assert (found["mistral_args"].middle, found["mistral_args"].again) == (MARK + "[ARGS]", MARK + "[TOOL_CALLS]")
    assert found["ayllu"].marks == {MARK + mark: kinds.sentencepiece().piece_to_id(mark)
                                    for mark in ("<tool_call>", "</tool_call>")}
    assert found["none"] == TOLD
    assert call_form("{% for m in messages %}{{ m.content }}{% endfor %}", kinds.qwen()) == TOLD
    assert call_form(XML, kinds.qwen()) is None          # it shows tools, but its calls are no JSON


JSON = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab\"\\{}[] é小\n", max_size=6),
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab\"", max_size=3), inner,
                                                                               max_size=2), max_leaves=5)
CALLS = st.lists(st.tuples(st.sampled_from(["get", "get_all", "a-b"]), st.dictionaries(st.text("kv", min_size=1), JSON,
                                                                                      max_size=3)),
                 min_size=1, max_size=3)


@pytest.mark.parametrize("family", list(FAMILIES))
@settings(max_examples=25, deadline=None)
@given(calls=CALLS, data=st.data())
def test_a_history_is_read_back_as_it_was(family, calls, data):
    """Rendered by the template, encoded, decoded as the server does, cut anywhere, read: the same calls."""
    source, make = FAMILIES[family]
    tokenizer, form = make(), call_form(source, make())
    calls = calls if form.again else calls[:1]
    chat = [{"role": "user", "content": "Go."}, turn(calls)]
    if form.is_told:
        text = told_turns(chat, [TOOL])[-1]["content"]
    else:
        ids = ChatTemplate(source).render(chat, tokenizer, tools=[TOOL]).ids
        prompt = ChatTemplate(source).render(chat[:1], tokenizer, tools=[TOOL], add_generation_prompt=True).ids
        assert ids[:len(prompt)] == prompt or family == "hermes"     # there a line feed and a mark may be one id
        whole = _decoded(tokenizer, ids, {id: mark for mark, id in form.marks.items()})
        text = whole[whole.index(form.pieces(form.begin)[0], len(_decoded(tokenizer, prompt, {})) - 9):]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    shown, found = read(CallReader(form, (), is_forced=data.draw(st.booleans())), text, cuts)
    assert shown == ""
    assert [(name, json.loads(arguments), whole) for name, arguments, whole in found] == \
        [(name, arguments, True) for name, arguments in calls]


def _decoded(tokenizer, ids, names):
    """As server/writing.py decodes: special tokens show only where they are marks of calls."""
    state, text = tokenizer.decoding(skip_special=True), ""
    for id in ids:
        text += state.push(id) + names.get(id, "")
    return text + state.flush()


@given(before=st.text("ab <\n", max_size=12), stop=st.sampled_from(["", "b", "}"]), data=st.data())
def test_text_before_calls_and_stop_strings(before, stop, data):
    """A stop string ends the text; within a call it is nothing. White space alone before a call is no text."""
    form, stops = TOLD, [stop] * bool(stop)
    text = before + form.written([("f", '{"k": "b"}'), ("g", "{}")])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    shown, calls = read(reader := CallReader(form, stops, is_forced=False), text, cuts)
    if stop and stop in before:
        assert (shown, calls, reader.matched) == (before[:before.index(stop)], [], stop)
        return
    assert shown == (before.removesuffix("\n") if before.strip() else "")
    assert calls == [["f", '{"k": "b"}', True], ["g", "{}", True]]
    assert reader.n_settled == len(text)
    assert not reader.stopped


def test_without_a_trigger_only_the_beginning_counts():
    source, make = FAMILIES["llama"]
    form = call_form(source, make())
    call = form.written([("f", '{"a": {"b": "}"}}')])
    for text in (call, form.prelude + call):
        shown, calls = read(CallReader(form, (), is_forced=False), text, [len(text) - 30])
        assert (shown, calls) == ("", [["f", '{"a": {"b": "}"}}', True]])
    assert read(CallReader(form, ["!"], is_forced=False), f"So: {call}! no", [4]) == (f"So: {call}", [])


def test_a_call_that_was_cut():
    text = TOLD.written([("f", '{"a": 1}'), ("g", '{"b": [2, 3]}')])
    for n in range(len(text)):
        _, calls = read(CallReader(TOLD, (), is_forced=True), text[:n])
        assert all(whole == (arguments in ('{"a": 1}', '{"b": [2, 3]}')) for _, arguments, whole in calls)


def test_told_turns_are_those_that_any_template_takes():
    chat = [{"role": "user", "content": "Go."}, turn([("f", {"a": 1}), ("g", {})], "Well."),
            {"role": "tool", "content": "1", "tool_call_id": "call00000"},
            {"role": "tool", "content": "2", "tool_call_id": "call00001"}, {"role": "user", "content": "And?"}]
    told = told_turns(chat, [TOOL])
    assert [t["role"] for t in told] == ["system", "user", "assistant", "user"]
    assert "weather" in told[0]["content"]
    assert "The weather in a place." in told[0]["content"]
    assert told[2]["content"].startswith("Well.\n<tool_call>\n")
    assert told[3]["content"] == ("<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>\nAnd?")
    assert [t["role"] for t in told_turns(chat, [])] == ["user", "assistant", "user"]
    assert told_turns([{"role": "system", "content": "Be kind."}], [TOOL])[0]["content"].startswith("Be kind.\n\n")
    assert ChatTemplate.named("llama2").render(told, kinds.sentencepiece()).ids


def test_our_own_format_without_tools_is_chatml():
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi <tool_call>"},
            {"role": "assistant", "content": "Ho"}]
    own, chatml = ChatTemplate.named("ayllu"), ChatTemplate.named("chatml")
    for prompt in (False, True):
        assert own.render(chat, kinds.sentencepiece(), add_generation_prompt=prompt) == \
            chatml.render(chat, kinds.sentencepiece(), add_generation_prompt=prompt)
    assert ChatTemplate.of(kinds.sentencepiece()).name == "ayllu"


def test_a_space_after_a_mark_is_no_part_of_a_name():
    """SentencePiece may put one there, and it may come later than the mark."""
    source, make = FAMILIES["mistral_args"]
    form = call_form(source, make())
    text = f"{form.begin} f{form.middle} {{}}{form.again} g{form.middle}{{}}"
    for cut in range(len(form.begin), len(text)):
        assert read(CallReader(form, (), is_forced=True), text, [cut]) == ("", [["f", "{}", True], ["g", "{}", True]])
