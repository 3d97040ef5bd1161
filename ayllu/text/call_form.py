"""How a model writes tool calls, found by letting its own chat template write some.

    begin NAME middle ARGUMENTS (again NAME middle ARGUMENTS)* end

Llama 3 writes `{"name": NAME, "parameters": ARGUMENTS}` as the whole message, Qwen and Hermes the same object with
"arguments" between `<tool_call>` and `</tool_call>`, Mistral a list of them after `[TOOL_CALLS]`. Where a template says
nothing of tools, they are told in the system message, and calls and results are written as TOLD says.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ayllu.errors import RequestError
from ayllu.text import jinja
from ayllu.text.chat import Message, names_of
from ayllu.text.codec import turn_ends
from ayllu.text.special import TOOL_CALL, TOOL_CALL_END, TOOL_RESPONSE, TOOL_RESPONSE_END
from ayllu.text.tokenizer import Tokenizer

MARK = "\ufdd0"                                          # before a special token's text: letters can't forge one
PYTHON_TAG = "<|python_tag|>"                            # Llama 3.1 may write it before a call
_PROBES = ("probe_one", "probe_two")
_IDS = ("probe0001", "probe0002")                        # Mistral's templates want nine letters and digits
_ARGUMENTS = {"probe_key": 1}
_ID = re.compile(r',\s*"id":\s*"probe000\d"')
_OPENING = re.compile(r"\s*(.*?)\s*(?:\[?\s*\{|$)", re.DOTALL)


@dataclass(frozen=True)
class CallForm:
    """The texts around names and arguments. Special tokens in them stand as MARK and their text."""

    begin: str
    middle: str
    again: str | None                                    # None: one call in a message is all that the format can hold
    end: str
    lead: str = ""                                       # white space that a call puts after a text
    marks: dict[str, int] = field(default_factory=dict)  # special tokens, marked, and their ids
    prelude: str = ""                                    # a mark that may stand before `begin`
    has_ids: bool = False                                # an "id" may follow the arguments
    is_told: bool = False                                # by a system message, not by the template

    @property
    def trigger(self) -> str:
        """What tells calls from text; empty: a message that begins with `begin` is a call, and no text begins so."""
        mark = next((m for m in self.marks if self.begin.startswith(m)), None)
        if mark is not None:
            return mark
        found = _OPENING.match(self.begin)
        return found[1] if found else ""

    def pieces(self, text: str) -> list[str]:
        """One of the texts, cut so that each mark stands alone."""
        marks = "|".join(map(re.escape, sorted(self.marks, key=len, reverse=True))) or r"(?!)"
        return [piece for piece in re.split(f"({marks})", text) if piece]

    def written(self, calls: Sequence[tuple[str, str]]) -> str:
        """The text of calls, each a name and arguments as JSON."""
        parts = [f"{name}{self.middle}{arguments}" for name, arguments in calls]
        return self.begin + (self.again or "").join(parts) + self.end


TOLD = CallForm(begin=TOOL_CALL + '\n{"name": "', middle='", "arguments": ',
                again=f'}}\n{TOOL_CALL_END}\n{TOOL_CALL}\n{{"name": "', end=f"}}\n{TOOL_CALL_END}", lead="\n",
                is_told=True)


def call_form(source: str | None, tokenizer: Tokenizer) -> CallForm | None:
    """The form of a chat template's calls; None where it shows tools but writes calls in a way that can't be read."""
    if source is None:
        return TOLD
    probe = _Probe(source, tokenizer)
    if not probe.shows_tools():
        return TOLD
    found = probe.form()
    return None if found is None else _marked(found, tokenizer)


@dataclass(frozen=True)
class _Probe:
    """A chat in which the assistant calls tools, as the template writes it."""

    source: str
    tokenizer: Tokenizer

    def shows_tools(self) -> bool:
        """Whether the name of a tool gets into the prompt."""
        try:
            return _PROBES[0] in self._write(0, prompt=True)
        except RequestError:
            return False

    def form(self) -> CallForm | None:
        """From one call, from two, and from one after a text."""
        try:
            one = self._answer(1)
        except RequestError:
            return None
        begin, rest = _split(one, _PROBES[0])
        middle, end = _split(rest, json.dumps(_ARGUMENTS))
        if not (middle and begin.strip()) or "probe" in begin + middle or "probe" in _ID.sub("", end):
            return None
        form = CallForm(begin.lstrip(), middle, self._again(begin, middle), _ID.sub("", end).rstrip(),
                        has_ids=bool(_ID.search(end)))
        return replace(form, lead=self._lead(form))

    def _again(self, begin: str, middle: str) -> str | None:
        try:
            two = self._answer(2)
        except RequestError:                             # "single tool-calls only"
            return None
        _, rest = _split(two, f"{begin}{_PROBES[0]}{middle}{json.dumps(_ARGUMENTS)}")
        between, last = _split(rest, _PROBES[1])
        between = _ID.sub("", between)
        return between if between.strip() and last.startswith(middle) and "probe" not in between else None

    def _lead(self, form: CallForm) -> str:
        try:
            before, rest = _split(self._answer(1, "probe_text"), form.begin)
        except RequestError:
            return ""
        lead = before.rpartition("probe_text")[2]
        return lead if rest and "probe_text" in before and not lead.strip() else ""

    def _answer(self, n_calls: int, content: str = "") -> str:
        """What the assistant wrote, up to the token that ends its turn."""
        prompt, whole = self._write(0, prompt=True), self._write(n_calls, content)
        written = whole.removeprefix(prompt) if whole.startswith(prompt) else ""
        ends = {*self.tokenizer.eos_ids, *turn_ends(self.tokenizer.codec.controls)}
        at = min((i for id in ends if (i := written.find(self.tokenizer.id_to_piece(id))) >= 0), default=len(written))
        return written[:at]

    def _write(self, n_calls: int, content: str = "", *, prompt: bool = False) -> str:
        messages: list[Message] = [{"role": "user", "content": "?"}]
        calls = [{"id": id, "type": "function", "function": {"name": name, "arguments": _ARGUMENTS}}
                 for id, name in zip(_IDS, _PROBES, strict=True)]
        if n_calls:
            messages.append({"role": "assistant", "content": content, "tool_calls": calls[:n_calls]})
        schema = {"type": "object", "properties": {"probe_key": {"type": "integer"}}}
        tools = [{"type": "function", "function": {"name": name, "description": "?", "parameters": schema}}
                 for name in _PROBES]
        return jinja.run(self.source, {"messages": messages, "tools": tools, "add_generation_prompt": prompt,
                                       **names_of(self.tokenizer)})


def _split(text: str, at: str) -> tuple[str, str]:
    """Before and after; ("", "") where it isn't there."""
    before, found, after = text.partition(at)
    return (before, after) if found else ("", "")


def _marked(form: CallForm, tokenizer: Tokenizer) -> CallForm:
    """The form with its special tokens marked. Markers that the vocabulary calls ordinary are letters in answers."""
    marks: dict[str, int] = {}

    def mark(text: str) -> str:
        for found in tokenizer.special_pattern.findall(text):
            marks[MARK + found] = _id_of(tokenizer, found)
        return tokenizer.special_pattern.sub(lambda m: MARK + m[0], text)

    begin, middle, end = mark(form.begin), mark(form.middle), mark(form.end)
    again = None if form.again is None else mark(form.again)
    form = replace(form, begin=begin, middle=middle, again=again, end=end, marks=marks)
    tag = _id_of(tokenizer, PYTHON_TAG) if tokenizer.special_pattern.fullmatch(PYTHON_TAG) else None
    if form.trigger or tag is None:
        return form
    return replace(form, prelude=MARK + PYTHON_TAG, marks={**marks, MARK + PYTHON_TAG: tag})


def _id_of(tokenizer: Tokenizer, text: str) -> int:
    return next(c.id for c in tokenizer.codec.controls if c.text == text)


def told_turns(turns: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[Message]:
    """A chat with tools in words that any template takes: calls as the assistant's text, results as the user's."""
    found: list[Message] = []
    for turn in turns:
        if turn["role"] == "tool":
            said = f"{TOOL_RESPONSE}\n{turn.get('content') or ''}\n{TOOL_RESPONSE_END}"
            found = _with_user(found, said, joins=bool(found) and found[-1].get("role") == "user")
        elif turn["role"] == "assistant" and turn.get("tool_calls"):
            calls = [(call["function"]["name"], json.dumps(call["function"]["arguments"], ensure_ascii=False))
                     for call in turn["tool_calls"]]
            text = turn.get("content") or ""
            found.append({"role": "assistant", "content": text + TOLD.lead * bool(text) + TOLD.written(calls)})
        elif turn["role"] == "user" and found and found[-1].get("role") == "user" and _has_result(found[-1]):
            found = _with_user(found, turn.get("content") or "", joins=True)
        else:
            found.append(dict(turn))
    return _with_system(found, _TOLD.format(tools="\n".join(json.dumps(t["function"], ensure_ascii=False)
                                                            for t in tools))) if tools else found


_TOLD = f"""You may call tools. Each line between <tools> and </tools> describes one as JSON, its parameters as a JSON \
schema:
<tools>
{{tools}}
</tools>
To call a tool, end your message with its name and arguments as JSON, in this form and with nothing after it; repeat \
the form to call several:
{TOOL_CALL}
{{{{"name": "the tool's name", "arguments": {{{{"parameter": "value"}}}}}}}}
{TOOL_CALL_END}
What a tool gives comes back between {TOOL_RESPONSE} and {TOOL_RESPONSE_END}."""


def _has_result(turn: Message) -> bool:
    return str(turn.get("content")).startswith(TOOL_RESPONSE)


def _with_user(turns: list[Message], said: str, *, joins: bool) -> list[Message]:
    if not joins:
        return [*turns, {"role": "user", "content": said}]
    return [*turns[:-1], {"role": "user", "content": f"{turns[-1].get('content') or ''}\n{said}"}]


def _with_system(turns: list[Message], said: str) -> list[Message]:
    if turns and turns[0]["role"] == "system":
        return [{**turns[0], "content": f"{turns[0].get('content') or ''}\n\n{said}"}, *turns[1:]]
    return [{"role": "system", "content": said}, *turns]
