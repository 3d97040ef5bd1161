"""From messages to the ids of a prompt: by the model's chat template, or as a plain transcript where it has none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ayllu.errors import RequestError
from ayllu.text.tokenizer import Tokenizer

Message = Mapping[str, Any]                              # role: system, user or assistant; content
LABELS = {"user": "User:", "assistant": "Assistant:"}


@dataclass(frozen=True)
class ChatPrompt:
    """Ids to continue, and the texts that end the answer besides the model's own end ids."""

    ids: list[int]
    stop: tuple[str, ...]
    strip: bool                                          # a transcript's answer begins with a space that is no content


def as_prompt(messages: Sequence[Message], tokenizer: Tokenizer, template: str | None) -> ChatPrompt:
    """The prompt for the assistant's next message."""
    if template is not None:
        from ayllu.text.chat import ChatTemplate  # Jinja, which plain generation does not wait for

        rendered = ChatTemplate(template).render([dict(m) for m in messages], tokenizer, add_generation_prompt=True,
                                                 with_spans=False)
        return ChatPrompt(rendered.ids, (), strip=False)
    ids = tokenizer.encode(transcript(messages), bos=tokenizer.add_bos)
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
