"""Ten thousand streams that are dropped at random moments leave nothing behind, and neither does a killed server."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from server.live import answering, serving

from ayllu.engine.engine import EngineSettings
from ayllu.server.apart import serve_apart

ROOT = Path(__file__).parents[2]


async def drop(port: int, rng: random.Random) -> None:
    """Ask for a stream and go away: at once, within the answer's head, or after some of its pieces."""
    body = json.dumps({"model": "tiny", "prompt": "The fox", "max_tokens": 60, "ignore_eos": True, "stream": True,
                       "n": rng.choice((1, 1, 2))}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\n\r\n" % len(body) + body)
    bytes_read = rng.choice((0, 1, 200, 900))
    if bytes_read:
        await reader.read(bytes_read)
    writer.transport.abort() if rng.random() < 0.5 else writer.close()


async def drop_many(port: int, n: int) -> None:
    rng, left = random.Random(0), iter(range(n))

    async def worker() -> None:
        for _ in left:
            await drop(port, rng)

    await asyncio.gather(*[worker() for _ in range(24)])


@contextlib.contextmanager
def server_of(model, where):
    """As `ayllu serve` runs it, or with the engine in a thread."""
    engine = {"cache_mib": 2, "max_rows": 8, "max_waiting": 32}
    if where == "thread":
        with serving(model, engine=engine) as live:
            yield live
        return
    served = serve_apart(str(model), {"name": "tiny", "engine": EngineSettings(**engine)})
    try:
        with answering(served) as live:
            live.wait_until(lambda: served.service.counts().pages, 10)
            yield live
    finally:
        served.service.close()


@pytest.mark.parametrize(("where", "n"), [("thread", 300), pytest.param("process", 10_000, marks=pytest.mark.slow)])
def test_dropped_streams_leave_the_pages_as_they_were(chat_checkpoint, where, n):
    with server_of(chat_checkpoint, where) as live:
        service = live.served.service
        free = service.counts().pages_free
        asyncio.run(drop_many(live.port, n))
        live.wait_until(lambda: service.counts().running == service.counts().waiting == 0, 30)
        live.wait_until(lambda: service.counts().pages_free == free, 5)
        assert not (service._readers if where == "thread" else service._streams or service._n_open or service._calls)
        assert not live.served.queue._calls
        found = httpx.post(f"{live.url}/v1/completions", json={"model": "tiny", "prompt": "The fox", "max_tokens": 5})
        assert found.status_code == 200


def started(port: int, keys: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "ayllu", "serve", "--port", str(port), "--keys", str(keys), "-q"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    for _ in range(600):
        try:
            httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
            return process
        except httpx.HTTPError:
            assert process.poll() is None
            time.sleep(0.1)
    raise AssertionError("it doesn't serve")


@pytest.mark.slow
def test_a_killed_server_serves_again_at_once(tmp_path):
    """kill -9 in the middle of streams: the same port, the same file of keys, the same greedy answer as before."""
    keys = tmp_path / "keys.json"
    made = subprocess.run([sys.executable, "-m", "ayllu", "key", str(keys), "--name", "anna", "--json"], check=True,
                          capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    auth = {"authorization": f"Bearer {json.loads(made.stdout.splitlines()[-1])['key']}"}
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    url, before = f"http://127.0.0.1:{port}/v1/completions", keys.read_bytes()
    ask = {"model": "ayllu-mini-chat", "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    process = started(port, keys)
    try:
        answer = httpx.post(url, json=ask, headers=auth, timeout=60).json()["choices"][0]["text"]
        with httpx.Client(timeout=60) as client, \
                client.stream("POST", url, json={**ask, "max_tokens": 400, "stream": True, "ignore_eos": True},
                              headers=auth) as stream:
            pieces = stream.iter_raw()
            next(pieces)
            process.send_signal(signal.SIGKILL)
            process.wait(20)
            with pytest.raises(httpx.HTTPError):         # the client sees that it broke, and not an end
                list(pieces)
        process = started(port, keys)
        assert keys.read_bytes() == before
        assert httpx.post(url, json=ask, headers=auth, timeout=60).json()["choices"][0]["text"] == answer
    finally:
        process.kill()
        process.wait(20)
