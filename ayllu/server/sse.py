"""Answers that come piece by piece: server-sent events (OpenAI, Anthropic) and lines of JSON (Ollama).

Starlette's own streaming response sees a client leave only while it sends, so a long prompt would be read to its end
for nobody. Here the connection is watched all the time, and while nothing comes, comments keep it open.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ayllu.server.faults import Fault, dump, dump_text, fault_of

KEEP_ALIVE_S = 15
COMMENT = b": still here\n\n"
DONE = b"data: [DONE]\n\n"
MARK = "\0text\0"
EVENTS: dict[str, Any] = {"content": {"text/event-stream": {}}}      # how a route's document says that it may stream
LINES: dict[str, Any] = {"content": {"application/x-ndjson": {}}}
T = TypeVar("T")


def event(value: Any, name: str | None = None) -> bytes:
    """One server-sent event. JSON holds no line break outside its strings, and within them it is escaped."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + dump(value) + b"\n\n"


class TextEvents:
    """Events that differ in one text alone: the rest is written once, and not for each token."""

    def __init__(self, value: Callable[[str], Any]) -> None:
        self._before, self._after = event(value(MARK)).split(dump(MARK))

    def __call__(self, text: str) -> bytes:
        """The event with this text."""
        return self._before + dump_text(text) + self._after


def line(value: Any) -> bytes:
    """One line of NDJSON."""
    return dump(value) + b"\n"


class Json(Response):
    """One JSON value."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """UTF-8, NaN refused."""
        return dump(content)


class Stream(Response):
    """Sends what an iterator gives, and closes it at once when the client is gone. `close` is called in the end."""

    def __init__(self, parts: AsyncGenerator[bytes, None], close: Callable[[], None], *, is_sse: bool = True,
                 headers: dict[str, str] | None = None, keep_alive_s: float = KEEP_ALIVE_S,
                 news: Callable[[Callable[[bytes], None]], None] = lambda take: None,
                 tell: Callable[[Fault], bytes] | None = None) -> None:
        """`news` is given what takes comments, to be sent while nothing else comes. `tell` writes an error that comes
        in the midst, when the status has long been sent, as the last part."""
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})},
                         media_type="text/event-stream" if is_sse else "application/x-ndjson")
        del self.headers["content-length"]
        self.parts, self.close, self.tell = parts, close, tell
        self.is_waiting = False                          # for the next part
        self.comment, self.keep_alive_s = COMMENT if is_sse else b"", keep_alive_s
        self.listen = news if is_sse else lambda take: None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI side."""
        gone = asyncio.ensure_future(_gone(receive))
        pump = asyncio.ensure_future(self._pump(send, scope.get("ayllu.send", send)))
        news = self._next_news()
        self.listen(self._take)
        try:
            while not pump.done():
                some: set[asyncio.Future[Any]] = {pump, gone, news}
                await asyncio.wait(some, timeout=self.keep_alive_s, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    return
                comment = self.comment
                if news.done():
                    comment, news = news.result(), self._next_news()
                if comment and self.is_waiting and not pump.done():
                    await send({"type": "http.response.body", "body": comment, "more_body": True})
            pump.result()
        finally:
            await _stop(gone, pump)
            await self.parts.aclose()
            self.close()                                 # an iterator that never began has closed nothing

    def _next_news(self) -> "asyncio.Future[bytes]":
        self._news = asyncio.get_running_loop().create_future()
        return self._news

    def _take(self, comment: bytes) -> None:
        if not self._news.done():                        # else one is on its way, and the next will say more
            self._news.set_result(comment)

    async def _pump(self, send: Any, send_part: Any) -> None:
        """`send_part` is the same without what lies between; it looks at the beginning of a response only."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self.is_waiting = True
        try:
            async for part in self.parts:
                self.is_waiting = False                  # a comment may stand between two parts only
                await send_part({"type": "http.response.body", "body": part, "more_body": True})
                self.is_waiting = True
        except Exception as error:                       # told to the client
            self.is_waiting = False
            if self.tell is None:
                raise
            await send({"type": "http.response.body", "body": self.tell(fault_of(error)), "more_body": True})
        self.is_waiting = False
        await send({"type": "http.response.body", "body": b""})


async def or_gone(request: Request, work: Awaitable[T]) -> T | None:
    """The result of `work`, or None, with the work cancelled, if the client leaves before."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        await _stop(gone, task)


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stop(*tasks: "asyncio.Future[Any] | None") -> None:
    open_ones = [task for task in tasks if task is not None and not task.done()]
    for task in open_ones:
        task.cancel()
    await asyncio.gather(*open_ones, return_exceptions=True)
