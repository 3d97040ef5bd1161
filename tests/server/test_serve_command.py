"""`ayllu serve` as a process of its own: what it prints, refuses, and how it ends."""

import json
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from server.live import serving

from ayllu.cli.main import run
from ayllu.cli.serve import curl_line
from ayllu.server.facts import cache_tokens

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
ENV.pop("AYLLU_API_KEY", None)


def ayllu(*words, **env):
    return subprocess.Popen([sys.executable, "-m", "ayllu", *map(str, words)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env={**ENV, **env}, start_new_session=True)


def ended(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_it_says_where_it_is_serves_and_ends_by_ctrl_c(tiny_checkpoint):
    process = ayllu("serve", tiny_checkpoint, "--port", 0, "--cache-mib", 1, "--name", "fox", "--json")
    try:
        facts = json.loads(process.stdout.readline())
        assert (facts["model"], facts["context"], facts["needs_key"]) == ("fox", 128, False)
        found = httpx.post(f"{facts['url']}/v1/completions", json={"prompt": "The fox", "model": "fox"}, timeout=60)
        assert found.status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 130
    assert f"fox at {facts['url']}" in err
    assert f"curl {facts['url']}/v1/completions " in err             # a model without a chat template
    assert "128 tokens" in err
    assert "POST /v1/completions 200" in err
    assert "The fox" not in err


def test_the_line_for_curl_is_one_that_works(tiny_checkpoint, chat_checkpoint):
    """A base model continues a text; a chat model gets a chat."""
    for model, path in ((tiny_checkpoint, "/v1/completions"), (chat_checkpoint, "/v1/chat/completions")):
        with serving(model, engine={"kv_dtype": "int8"}) as live:
            address, _, rest = curl_line(live.listener).removeprefix("curl ").partition(" ")
            assert address == live.url + path
            body = shlex.split(rest)[shlex.split(rest).index("-d") + 1]
            found = httpx.post(address, content=body, headers={"content-type": "application/json"}, timeout=60)
            assert found.status_code == 200, found.text
            scheduler = live.served.service.engine.scheduler
            assert cache_tokens(live.served.service.engine) == scheduler.pool.n_pages * scheduler.settings.page_size


@pytest.mark.slow
def test_https_with_a_key(tiny_checkpoint, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True,
                   capture_output=True)
    made = subprocess.run([sys.executable, "-m", "ayllu", "key", tmp_path / "keys.json", "--name", "alice"], env=ENV,
                          capture_output=True, text=True, check=True)
    process = ayllu("serve", tiny_checkpoint, "--port", 0, "--cache-mib", 1, "--keys", tmp_path / "keys.json",
                    "--tls-cert", cert, "--tls-key", key, "--json", "--quiet")
    try:
        facts = json.loads(process.stdout.readline())
        assert facts["url"].startswith("https://")
        with httpx.Client(base_url=facts["url"], verify=ssl.create_default_context(cafile=cert)) as client:
            assert client.get("/v1/models").status_code == 401
            alice = {"authorization": f"Bearer {made.stdout.strip()}"}
            assert client.get("/v1/models", headers=alice).status_code == 200
            assert client.get("/health").status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
    _, _, err = ended(process)
    assert "GET /v1/models" not in err
    assert made.stdout.strip() not in err


@pytest.mark.parametrize(("words", "says"), [
    (["--host", "0.0.0.0"], "AYLLU_API_KEY"), (["--tls-cert", "x.pem"], "belong together"),
    (["--tls-cert", "x.pem", "--tls-key", "y.pem"], "can't be used"), (["--keys", "nowhere.json"], "no file of keys"),
])
def test_what_is_unsafe_or_wrong_is_refused_before_the_model_is_loaded(words, says, capsys, monkeypatch):
    monkeypatch.delenv("AYLLU_API_KEY", raising=False)
    assert run(["serve", "no-such-model", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_port_that_is_taken(tiny_checkpoint, capsys):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
        assert run(["serve", str(tiny_checkpoint), "--port", port, "--cache-mib", "1"]) == 2
    assert "--port" in capsys.readouterr().err


def test_a_draft_model_must_have_the_same_vocabulary(tiny_checkpoint, capsys):
    assert run(["serve", str(tiny_checkpoint), "--port", "0", "--cache-mib", "1", "--draft", "ayllu-mini"]) == 2
    assert "another vocabulary" in capsys.readouterr().err


def test_the_engine_has_a_process_of_its_own(tiny_checkpoint):
    """Its death is told and nobody waits for ever; and it dies with the server, however that is killed."""
    process = ayllu("serve", tiny_checkpoint, "--port", 0, "--cache-mib", 1, "--json")
    try:
        url = json.loads(process.stdout.readline())["url"]
        (engine,) = psutil.Process(process.pid).children()
        body = {"prompt": "The fox", "ignore_eos": True, "max_tokens": 100, "stream": True}
        assert "ayllu_pages_free" in httpx.get(f"{url}/metrics").text
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            engine.suspend()                             # so that the answer isn't over before
            engine.kill()
            assert "SIGKILL" in "".join(lines)
        assert httpx.get(f"{url}/health").status_code == 503
        assert httpx.post(f"{url}/v1/completions", json=body, timeout=60).status_code == 500
    finally:
        process.send_signal(signal.SIGTERM)
    ended(process)
    process = ayllu("serve", tiny_checkpoint, "--port", 0, "--cache-mib", 1, "--json")
    process.stdout.readline()
    (engine,) = psutil.Process(process.pid).children()
    process.kill()
    ended(process)
    assert engine.wait(10) is not None or not engine.is_running()
