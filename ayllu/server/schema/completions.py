"""OpenAI's /v1/completions and /v1/embeddings, and the list of models."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ayllu.server.schema.base import Answer, Body, Prompts, Refuse
from ayllu.server.schema.chat import Usage
from ayllu.server.schema.sampling import Sampling


class CompletionRequest(Sampling):
    """One or many prompts, as texts or as ids; an id prompt is taken as it is, without a BOS of ours."""

    prompt: Prompts
    best_of: int | None = Field(default=None, ge=1)      # so many are drawn (or beams carried on), the n best given
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=20)
    max_tokens: int | None = Field(default=None, ge=0)   # 16 where nobody says, as in the published document
    add_special_tokens: bool = True
    suffix: Annotated[Any, Refuse("filling in is not served", ("",))] = None


class CompletionLogprobs(Answer):
    """One entry for each token; the first of a prompt has no probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(Answer):
    """One of n answers to one of the prompts: index is prompt * n + sample."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class Completion(Answer):
    """The whole answer."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str | None = None


class EmbeddingRequest(Body):
    """Texts or ids, each to one vector."""

    model: str | None = Field(default=None, max_length=256)
    input: Prompts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)   # only the model's own width
    user: str | None = None


class Embedding(Answer):
    """One vector of length 1; base64 holds little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Answer):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Answer):
    """Vectors in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class Model(Answer):
    """A model or an adapter that can be asked for, in OpenAI's form and Anthropic's at once."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    max_model_len: int
    parent: str | None = None                            # of an alias or an adapter
    root: str | None = None                              # of an adapter: its folder's name
    type: Literal["model"] = "model"
    display_name: str
    created_at: str
    input_modalities: list[Literal["text", "image", "audio"]]
    lifecycle: Literal["active"] = "active"


class ModelList(Answer):
    """All that can be asked for."""

    object: Literal["list"] = "list"
    data: list[Model]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None
