"""From the messages of any API to the ids of a prompt, with personal data taken out where the server was told to."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ayllu.engine.dialogue import LABELS, transcript
from ayllu.errors import RequestError
from ayllu.privacy.pii import redact
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


def chat_prompt(messages: Sequence[dict[str, Any]], tokenizer: Tokenizer, template: str | None, redactor: Redactor, *,
                goes_on: bool = False, add_generation_prompt: bool = True,
                variables: dict[str, Any] | None = None) -> Prompt:
    """The prompt for the assistant's next message; with `goes_on`, for the rest of the assistant's last one."""
    turns = [redactor.clean_all(dict(m)) for m in messages]
    for turn in turns:
        turn["role"] = "system" if turn["role"] == "developer" else turn["role"]
    if goes_on and turns[-1]["role"] != "assistant":
        raise RequestError("continue_final_message: the last message must be the assistant's; it is from "
                           f"{turns[-1]['role']!r}")
    if template is None:
        return _transcript(turns, tokenizer, goes_on, variables)
    given = _checked_variables(variables)
    if not goes_on:
        rendered = ChatTemplate(template).render(turns, tokenizer, add_generation_prompt=add_generation_prompt,
                                                 with_spans=False, **given)
        return Prompt(rendered.ids, rendered.text)
    rendered = ChatTemplate(template).render(turns, tokenizer, add_generation_prompt=False, **given)
    if not rendered.spans:
        raise RequestError("continue_final_message: this model's chat template doesn't show where the last message "
                           "ends")
    ids = rendered.ids[:rendered.spans[-1][1]]
    ends = {*tokenizer.eos_ids, *turn_ends(tokenizer.codec.controls)}
    while ids and ids[-1] in ends:
        ids.pop()
    return Prompt(ids, tokenizer.decode(ids))


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
             "now", "self", "bos_token", "eos_token", "pad_token", "unk_token"} & set(given)
    if taken or len(given) > TEMPLATE_VARIABLES:
        raise RequestError(f"chat_template_kwargs: {sorted(taken) or len(given)} can't be given; at most "
                           f"{TEMPLATE_VARIABLES} names that the template itself asks for")
    return given
