"""Clients that are too slow, against real sockets; the application is the simplest there is."""

import contextlib
import socket
import threading
import time

import pytest
import uvicorn

from ayllu.server.limits import Limits
from ayllu.server.wire import protocol_with

LIMITS = Limits(head_s=0.4, stall_s=0.5, head_bytes=4096, idle_s=5, body_s=0.4, body_bytes=2000)
NO = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno"
ENDED = []


async def app(scope, receive, send):
    """/flood sends for ever, anything else a word."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    while scope["path"] == "/flood":
        try:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        except OSError:
            break
        if (await _soon(receive)) == "http.disconnect":
            ENDED.append(time.perf_counter())
            return
    await send({"type": "http.response.body", "body": b"word"})


def refuse(method, target, headers, scheme):
    """Calls of /full."""
    assert (scheme, dict(headers).get(b"host")) == ("http", b"x")
    return NO if (method, target) == (b"POST", b"/full") else None


async def _soon(receive):
    import asyncio

    try:
        async with asyncio.timeout(0.001):
            return (await receive())["type"]
    except TimeoutError:
        return None


@pytest.fixture(scope="module")
def port():
    config = uvicorn.Config(app, port=0, http=protocol_with(LIMITS, refuse), lifespan="off", log_level="critical",
                            ws="none")
    held = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [held]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield held.getsockname()[1]
    server.should_exit = True
    thread.join(10)


@contextlib.contextmanager
def connected(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as found:
        yield found


def seconds_until_closed(client):
    """From now until the server ends the connection; what it still sends is read."""
    begun = time.perf_counter()
    with contextlib.suppress(ConnectionError):
        while client.recv(65536):
            pass
    return time.perf_counter() - begun


def send_in_pieces(client, pieces, pause_s):
    for piece in pieces:
        client.sendall(piece)
        time.sleep(pause_s)


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_whole_request_is_answered_and_the_connection_lives_on(port):
    with connected(port) as client:
        for _ in range(2):
            client.sendall(REQUEST)
            answer = b""
            while b"word" not in answer:
                answer += client.recv(4096)
            assert b"200 OK" in answer
            time.sleep(0.6)                              # longer than a head may take: to be idle is not to be slow


def test_one_that_says_nothing_is_dropped(port):
    with connected(port) as client:
        assert 0.2 < seconds_until_closed(client) < 3


def test_a_head_that_trickles_is_dropped(port):
    with connected(port) as client:
        begun = time.perf_counter()
        with pytest.raises(OSError):
            send_in_pieces(client, [bytes([byte]) for byte in REQUEST[:-2] * 10], 0.05)
        assert time.perf_counter() - begun < 3


def test_a_trickling_head_of_a_second_request_is_dropped(port):
    with connected(port) as client:
        client.sendall(REQUEST)
        assert client.recv(4096)
        client.sendall(REQUEST[:10])
        assert seconds_until_closed(client) < 3


def test_a_head_that_is_too_large_is_dropped(port):
    with connected(port) as client, pytest.raises(OSError):
        send_in_pieces(client, [b"GET / HTTP/1.1\r\n", *[b"X-A: " + b"a" * 1000 + b"\r\n"] * 100], 0.002)


def test_a_reader_who_stops_reading_is_dropped(port):
    ENDED.clear()
    with connected(port) as client:
        client.sendall(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100)
        begun = time.perf_counter()
        while not ENDED:
            assert time.perf_counter() - begun < 15
            time.sleep(0.05)


def test_a_refused_head_is_answered_when_its_body_is_over_and_the_connection_goes_on(port):
    with connected(port) as s:
        for _ in range(2):
            s.sendall(b"POST /full HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
            time.sleep(0.05)
            s.sendall(b"cd")
            assert s.recv(4096) == NO
        s.sendall(b"POST /full HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\naGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        found = b""
        while b"word" not in found:
            found += s.recv(4096)
        assert found.startswith(NO + b"HTTP/1.1 200 OK")
        s.sendall(b"POST /full HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        assert s.recv(4096) == NO
        assert s.recv(1) == b""


@pytest.mark.parametrize("body", [b"a", b"a" * 3000])
def test_the_body_of_a_refused_call_has_the_same_limits(port, body):
    with connected(port) as s:
        begun = time.perf_counter()
        s.sendall(b"POST /full HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + body)
        with contextlib.suppress(ConnectionResetError):
            assert s.recv(100) == b""
        assert time.perf_counter() - begun < 3
