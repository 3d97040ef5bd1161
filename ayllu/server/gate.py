"""Who may come in, and how much they may bring: plain ASGI around the application.

Every path but /health and the files of the page needs a key where the server has keys. Host and Origin are checked so
that a page which a person opened elsewhere can't speak to a server on their machine (DNS rebinding, cross-site
requests). The body is read here, within its limits of size and time; the application gets it whole.
A file that is brought to be kept has limits of its own, and passes through piece by piece.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from ayllu.errors import ConfigError, Overloaded
from ayllu.principal import LOCAL, Principal
from ayllu.server.faults import Fault, send_fault
from ayllu.server.keys import Keys
from ayllu.server.limits import Limits
from ayllu.server.page import PATHS as PAGE_PATHS

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATHS = PAGE_PATHS | {"/health"}
QUEUED_PATHS = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/generate",
                          "/api/chat"})
UPLOAD_PATHS = frozenset({"/v1/files", "/v1/audio/transcriptions"})   # where a POST brings a file
PUBLIC_PATHS = {"support": ("/v1/support", True), "translate": ("/v1/translate", False)}      # and what lies below it
CORS_HEADERS = "authorization, content-type, x-api-key, anthropic-version, anthropic-beta, x-file-name"


@dataclass(frozen=True)
class Door:
    """Where the server listens and who is let in."""

    host: str = "127.0.0.1"
    keys: Keys = field(default_factory=Keys)
    hosts: frozenset[str] = frozenset()                  # names by which it may be called besides its own
    origins: frozenset[str] = frozenset()                # pages elsewhere that may use it
    open_paths: frozenset[str] = OPEN_PATHS

    def __post_init__(self) -> None:
        if not self.keys and not self.is_loopback:
            raise ConfigError(f"--host {self.host} lets other machines in, and no key is set: set AYLLU_API_KEY or "
                              "--keys FILE (`ayllu key FILE --name NAME` makes one), or listen on 127.0.0.1")

    @cached_property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @cached_property
    def allowed_hosts(self) -> frozenset[str] | None:
        """Names in the Host header; None: any, since a key protects what is open to a network."""
        if self.is_loopback:
            return LOOPBACK_NAMES | {self.host} | self.hosts
        return self.hosts | {self.host} if self.hosts else None


class Coming:
    """A call between the gate and the engine's queue."""

    def __init__(self, others: "set[Coming]") -> None:
        self._others = others
        others.add(self)

    def end(self) -> None:
        """It is in the queue, or won't get there."""
        self._others.discard(self)


class Gate:
    """Lets a request through to `app` with its body and its principal, or answers by itself."""

    def __init__(self, app: Any, door: Door, limits: Limits,
                 refusal: Callable[[int], str | None] = lambda n_coming: None,
                 retry_s: Callable[[], int] = lambda: Overloaded.retry_s) -> None:
        """`refusal` says why nothing can be queued after so many calls that are on their way to the queue: whom there
        is no room for is told so before the body is parsed, so that saying no costs the others little; and told when to
        come again."""
        self.app, self.door, self.limits, self.refusal, self.retry_s = app, door, limits, refusal, retry_s
        self.n_active = 0
        self.coming: set[Coming] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One connection's request; websockets are not spoken."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        path = scope["path"]
        headers = named(scope["headers"])
        try:
            cross = self._check_place(headers, scope.get("scheme", "http"))
            if cross and scope["method"] == "OPTIONS":
                await _answer_preflight(send, cross)
                return
            if path not in self.door.open_paths:
                scope["ayllu.principal"] = self._who(headers)
                _check_public(path, scope["ayllu.principal"])
            is_upload = path in UPLOAD_PATHS and scope["method"] == "POST"
            if is_upload:
                receive = self._measured(headers, receive)
            body = None if is_upload else await self._body(headers, receive)
        except Fault as fault:
            await send_fault(path, send, fault, close=fault.status in (408, 413))
            return
        if body is None and not is_upload:               # gone before all was sent
            return
        if cross:
            send = _with_origin(send, cross)
        await self._pass_on(scope, body, receive, send)

    async def _pass_on(self, scope: Any, body: bytes | None, receive: Any, send: Any) -> None:
        """`body`: None where the application reads it by itself, piece by piece."""
        is_counted = scope["path"] not in self.door.open_paths
        is_queued = scope["path"] in QUEUED_PATHS
        why = self.refusal(len(self.coming)) if is_queued else None
        if is_counted and self.n_active >= self.limits.active:
            why = f"{self.n_active} requests are being answered, which is the limit: try again"
        if why:
            await send_fault(scope["path"], send, self._full(why))
            return
        parts = []
        if body is not None:
            _as_json(scope)
            parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Any:
            return parts.pop() if parts else await receive()

        scope["ayllu.coming"] = coming = Coming(self.coming if is_queued else set())
        self.n_active += is_counted
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope       # the server drops the body
        try:
            await self.app(inner, replay, send)
        finally:
            self.n_active -= is_counted
            coming.end()
            scope["route"] = inner.get("route")

    def at_once(self, path: str, headers: dict[str, str], scheme: str) -> Fault | None:
        """The refusal of a call whose head alone has come, where there is no room for it and nothing else is wrong."""
        why = self.refusal(len(self.coming)) if path in QUEUED_PATHS else None
        if why is None:
            return None
        try:
            if self._check_place(headers, scheme):
                return None                              # a page elsewhere, which needs headers of its own
            _check_public(path, self._who(headers))
        except Fault:
            return None                                  # told on the usual way
        return self._full(why)

    def _full(self, why: str) -> Fault:
        return Fault(503, why, "overloaded_error", None, "queue_full", {"retry-after": str(self.retry_s())})

    def _check_place(self, headers: dict[str, str], scheme: str) -> str | None:
        """Refuse a wrong Host or Origin; gives an allowed origin that is not the server's own."""
        host = headers.get("host", "")
        allowed = self.door.allowed_hosts
        if allowed is not None and _name(host) not in allowed:
            raise Fault(403, "the Host header names another machine: call this server as localhost, or start it with "
                        "--allow-host NAME", "permission_error", None, "bad_host")
        origin = headers.get("origin")
        if origin is None or origin == f"{scheme}://{host}":
            return None
        if origin not in self.door.origins and origin not in self.door.keys.origins:
            raise Fault(403, "a page from another origin may not use this server: start it with --allow-origin ORIGIN",
                        "permission_error", None, "bad_origin")
        return origin

    def _who(self, headers: dict[str, str]) -> Principal:
        if not self.door.keys:
            return LOCAL
        kind, _, token = headers.get("authorization", "").partition(" ")
        presented = token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        principal = self.door.keys.find(presented, headers.get("origin")) if presented else None
        if principal is None:
            says = "this key is not known, or not for this page" if presented else "no API key came with the request"
            raise Fault(401, f"{says}: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'",
                        "authentication_error", None, "invalid_api_key", {"www-authenticate": "Bearer"})
        return principal

    async def _body(self, headers: dict[str, str], receive: Any) -> bytes | None:
        most, seconds = self.limits.body_bytes, self.limits.body_s
        _check_stated(headers, most)
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise _too_slow(seconds) from None

    def _measured(self, headers: dict[str, str], receive: Any) -> Callable[[], Awaitable[Any]]:
        """A `receive` that refuses to go on where a file is too large or comes too slowly."""
        most, seconds, n_bytes, is_whole = self.limits.upload_bytes, self.limits.upload_s, 0, False
        _check_stated(headers, most)
        until = asyncio.get_running_loop().time() + seconds

        async def measured() -> Any:
            nonlocal n_bytes, is_whole
            if is_whole:                                 # from now on only for whether the caller leaves
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise _too_slow(seconds) from None
            n_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if n_bytes > most:
                raise _too_large(most)
            return message
        return measured


def _check_public(path: str, principal: Principal) -> None:
    """A key that stands in a web page, where anybody reads it, opens what it is for and nothing else."""
    public = [PUBLIC_PATHS[scope] for scope in PUBLIC_PATHS if principal.may(scope)]
    if principal.may("generate") or not public:
        return
    if not any(path == own or (below and path.startswith(f"{own}/")) for own, below in public):
        raise Fault(403, "this key stands in web pages and is for customer service or translation only: use one with "
                    "more scopes", "permission_error", None, "key_scope")


def _check_stated(headers: dict[str, str], most: int) -> None:
    stated = headers.get("content-length", "")
    if stated.isdigit() and int(stated) > most:
        raise _too_large(most)


def _too_large(most: int) -> Fault:
    return Fault(413, f"the body is larger than {most} bytes: send less at a time", code="body_too_large",
                 headers={"connection": "close"})


def _too_slow(seconds: float) -> Fault:
    return Fault(408, f"the body was not there after {seconds:g} s", "timeout_error", code="slow_body",
                 headers={"connection": "close"})


def named(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by their names in lower case."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def _name(host: str) -> str:
    """The name in a Host header, without its port: [::1]:8000 -> ::1."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _as_json(scope: Any) -> None:
    """Every body here is JSON, whatever curl calls it without a header; browsers are kept out by their Origin."""
    scope["headers"] = [(k, v) for k, v in scope["headers"] if k != b"content-type"] + [
        (b"content-type", b"application/json")]


async def _answer_preflight(send: Any, origin: str) -> None:
    headers = {"access-control-allow-origin": origin, "access-control-allow-methods": "GET, POST, DELETE",
               "access-control-allow-headers": CORS_HEADERS, "access-control-max-age": "600", "vary": "origin"}
    await send({"type": "http.response.start", "status": 204,
                "headers": [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]})
    await send({"type": "http.response.body", "body": b""})


def _with_origin(send: Any, origin: str) -> Any:
    async def answer(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"access-control-allow-origin", origin.encode("latin-1")),
                                  (b"vary", b"origin")]
        await send(message)
    return answer
