"""Streams of completions over HTTP, all at once, and when each piece came: the same generator for every server.

The asking is plain asyncio over connections that are kept, without a client library, so that little of the two cores
goes to it.
"""

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

WORDS = ("river", "stone", "lamp", "garden", "winter", "bread", "silver", "horse", "window", "letter", "market",
         "candle", "bridge", "shadow", "orchard", "violin", "captain", "feather", "harbour", "mountain", "kettle")


@dataclass
class Answer:
    """One request: when it was sent and when each piece of its answer came, by `time.perf_counter`."""

    sent: float
    pieces: list[float] = field(default_factory=list)
    tokens: int | None = None                            # by the server's own count, at the end
    error: str | None = None


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


class Connections:
    """Connections to one server that are kept open between requests, as clients' pools do."""

    def __init__(self, url: str) -> None:
        self.parts = urlsplit(url)
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, body: dict[str, Any], answer: Answer) -> None:
        """Send one request and note each piece of the answer, a server-sent event with text in it."""
        data, parts = json.dumps(body).encode(), self.parts
        request = (f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
                   f"Content-Length: {len(data)}\r\n\r\n").encode() + data
        while True:
            is_new = not self._free
            reader, writer = await self._opened() if is_new else self._free.pop()
            writer.write(request)
            if (status := await _line(reader)) or is_new:
                break
            writer.close()                               # the server had closed it while it lay idle: take another
        try:
            is_whole = await _read(reader, status, answer)
        except BaseException:
            writer.close()
            raise
        if is_whole:
            self._free.append((reader, writer))
        else:
            writer.close()

    def close(self) -> None:
        """All that are open and idle."""
        while self._free:
            self._free.pop()[1].close()

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.parts.hostname, self.parts.port, limit=2**20)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ConnectionError:
        return b""


async def _read(reader: asyncio.StreamReader, status: bytes, answer: Answer) -> bool:
    """The rest of an answer; whether the connection can be used again."""
    length, closes = 0, False
    while (line := (await reader.readline()).strip().lower()):
        name, _, value = line.partition(b":")
        length = int(value) if name == b"content-length" else length
        closes = closes or (name == b"connection" and value.strip() == b"close")
    if b" 200 " not in status:
        answer.error = (status + await reader.readexactly(length)).decode(errors="replace")[:600]
        return bool(status) and not closes
    while (line := await reader.readline()) and line != b"0\r\n":     # the last chunk; others' sizes stand between
        if line.startswith(b"data:") and not line.startswith(b"data: [DONE]"):
            event = json.loads(line[5:])
            if usage := event.get("usage"):
                answer.tokens = usage["completion_tokens"]
            if event.get("choices") and event["choices"][0].get("text"):
                answer.pieces.append(time.perf_counter())
    return await reader.readline() == b"\r\n" and not closes


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
    return asyncio.run(_all(url, fields, load, seed))


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
