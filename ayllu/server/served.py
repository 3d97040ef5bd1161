"""The model that is served, and everything that a route needs to answer with it."""

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ayllu.checkpoint.licence import Licence
from ayllu.config import validate
from ayllu.engine.perception import LOOKING, Perception
from ayllu.engine.shelf import Loaded
from ayllu.model.account import n_parameters, weight_bytes
from ayllu.model.params import SamplingParams
from ayllu.server.bridge import AnyService
from ayllu.server.faults import FieldError, UnknownModelError
from ayllu.server.limits import Limits
from ayllu.server.metrics import Metrics
from ayllu.server.queueing import Queue
from ayllu.server.workspace import Workspace
from ayllu.text.call_form import CallForm, call_form
from ayllu.text.tokenizer import Tokenizer

COLDEST = 1e-4                                           # temperatures below are greedy


@dataclass
class Served:
    """One model behind one engine, under its name and aliases."""

    name: str
    service: AnyService
    tokenizer: Tokenizer
    chat_template: str | None
    eos_ids: tuple[int, ...]
    defaults: dict[str, Any]                             # the checkpoint's own sampling
    format: str = "memory"
    licence: Licence | None = None
    aliases: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    redact: bool = False
    perception: Perception | None = None                 # what it sees and hears with
    media_hosts: frozenset[str] = frozenset()            # machines that images may be fetched from
    base: str = ""                                       # the model's fingerprint, which adapters may name
    adapter_folder: Path | None = None                   # below which clients may name adapters
    support: Path | None = None                          # the folder of its customer service; None: the sample shop
    training: tuple[Path, ...] = ()                      # what the model was trained on: texts are compared with it
    workspace: Workspace | None = None                   # where jobs and files are kept; None: nothing is
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)
    metrics: Metrics = field(default_factory=Metrics)
    queue: Queue = field(default_factory=Queue)
    loop: asyncio.AbstractEventLoop | None = None        # the running server's
    started: int = field(default_factory=lambda: int(time.time()))

    @property
    def context(self) -> int:
        """Tokens of prompt and answer."""
        return self.service.engine.context

    @property
    def vocab_size(self) -> int:
        """Ids that the model knows."""
        return self.service.engine.config.vocab_size

    @property
    def n_parameters(self) -> int:
        """Numbers in the weights."""
        return n_parameters(self.service.engine.config)

    @property
    def dtype(self) -> str:
        """The number format of the weights in memory."""
        return str(self.service.engine.runner.dtype).removeprefix("torch.")

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in memory."""
        return weight_bytes(self.service.engine.config, self.dtype)

    @property
    def digest(self) -> str:
        """Tells models apart in Ollama's lists: of the name, shape and vocabulary, not of the weights."""
        facts = f"{self.name} {self.service.engine.config!r} {self.tokenizer.fingerprint}"
        return hashlib.sha256(facts.encode()).hexdigest()

    @property
    def own_names(self) -> set[str]:
        """What the plain model is called."""
        return {self.name, *self.aliases}

    @property
    def adapters(self) -> dict[str, Loaded]:
        """A copy of what the engine holds, since its thread changes that; the senses' own isn't asked for by name."""
        return {name: found for name, found in dict(self.service.engine.adapters.loaded).items() if name != LOOKING}

    def adapter_of(self, name: str) -> str | None:
        """The adapter that a name (which was checked before) stands for; Ollama's clients may have added a tag."""
        plain = name.removesuffix(":latest")
        return None if {name, plain} & self.own_names else plain

    def adapter_for(self, name: str, shows: bool) -> str | None:
        """The same for a conversation that may show images or sounds: then the plain model has the adapter that learned
        with its senses."""
        own = LOOKING if shows and LOOKING in self.service.engine.adapters.loaded else None
        return self.adapter_of(name) or own

    @cached_property
    def call_form(self) -> CallForm | None:
        """How the model writes tool calls; None where its template does so in a way that can't be read."""
        return call_form(self.chat_template, self.tokenizer)

    @property
    def takes(self) -> list[Literal["text", "image", "audio"]]:
        """What a message may hold."""
        found: list[Literal["text", "image", "audio"]] = ["text"]
        if self.perception is not None and self.perception.sees:
            found.append("image")
        if self.perception is not None and self.perception.hears:
            found.append("audio")
        return found

    def check_model(self, name: str | None) -> str:
        """The name under which the answer comes: strictly what was asked for."""
        if name is None:
            return self.name
        if name not in self.own_names and name not in self.adapters:
            also = [*sorted(self.aliases), *sorted(self.adapters)]
            others = f" (also {', '.join(also)})" if also else ""
            raise UnknownModelError(f"the model {name!r} is not served here; there is {self.name!r}{others}: ask for "
                                    "it, or start the server with --alias NAME")
        return name

    def params(self, api_defaults: dict[str, Any], given: dict[str, Any]) -> SamplingParams:
        """Settings of one call: what it says, else what the checkpoint says, else what the API's document says."""
        stated = {key: value for key, value in given.items() if value is not None}
        if stated.get("temperature", 1) < COLDEST:       # float32 can't divide by less; the likeliest id is meant
            stated["temperature"] = 0.0
        return validate(SamplingParams, {**api_defaults, **self.defaults, **stated}, where="the request")


def logit_bias_of(value: dict[str, float] | None) -> dict[int, float] | None:
    """By id, within OpenAI's -100 to 100; -100 forbids."""
    if not value:
        return None
    biases = {}
    for key, bias in value.items():
        if not key.isascii() or not key.isdigit() or len(key) > 9:
            raise FieldError("logit_bias", f"logit_bias names {key[:20]!r}, which is no id of the vocabulary: use its "
                             "number as a text")
        if not -100 <= bias <= 100:
            raise FieldError("logit_bias", f"logit_bias of {key} is {bias:g}: use -100 (never) to 100 (always)")
        biases[int(key)] = bias if bias > -100 else float("-inf")
    return biases


def public_name(model: str) -> str:
    """A model's name for others: never the folders of this machine."""
    path = Path(model)
    return path.stem if path.is_file() else path.resolve().name if path.is_dir() else model
