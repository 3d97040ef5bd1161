"""The server on Ray Serve: engines as replicas, on one machine or many, and in front of them the application.

    serve run deploy/ray-serve.yaml                      # or `serve deploy`, to a cluster that runs

Texts, keys and limits are the front's affair, ids are the border: only they travel. So a request can begin again on
another replica when its own dies, in the midst of a stream too (engine/far.py). Which replica is asked is Ray's affair.
"""

import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pydantic import Field
from ray import serve
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, ReplicaUnavailableError, RequestCancelledError

from ayllu.config import Settings
from ayllu.engine.engine import EngineSettings
from ayllu.engine.far import FarService, Lost
from ayllu.engine.request import Request, Token
from ayllu.engine.service import Service
from ayllu.errors import AylluError, Overloaded
from ayllu.server.app import build_app
from ayllu.server.facts import Facts, facts_of
from ayllu.server.faults import Fault, send_fault
from ayllu.server.gate import Door
from ayllu.server.limits import Limits
from ayllu.server.served import Served
from ayllu.server.start import attach_senses, grammars_of, load_keys, load_served, looking

GONE = (RayActorError, NodeDiedError, WorkerCrashedError, ObjectLostError, ReplicaUnavailableError,
        RequestCancelledError)
SESSION_HEADER = b"x-session-id"                         # Ray Serve's own name for it
session: ContextVar[str] = ContextVar("session", default="")


class Replicated(Settings):
    """`args` of the deployment file. Paths are those of each machine."""

    model: str = "ayllu-mini-chat"
    name: str | None = None
    aliases: tuple[str, ...] = ()
    dtype: str | None = None
    device: str = "auto"
    draft: str | None = None
    lora: tuple[str, ...] = ()                           # NAME=PATH
    senses: str | None = None                            # a folder; None: those that come with the model
    media_hosts: tuple[str, ...] = ()                    # machines that images may be fetched from
    engine: EngineSettings = Field(default_factory=EngineSettings)
    max_wait_s: float | None = Field(default=None, gt=0)
    limits: Limits = Field(default_factory=Limits)
    redact: bool = False
    keys: Path | None = None                             # without one, and without AYLLU_API_KEY: this machine only
    hosts: tuple[str, ...] = ()                          # as --allow-host, --allow-origin
    origins: tuple[str, ...] = ()


@serve.deployment(name="Engine", num_replicas=2, max_ongoing_requests=128, max_queued_requests=256)
class EngineReplica:
    """One engine, in a process of its own."""

    def __init__(self, args: Replicated) -> None:
        adapters = (*args.lora, *looking(args.model, args.senses))
        self.served = load_served(args.model, dtype=args.dtype, device=args.device, name=args.name, engine=args.engine,
                                  draft=args.draft, adapters=adapters, max_wait_s=args.max_wait_s)
        assert isinstance(self.served.service, Service)
        self.service = self.served.service
        self.service.start()

    async def facts(self) -> Facts:
        """The same from every replica."""
        return facts_of(self.served)

    async def answer(self, request: Request) -> AsyncIterator[list[Token] | AylluError]:
        """See far.Answer; what is wrong with a request is given, for Ray logs what is raised at length. A caller that
        goes away cancels this, and so the request."""
        try:
            queued = await self.service.submit(request)
        except AylluError as error:
            yield error
            return
        async with queued as stream:
            yield []
            async for token in stream:
                yield [token]

    async def embed(self, ids: Sequence[int], adapter: str | None) -> list[float]:
        """One vector for a text."""
        return await self.service.embed(ids, adapter)

    async def check_health(self) -> None:
        """Ray Serve replaces a replica whose engine broke."""
        if self.service.failure:
            raise RuntimeError(self.service.failure)


class RayReplicas:
    """The replicas behind a handle of Ray Serve; `far.Replicas`."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def answer(self, request: Request) -> "RayAnswer":
        """From the replica that Ray chooses: with a session, the same one each time as long as it lives."""
        options = {"session_id": session.get()} if session.get() else {}
        return RayAnswer(self.handle.options(stream=True, **options).answer.remote(request))

    async def embed(self, ids: Sequence[int], adapter: str | None) -> list[float]:
        """One vector for a text."""
        try:
            return await self.handle.embed.remote(ids, adapter)
        except Exception as error:                       # told in our words
            raise _told(error) from error


class RayAnswer:
    """`far.Answer` over a streamed response of Ray Serve."""

    def __init__(self, response: Any) -> None:
        self.response = response

    async def __anext__(self) -> Sequence[Token]:
        """The tokens that are there."""
        try:
            found = await self.response.__anext__()
        except StopAsyncIteration:
            raise
        except Exception as error:                       # told in our words
            raise _told(error) from error
        if isinstance(found, AylluError):
            raise found
        return found

    def cancel(self) -> None:
        """Nobody reads on."""
        self.response.cancel()


def _told(error: Exception) -> Exception:
    if isinstance(error, GONE):
        return Lost(f"a replica was lost ({type(error).__name__})")
    if isinstance(error, BackPressureError):
        return Overloaded("all replicas have as many requests as they take, and the queue is full: try again later")
    cause = error.cause if isinstance(error, RayTaskError) else None
    return cause if isinstance(cause, AylluError) else error


@serve.deployment(name="Front", max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0})
@serve.ingress()
class Front:
    """The application of server/app.py, with replicas for an engine. It looks at images and hears sounds itself: what
    travels is their features."""

    def __init__(self, engine: Any, args: Replicated) -> None:
        self.engine, self.args = engine, args

    async def __serve_build_asgi_app__(self) -> "Entrance":
        args, keys = self.args, load_keys(self.args.keys)
        facts: Facts = await self.engine.facts.remote()
        t, eos_ids = facts.served["tokenizer"], facts.served["eos_ids"]
        service = FarService(facts.engine, RayReplicas(self.engine),
                             grammars_of(t, eos_ids, facts.engine.config.vocab_size))
        served = Served(**facts.served, service=service, limits=args.limits, aliases=frozenset(args.aliases),
                        redact=args.redact)
        attach_senses(served, args.model, args.senses, "cpu", args.media_hosts)
        door = Door("0.0.0.0" if keys else "127.0.0.1", keys, frozenset(args.hosts), frozenset(args.origins))
        return Entrance(build_app(served, door), bool(keys))


class Entrance:
    """Notes a request's session; without keys, lets nobody in from elsewhere, wherever Ray Serve listens."""

    def __init__(self, app: Any, has_keys: bool) -> None:
        self.app, self.has_keys = app, has_keys

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] == "http":
            if not self.has_keys and not _is_near(scope.get("client")):
                await send_fault(scope["path"], send, Fault(
                    403, "without keys only the machine itself is answered: name a file of keys in the deployment "
                    "file (`ayllu key FILE --name NAME` makes one)", "permission_error", None, "no_keys"))
                return
            session.set(dict(scope["headers"]).get(SESSION_HEADER, b"").decode("latin-1"))
        await self.app(scope, receive, send)


def _is_near(client: Any) -> bool:
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except (TypeError, ValueError):
        return False


def app(args: Replicated) -> serve.Application:
    """What the deployment file's `import_path` names."""
    return Front.bind(EngineReplica.bind(args), args)    # type: ignore[attr-defined]
