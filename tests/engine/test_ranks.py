"""Several ranks as one engine: they do the same steps, give one process's ids, and end together."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import httpx
import psutil
import pytest
from engine.small import TIGHT, ids_of, model_of, requests_of, run

from ayllu.cli.main import run as command
from ayllu.engine import ranks
from ayllu.engine.engine import Engine
from ayllu.engine.ranks import LedEngine, follow
from ayllu.engine.request import Request
from ayllu.errors import EngineFailed, Refused
from ayllu.model.params import SamplingParams

ROOT = Path(__file__).parents[2]
DRAWN = [Request((5, 9, 3 + i), SamplingParams(temperature=1, max_tokens=12, n=1 + i % 2)) for i in range(4)]


def led(monkeypatch, requests):
    """What the first rank gives, and the orders that it sends."""
    sent = []
    monkeypatch.setattr(ranks.dist, "from_first", lambda orders, group: sent.append(orders) or orders)
    engine = LedEngine(Engine(model_of("gqa"), TIGHT))
    found = run(engine, requests)
    number = engine.submit(requests[0])
    engine.step()
    engine.cancel(number)
    while not engine.is_idle:
        engine.step()
    engine.close()
    return ids_of(found), sent


def followed(monkeypatch, sent, name="gqa"):
    """Another rank's engine, after the same orders."""
    left = list(sent)
    monkeypatch.setattr(ranks.dist, "from_first", lambda orders, group: left.pop(0))
    engine = Engine(model_of(name), TIGHT)
    follow(engine)
    assert not left
    return engine


def test_the_others_do_what_the_first_does(monkeypatch):
    """Requests without a seed, samples, a cancelled one; greedy ones as without ranks."""
    requests = requests_of(8)
    found, sent = led(monkeypatch, requests + DRAWN)
    plain = ids_of(run(Engine(model_of("gqa"), TIGHT), requests))
    assert {key: found[key] for key in plain} == plain
    engine = followed(monkeypatch, sent)
    assert engine.is_idle
    assert engine.scheduler.pool.n_free == TIGHT.n_pages


def test_a_rank_that_chooses_otherwise_ends_all(monkeypatch):
    """Its weights are damaged, say."""
    _, sent = led(monkeypatch, requests_of(3))
    with pytest.raises(EngineFailed, match="other tokens than the first"):
        followed(monkeypatch, sent, "qwen2")


def test_a_broken_connection_is_said(monkeypatch):
    def broken(orders, group):
        raise RuntimeError("Connection closed by peer")
    monkeypatch.setattr(ranks.dist, "from_first", broken)
    engine = LedEngine(Engine(model_of("gqa"), TIGHT))
    with pytest.raises(EngineFailed, match="a rank was lost"):
        engine.step()
    with pytest.raises(Refused, match="ayllu merge"):
        engine.unload_adapter("fox")


def test_what_ranks_do_not_take(monkeypatch, capsys, tiny_checkpoint):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("ayllu.dist.processes", lambda device: nullcontext())
    assert command(["serve", str(tiny_checkpoint), "--port", "0", "--draft", "ayllu-mini"]) == 2
    assert "takes no draft model" in capsys.readouterr().err


async def asked(url):
    """Greedy and drawn, streams and not, all at once; texts with log-probabilities."""
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        async def ask(n):
            body = {"prompt": f"The fox {n}", "max_tokens": 24, "temperature": n % 2, "seed": n, "logprobs": 0}
            found = (await client.post("/v1/completions", json=body)).json()["choices"][0]
            return found["text"], found["logprobs"]["tokens"]
        return await asyncio.gather(*map(ask, range(8)))


@pytest.mark.slow
def test_two_ranks_serve_as_one_and_end_together(tiny_checkpoint):
    """Over HTTP, on gloo; then one of them is killed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    words = ["-m", "ayllu", "serve", str(tiny_checkpoint), "--port", "0", "--cache-mib", "2", "--json", "--quiet"]

    def served(*more):
        process = subprocess.Popen([sys.executable, *words, *more], env=env, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, start_new_session=True)
        facts = json.loads(process.stdout.readline() or process.stderr.read())
        return process, facts["url"], asyncio.run(asked(facts["url"]))

    alone, _, whole = served()
    alone.send_signal(signal.SIGINT)
    assert alone.wait(60) == 130
    both, url, shared = served("--tensor-parallel", "2", "--device", "cpu")
    try:
        assert shared == whole
        found = httpx.post(f"{url}/v1/embeddings", json={"model": tiny_checkpoint.name, "input": "fox"}, timeout=60)
        assert found.status_code == 400
        assert "several ranks" in found.json()["error"]["message"]
        rank = max(psutil.Process(both.pid).children(), key=lambda p: int(p.environ()["RANK"]))
        rank.send_signal(signal.SIGKILL)
        _, said = both.communicate(timeout=90)
        assert both.returncode == 1
        assert "rank 1 was ended by SIGKILL" in said
    finally:
        both.kill()
