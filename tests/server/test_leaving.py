"""Clients that leave, queues that are full, answers that take too long: with an engine whose steps take 20 ms."""

import http.client
import json
import threading

import httpx
import pytest
from server.frames import frames
from server.live import serving

from ayllu.server.gate import QUEUED_PATHS
from ayllu.server.limits import Limits

LONG = {"model": "tiny", "prompt": "The fox", "max_tokens": 100, "ignore_eos": True}


@pytest.fixture(scope="module")
def slow(chat_checkpoint):
    with serving(chat_checkpoint, slow_s=0.02, engine={"max_rows": 2, "max_waiting": 1}) as found:
        yield found


@pytest.fixture(scope="module")
def hasty(chat_checkpoint):
    with serving(chat_checkpoint, slow_s=0.02, limits=Limits(request_s=1.2)) as found:
        yield found


def begin(live, path, body):
    """Send a request and leave its answer unread."""
    client = http.client.HTTPConnection("127.0.0.1", live.port, timeout=10)
    client.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    return client


def rows(live):
    scheduler = live.served.service.engine.scheduler
    return len(scheduler.running), len(scheduler.waiting)


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/completions", {**LONG, "stream": True}), ("/v1/completions", LONG), ("/v1/completions", {**LONG, "n": 2}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "ignore_eos": True, "stream": True}),
    ("/v1/responses", {"input": "x", "stream": True}),
    ("/v1/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 100, "stream": True}),
    ("/api/generate", {"model": "tiny", "prompt": "The fox", "raw": True}),
    ("/api/chat", {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": False}),
])
def test_one_who_leaves_frees_the_pages_within_a_second(slow, path, body):
    free = slow.pages_free()
    client = begin(slow, path, body)
    slow.wait_until(lambda: slow.pages_free() < free, 5)
    client.sock.close()
    client.close()
    assert slow.wait_until(lambda: slow.pages_free() == free and rows(slow) == (0, 0), 5) < 1


def test_one_who_leaves_the_queue_is_forgotten(slow):
    free = slow.pages_free()
    running = []
    for n in (1, 2):                                     # one by one: until it runs, a request is in the queue
        running.append(begin(slow, "/v1/completions", LONG))
        slow.wait_until(lambda n=n: rows(slow)[0] == n, 5)
    waiting = begin(slow, "/v1/completions", LONG)
    slow.wait_until(lambda: rows(slow)[1] == 1, 5)
    full = httpx.post(f"{slow.url}/v1/completions", json=LONG)
    assert (full.status_code, full.headers["retry-after"]) == (503, "1")
    assert full.json()["error"]["code"] == "queue_full"
    assert httpx.post(f"{slow.url}/api/generate", json={"model": "tiny", "prompt": "x"}).status_code == 503
    waiting.sock.close()
    assert slow.wait_until(lambda: rows(slow)[1] == 0, 5) < 1
    for client in running:
        client.sock.close()
    assert slow.wait_until(lambda: slow.pages_free() == free, 5) < 1


def test_an_answer_that_takes_too_long_ends(hasty):
    slow = hasty
    found = httpx.post(f"{slow.url}/v1/completions", json=LONG, timeout=10)
    assert found.status_code == 504
    assert "1.2 s" in found.json()["error"]["message"]
    with httpx.stream("POST", f"{slow.url}/v1/completions", json={**LONG, "stream": True}, timeout=10) as stream:
        events = [json.loads(data) for _, data in frames(stream.iter_bytes())]
    assert "error" in events[-1]
    assert len(events) > 1
    raw = {"model": "tiny", "prompt": "The fox", "raw": True}
    with httpx.stream("POST", f"{slow.url}/api/generate", json=raw, timeout=10) as stream:
        lines = [json.loads(text) for text in stream.iter_lines()]
    assert "error" in lines[-1] or lines[-1]["done"]
    slow.wait_until(lambda: rows(slow) == (0, 0), 2)


def test_many_dropped_streams_leave_the_pool_as_it_was(slow):
    free = slow.pages_free()

    def drop(number):
        client = begin(slow, "/v1/completions", {**LONG, "stream": True, "prompt": f"The fox {number}"})
        if number % 2:
            client.sock.recv(10)
        client.sock.close()

    for start in range(0, 40, 8):
        threads = [threading.Thread(target=drop, args=(start + i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    slow.wait_until(lambda: slow.pages_free() == free and rows(slow) == (0, 0), 10)
    assert httpx.post(f"{slow.url}/v1/completions", json={**LONG, "max_tokens": 2}).status_code == 200


def test_who_would_wait_too_long_is_refused_before_its_body_is_read(chat_checkpoint):
    with serving(chat_checkpoint, slow_s=0.2, engine={"max_rows": 2}, max_wait_s=0.1) as live:
        clients = []

        def is_full():
            if rows(live) != (2, 2):                     # who comes before the first two run may be refused
                clients.append(begin(live, "/v1/completions", LONG))
            return rows(live) == (2, 2) and live.served.service.refusal()

        live.wait_until(is_full, 10)
        for path in QUEUED_PATHS:
            found = httpx.post(f"{live.url}{path}", content=b"no JSON at all", headers={"origin": "http://elsewhere"})
            assert found.status_code == 403              # what else is wrong comes first
            found = httpx.post(f"{live.url}{path}", content=b"no JSON at all")
            assert (found.status_code, found.headers.get("retry-after")) == (503, "1"), (path, rows(live))
            assert "try again later" in found.text
        assert httpx.post(f"{live.url}/tokenize", json={"prompt": "x"}).status_code == 200
        for client in clients:
            client.sock.close()
        live.wait_until(lambda: rows(live) == (0, 0), 5)
        assert httpx.post(f"{live.url}/v1/completions", json={**LONG, "max_tokens": 2}, timeout=30).status_code == 200
