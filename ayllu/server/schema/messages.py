"""Anthropic's /v1/messages and /v1/messages/count_tokens."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ayllu.server.schema.base import Answer, Body, Refuse, TextParts
from ayllu.server.schema.forms import OutputConfig


class Turn(Body):
    """One turn; a last turn of the assistant is continued."""

    role: Literal["user", "assistant", "system"]
    content: TextParts


class CountRequest(Body):
    """What is counted: the same prompt that /v1/messages would read."""

    model: str | None = Field(default=None, max_length=256)
    messages: list[Turn] = Field(min_length=1)
    system: TextParts = None
    cache_control: dict[str, Any] | None = None          # prefixes are cached by themselves
    thinking: Annotated[Any, Refuse("this model does not think apart", ({"type": "disabled"},))] = None
    tools: Annotated[Any, Refuse("tool calling is not built yet", ([],))] = None
    tool_choice: Annotated[Any, Refuse("there are no tools", ({"type": "none"}, {"type": "auto"}))] = None
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
    content: list[TextBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence"] | None
    stop_sequence: str | None = None
    usage: MessageUsage
