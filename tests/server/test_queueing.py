"""Who waits is told how many are before it, as comments of its stream."""

import asyncio
import json

import httpx
import pytest
from server.live import serving

from ayllu.server.queueing import READING, Queue, Waiting
from ayllu.server.sse import COMMENT, Stream, event


def test_the_last_ones_wait_and_count_those_before_them():
    queue, n_waiting = Queue(), [0]
    queue.n_waiting = lambda: n_waiting[0]
    a, b, c, d = (queue.enter(n) for n in (1, 1, 2, 1))
    assert [queue.ahead(call) for call in (a, b, c, d)] == [None] * 4
    n_waiting[0] = 3                                     # c's two and d: a and b are being read
    assert [queue.ahead(call) for call in (a, b, c, d)] == [None, None, 0, 2]
    queue.leave(a)
    n_waiting[0] = 5                                     # all, and one that lost its pages, which comes before them
    assert [queue.ahead(call) for call in (a, b, c, d)] == [None, 1, 2, 4]
    queue.leave(c)
    n_waiting[0] = 1
    assert [queue.ahead(call) for call in (b, d)] == [None, 0]


def test_only_news_is_told():
    queue, n_waiting = Queue(), [2]
    queue.n_waiting = lambda: n_waiting[0]
    first, second = (Waiting(queue, queue.enter(1)) for _ in range(2))
    assert (first(), second(), first(), second()) == (b": queue 0\n\n", b": queue 1\n\n", b"", b"")
    n_waiting[0] = 1
    assert (first(), second()) == (READING, b": queue 0\n\n")
    n_waiting[0] = 0
    queue.leave(second.call)                             # its first token
    assert (first(), second()) == (b"", None)
    alone = Waiting(queue, queue.enter(1))               # who never waited is told nothing
    assert alone() == b""


def test_a_stream_sends_the_news_and_keeps_the_connection_open(monkeypatch):
    monkeypatch.setattr("ayllu.server.sse.NEWS_S", 0.02)
    news, sent = [b"", b": queue 1\n\n", b"", b"", b"", b"", READING, None], []

    async def parts():
        await asyncio.sleep(0.5)
        yield event("here")

    async def send(message):
        sent.append(message.get("body"))

    async def receive():
        await asyncio.sleep(60)

    asyncio.run(Stream(parts(), lambda: None, keep_alive_s=0.06, news=lambda: news.pop(0))({}, receive, send))
    assert news == []                                    # None is the last that is asked for
    assert sent[:4] == [None, b": queue 1\n\n", COMMENT, READING]
    assert sent[-2:] == [event("here"), b""]


HOLD = {"prompt": "The fox", "max_tokens": 100, "ignore_eos": True, "stream": True}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_over_http(chat_checkpoint, path):
    """One row, which another holds: who comes then is next, the third has one before it, until that one leaves."""
    says = {"/v1/responses": {"input": "The fox", "max_output_tokens": 5}}.get(
        path, {"messages": [{"role": "user", "content": "The fox"}], "max_tokens": 5})

    async def ask(client, comments):
        async with client.stream("POST", path, json={**says, "model": "tiny", "stream": True}) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith(":"):
                    comments.append(line)
                elif line.startswith("data: {"):
                    assert not json.loads(line[6:]).get("error")

    async def all_of(live):
        async with asyncio.timeout(60), httpx.AsyncClient(base_url=live.url, timeout=60) as client:
            async with client.stream("POST", "/v1/completions", json=HOLD) as held:
                lines = held.aiter_lines()
                await anext(lines)                       # it writes
                second, third = [], []
                tasks = [asyncio.create_task(ask(client, second))]
                while not second:
                    await asyncio.sleep(0.01)
                tasks.append(asyncio.create_task(ask(client, third)))
                while not third:
                    await asyncio.sleep(0.01)
                assert (second, third) == ([": queue 0"], [": queue 1"])
            await asyncio.gather(*tasks)
            return second, third

    with serving(chat_checkpoint, engine={"max_rows": 1}, slow_s=0.05) as live:
        second, third = asyncio.run(all_of(live))
        assert not live.served.queue._calls
    assert set(second + third) <= {": queue 0", ": queue 1", ": reading"}
