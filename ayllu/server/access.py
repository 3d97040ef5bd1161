"""The access log and the metrics of requests: counts and times, never text. Plain ASGI, the outermost layer."""

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ayllu.server.faults import Fault, body_of, dump, fault_of, send_fault
from ayllu.server.gate import Gate, named
from ayllu.server.metrics import Metrics

ENDING = Fault(503, "the server is being stopped: ask again when it is back", "overloaded_error", None, "stopping")
logger = logging.getLogger("ayllu.access")


@dataclass
class Tally:
    """What an answer cost, filled in by whoever wrote it."""

    prompt_tokens: int = 0
    answer_tokens: int = 0


class Access:
    """Measures each request and writes one line about it. An error that nobody caught becomes a 500 here."""

    def __init__(self, app: Gate, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, seen, tally = time.perf_counter(), _Seen(send), Tally()
        scope["ayllu.tally"], scope["ayllu.send"] = tally, seen
        try:
            await self.app(scope, receive, seen)
        except asyncio.CancelledError:                   # the server ends, and has waited long enough for this one
            if not seen.status:
                await send_fault(scope["path"], seen, ENDING)
        except Exception as error:                       # logged, and answered as 500 where that can be
            fault = fault_of(error)                      # logs it
            if not seen.status:
                await send_fault(scope["path"], seen, fault)
        finally:
            self._note(scope, seen, tally, time.perf_counter() - begun)

    def at_once(self, method: bytes, target: bytes, head: Iterable[tuple[bytes, bytes]], scheme: str) -> bytes | None:
        """The whole response to a call that the gate refuses by its head, noted as any other; None: let it come."""
        path = target.partition(b"?")[0].decode("latin-1")
        fault = self.app.at_once(path, named(head), scheme) if method == b"POST" else None
        if fault is None:
            return None
        body = dump(body_of(path, fault))
        self.metrics.requests.labels("other", str(fault.status)).inc()
        self.metrics.seconds.labels("other").observe(0.0)
        logger.info("POST other %d 0.000 s, %d bytes, refused by its head", fault.status, len(body))
        lines = ("HTTP/1.1 503 Service Unavailable", "content-type: application/json", f"content-length: {len(body)}",
                 *(f"{name}: {value}" for name, value in fault.headers.items()))
        return "\r\n".join((*lines, "", "")).encode("latin-1") + body

    def _note(self, scope: Any, seen: "_Seen", tally: Tally, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")     # the pattern: a path itself may hold a text
        status = str(seen.status) if seen.is_complete else "dropped"
        self.metrics.requests.labels(route, status).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        if not seen.is_complete:
            self.metrics.dropped.inc()
        who = scope.get("ayllu.principal")
        logger.info("%s %s %s %.3f s, %d bytes, %d + %d tokens, %s", scope["method"], route, status, seconds,
                    seen.n_bytes, tally.prompt_tokens, tally.answer_tokens, who.owner if who else "nobody")


class _Seen:
    """A `send` that remembers what passed."""

    def __init__(self, send: Any) -> None:
        self.send, self.status, self.n_bytes, self.is_complete = send, 0, 0, False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self.send(message)
        if message["type"] == "http.response.body":
            self.n_bytes += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
