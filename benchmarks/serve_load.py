"""Streams of completions over HTTP, all at once, and when each piece came: the same generator for every server.

The asking is asyncio over connections that are kept, without a client library, so that little of the two cores goes to
it.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import uvloop

T = TypeVar("T")
USAGE = re.compile(rb'"usage":\s*\{')                      # not null
TEXT = re.compile(rb'"text":\s*"[^"]')
WORDS = ("river", "stone", "lamp", "garden", "winter", "bread", "silver", "horse", "window", "letter", "market",
         "candle", "bridge", "shadow", "orchard", "violin", "captain", "feather", "harbour", "mountain", "kettle")


@dataclass
class Answer:
    """One request: when it was sent and when each piece of its answer came, by `time.perf_counter`."""

    sent: float
    pieces: list[float] = field(default_factory=list)
    tokens: int | None = None                            # by the server's own count, at the end
    error: str | None = None                             # the status and body of what was no answer


@dataclass(frozen=True)
class Load:
    """What is asked of a server."""

    streams: int
    rounds: int = 2                                      # requests per stream, one after the other
    prompt_words: int = 24
    max_tokens: int = 64
    limit_s: float = 30.0                                # what isn't finished by then is broken off


def prompts(load: Load, seed: int) -> list[list[str]]:
    """For each stream its prompts; no two begin alike, so that no cache of prefixes helps."""
    rng = random.Random(seed)
    return [[" ".join(rng.choices(WORDS, k=load.prompt_words)) for _ in range(load.rounds)]
            for _ in range(load.streams)]


class Connection(asyncio.Protocol):
    """One connection, which is kept between requests. What comes is looked at as bytes, as it comes: of the answer's
    events only the one with the usage is parsed, so that counting costs little of the cores that the server has too."""

    def __init__(self) -> None:
        self._done: asyncio.Future[bool] | None = None   # whether the connection can be used again
        self._answer: Answer | None = None
        self._bytes, self._length = b"", -1              # not looked at yet; of a body that isn't chunked
        self._in_head = self._closes = self._is_error = self._is_ending = False
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes, answer: Answer) -> "asyncio.Future[bool]":
        """Send a request and note its answer; raises EOFError where the connection ends before."""
        self._answer, self._bytes, self._length = answer, b"", -1
        self._in_head, self._closes, self._is_error, self._is_ending = True, False, False, False
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        if self._done is None or self._answer is None:
            return
        self._bytes += data
        if self._in_head:
            head, end, rest = self._bytes.partition(b"\r\n\r\n")
            if not end:
                return
            self._read_head(head)
            self._bytes = rest
        if self._is_error:
            if len(self._bytes) >= self._length:
                self._answer.error = f"{self._answer.error} " + self._bytes.decode(errors="replace")[:500]
                self._end(not self._closes)
            return
        now = time.perf_counter()
        *lines, self._bytes = self._bytes.split(b"\n")
        for line in lines:                               # between them stand the sizes of chunks
            if line.startswith(b"data:"):
                self._read_event(line, now)
            elif line == b"\r" and self._is_ending:
                self._end(not self._closes)
            self._is_ending = line == b"0\r"

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self.is_open = False
        if self._done is not None and not self._done.done():
            self._done.set_exception(EOFError(f"the server closed the connection: {exc}"))

    def _read_head(self, head: bytes) -> None:
        status, *lines = head.lower().split(b"\r\n")
        fields = dict(line.split(b":", 1) for line in lines)
        self._closes = fields.get(b"connection", b"").strip() == b"close"
        self._is_error = b" 200 " not in status + b" "
        self._length, self._in_head = int(fields.get(b"content-length", b"0")), False
        if self._is_error and self._answer is not None:
            self._answer.error = status.decode(errors="replace")

    def _read_event(self, event: bytes, now: float) -> None:
        assert self._answer is not None
        if USAGE.search(event):
            self._answer.tokens = json.loads(event[5:])["usage"]["completion_tokens"]
        if TEXT.search(event):
            self._answer.pieces.append(now)

    def _end(self, is_kept: bool) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(is_kept)


class Connections:
    """Connections to one server that are kept open between requests, as clients' pools do."""

    def __init__(self, url: str) -> None:
        self.parts = urlsplit(url)
        self._free: list[Connection] = []

    async def ask(self, body: dict[str, Any], answer: Answer) -> None:
        """Send one request and note each piece of the answer, a server-sent event with text in it."""
        data, parts = json.dumps(body).encode(), self.parts
        request = (f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
                   f"Content-Length: {len(data)}\r\n\r\n").encode() + data
        while self._free and not self._free[-1].is_open:                      # the server closes those that lie idle
            self._free.pop()
        is_used = bool(self._free)
        connection = self._free.pop() if is_used else await self._opened()
        is_kept = False
        try:
            is_kept = await connection.ask(request, answer)
        except EOFError as error:
            if is_used and not answer.pieces:            # it was closed as the request left: clients then ask again
                return await self.ask(body, answer)
            answer.error = str(error)
        finally:
            if is_kept:
                self._free.append(connection)
            else:
                connection.transport.close()

    def close(self) -> None:
        """All that are open and idle."""
        while self._free:
            self._free.pop().transport.close()

    async def _opened(self) -> Connection:
        loop, (host, port) = asyncio.get_running_loop(), (self.parts.hostname, self.parts.port)
        return (await loop.create_connection(Connection, host or "127.0.0.1", port or 80))[1]


async def _stream(url: str, fields: dict[str, Any], texts: list[str], max_tokens: int, found: list[Answer]) -> None:
    connections = Connections(url)
    for text in texts:
        found.append(Answer(time.perf_counter()))
        body = {"prompt": text, "max_tokens": max_tokens, "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True}, **fields}
        await connections.ask(body, found[-1])
    connections.close()


async def _all(url: str, fields: dict[str, Any], load: Load, seed: int) -> tuple[list[Answer], float]:
    found: list[Answer] = []
    start = time.perf_counter()
    tasks = [asyncio.create_task(_stream(url, fields, texts, load.max_tokens, found)) for texts in prompts(load, seed)]
    done, late = await asyncio.wait(tasks, timeout=load.limit_s)
    seconds = time.perf_counter() - start
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()
    return found, seconds


def offer(url: str, fields: dict[str, Any], load: Load, seed: int) -> tuple[list[Answer], float]:
    """Every request's answer, and the seconds from the first to the last."""
    return run(_all(url, fields, load, seed))


def run(work: Coroutine[Any, Any, T]) -> T:
    """In the event loop that costs least."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def quantile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of them doesn't pass."""
    return sorted(values)[max(0, min(len(values) - 1, round(share * len(values)) - 1))] if values else float("nan")


def figures(answers: list[Answer], seconds: float, load: Load) -> dict[str, float]:
    """Tokens per second, and median and 99th percentile of the time to the first piece and between pieces.

    An answer that was broken off counts with its pieces, times the tokens that a piece of the finished ones held.
    """
    if errors := [a.error for a in answers if a.error]:
        raise RuntimeError(f"{len(errors)} of {len(answers)} requests failed: {errors[0]}")
    done = [a for a in answers if a.tokens is not None]
    if short := [a.tokens for a in done if a.tokens != load.max_tokens]:
        raise RuntimeError(f"{len(short)} answers have not {load.max_tokens} tokens but {short[0]}")
    pieces = sum(len(a.pieces) for a in done)
    per_piece = load.max_tokens * len(done) / pieces if pieces else 1.0
    tokens = load.max_tokens * len(done) + per_piece * sum(len(a.pieces) for a in answers if a.tokens is None)
    first = [a.pieces[0] - a.sent if a.pieces else seconds for a in answers]      # none yet: at least so long
    between = [b - a for answer in answers for a, b in zip(answer.pieces, answer.pieces[1:], strict=False)]
    return {"tokens_per_s": tokens / seconds, "unfinished": len(answers) - len(done),
            "first_ms": 1e3 * quantile(first, 0.5), "first_p99_ms": 1e3 * quantile(first, 0.99),
            "between_ms": 1e3 * quantile(between, 0.5), "between_p99_ms": 1e3 * quantile(between, 0.99)}
