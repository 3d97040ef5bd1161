"""Routes that local servers have besides the published ones: tokens, templates, adapters, health."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ayllu.server.schema.base import Answer, Body, Ids
from ayllu.server.schema.chat import ChatMessage, ChatOptions

ADAPTER_NAME = r"^[\w.-]+$"


class TemplateRequest(ChatOptions):
    """A chat, as the prompt that the model would read."""

    model: str | None = Field(default=None, max_length=256)
    messages: list[ChatMessage] = Field(min_length=1)


class TokenizeRequest(ChatOptions):
    """A text (under the name that other servers use: prompt or content), or a chat."""

    model: str | None = Field(default=None, max_length=256)
    prompt: str | None = None
    content: str | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1)
    add_special_tokens: bool | None = None               # None: BOS where the model wants it
    add_special: bool | None = None
    parse_special: bool = False                          # special tokens in the text count as such
    return_token_strs: bool = False
    with_pieces: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [n for n in ("prompt", "content", "messages") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of prompt, content and messages; found {', '.join(given) or 'none'}")
        return self


class Tokens(Answer):
    """Ids of a text."""

    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class DetokenizeRequest(Body):
    """Ids to text."""

    model: str | None = Field(default=None, max_length=256)
    tokens: Ids
    skip_special_tokens: bool = False


class Detokenized(Answer):
    """The text, under both names."""

    prompt: str
    content: str


class TokenizerInfo(Answer):
    """What a client needs to count as the model does."""

    tokenizer_class: str
    vocab_size: int
    bos_token: str | None
    bos_token_id: int | None
    eos_token: str | None
    eos_token_id: int | None
    eos_token_ids: list[int]
    pad_token: str | None
    pad_token_id: int | None
    add_bos_token: bool
    chat_template: str | None
    max_model_len: int
    fingerprint: str


class Prompted(Answer):
    """The exact prompt: its text and its ids."""

    prompt: str
    tokens: list[int]
    count: int
    max_model_len: int


class LoadAdapterRequest(Body):
    """A PEFT folder below the server's own folder of adapters, under a name that can be asked for."""

    lora_name: str = Field(min_length=1, max_length=128, pattern=ADAPTER_NAME)
    lora_path: str = Field(min_length=1, max_length=1024)
    load_inplace: bool = False


class UnloadAdapterRequest(Body):
    """The name of an adapter."""

    lora_name: str = Field(min_length=1, max_length=128)


class Health(Answer):
    """Whether the engine takes requests."""

    status: Literal["ok", "stopped"]


class ErrorDetail(Answer):
    """What was found, what was expected, what to do; `param` names the field."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(Answer):
    """OpenAI's form."""

    error: ErrorDetail


class AnthropicError(Answer):
    """Anthropic's form."""

    type: Literal["error"] = "error"
    error: dict[str, str]
    request_id: str | None = None


class OllamaError(Answer):
    """Ollama's form."""

    error: str
