"""A page whose request waits in the server's queue says so, and how many are before it."""

import json
import socket

import pytest
from page.acting import say, short
from server.live import serving


def held(live, n):
    """Calls of other people, whose answers are long; the connections that keep them."""
    body = json.dumps({"prompt": "The fox", "max_tokens": 100, "ignore_eos": True, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    found = []
    for _ in range(n):
        found.append(socket.create_connection(("127.0.0.1", live.port)))
        found[-1].sendall(head + body)
        found[-1].recv(200)                              # it is with the engine
    return found


@pytest.mark.parametrize(("language", "before", "next_", "seed"), [
    ("en", "In the queue: 1 before you", "In the queue: you are next", "seed"),
    ("zh", "排队中，前面还有 1 个请求", "排队中，下一个就是您", "种子")])
def test_who_waits_sees_it(opened, chat_checkpoint, language, before, next_, seed):
    with serving(chat_checkpoint, engine={"max_rows": 1}, slow_s=0.1) as live:
        page = opened(live.url)
        short(page)
        page.get_by_label("Language").select_option(language)
        others = held(live, 2)
        say(page, "hello")
        page.get_by_text(before).wait_for()
        others[0].close()
        page.get_by_text(next_).wait_for()
        others[1].close()
        page.locator(".stats").filter(has_text=seed).wait_for()
        assert page.get_by_text(next_).count() == 0
