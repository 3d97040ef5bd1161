"""From settings to a running server: load, build, listen."""

import os
import signal
import ssl
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ayllu import dist
from ayllu.checkpoint.resolve import senses_of
from ayllu.device import pick_device
from ayllu.engine.constrain import Grammars
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.llm import LLM
from ayllu.engine.perception import LOOKING, Perception, adapter_of, folder_of
from ayllu.engine.ranks import LedEngine, follow
from ayllu.engine.runner import Runner
from ayllu.engine.service import Service
from ayllu.errors import ConfigError, MissingExtra, RequestError
from ayllu.server.adapters import load_now, named_path
from ayllu.server.app import DRAIN_S, build_app
from ayllu.server.gate import Door
from ayllu.server.keys import Keys, key_of, read_keys
from ayllu.server.limits import Limits
from ayllu.server.number_format import served_dtype
from ayllu.server.served import Served, public_name
from ayllu.server.wire import protocol_with
from ayllu.server.workspace import Workspace
from ayllu.text.tokenizer import Tokenizer

KEY_VARIABLE = "AYLLU_API_KEY"
BACKLOG = 2048                                           # connections that wait to be accepted, uvicorn's own default


@dataclass(frozen=True)
class Tls:
    """Certificate and key, both PEM files."""

    cert: Path
    key: Path

    def __post_init__(self) -> None:
        try:                                             # now, with a plain message, rather than at the first client
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.cert, self.key, password="")
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"--tls-cert {self.cert} and --tls-key {self.key} can't be used: {error}; both must be "
                              "PEM files, the key without a password") from error


def load_keys(path: Path | None) -> Keys:
    """Keys from the environment and from a file; secrets never come from the command line."""
    secret = os.environ.get(KEY_VARIABLE)
    found = [key_of(secret)] if secret else []
    return Keys([*found, *(read_keys(path) if path else [])])


def load_served(model: str, *, dtype: str | None = None, device: str = "auto", name: str | None = None,
                aliases: tuple[str, ...] = (), engine: EngineSettings | None = None, limits: Limits | None = None,
                redact: bool = False, draft: str | None = None, adapters: Sequence[str] = (),
                adapter_folder: Path | None = None, max_wait_s: float | None = None,
                rope_scaling: str | None = None, context: int | None = None,
                workspace: Workspace | None = None, support: Path | None = None,
                training: tuple[Path, ...] = ()) -> Served:
    """Load a model and put an engine and its service around it; nothing runs yet. `adapters` read NAME=PATH."""
    named = [named_path(text) for text in adapters]
    if dist.world_size() > 1 and (draft or adapters or adapter_folder):
        raise ConfigError("a server of several ranks takes no draft model and no adapters: leave --draft and --lora "
                          "away, or merge the adapter into the model (ayllu merge)")
    llm = _load(model, dtype, device, rope_scaling, context)
    if rope_scaling is not None and llm.config.rope_scaling is not None and llm.config.rope_scaling.follows_length:
        raise ConfigError(f"rope scaling {rope_scaling!r} can't be served: with it, keys depend on the length of the "
                          "text that they were computed with, so pages can't be shared; take yarn, linear or llama3")
    if llm.tokenizer is None:
        raise RequestError(f"{model} has no tokenizer, so no text can be served: put its tokenizer.model or "
                           "tokenizer.json beside it")
    built = _engine(llm, engine, _draft(draft, llm, device))
    service = Service(built if dist.world_size() == 1 else LedEngine(built), max_wait_s)
    served = Served(name=name or public_name(model), service=service,
                  tokenizer=llm.tokenizer, chat_template=llm.checkpoint.chat_template, eos_ids=llm.eos_ids,
                  defaults=llm.checkpoint.generation.sampling(), format=llm.checkpoint.format,
                  licence=llm.checkpoint.licence, aliases=frozenset(aliases), limits=limits or Limits(),
                  redact=redact, base=llm.fingerprint, adapter_folder=adapter_folder, workspace=workspace,
                  support=support, training=training)
    for adapter, path in named:
        load_now(served, adapter, path)
    return served


def looking(model: str, senses: str | Path | None) -> tuple[str, ...]:
    """The adapter that learned with the senses that `attach_senses` takes, as `adapters` of load_served."""
    found = senses or _own_senses(model)
    adapter = None if found is None else adapter_of(folder_of(found))
    return () if adapter is None else (f"{LOOKING}={adapter}",)


def attach_senses(served: Served, model: str, senses: str | Path | None, device: str = "auto",
                  hosts: Iterable[str] = ()) -> None:
    """Let it see and hear: with the senses that were named, or with those that come with the model. They lie where the
    callers are answered, not in the engine's process."""
    served.media_hosts = frozenset(hosts)
    found = senses or _own_senses(model)
    if found is not None:
        served.perception = Perception(found, served.tokenizer, served.service.engine.config.dim,
                                       fingerprint=served.base, device=pick_device(device))


def _own_senses(model: str) -> Path | None:
    """Those that come with it; of several ranks, which take no adapters, none."""
    return senses_of(model) if dist.world_size() == 1 else None


def follow_first(model: str, *, dtype: str | None = None, device: str = "auto", engine: EngineSettings | None = None,
                 rope_scaling: str | None = None, context: int | None = None) -> None:
    """What every rank but the first does until that one ends, whatever signals come."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)         # answers that are under way need all ranks
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    follow(_engine(_load(model, dtype, device, rope_scaling, context), engine))


def _load(model: str, dtype: str | None, device: str, rope_scaling: str | None, context: int | None) -> LLM:
    """The model, or of several ranks each one's share of it."""
    dtype = dtype or served_dtype(model, pick_device(device))
    if dist.world_size() == 1:
        return LLM.load(model, dtype=dtype, device=device, rope_scaling=rope_scaling, context=context, senses=None)
    from ayllu.engine.share import load_share

    return LLM(load_share(model, dtype=dtype, device=device, rope_scaling=rope_scaling, context=context), "eager")


def _engine(llm: LLM, settings: EngineSettings | None, draft: Runner | None = None) -> Engine:
    grammars = grammars_of(llm.tokenizer, llm.eos_ids, llm.config.vocab_size) if llm.tokenizer else None
    held = None
    if dist.world_size() > 1:
        from ayllu.engine.share import held_by_rank

        held = held_by_rank(llm.config)
    return Engine(llm.runner, settings, draft, grammars, held)


def _draft(model: str | None, llm: LLM, device: str) -> Runner | None:
    """The model that guesses ahead; its ids must mean the same."""
    if model is None:
        return None
    draft = LLM.load(model, dtype=served_dtype(model, pick_device(device)), device=device, senses=None)
    if draft.tokenizer is None or llm.tokenizer is None or draft.tokenizer.fingerprint != llm.tokenizer.fingerprint:
        raise ConfigError(f"--draft {model} has another vocabulary than the model that is served: choose one that was "
                          "trained with the same tokenizer")
    return draft.runner


def grammars_of(tokenizer: Tokenizer, eos_ids: Sequence[int], vocab_size: int) -> Grammars | None:
    """Where llguidance is installed and the model has an end id; without them, a call that asks for a form says so."""
    try:
        return Grammars(tokenizer, eos_ids, vocab_size)
    except (MissingExtra, RequestError):
        return None


@dataclass(frozen=True)
class Listener:
    """A server that listens already (so that its port is known) and is run by `run`."""

    served: Served
    door: Door
    port: int = 8000
    tls: Tls | None = None
    sockets: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it is called."""
        host = f"[{self.door.host}]" if ":" in self.door.host else self.door.host
        host = "localhost" if host in ("0.0.0.0", "[::]") else host
        return f"{'https' if self.tls else 'http'}://{host}:{self.sockets[0].getsockname()[1]}"

    def run(self) -> None:
        """Serve until Ctrl-C; running answers get a moment to end."""
        import uvicorn

        signal.signal(signal.SIGTERM, _end)              # uvicorn raises it again in the end
        uvicorn.Server(self._config()).run(sockets=self.sockets)

    def bind(self) -> "Listener":
        """Take the port; an error here is the caller's."""
        try:
            self.sockets.append(self._config().bind_socket())
            self.sockets[0].listen(BACKLOG)              # from now on a client waits instead of being refused
        except SystemExit:                               # uvicorn has logged why
            raise ConfigError(f"{self.door.host}:{self.port} can't be listened on: is another server running there? "
                              "Choose another one with --port (0: any free one)") from None
        return self

    def _config(self) -> Any:
        import uvicorn

        limits, app = self.served.limits, build_app(self.served, self.door)
        return uvicorn.Config(
            app, host=self.door.host, port=self.port, http=protocol_with(limits, app.at_once),
            ws="none", lifespan="on", access_log=False, log_level="warning", server_header=False, proxy_headers=False,
            timeout_keep_alive=limits.idle_s, limit_concurrency=limits.connections,
            timeout_graceful_shutdown=int(DRAIN_S),
            ssl_certfile=str(self.tls.cert) if self.tls else None, ssl_keyfile=str(self.tls.key) if self.tls else None)


def _end(number: int, _: object) -> None:
    """A signal as an ordinary end, so that what stands in a `finally` is done."""
    sys.exit(128 + number)
