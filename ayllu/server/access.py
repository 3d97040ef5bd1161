"""The access log and the metrics of requests: counts and times, never text. Plain ASGI, the outermost layer."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from ayllu.server.faults import fault_of, send_fault
from ayllu.server.metrics import Metrics

logger = logging.getLogger("ayllu.access")


@dataclass
class Tally:
    """What an answer cost, filled in by whoever wrote it."""

    prompt_tokens: int = 0
    answer_tokens: int = 0


class Access:
    """Measures each request and writes one line about it. An error that nobody caught becomes a 500 here."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, seen = time.perf_counter(), _Seen(send)
        scope["ayllu.tally"] = tally = Tally()
        try:
            await self.app(scope, receive, seen)
        except asyncio.CancelledError:
            raise
        except Exception as error:                       # logged, and answered as 500 where that can be
            fault = fault_of(error)                      # logs it
            if not seen.status:
                await send_fault(scope["path"], seen, fault)
        finally:
            self._note(scope, seen, tally, time.perf_counter() - begun)

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
