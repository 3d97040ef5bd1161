"""A stream and its connection: comments while nothing comes, an end at once when the client leaves."""

import asyncio
import json

import pytest
from starlette.requests import Request

from ayllu.errors import Overloaded
from ayllu.server.faults import body_of
from ayllu.server.sse import Stream, TextEvents, event, or_gone


class Client:
    """The other end: leaves after so many seconds, or stays."""

    def __init__(self, leaves_s=60.0):
        self.leaves_s, self.got = leaves_s, []

    async def receive(self):
        await asyncio.sleep(self.leaves_s)
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.got.append(message)

    @property
    def bodies(self):
        return [m["body"] for m in self.got if m["type"] == "http.response.body"]


class Parts:
    """Three parts with a pause before each; knows whether it was ended properly."""

    def __init__(self, pause_s=0.0):
        self.pause_s, self.n_closed, self.is_finished = pause_s, 0, False

    async def __call__(self):
        try:
            for n in range(3):
                await asyncio.sleep(self.pause_s)
                yield event(n)
        finally:
            self.is_finished = True

    def close(self):
        self.n_closed += 1


def run(client, parts, **options):
    asyncio.run(asyncio.wait_for(Stream(parts(), parts.close, **options)({}, client.receive, client.send), 10))


def test_all_parts_then_the_end():
    client, parts = Client(), Parts()
    run(client, parts)
    assert client.bodies == [event(0), event(1), event(2), b""]
    assert client.got[-1].get("more_body", False) is False
    assert (parts.is_finished, parts.n_closed) == (True, 1)
    assert dict(client.got[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in dict(client.got[0]["headers"])


def test_comments_while_nothing_comes():
    client = Client()
    run(client, Parts(0.1), keep_alive_s=0.02)
    comments = [body for body in client.bodies if body.startswith(b":")]
    assert len(comments) >= 3
    assert [body for body in client.bodies if not body.startswith(b":")] == [event(0), event(1), event(2), b""]
    lines = Client()
    run(lines, Parts(0.1), keep_alive_s=0.02, is_sse=False)          # NDJSON has no comments
    assert len(lines.bodies) == 4


@pytest.mark.parametrize("leaves_s", [0.0, 0.05])
def test_one_who_leaves_ends_it_at_once(leaves_s):
    client, parts = Client(leaves_s), Parts(5.0)
    run(client, parts)
    assert client.bodies == []
    assert parts.n_closed == 1
    assert parts.is_finished or leaves_s == 0                        # or it never began


def test_an_error_in_the_midst_is_the_last_event():
    async def broken():
        yield event("fine")
        raise Overloaded("try again")

    client = Client()
    path = "/v1/completions"
    stream = Stream(broken(), lambda: None, tell=lambda fault: event(body_of(path, fault)))
    asyncio.run(stream({}, client.receive, client.send))
    assert client.bodies[0] == event("fine")
    assert b"try again" in client.bodies[1]
    assert client.bodies[2:] == [b""]


@pytest.mark.parametrize("text", ["", "plain", 'a "quote" \\ \n\r\t\0\x1f\x7f', "é 中文 🙂 \u2028", "\ud83d half",
                                  "</script>"])
def test_events_made_of_one_text_are_the_same(text):
    def value(text):
        return {"id": "x", "choices": [{"index": 1, "text": text, "logprobs": None}], "usage": None}

    assert TextEvents(value)(text) == event(value(text)) or "\ud83d" in text
    assert json.loads(TextEvents(value)(text)[6:]) == value(text)


def test_work_is_cancelled_when_its_client_leaves():
    async def go(leaves_s, work_s):
        ended = []

        async def work():
            try:
                await asyncio.sleep(work_s)
                return "done"
            finally:
                ended.append(True)

        request = Request({"type": "http", "method": "GET", "path": "/", "headers": []}, Client(leaves_s).receive)
        return await or_gone(request, work()), ended

    assert asyncio.run(go(0.02, 5.0)) == (None, [True])
    assert asyncio.run(go(5.0, 0.02)) == ("done", [True])
