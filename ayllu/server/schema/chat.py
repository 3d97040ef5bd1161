"""OpenAI's /v1/chat/completions."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ayllu.server.schema.base import Answer, Body, Refuse
from ayllu.server.schema.media import ChatContent
from ayllu.server.schema.sampling import Sampling
from ayllu.server.schema.tools import CallId, ChatCall, ChatToolChoice, FunctionTool

Finish = Literal["stop", "length", "tool_calls", "content_filter"]


class ChatMessage(Body):
    """One turn. What clients send back of an answer is taken and, where it is no text, passed over."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: ChatContent = None
    name: str | None = None
    tool_calls: list[ChatCall] | None = None
    tool_call_id: CallId | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    reasoning_content: str | None = None
    audio: Annotated[Any, Refuse("an earlier answer in sound isn't kept: send its text")] = None
    function_call: Annotated[Any, Refuse("use tool_calls")] = None

    @model_validator(mode="after")
    def _of_its_role(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise ValueError("this message has no content")
        if isinstance(self.content, list) and self.role != "user":
            raise ValueError(f"an image or a sound in a message of the role {self.role}: the user shows them")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls in a message of the role {self.role}: only the assistant calls tools")
        if (self.tool_call_id is None) == (self.role == "tool"):
            raise ValueError("tool_call_id belongs to the role tool: give both, or neither")
        return self


class ChatOptions(Body):
    """What is told to a chat template besides the messages."""

    tools: list[FunctionTool] | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool | None = None            # False only makes sense with continue_final_message
    chat_template_kwargs: dict[str, Any] | None = None


class ChatRequest(Sampling, ChatOptions):
    """Everything of the published document, and what local servers added."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)   # its older name
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None                  # prefixes are cached anyway
    safety_identifier: str | None = None
    parallel_tool_calls: bool | None = None
    service_tier: Annotated[Any, Refuse("there is one tier", ("auto", "default"))] = None
    store: Annotated[Any, Refuse("nothing is stored", (False,))] = None
    tool_choice: ChatToolChoice | None = None
    modalities: Annotated[Any, Refuse("this model writes text only", (["text"],))] = None
    audio: Annotated[Any, Refuse("this model writes text only")] = None
    functions: Annotated[Any, Refuse("use tools", ([],))] = None
    function_call: Annotated[Any, Refuse("use tool_choice", ("none", "auto"))] = None
    prediction: Annotated[Any, Refuse("predicted outputs are not built")] = None
    reasoning_effort: Annotated[Any, Refuse("this model does not reason apart", ("none",))] = None
    verbosity: Annotated[Any, Refuse("say it in the prompt", ("medium",))] = None
    web_search_options: Annotated[Any, Refuse("this server reaches nothing outside")] = None
    moderation: Annotated[Any, Refuse("there is no moderation model")] = None
    prompt_cache_options: Annotated[Any, Refuse("prefixes are cached by themselves", ({"mode": "implicit"},))] = None
    prompt_cache_retention: Annotated[Any, Refuse("prefixes live in memory", ("in_memory",))] = None


class TokenLogprob(Answer):
    """A token that might have come."""

    token: str
    logprob: float
    bytes: list[int] | None


class ContentLogprob(TokenLogprob):
    """The token that came."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Answer):
    """One entry for each token of the content."""

    content: list[ContentLogprob]
    refusal: None = None


class CachedTokens(Answer):
    """Of the prompt's tokens, those found in the prefix cache."""

    cached_tokens: int


class Usage(Answer):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class AnswerFunction(Answer):
    """What was called; the arguments are a text of JSON."""

    name: str
    arguments: str


class AnswerCall(Answer):
    """A call that the model made."""

    id: str
    type: Literal["function"] = "function"
    function: AnswerFunction


class AnswerMessage(Answer):
    """What the model wrote; content is null where it only called tools."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[AnswerCall] = Field(default_factory=list)       # left out where there are none


class ChatChoice(Answer):
    """One of n answers."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish


class ChatCompletion(Answer):
    """The whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None = None
    service_tier: None = None
