"""Anthropic's /v1/messages and /v1/messages/count_tokens."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from ayllu.server.schema.base import Answer, Body, Refuse, TextParts
from ayllu.server.schema.forms import OutputConfig
from ayllu.server.schema.tools import AnthropicChoice, AnthropicTool, Block

_KINDS = ("text", "image", "tool_use", "tool_result")


def _as_blocks(value: Any) -> Any:
    """A text is one block; what this model can't read is refused by its kind."""
    if value is None or isinstance(value, str):
        return [{"type": "text", "text": value}] if value else []
    for number, part in enumerate(value if isinstance(value, list) else ()):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind not in _KINDS:
            raise ValueError(f"part {number} has the type {str(kind)[:40]!r}: this model reads {', '.join(_KINDS)}")
    return value


_BLOCK = {"type": "object", "properties": {"type": {"enum": list(_KINDS)}}, "required": ["type"]}
Blocks = Annotated[list[Block], BeforeValidator(_as_blocks), WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": _BLOCK}, {"type": "null"}]})]


class Turn(Body):
    """One turn; a last turn of the assistant is continued."""

    role: Literal["user", "assistant", "system"]
    content: Blocks


class CountRequest(Body):
    """What is counted: the same prompt that /v1/messages would read."""

    model: str | None = Field(default=None, max_length=256)
    messages: list[Turn] = Field(min_length=1)
    system: TextParts = None
    cache_control: dict[str, Any] | None = None          # prefixes are cached by themselves
    thinking: Annotated[Any, Refuse("this model does not think apart", ({"type": "disabled"},))] = None
    tools: list[AnthropicTool] | None = None
    tool_choice: AnthropicChoice | None = None
    output_config: OutputConfig | None = None
    speed: Annotated[Any, Refuse("there is one speed", ("standard",))] = None
    user_profile_id: Annotated[Any, Refuse("who asks is known from the key")] = None
    workspace_id: Annotated[Any, Refuse("who asks is known from the key")] = None


class MessageRequest(CountRequest):
    """max_tokens is an upper bound: where the context has less room, the answer ends there."""

    max_tokens: int = Field(ge=1)
    metadata: dict[str, Any] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    top_p: float | None = Field(default=None, gt=0, le=1)
    service_tier: Annotated[Any, Refuse("there is one tier", ("auto", "standard_only"))] = None
    container: Annotated[Any, Refuse("there are no containers")] = None
    context_management: Annotated[Any, Refuse("a prompt is never cut in silence", ({},))] = None
    diagnostics: Annotated[Any, Refuse("there are none")] = None
    inference_geo: Annotated[Any, Refuse("the model runs where this server does")] = None
    mcp_servers: Annotated[Any, Refuse("this server reaches nothing outside", ([],))] = None


class TokenCount(Answer):
    """Tokens of a prompt."""

    input_tokens: int


class TextBlock(Answer):
    """The text of the answer."""

    type: Literal["text"] = "text"
    text: str
    citations: None = None


class ToolUse(Answer):
    """A call; its input is empty where the answer was cut before its end."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any]


class MessageUsage(Answer):
    """Tokens: those read anew, those found in the prefix cache, those written."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int


class Message(Answer):
    """The whole answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[TextBlock | ToolUse]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"] | None
    stop_sequence: str | None = None
    usage: MessageUsage
