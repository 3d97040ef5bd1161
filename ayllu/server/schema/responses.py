"""OpenAI's /v1/responses, without memory: each call brings all that the model shall know."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from ayllu.server.schema.base import Answer, Body, Refuse, Texts
from ayllu.server.schema.forms import TextFormat
from ayllu.server.schema.media import InputContent
from ayllu.server.schema.tools import FunctionCallItem, FunctionOutputItem, ResponseTool, ResponseToolChoice

STATELESS = "this server keeps no conversations: send the whole input"


class InputItem(Body):
    """One turn of the input, as a client writes it or as an answer gave it."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: InputContent
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    @model_validator(mode="after")
    def _of_its_role(self) -> Self:
        if isinstance(self.content, list) and self.role != "user":
            raise ValueError(f"an image or a sound in a message of the role {self.role}: the user shows them")
        return self


_KINDS = ("message", "function_call", "function_call_output")


def _as_items(value: Any) -> Any:
    """A text is a turn of the user; what this model can't read is refused by its kind."""
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    if not isinstance(value, list):
        return value
    found = [{"type": "message", **item} if isinstance(item, dict) else item for item in value]
    for number, item in enumerate(found):
        if isinstance(item, dict) and item["type"] not in _KINDS:
            raise ValueError(f"item {number} has the type {str(item['type'])[:40]!r}: this model reads "
                             f"{', '.join(_KINDS)}")
    return found


Item = Annotated[InputItem | FunctionCallItem | FunctionOutputItem, Field(discriminator="type")]
Items = Annotated[list[Item], BeforeValidator(_as_items), WithJsonSchema({"anyOf": [{"type": "string"}, {
    "type": "array", "items": {"type": "object", "properties": {"type": {"enum": list(_KINDS)}}}}]})]


class TextConfig(Body):
    """The form of the text."""

    format: TextFormat | None = None
    verbosity: Annotated[Any, Refuse("say it in the prompt", ("medium",))] = None


class ResponseStreamOptions(Body):
    """Nothing that could be changed."""

    include_obfuscation: Annotated[Any, Refuse("chunks are not padded", (False,))] = None


class ResponseRequest(Body):
    """Everything of the published document; sampling also as local servers have it."""

    model: str | None = Field(default=None, max_length=256)
    input: Items
    instructions: str | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    text: TextConfig | None = None
    user: str | None = None
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-2**63, lt=2**64)
    stop: Texts = None
    truncation: Annotated[Any, Refuse("a prompt is never cut in silence", ("disabled",))] = None
    store: Annotated[Any, Refuse("nothing is stored", (False,))] = None
    background: Annotated[Any, Refuse(STATELESS, (False,))] = None
    background_options: Annotated[Any, Refuse(STATELESS)] = None
    conversation: Annotated[Any, Refuse(STATELESS)] = None
    previous_response_id: Annotated[Any, Refuse(STATELESS)] = None
    context_management: Annotated[Any, Refuse(STATELESS, ([],))] = None
    prompt: Annotated[Any, Refuse("no prompt templates are stored")] = None
    service_tier: Annotated[Any, Refuse("there is one tier", ("auto", "default"))] = None
    tools: list[ResponseTool] | None = None
    tool_choice: ResponseToolChoice | None = None
    max_tool_calls: Annotated[Any, Refuse("it counts tools that a server runs; here the caller runs them")] = None
    reasoning: Annotated[Any, Refuse("this model does not reason apart", ({}, {"effort": "none"}))] = None
    moderation: Annotated[Any, Refuse("there is no moderation model")] = None
    prompt_cache_options: Annotated[Any, Refuse("prefixes are cached by themselves", ({"mode": "implicit"},))] = None
    prompt_cache_retention: Annotated[Any, Refuse("prefixes live in memory", ("in_memory",))] = None
    access_programs: Annotated[Any, Refuse("there are none")] = None
    image: Annotated[Any, Refuse("an image is a part of the input: input_image")] = None


class InputDetails(Answer):
    """Of the input's tokens, those found in the prefix cache."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Answer):
    """No model here reasons apart from its answer."""

    reasoning_tokens: int = 0


class ResponseUsage(Answer):
    """Tokens read and written."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


class OutputText(Answer):
    """The text of the answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: tuple[Any, ...] = ()
    logprobs: list[dict[str, Any]] = Field(default_factory=list)


class OutputMessage(Answer):
    """The text among the items of an answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class OutputCall(Answer):
    """A call; the arguments are a text of JSON, which is not whole where the status is incomplete."""

    id: str
    type: Literal["function_call"] = "function_call"
    call_id: str
    name: str
    arguments: str
    status: Literal["in_progress", "completed", "incomplete"]


class Incomplete(Answer):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class Response(Answer):
    """The whole answer, with the settings that made it."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: dict[str, str] | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage | OutputCall]
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    background: bool = False
    store: bool = False
    temperature: float
    top_p: float
    top_logprobs: int
    text: dict[str, Any]
    tool_choice: str | dict[str, Any] = "auto"
    tools: list[dict[str, Any]] = Field(default_factory=list)
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
