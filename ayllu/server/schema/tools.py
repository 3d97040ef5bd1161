"""Tools, choices among them, and calls in a history, as each API writes them."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ayllu.server.schema.base import Body, InputTextParts, TextParts
from ayllu.server.schema.media import ImageBlock
from ayllu.server.schema.tool_grammar import Schema

ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]
CallId = Annotated[str, Field(min_length=1, max_length=256)]
Simple = Literal["none", "auto", "required"]


class Function(Body):
    """A function; every schema is held to, `strict` or not."""

    name: ToolName
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class FunctionTool(Body):
    """A tool as OpenAI's chats and Ollama have it."""

    type: Literal["function"] = "function"
    function: Function


class Named(Body):
    """A function by its name."""

    name: ToolName


class NamedTool(Body):
    """This function must be called."""

    type: Literal["function"]
    function: Named


class AllowedTools(Body):
    """Only these may be called, or one of them must."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1)


class AllowedChoice(Body):
    """OpenAI's tool_choice of several."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ChatToolChoice = Simple | NamedTool | AllowedChoice


class ResponseTool(Function):
    """The same in /v1/responses, without the table around it."""

    type: Literal["function"]


class NamedResponseTool(Named):
    """This function must be called."""

    type: Literal["function"]


class AllowedResponseTools(Body):
    """Only these may be called, or one of them must."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[NamedResponseTool] = Field(min_length=1)


ResponseToolChoice = Simple | NamedResponseTool | AllowedResponseTools


class AnthropicTool(Body):
    """Anthropic's form; tools that Anthropic's own servers run are of other types."""

    type: Literal["custom"] | None = None
    name: ToolName
    description: str | None = None
    input_schema: Schema
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None          # prefixes are cached by themselves
    eager_input_streaming: bool | None = None            # arguments stream as they come, anyway


class AnthropicChoice(Body):
    """any: one or more must be called; tool: this one."""

    type: Literal["auto", "any", "tool", "none"]
    name: ToolName | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("name belongs to the type tool: give both, or neither")
        return self


class CalledFunction(Body):
    """What was called, with its arguments as a text of JSON."""

    name: ToolName
    arguments: str = ""


class ChatCall(Body):
    """A call in an assistant's message, as the answer gave it."""

    id: CallId
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None                             # of a stream; clients that join its parts may keep it


class CalledTool(Body):
    """What was called, with its arguments as a table."""

    name: ToolName
    arguments: dict[str, Any] = Field(default_factory=dict)
    index: int | None = None


class OllamaCall(Body):
    """A call in an assistant's message, as Ollama writes it."""

    id: CallId | None = None
    type: Literal["function"] = "function"
    function: CalledTool


class TextBlock(Body):
    """A text among Anthropic's blocks."""

    type: Literal["text"]
    text: str
    cache_control: dict[str, Any] | None = None
    citations: list[Any] | None = None


class ToolUseBlock(Body):
    """A call among Anthropic's blocks."""

    type: Literal["tool_use"]
    id: CallId
    name: ToolName
    input: dict[str, Any]
    cache_control: dict[str, Any] | None = None
    caller: dict[str, Any] | None = None


class ToolResultBlock(Body):
    """What a tool gave."""

    type: Literal["tool_result"]
    tool_use_id: CallId
    content: TextParts = None
    is_error: bool | None = None
    cache_control: dict[str, Any] | None = None


Block = Annotated[TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")]


class FunctionCallItem(Body):
    """A call in the input of /v1/responses."""

    type: Literal["function_call"]
    call_id: CallId
    name: ToolName
    arguments: str = ""
    id: str | None = None
    status: str | None = None


class FunctionOutputItem(Body):
    """What a tool gave, in the input of /v1/responses."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: InputTextParts
    id: str | None = None
    status: str | None = None
