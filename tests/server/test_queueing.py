"""Who waits is told how many are before it, as comments of its stream."""

import asyncio
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from server.live import serving

from ayllu.server import queueing
from ayllu.server.queueing import READING, Queue
from ayllu.server.sse import COMMENT, Stream, event


def test_the_last_ones_wait_and_count_those_before_them():
    queue, n_waiting = Queue(), [0]
    queue.n_waiting = lambda: n_waiting[0]
    a, b, c, d = (queue.enter(n) for n in (1, 1, 2, 1))
    assert queue.ahead() == {a: None, b: None, c: None, d: None}
    n_waiting[0] = 3                                     # c's two and d: a and b are being read
    assert queue.ahead() == {a: None, b: None, c: 0, d: 2}
    queue.leave(a)
    n_waiting[0] = 5                                     # all, and one that lost its pages, which comes before them
    assert queue.ahead() == {b: 1, c: 2, d: 4}
    queue.leave(c)
    n_waiting[0] = 1
    assert queue.ahead() == {b: None, d: 0}


def slow_ahead(calls, waiting, call):
    """The slow twin: those of the last `waiting` requests that come before this call's."""
    requests = [number for number, n in calls.items() for _ in range(n)]
    held = requests[max(0, len(requests) - waiting):]
    extra = max(0, waiting - len(requests))              # they lost their pages, and come before all
    return None if not waiting or len(requests) - requests.index(call) > waiting else extra + held.index(call)


@given(st.dictionaries(st.integers(0, 50), st.integers(1, 4), max_size=12), st.integers(0, 40))
def test_one_pass_counts_what_a_list_of_all_requests_shows(held, waiting):
    queue = Queue()
    queue.n_waiting = lambda: waiting
    calls = {queue.enter(n): n for n in held.values()}
    assert queue.ahead() == {call: slow_ahead(calls, waiting, call) for call in calls}


def test_only_news_is_told(monkeypatch):
    monkeypatch.setattr(queueing, "NEWS_S", 0.01)
    queue, n_waiting = Queue(), [2]
    queue.n_waiting = lambda: n_waiting[0]
    first, second, told = queue.enter(1), queue.enter(1), list[tuple[int, bytes]]()

    async def run():
        for call in (first, second):
            queue.listen(call, lambda comment, call=call: told.append((call, comment)))
        await asyncio.sleep(0.1)
        assert told == [(first, b": queue 0\n\n"), (second, b": queue 1\n\n")]
        n_waiting[0] = 1
        await asyncio.sleep(0.1)
        assert told[2:] == [(first, READING), (second, b": queue 0\n\n")]
        n_waiting[0] = 0
        queue.leave(second)                              # its first token
        await asyncio.sleep(0.1)
        assert len(told) == 4
        queue.leave(first)
        alone = queue.enter(1)                           # who never waited is told nothing
        queue.listen(alone, lambda comment: told.append((alone, comment)))
        await asyncio.sleep(0.1)
        queue.leave(alone)
        queue.listen(alone, lambda comment: told.append((alone, comment)))       # it is over already
        await asyncio.sleep(0.1)

    asyncio.run(run())
    assert len(told) == 4
    assert queue._timer is None                          # nobody is left who could be told anything


def test_a_stream_sends_the_news_and_keeps_the_connection_open():
    sent = []

    async def parts():
        await asyncio.sleep(0.5)
        yield event("here")

    async def send(message):
        sent.append(message.get("body"))

    async def receive():
        await asyncio.sleep(60)

    async def run():
        def listen(take):
            for delay_s, comment in ((0.02, b": queue 1\n\n"), (0.3, READING), (0.3, b"lost\n\n"), (0.7, b"late\n\n")):
                asyncio.get_running_loop().call_later(delay_s, take, comment)

        await Stream(parts(), lambda: None, keep_alive_s=0.1, news=listen)({}, receive, send)
        await asyncio.sleep(0.3)

    asyncio.run(run())
    assert sent[:3] == [None, b": queue 1\n\n", COMMENT]
    assert set(sent[3:-2]) == {COMMENT, READING}         # of two at once the first; none after the end
    assert sent[-2:] == [event("here"), b""]


HOLD = {"prompt": "The fox", "max_tokens": 100, "ignore_eos": True, "stream": True}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_over_http(chat_checkpoint, path, monkeypatch):
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

    monkeypatch.setattr(queueing, "NEWS_S", 0.1)
    with serving(chat_checkpoint, engine={"max_rows": 1}, slow_s=0.05) as live:
        second, third = asyncio.run(all_of(live))
        assert not live.served.queue._calls
    assert set(second + third) <= {": queue 0", ": queue 1", ": reading"}
