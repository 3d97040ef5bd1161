"""Parameters of generation that OpenAI's chat and text completions share, with those that local servers added."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ayllu.server.schema.base import Body, Id, Refuse, Texts
from ayllu.server.schema.forms import ResponseFormat, StructuredOutputs

OTHER_GRAMMAR = "use structured_outputs, whose grammar is Lark"


class StreamOptions(Body):
    """What a stream tells besides the text."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, Refuse("chunks are not padded", (False,))] = None
    continuous_usage_stats: bool | None = None           # vLLM's: usage with every chunk


class Sampling(Body):
    """None everywhere: the checkpoint's own default, else OpenAI's."""

    model: str | None = Field(default=None, max_length=256)      # None: the one that is served
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None           # by id as a text; -100 and below forbid, 100 forces
    n: int | None = Field(default=None, ge=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-2**63, lt=2**64)
    stop: Texts = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)       # 0 and -1: all
    min_p: float | None = Field(default=None, ge=0, le=1)
    typical_p: float | None = Field(default=None, gt=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    stop_token_ids: list[Id] | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = Field(default=None, ge=0)
    prompt_logprobs: int | None = Field(default=None, ge=0, le=20)
    return_token_ids: bool | None = None
    user: str | None = None                              # who asks is known from the key; taken and not kept
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    grammar: Annotated[Any, Refuse(OTHER_GRAMMAR)] = None
    guided_json: Annotated[Any, Refuse(OTHER_GRAMMAR)] = None
    guided_regex: Annotated[Any, Refuse(OTHER_GRAMMAR)] = None
    guided_choice: Annotated[Any, Refuse(OTHER_GRAMMAR)] = None
    bad_words: Annotated[Any, Refuse("use logit_bias to forbid ids", ([],))] = None
    allowed_token_ids: Annotated[Any, Refuse("use logit_bias to forbid the others")] = None
    use_beam_search: bool | None = None                  # vLLM's, with these two: n is the number of beams (beams.py)
    length_penalty: float | None = Field(default=None, ge=-30, le=30)
    early_stopping: bool | Literal["never"] | None = None
