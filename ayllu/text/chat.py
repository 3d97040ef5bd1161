"""Chats as ids: one function for every format, exact about BOS, about what people may write, and about answers.

A prompt is rendered as one text and encoded as one text, as transformers does. Special tokens count only where the
template wrote them; those that a person typed stay letters, unless the caller passes allow_special=True.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, takewhile
from typing import Any

from ayllu.errors import CheckpointError, RequestError
from ayllu.text import jinja
from ayllu.text.chat_formats import FORMATS, LLAMA2_MARKUP, NEEDS
from ayllu.text.codec import turn_ends
from ayllu.text.marks import Found, Marks, Span, find, texts_in, with_media
from ayllu.text.tokenizer import Tokenizer

Message = dict[str, Any]                                 # {"role": "user", "content": "..."} and more
Segment = tuple[int, int, list[int]]                     # (start, end, ids): characters and what they became

_ROLE = re.compile(r"[A-Za-z][\w.-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Rendered:
    """A chat as ids; `spans` are the ranges of ids that an assistant wrote, each with the token that ends its turn."""

    ids: list[int]
    text: str
    spans: list[Span]


class ChatTemplate:
    """A chat format: Jinja source, with or without a name that Ayllu knows."""

    def __init__(self, source: str, name: str | None = None):
        self.source = source
        self.name = name

    @classmethod
    def named(cls, name: str) -> "ChatTemplate":
        """One of the formats built in: llama2, llama3, chatml, ayllu."""
        if name not in FORMATS:
            raise RequestError(f"no chat format {name!r}; there are {', '.join(FORMATS)}")
        return cls(FORMATS[name], name)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "ChatTemplate":
        """The checkpoint's own template; else the format whose markers its vocabulary has."""
        if tokenizer.chat_template:
            return cls(tokenizer.chat_template)
        known = {c.text for c in tokenizer.codec.controls}
        for name, needed in NEEDS.items():
            if needed and known.issuperset(needed):
                return cls.named(name)
        raise RequestError("this model has no chat template and no turn markers, so it is a base model: use generate, "
                           f"or name a chat format ({', '.join(FORMATS)})")

    def render(self, messages: Sequence[Message], tokenizer: Tokenizer, *, add_generation_prompt: bool = False,
               tools: list[Any] | None = None, allow_special: bool = False, allow_markup: bool = False,
               with_spans: bool = True, now: datetime | None = None, media: dict[str, str] | None = None,
               **variables: Any) -> Rendered:
        """Ids of a chat. `variables` are what a template reads besides (documents, enable_thinking, ...).

        `media` maps the stand-ins of marks.MEDIA, which contents then may hold, to special tokens.

        `allow_markup` lets messages hold `[INST]` and the like where those are ordinary text. Only training needs
        `with_spans`; they cost two renderings for each answer that calls tools.
        """
        self._check(messages, tokenizer, allow_markup)
        given = {"add_generation_prompt": add_generation_prompt, "tools": tools or None, **names_of(tokenizer),
                 **variables}
        writing = _Writing(self.source, list(messages), given, now)
        found = writing.locate(tokenizer)
        if media:
            found = with_media(found, media)
        trusted = [(0, len(found.text))] if allow_special else _outside(found.contents, len(found.text))
        markers = [] if allow_special else [span for span in found.answers if span[0] >= 0]
        segments = _one_bos(tokenizer.segments(found.text, trusted, markers), tokenizer.bos_id)
        ids = [id for _, _, part in segments for id in part]
        answers = writing.answers(found) if with_spans else []
        if not answers:
            return Rendered(ids, found.text, [])
        answers = _with_ends(answers, found.text, segments, tokenizer)
        return Rendered(ids, found.text, _to_ids(answers, found.text, segments, tokenizer))

    def _check(self, messages: Sequence[Message], tokenizer: Tokenizer, allow_markup: bool) -> None:
        known = {c.text for c in tokenizer.codec.controls}
        missing = [t for t in NEEDS.get(self.name or "", ()) if t not in known]
        if missing:
            raise RequestError(f"the chat format {self.name} needs the token {missing[0]!r}, which this tokenizer does "
                               "not have: choose the format that the model was trained with")
        markup = [m for m in LLAMA2_MARKUP if m in self.source and m not in known]
        for number, message in enumerate(messages):
            _check_message(number, message)
            for text in texts_in(message):
                found = next((m for m in markup if m in text), None)
                if found and not allow_markup:
                    raise RequestError(f"message {number} holds {found!r}, which marks turns in this chat format: "
                                       "remove it, or pass allow_markup=True")


class _Writing:
    """One chat and everything needed to render it again, whole or in part, with marks or without."""

    def __init__(self, source: str, messages: list[Message], given: dict[str, Any], now: datetime | None):
        self.source, self.messages, self.given = source, messages, given
        self.now = now or datetime.now()                 # one moment for all renderings

    def plain(self, messages: list[Message] | None = None, **changes: Any) -> str:
        """The rendering that counts."""
        messages = self.messages if messages is None else messages
        return jinja.run(self.source, {"messages": messages, **self.given, **changes}, self.now)

    def locate(self, tokenizer: Tokenizer) -> Found:
        """The rendering and where in it the contents are."""
        text = self.plain()
        controls = tokenizer.control_pattern
        extra = {k: v for k, v in self.given.items() if not k.endswith("_token")}
        written = [*texts_in(self.messages), *texts_in(extra)]
        marks = Marks.absent_from(text + "".join(written), controls, tokenizer.special_pattern)
        if marks is None:
            raise RequestError("the messages hold Unicode noncharacters (U+FDD0 to U+FDEF), which are no text")
        extra = marks.wrap_controls(extra)
        for wrap in (marks.wrap, marks.wrap_controls):
            found = self._try([wrap(m) for m in self.messages], extra, marks)
            if found and found.text == text:
                return found
        if any(controls.search(t) for t in written):
            raise RequestError("a message holds a special token, and the chat template rewrites messages so that it "
                               "can't be told from the template's own: remove it, or pass allow_special=True")
        return Found(text, [], [], [])

    def _try(self, messages: list[Message], extra: dict[str, Any], marks: Marks) -> Found | None:
        try:
            return find(self.plain(messages, **extra, generation_marks=marks.generation), marks)
        except RequestError:                             # the marks themselves upset the template
            return None

    def answers(self, found: Found) -> list[Span]:
        """Spans of text that the assistant wrote: as the template says, else contents, else by what each turn adds."""
        if found.generations:
            return found.generations
        spoken = [m for m in self.messages if m.get("role") == "assistant"]
        if len(found.answers) == len(spoken) and not any(m.get("tool_calls") for m in spoken):
            spans = [_with_margins(span, m["content"], found.text) if span[0] >= 0 else
                     _shortened(span[1], m["content"], found.text)
                     for span, m in zip(found.answers, spoken, strict=True)]
            gap = self._gap(spans, found.text)
            return [(start - len(gap) if found.text.endswith(gap, 0, start) else start, end) for start, end in spans]
        return list(self._added_by_turns(found.text))

    def _gap(self, spans: list[Span], text: str) -> str:
        """White space between prompt and answer that the model has to write itself (Llama 2: a space)."""
        first = next((n for n, m in enumerate(self.messages) if m.get("role") == "assistant"), None)
        if first is None or not spans:
            return ""
        try:
            prompt = self.plain(self.messages[:first], add_generation_prompt=True)
        except RequestError:                             # a template that takes whole chats only
            return ""
        gap = text[len(prompt):spans[0][0]]
        return gap if text.startswith(prompt) and not gap.strip() else ""

    def _added_by_turns(self, text: str) -> Iterator[Span]:
        """What stands between the prompt for an answer and the end of that turn."""
        for n, message in enumerate(self.messages):
            if message.get("role") == "assistant":
                try:
                    before = self.plain(self.messages[:n], add_generation_prompt=True)
                    after = self.plain(self.messages[:n + 1], add_generation_prompt=False)
                except RequestError:                     # a template that takes whole chats only
                    continue
                if text.startswith(after) and after.startswith(before):
                    yield len(before), len(before) + len(after[len(before):].rstrip())


def _check_message(number: int, message: Message) -> None:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise RequestError(f"message {number} needs a role such as system, user or assistant; found {role!r}")
    content = message.get("content")
    if content is not None and not isinstance(content, str | list):
        raise RequestError(f"message {number}: content should be a text or a list of parts, "
                           f"found {type(content).__name__}")


def names_of(tokenizer: Tokenizer) -> dict[str, str]:
    """What templates call bos_token, eos_token and so on."""
    named = tokenizer.named
    ids = {"bos_token": named.bos_id, "eos_token": next(iter(named.eos_ids), None), "pad_token": named.pad_id,
           "unk_token": named.unk_id}
    return {name: tokenizer.id_to_piece(id) for name, id in ids.items() if id is not None}


def _outside(spans: list[Span], length: int) -> list[Span]:
    """The parts of 0 .. length that no span covers."""
    free, at = [], 0
    for start, end in spans:
        if start > at:
            free.append((at, start))
        at = max(at, end)
    return [*free, (at, length)] if at < length else free


def _one_bos(segments: list[Segment], bos: int | None) -> list[Segment]:
    """A template that writes BOS twice in a row is broken; models see one."""
    keep = [n == 0 or bos is None or segments[n][2] != [bos] or segments[n - 1][2] != [bos]
            for n in range(len(segments))]
    return [s for s, yes in zip(segments, keep, strict=True) if yes]


def _with_margins(span: Span, content: str, text: str) -> Span:
    """Marks stand inside a content's outer white space: take in what of it the template kept."""
    start, end = span
    before, after = content[:len(content) - len(content.lstrip())], content[len(content.rstrip()):]
    if before and text[:start].endswith(before):
        start -= len(before)
    if after and text.startswith(after, end):
        end += len(after)
    return start, end


def _shortened(end: int, content: str, text: str) -> Span:
    """The end of a content whose beginning (its reasoning) the template dropped: as far back as both agree."""
    backwards = zip(reversed(content.rstrip()), reversed(text[:end]), strict=False)
    pairs = takewhile(lambda pair: pair[0] == pair[1], backwards)
    kept = "".join(char for char, _ in pairs)[::-1].lstrip()
    return end - len(kept), end


def _with_ends(answers: list[Span], text: str, segments: list[Segment], tokenizer: Tokenizer) -> list[Span]:
    """Answers up to and including the special token that ends the turn, if one follows."""
    ids_that_end = {*tokenizer.eos_ids, *turn_ends(tokenizer.codec.controls)}
    stops = {start: end for start, end, ids in segments if len(ids) == 1 and ids[0] in ids_that_end}
    already = set(stops.values())

    def stretch(end: int) -> int:
        word = end + len(text[end:]) - len(text[end:].lstrip())
        return end if end in already else stops.get(word, end)

    return [(start, stretch(end)) for start, end in answers]


def _to_ids(spans: list[Span], text: str, segments: list[Segment], tokenizer: Tokenizer) -> list[Span]:
    """Ranges of ids whose text overlaps spans of characters."""
    ends = [end for start, stop, ids in segments for end in _ends(start, stop, ids, text, tokenizer)]
    starts = [0, *ends[:-1]]
    out = []
    for start, end in spans:
        low, high = len(text[:start].encode()), len(text[:end].encode())
        out.append((bisect_right(ends, low), bisect_left(starts, high)))
    return out


def _ends(start: int, stop: int, ids: list[int], text: str, tokenizer: Tokenizer) -> list[int]:
    """Where each id of a segment ends, in bytes of the whole text."""
    base, size = len(text[:start].encode()), len(text[start:stop].encode())
    if len(ids) == 1:
        return [base + size]
    pieces = [tokenizer.bytes_of(id) for id in ids]
    prefix = len(b"".join(pieces)) - size                # the dummy prefix, a space that is not in the text
    if b"".join(pieces) == b" " * max(prefix, 0) + text[start:stop].encode():
        return [base + end - prefix for end in accumulate(map(len, pieces))]
    exact = tokenizer.codec.ends(text[start:stop])
    if exact is None:
        raise CheckpointError("this tokenizer rewrites text, so an answer's ids can't be found in it")
    return [base + len(text[start:start + end].encode()) for end in exact]
