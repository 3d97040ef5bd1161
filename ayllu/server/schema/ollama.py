"""Ollama's /api/chat, generate, embed, embeddings, show, tags, ps and version. Streams are lines of JSON."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ayllu.server.schema.base import Answer, Body, Refuse, Texts
from ayllu.server.schema.media import Images
from ayllu.server.schema.tools import CallId, FunctionTool, OllamaCall

ModelName = Annotated[str, Field(min_length=1, max_length=256)]


class Options(Body):
    """Sampling, and how Ollama loads models: the latter says nothing about the text and is passed over here."""

    seed: int | None = Field(default=None, ge=-2**63, lt=2**64)
    num_predict: int | None = Field(default=None, ge=-2)     # -1 and -2: until the end or the context
    num_ctx: int | None = Field(default=None, ge=1)          # a prompt that is longer is an error
    top_k: int | None = Field(default=None, ge=-1)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    typical_p: float | None = Field(default=None, gt=0, le=1)
    temperature: float | None = Field(default=None, ge=0, le=100)
    repeat_penalty: float | None = Field(default=None, ge=0.01, le=100)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    stop: Texts = None
    num_keep: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    num_thread: int | None = None
    main_gpu: int | None = None
    numa: bool | None = None
    low_vram: bool | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    f16_kv: bool | None = None
    repeat_last_n: int | None = Field(default=None, ge=-1)   # ids that penalties look at: -1 all, 0 none
    tfs_z: Annotated[Any, Refuse("use min_p", (1, 1.0))] = None
    mirostat: Annotated[Any, Refuse("use min_p", (0,))] = None
    mirostat_tau: Annotated[Any, Refuse("use min_p")] = None
    mirostat_eta: Annotated[Any, Refuse("use min_p")] = None
    penalize_newline: Annotated[Any, Refuse("all ids are penalised alike", (True,))] = None
    logits_all: Annotated[Any, Refuse("use logprobs", (False,))] = None
    vocab_only: Annotated[Any, Refuse("the model is loaded", (False,))] = None
    embedding_only: Annotated[Any, Refuse("the model is loaded", (False,))] = None


class OllamaRequest(Body):
    """What chat and generate share."""

    model: ModelName
    stream: bool | None = None                           # None is true, unlike elsewhere
    options: Options | None = None
    keep_alive: float | str | None = None                # the model stays as long as the server, as /api/ps says
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    format: Literal["", "json"] | dict[str, Any] | None = None
    think: Annotated[Any, Refuse("this model does not think apart", (False,))] = None
    truncate: Annotated[Any, Refuse("a prompt is never cut in silence", (False,))] = None
    shift: Annotated[Any, Refuse("a context is never shifted in silence", (False,))] = None


class OllamaMessage(Body):
    """One turn."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    thinking: str | None = None
    tool_name: str | None = None                         # of a tool's result: which tool
    tool_call_id: CallId | None = None                   # ... and which call, where a client kept ids
    tool_calls: list[OllamaCall] | None = None
    images: Images = None


class OllamaChatRequest(OllamaRequest):
    """A chat; without messages it only asks whether the model is there."""

    messages: list[OllamaMessage] = Field(default_factory=list)
    tools: list[FunctionTool] | None = None


class GenerateRequest(OllamaRequest):
    """One prompt, put into the model's template unless `raw`; without one it only asks whether the model is there."""

    prompt: str = ""
    system: str | None = None
    raw: bool | None = None
    suffix: Annotated[Any, Refuse("filling in is not served", ("",))] = None
    template: Annotated[Any, Refuse("use raw and write the prompt yourself", ("",))] = None
    context: Annotated[Any, Refuse("use /api/chat and send the messages", ([],))] = None
    images: Images = None
    width: Annotated[Any, Refuse("this model paints nothing", (0,))] = None
    height: Annotated[Any, Refuse("this model paints nothing", (0,))] = None
    steps: Annotated[Any, Refuse("this model paints nothing", (0,))] = None


class EmbedRequest(Body):
    """Texts to vectors."""

    model: ModelName
    input: str | list[str]
    options: Options | None = None
    keep_alive: float | str | None = None
    dimensions: int | None = Field(default=None, ge=1)
    truncate: Annotated[Any, Refuse("a text is never cut in silence", (False,))] = None


class OldEmbedRequest(Body):
    """The older form: one text."""

    model: ModelName
    prompt: str = ""
    options: Options | None = None
    keep_alive: float | str | None = None


class ShowRequest(Body):
    """Which model; `name` is the older key."""

    model: ModelName | None = None
    name: ModelName | None = None
    verbose: bool | None = None


class Part(Answer):
    """One line of an answer; the last has `done` and the counts. Durations are nanoseconds."""

    model: str
    created_at: str
    message: dict[str, Any] | None = None                # of chat
    response: str | None = None                          # of generate
    logprobs: list[dict[str, Any]] | None = None
    done: bool
    done_reason: Literal["stop", "length", "load"] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class Embedded(Answer):
    """Vectors in the order of the inputs."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int = 0
    prompt_eval_count: int


class OldEmbedded(Answer):
    """One vector."""

    embedding: list[float]


class Details(Answer):
    """What a model is."""

    parent_model: str = ""
    format: str
    family: str = "llama"
    families: tuple[str, ...] = ("llama",)
    parameter_size: str
    quantization_level: str


class Listed(Answer):
    """A model in tags and ps."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    expires_at: str | None = None
    size_vram: int | None = None
    context_length: int | None = None


class ListedModels(Answer):
    """All models."""

    models: list[Listed]


class Shown(Answer):
    """One model in full."""

    modelfile: str
    parameters: str
    template: str
    license: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class Version(Answer):
    """The version of Ayllu, also at /version."""

    version: str
