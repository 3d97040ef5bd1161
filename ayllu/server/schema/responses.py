"""OpenAI's /v1/responses, without memory: each call brings all that the model shall know."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ayllu.server.schema.base import Answer, Body, InputTextParts, Refuse, Texts
from ayllu.server.schema.forms import TextFormat

STATELESS = "this server keeps no conversations: send the whole input"


class InputItem(Body):
    """One turn of the input, as a client writes it or as an answer gave it."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: InputTextParts
    id: str | None = None
    status: str | None = None
    phase: str | None = None


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
    input: str | list[InputItem]
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
    tools: Annotated[Any, Refuse("tool calling is not built yet", ([],))] = None
    tool_choice: Annotated[Any, Refuse("there are no tools", ("none", "auto"))] = None
    max_tool_calls: Annotated[Any, Refuse("there are no tools")] = None
    reasoning: Annotated[Any, Refuse("this model does not reason apart", ({}, {"effort": "none"}))] = None
    moderation: Annotated[Any, Refuse("there is no moderation model")] = None
    prompt_cache_options: Annotated[Any, Refuse("prefixes are cached by themselves", ({"mode": "implicit"},))] = None
    prompt_cache_retention: Annotated[Any, Refuse("prefixes live in memory", ("in_memory",))] = None
    access_programs: Annotated[Any, Refuse("there are none")] = None
    image: Annotated[Any, Refuse("this model reads text only")] = None


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
    """The one item of an answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


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
    output: list[OutputMessage]
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    background: bool = False
    store: bool = False
    temperature: float
    top_p: float
    top_logprobs: int
    text: dict[str, Any]
    tool_choice: Literal["auto"] = "auto"
    tools: tuple[Any, ...] = ()
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
