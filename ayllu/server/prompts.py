"""From the messages of any API to the ids of a prompt, with personal data taken out where the server was told to."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ayllu.engine.dialogue import LABELS, NO_PLACE, transcript
from ayllu.engine.perception import Shown
from ayllu.engine.request import Media
from ayllu.errors import RequestError
from ayllu.privacy.pii import redact
from ayllu.server.faults import FieldError
from ayllu.server.media import seen
from ayllu.server.schema.tool_grammar import Tool
from ayllu.server.served import Served
from ayllu.text.call_form import CallForm, told_turns
from ayllu.text.chat import ChatTemplate
from ayllu.text.codec import turn_ends
from ayllu.text.tokenizer import Tokenizer

TEMPLATE_VARIABLES = 32                                  # that a caller may hand to a template


@dataclass(frozen=True)
class Prompt:
    """Ids to continue, and how the answer is read."""

    ids: list[int]
    text: str
    stop: tuple[str, ...] = ()                           # besides the caller's own
    strip: bool = False                                  # a transcript's answer begins with a space that is no content
    media: tuple[Media, ...] = ()                        # what is shown in place of some of the ids


@dataclass
class Redactor:
    """Takes personal data out of texts and counts what it took; does nothing unless the server was told to."""

    is_on: bool
    counts: Counter[str] = field(default_factory=Counter)

    def clean(self, text: str) -> str:
        """The text that the model may see."""
        if not self.is_on:
            return text
        text, found = redact(text)
        self.counts += found
        return text

    def clean_content(self, content: Any) -> Any:
        """A message's text, or the texts among its parts; images and sounds are as they are."""
        if not isinstance(content, list):
            return self.clean_all(content)
        return [{**part, "text": self.clean(part["text"])} if part.get("type") == "text" else part for part in content]

    def clean_all(self, value: Any) -> Any:
        """The same for each text within lists and tables."""
        match value:
            case str():
                return self.clean(value)
            case list():
                return [self.clean_all(v) for v in value]
            case dict():
                return {k: self.clean_all(v) for k, v in value.items()}
        return value


def text_prompt(text: str, tokenizer: Tokenizer, redactor: Redactor, *, special: bool = True) -> Prompt:
    """A plain text, with BOS where the model wants it."""
    text = redactor.clean(text)
    return Prompt(tokenizer.encode(text, bos=tokenizer.add_bos and special), text)


def id_prompt(ids: Sequence[int], tokenizer: Tokenizer, redactor: Redactor, vocab_size: int) -> Prompt:
    """Ids as they are; where personal data was found in their text, the ids of the cleaned text."""
    wrong = next((i for i in ids if i >= vocab_size), None)
    if wrong is not None:
        raise RequestError(f"prompt: id {wrong}, but the vocabulary has ids 0 to {vocab_size - 1}")
    text = tokenizer.decode(ids, skip_special=True)
    cleaned = redactor.clean(text)
    if cleaned != text:
        bos = bool(ids) and ids[0] == tokenizer.bos_id
        return Prompt(tokenizer.encode(cleaned, bos=bos), cleaned)
    return Prompt(list(ids), text)


def chat_prompt(messages: Sequence[dict[str, Any]], served: Served, redactor: Redactor, *, tools: Sequence[Tool] = (),
                goes_on: bool = False, add_generation_prompt: bool = True,
                variables: dict[str, Any] | None = None) -> Prompt:
    """The prompt for the assistant's next message; with `goes_on`, for the rest of the assistant's last one."""
    tokenizer, template = served.tokenizer, served.chat_template
    spoken, shown = seen(served, messages)
    turns = [_cleaned(m, redactor) for m in spoken]
    if goes_on and (turns[-1]["role"] != "assistant" or turns[-1].get("tool_calls")):
        raise RequestError("continue_final_message: the last message must be a text of the assistant's; it is from "
                           f"{turns[-1]['role']!r}")
    told = [redactor.clean_all(tool.told) for tool in tools]
    if told or any(turn["role"] == "tool" or turn.get("tool_calls") for turn in turns):
        turns, told = _with_tools(turns, told, form_for(served), tokenizer)
    if template is None:
        if shown:
            raise RequestError(NO_PLACE)
        return _transcript(turns, tokenizer, goes_on, variables)
    given = _checked_variables(variables)
    marks = served.perception.marks if shown and served.perception else None
    if not goes_on:
        rendered = ChatTemplate(template).render(turns, tokenizer, add_generation_prompt=add_generation_prompt,
                                                 tools=told, with_spans=False, media=marks, **given)
        return _placed(served, Prompt(rendered.ids, rendered.text), shown)
    rendered = ChatTemplate(template).render(turns, tokenizer, add_generation_prompt=False, tools=told, media=marks,
                                             **given)
    if not rendered.spans:
        raise RequestError("continue_final_message: this model's chat template doesn't show where the last message "
                           "ends")
    ids = rendered.ids[:rendered.spans[-1][1]]
    ends = {*tokenizer.eos_ids, *turn_ends(tokenizer.codec.controls)}
    while ids and ids[-1] in ends:
        ids.pop()
    return _placed(served, Prompt(ids, tokenizer.decode(ids)), shown)


def _placed(served: Served, prompt: Prompt, shown: Sequence[Shown]) -> Prompt:
    if served.perception is None or not shown:
        return prompt
    ids, media = served.perception.placed(prompt.ids, shown)
    return replace(prompt, ids=ids, media=media)


def form_for(served: Served) -> CallForm:
    """How the model writes tool calls."""
    if served.call_form is None:
        raise FieldError("tools", "tools: this model's chat template shows tools to the model, but writes calls in a "
                         "form that can't be read back (a name, then JSON): serve it with another template")
    return served.call_form


def _cleaned(message: dict[str, Any], redactor: Redactor) -> dict[str, Any]:
    """A message without personal data; ids and names of tools stay as they are."""
    turn = {key: value if key in ("role", "tool_calls", "tool_call_id") else redactor.clean_all(value)
            for key, value in message.items()}
    turn["role"] = "system" if turn["role"] == "developer" else turn["role"]
    if "tool_calls" in turn:
        turn["tool_calls"] = [{**call, "function": {**call["function"], "arguments": redactor.clean_all(
            call["function"]["arguments"])}} for call in turn["tool_calls"]]
    return turn


def _with_tools(turns: list[dict[str, Any]], tools: list[dict[str, Any]], form: CallForm, tokenizer: Tokenizer
                ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Turns and tools as the template takes them; where it takes none, all is told in the turns."""
    given = [tools, [call["function"] for turn in turns for call in turn.get("tool_calls", ())]]
    for key in _keys(given):                             # templates see keys as their own text, not as a person's
        if tokenizer.control_pattern.search(key):
            raise FieldError("tools", f"the key {key[:100]!r} in tools or arguments holds a special token of this "
                             "model: rename it")
    if form.is_told:
        return told_turns(turns, tools), []
    return [_with_short_ids(turn) for turn in turns] if form.has_ids else turns, tools


def _with_short_ids(turn: dict[str, Any]) -> dict[str, Any]:
    """Mistral's templates take ids of nine letters and digits only."""
    def short(id: str) -> str:
        return id if re.fullmatch("[a-zA-Z0-9]{9}", id) else hashlib.sha256(id.encode()).hexdigest()[:9]

    found = dict(turn)
    if "tool_calls" in turn:
        found["tool_calls"] = [{**call, "id": short(call["id"])} for call in turn["tool_calls"]]
    if "tool_call_id" in turn:
        found["tool_call_id"] = short(turn["tool_call_id"])
    return found


def _keys(value: Any) -> Iterator[str]:
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(inner)
    if isinstance(value, dict):
        yield from value


def _transcript(turns: list[dict[str, Any]], tokenizer: Tokenizer, goes_on: bool,
                variables: dict[str, Any] | None) -> Prompt:
    """What a model without chat training can continue."""
    if variables:
        raise RequestError(f"chat_template_kwargs: this model has no chat template that could read {sorted(variables)}")
    turns = [{**turn, "content": turn.get("content") or ""} for turn in turns]
    text = transcript(turns[:-1] if goes_on else turns)
    if goes_on:
        text = f"{text} {turns[-1]['content']}"
    return Prompt(tokenizer.encode(text, bos=tokenizer.add_bos), text, ("\n" + LABELS["user"],), strip=not goes_on)


def _checked_variables(variables: dict[str, Any] | None) -> dict[str, Any]:
    """A template's own inputs can't be replaced from outside."""
    given = dict(variables or {})
    taken = {"messages", "tools", "tokenizer", "add_generation_prompt", "allow_special", "allow_markup", "with_spans",
             "media", "now", "self", "bos_token", "eos_token", "pad_token", "unk_token"} & set(given)
    if taken or len(given) > TEMPLATE_VARIABLES:
        raise RequestError(f"chat_template_kwargs: {sorted(taken) or len(given)} can't be given; at most "
                           f"{TEMPLATE_VARIABLES} names that the template itself asks for")
    return given
