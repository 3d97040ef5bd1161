"""Chats give the ids that transformers' apply_chat_template gives: our formats, and templates as found in the wild."""
# ruff: noqa: E501 (templates are written in long lines)

from datetime import datetime

import kinds
import pytest
from transformers import PreTrainedTokenizerFast

from ayllu.text.chat import ChatTemplate
from ayllu.text.chat_formats import FORMATS

SYSTEM = {"role": "system", "content": "You are helpful.\nBe brief."}
CHAT = [{"role": "user", "content": "Hello, who are you?"}, {"role": "assistant", "content": "A llama.  I think."},
        {"role": "user", "content": " 我喜欢编程 \n"}, {"role": "assistant", "content": "  好！\n\nMe too 😀 "},
        {"role": "user", "content": ""}]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "a + b <é>", "parameters": {
    "type": "object", "properties": {"a": {"type": "number"}}}}}]

# Written for these tests, after habits seen in published templates.
GENERATION = """{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}
<|im_start|>assistant
{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}

{% else %}
<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
DATED = """{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0].role == 'system' %}{%- set system_message = messages[0].content|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "\\n\\n" + system_message + "<|eot_id|>" }}
{%- for m in messages %}{%- if m.role == 'user' and loop.index0 > 6 %}{%- break %}{%- endif %}
{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n'+ m['content'] | trim + '<|eot_id|>' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
TOOLED = """{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n' }}{%- for tool in tools %}{{- tool | tojson }}\n{%- endfor %}
{{- '<|im_end|>\\n' }}{%- endif %}
{%- set ns = namespace(n=0) %}{%- for m in messages %}{%- set ns.n = ns.n + 1 %}
{%- if m.content is string %}{%- set content = m.content %}{%- else %}{%- set content = '' %}{%- endif %}
{{- '<|im_start|>' + m.role + '\\n' + content }}
{%- if m.tool_calls %}{%- for c in m.tool_calls %}
{{- '\\n<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' + c.function.arguments | tojson + '}\\n</tool_call>' }}
{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
THINKING = """{%- for m in messages %}{%- set content = m.content %}
{%- if m.role == 'assistant' and '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"""
PLAIN_TURNS = """{% for m in messages %}{% if m['role'] == 'user' %}{{ '### Instruction:\\n' + m['content'].strip() + '\\n\\n' }}
{%- elif m['role'] == 'assistant' %}{{ '### Response:\\n' + m['content'] + eos_token + '\\n' }}{% endif %}{% endfor %}"""
WILD = {"generation": GENERATION, "dated": DATED, "tooled": TOOLED, "thinking": THINKING, "plain": PLAIN_TURNS}


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    """The same tokenizer in Ayllu and in transformers."""
    found = {}
    for name, make in kinds.KINDS.items():
        folder = tmp_path_factory.mktemp(name)
        make().save(folder)
        found[name] = make(), PreTrainedTokenizerFast.from_pretrained(folder)
    return found


def theirs(peer, messages, source, **how):
    return peer.apply_chat_template(messages, chat_template=source, tokenize=True, return_dict=False, **how)


@pytest.mark.parametrize(("name", "kind"), [("llama2", "sentencepiece"), ("llama2", "sentencepiece_json"),
                                            ("llama3", "llama3"), ("chatml", "qwen"), ("chatml", "sentencepiece")])
@pytest.mark.parametrize("turns", range(1, 6))
@pytest.mark.parametrize("system", [True, False])
def test_formats(peers, name, kind, turns, system):
    ours, peer = peers[kind]
    messages = [SYSTEM] * system + CHAT[:turns]
    for prompt in (True, False):
        rendered = ChatTemplate.named(name).render(messages, ours, add_generation_prompt=prompt)
        assert rendered.ids == theirs(peer, messages, FORMATS[name], add_generation_prompt=prompt)
        assert len(rendered.spans) == sum(m["role"] == "assistant" for m in messages)


@pytest.mark.parametrize("name", list(WILD))
@pytest.mark.parametrize("kind", list(kinds.KINDS))
def test_templates_in_the_wild(peers, name, kind):
    ours, peer = peers[kind]
    for messages in (CHAT[:1], CHAT, [SYSTEM, *CHAT[:4]]):
        rendered = ChatTemplate(WILD[name]).render(messages, ours, add_generation_prompt=True, now=datetime.now())
        assert rendered.ids == theirs(peer, messages, WILD[name], add_generation_prompt=True)


def test_llama2_with_the_real_vocabulary(tmp_path):
    kinds.needs_llama2()
    ours = kinds.llama2()
    ours.save(tmp_path)
    peer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    rendered = ChatTemplate.named("llama2").render([SYSTEM, *CHAT[:4]], ours)
    assert rendered.ids == theirs(peer, [SYSTEM, *CHAT[:4]], FORMATS["llama2"])
    pairs = ["[INST] <<SYS>>\nYou are helpful.\nBe brief.\n<</SYS>>\n\nHello, who are you? [/INST] A llama.  I think. ",
             "[INST] 我喜欢编程 [/INST] 好！\n\nMe too 😀 "]               # as Meta's own code encodes each pair
    assert rendered.ids == [i for pair in pairs for i in ours.encode(pair, bos=True, eos=True)]


def test_tools_and_their_calls(peers):
    ours, peer = peers["qwen"]
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "text": "é"}}}
    messages = [CHAT[0], {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "2"}, {"role": "assistant", "content": "Two."}]
    rendered = ChatTemplate(TOOLED).render(messages, ours, tools=TOOLS)
    assert rendered.ids == theirs(peer, messages, TOOLED, tools=TOOLS)
    # The line feed before the call and the one that ends the header are one id here.
    assert [ours.decode(rendered.ids[a:b]).removeprefix("\n") for a, b in rendered.spans] == [
        '\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "text": "é"}}\n</tool_call><|im_end|>', "Two.<|im_end|>"]


def test_spans_of_generation_tags_are_theirs(peers):
    for kind in ("qwen", "sentencepiece_json"):
        ours, peer = peers[kind]
        out = peer.apply_chat_template(CHAT[:4], chat_template=GENERATION, return_dict=True,
                                       return_assistant_tokens_mask=True)
        rendered = ChatTemplate(GENERATION).render(CHAT[:4], ours)
        inside = [int(any(a <= i < b for a, b in rendered.spans)) for i in range(len(rendered.ids))]
        assert rendered.ids == out["input_ids"]
        assert inside == out["assistant_masks"]
        assert sum(inside) > 10


def test_reasoning_that_a_template_drops(peers):
    ours, peer = peers["qwen"]
    messages = [CHAT[0], {"role": "assistant", "content": "<think>\nhm\n</think>\n\nA llama."}, CHAT[2]]
    rendered = ChatTemplate(THINKING).render(messages, ours, add_generation_prompt=True)
    assert rendered.ids == theirs(peer, messages, THINKING, add_generation_prompt=True)
    assert "hm" not in rendered.text
    assert [ours.decode(rendered.ids[a:b]) for a, b in rendered.spans] == ["A llama.<|im_end|>"]
