"""Two replicas behind Ray Serve, from the deployment file; one is killed in the midst of 16 requests."""

import asyncio
import base64
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
from media.small import png, write_small

from ayllu import LLM
from ayllu.config import validate
from ayllu.engine.far import Lost
from ayllu.errors import EngineFailed, Overloaded

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "ray-serve.yaml"
RUN = """
import sys, ray
from ray.serve.scripts import cli
ray.init("local", num_cpus=2, include_dashboard=False)   # which `serve run` would start, and does without
cli(["run", sys.argv[1]])
"""
START_S = 300                                            # a dozen processes that import torch or Ray


@pytest.fixture
def replicas():
    """The module, which imports Ray Serve."""
    pytest.importorskip("ray.serve", reason="the extra `ray-serve` is not installed")
    from ayllu.server import replicas
    return replicas


def deployment(port):
    """The file, on a free port, with less memory and shares of a CPU."""
    import yaml
    found = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    found["http_options"]["port"] = port
    application, = found["applications"]
    application["args"]["engine"].update(cache_mib=16, max_rows=16)
    engine = next(d for d in application["deployments"] if d["name"] == "Engine")
    assert engine["num_replicas"] == 2
    engine["ray_actor_options"]["num_cpus"] = 0.5
    return found


def free_port():
    """One below those that a system gives out by itself: Ray takes dozens of these before its server begins."""
    for port in random.sample(range(20_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port")


@contextmanager
def running(folder):
    """`serve run FILE`, once the server answers: its address and its process."""
    import yaml
    port = free_port()
    (folder / "serve.yaml").write_text(yaml.safe_dump(deployment(port)), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
           "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "120"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", RUN, folder / "serve.yaml"], env=env,
                                   stdout=log, stderr=log, start_new_session=True)
        family = []
        try:
            address, end = f"http://127.0.0.1:{port}", time.monotonic() + START_S
            while not is_up(address):
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail((folder / "log").read_text(encoding="utf-8")[-3000:])
                time.sleep(0.5)
            family = psutil.Process(process.pid).children(recursive=True)
            yield address, process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            for one in family:
                if one.is_running():
                    one.kill()


def is_up(address):
    try:
        return httpx.get(f"{address}/v1/models", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def engines(process):
    return {p.pid for p in psutil.Process(process.pid).children(recursive=True)
            if p.status() != psutil.STATUS_ZOMBIE and "Engine" in (title := " ".join(p.cmdline()))
            and "__init__" not in title}


async def ask(client, number):
    """Half of them streams; without a seed where the answer can't depend on it."""
    is_stream, is_greedy = number % 2 == 0, number % 4 == 1
    body = {"model": "ayllu-mini", "prompt": f"Story {number}. Once upon a time", "max_tokens": 96, "stream": is_stream,
            "ignore_eos": True, "temperature": 0 if is_greedy else 1, "logprobs": 0,
            **({} if is_greedy else {"seed": number})}
    if not is_stream:
        found = (await client.post("/v1/completions", json=body)).json()
        return found["choices"][0]["text"], found["choices"][0]["logprobs"]["token_logprobs"]
    text, logprobs = "", []
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                text += choice["text"]
                logprobs += choice["logprobs"]["token_logprobs"]
    return text, logprobs


async def asked(address, disturb=None):
    """16 answers at once, and how long they took; `disturb` meanwhile."""
    async with httpx.AsyncClient(base_url=address, timeout=200) as client:
        begun = time.monotonic()
        found, _ = await asyncio.gather(asyncio.gather(*(ask(client, n) for n in range(16))),
                                        disturb() if disturb else asyncio.sleep(0))
        return found, time.monotonic() - begun


def test_the_file_holds_what_is_read(replicas):
    """Ray Serve's own schema and ours, both strict."""
    from ray.serve.schema import ServeDeploySchema
    found = ServeDeploySchema.model_validate(deployment(8000))
    assert found.http_options.host == "127.0.0.1"        # nobody else, as long as there are no keys
    application, = found.applications
    assert application.import_path == "ayllu.server.replicas:app"
    assert validate(replicas.Replicated, application.args, where="args").engine.deterministic
    assert {d.name for d in application.deployments} == {"Engine", "Front"}
    assert replicas.app(replicas.Replicated())           # Ray can bind them


def entered(replicas, client, has_keys, headers=()):
    """What the entrance answers, and the session that the application sees."""
    seen, sent = [], []

    async def app(scope, receive, send):
        seen.append(replicas.session.get())

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/v1/models", "client": client, "headers": list(headers)}
    asyncio.run(replicas.Entrance(app, has_keys)(scope, None, send))
    return (sent[0]["status"] if sent else None), seen


def test_without_keys_nobody_else_comes_in(replicas):
    """Wherever Ray Serve listens: its http_options are not ours to read."""
    assert entered(replicas, ("127.0.0.1", 5), False) == (None, [""])
    assert entered(replicas, ("::1", 5), False) == (None, [""])
    for client in (("192.0.2.7", 5), ("fox", 5), None):
        assert entered(replicas, client, False) == (403, [])
    assert entered(replicas, ("192.0.2.7", 5), True, [(b"x-session-id", b"s1")]) == (None, ["s1"])


def test_the_words_of_ray_in_ours(replicas):
    from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
    from ray.serve.exceptions import BackPressureError
    for gone in (ActorDiedError(), ActorUnavailableError("away", b"0" * 16)):
        assert isinstance(replicas._told(gone), Lost)
    assert isinstance(replicas._told(BackPressureError(1, 1)), Overloaded)
    broken = EngineFailed("it broke")
    assert replicas._told(RayTaskError("answer", "trace", broken)) is broken
    other = ValueError("ours")
    assert replicas._told(other) is other


class Remote:
    """A method of a replica as a handle of Ray has it: what it gives has travelled."""

    def __init__(self, method):
        self.method = method

    def remote(self, *given):
        found = self.method(*pickle.loads(pickle.dumps(given)))
        return Streamed(found) if hasattr(found, "__aiter__") else found


class Streamed:
    def __init__(self, pieces):
        self.pieces = pieces

    async def __anext__(self):
        return pickle.loads(pickle.dumps(await anext(self.pieces)))

    def cancel(self):
        pass


class Handle:
    def __init__(self, replica):
        self.facts, self.answer, self.embed = map(Remote, (replica.facts, replica.answer, replica.embed))

    def options(self, **_):
        return self


def test_pictures_are_looked_at_by_the_front(replicas, chat_checkpoint, tmp_path):
    args = replicas.Replicated(model=str(chat_checkpoint), name="tiny", device="cpu",
                               senses=str(write_small(tmp_path / "senses")), engine={"cache_mib": 2, "max_rows": 4})
    url = "data:image/png;base64," + base64.b64encode(png(0)).decode()
    body = {"temperature": 0, "max_tokens": 6, "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]}]}

    async def ask():
        replica = replicas.EngineReplica.func_or_class(args)
        try:
            front = SimpleNamespace(engine=Handle(replica), args=args)    # Ray would need its cluster
            app = await replicas.Front.func_or_class.__serve_build_asgi_app__(front)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
                listed = (await client.get("/v1/models")).json()["data"][0]["input_modalities"]
                return listed, (await client.post("/v1/chat/completions", json=body)).json()
        finally:
            replica.service.close()

    listed, found = asyncio.run(ask())
    assert listed == ["text", "image", "audio"]
    llm = LLM.load(chat_checkpoint, device="cpu", senses=args.senses)
    want = llm.chat(body["messages"], temperature=0, max_tokens=6)
    assert found["choices"][0]["message"]["content"] == want.text
    assert found["usage"]["prompt_tokens"] == want.prompt_tokens


@pytest.mark.slow
def test_sixteen_answers_outlive_a_replica(replicas, tmp_path):
    with running(tmp_path) as (address, process):
        whole, seconds = asyncio.run(asked(address))
        assert all(len(logprobs) == 96 for _, logprobs in whole)
        before = engines(process)
        assert len(before) == 2

        async def kill():
            await asyncio.sleep(seconds / 3)
            os.kill(min(before), signal.SIGKILL)

        again, _ = asyncio.run(asked(address, kill))
        assert again == whole                            # texts and log-probabilities, bit for bit
        end = time.monotonic() + 120
        while len(engines(process) - {min(before)}) < 2:
            assert time.monotonic() < end, "no second replica came back"
            time.sleep(0.5)
        assert asyncio.run(asked(address))[0] == whole
        assert refused_field(address) == "bogus"


def refused_field(address):
    found = httpx.post(f"{address}/v1/completions", json={"model": "ayllu-mini", "prompt": "Once", "bogus": 1})
    return found.json()["error"]["param"]
