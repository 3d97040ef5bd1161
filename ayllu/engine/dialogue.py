"""From messages to the ids of a prompt: by the model's chat template, or as a plain transcript where it has none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ayllu.engine.perception import Perception, read_by
from ayllu.engine.request import Media
from ayllu.errors import RequestError
from ayllu.model.shown import Passage
from ayllu.text.tokenizer import Tokenizer

Message = Mapping[str, Any]                              # role: system, user or assistant; content: a text or parts
LABELS = {"user": "User:", "assistant": "Assistant:"}
NO_PLACE = "a model without a chat template has no place for images and sounds: take one that was taught to converse"


@dataclass(frozen=True)
class ChatPrompt:
    """Ids to continue, and the texts that end the answer besides the model's own end ids."""

    ids: list[int]
    stop: tuple[str, ...]
    strip: bool                                          # a transcript's answer begins with a space that is no content
    media: tuple[Media, ...] = ()                        # what is shown in place of some of the ids

    @property
    def passages(self) -> list[Passage]:
        """The same as generation over the dense cache takes it."""
        return [(m.start, torch.from_numpy(m.features)) for m in self.media]


def as_prompt(messages: Sequence[Message], tokenizer: Tokenizer, template: str | None,
              perception: Perception | None = None) -> ChatPrompt:
    """The prompt for the assistant's next message; contents may hold images and sounds (parts.py)."""
    turns, shown = read_by(perception, messages)
    if template is not None:
        from ayllu.text.chat import ChatTemplate  # Jinja, which plain generation does not wait for

        marks = perception.marks if shown and perception else None
        ids = ChatTemplate(template).render(turns, tokenizer, add_generation_prompt=True, with_spans=False,
                                            media=marks).ids
        ids, media = perception.placed(ids, shown) if perception else (ids, ())
        return ChatPrompt(ids, (), strip=False, media=media)
    if shown:
        raise RequestError(NO_PLACE)
    ids = tokenizer.encode(transcript(turns), bos=tokenizer.add_bos)
    return ChatPrompt(ids, ("\n" + LABELS["user"],), strip=True)


def transcript(messages: Sequence[Message]) -> str:
    """What a model without chat training can continue: the conversation as a written dialogue."""
    lines = []
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "system":
            lines += [content, ""]
        elif role in LABELS:
            lines.append(f"{LABELS[role]} {content}")
        else:
            raise RequestError(f"a message has the role {role!r}: use system, user or assistant")
    return "\n".join([*lines, LABELS["assistant"]])
