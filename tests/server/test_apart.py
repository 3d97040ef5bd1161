"""The server whose engine runs in another process answers as the one whose engine runs in a thread."""

import json

import httpx
import pytest
from adapters.small import filled
from server.live import answering, serving

from ayllu.adapters.store import write_adapter
from ayllu.checkpoint.load import load_checkpoint
from ayllu.engine.engine import EngineSettings
from ayllu.errors import EngineFailed
from ayllu.server.apart import serve_apart
from ayllu.server.limits import Limits

HELLO = [{"role": "user", "content": "Hello"}]
GREEDY = {"temperature": 0, "max_tokens": 12}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {
    "a": {"enum": ["yes", "no"]}}, "required": ["a"], "additionalProperties": False}}}


@pytest.fixture(scope="module")
def home(tmp_path_factory, chat_checkpoint):
    home = tmp_path_factory.mktemp("home")
    write_adapter(home / "one", filled(load_checkpoint(chat_checkpoint).model, seed=0, r=2))
    return home


@pytest.fixture(scope="module")
def both(chat_checkpoint, home):
    """Clients of the two servers."""
    engine = EngineSettings(cache_mib=2, max_rows=16)
    apart = serve_apart(str(chat_checkpoint), {"name": "tiny", "engine": engine}, limits=Limits(), adapter_folder=home)
    try:
        with serving(chat_checkpoint, adapter_folder=home) as near, answering(apart) as far, \
                httpx.Client(base_url=near.url, timeout=60) as one, httpx.Client(base_url=far.url, timeout=60) as two:
            yield one, two
    finally:
        apart.service.close()


def said(client, path, body):
    found = client.post(path, json=body)
    return found.status_code, {k: v for k, v in found.json().items() if k not in ("id", "created")}


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/completions", {"prompt": ["Once", "upon a time"], "n": 2, "temperature": 0.7, "seed": 3, "logprobs": 2}),
    ("/v1/completions", {"prompt": "Once", "echo": True, "logprobs": 1, **GREEDY}),
    ("/v1/completions", {"prompt": "Once upon a time", "n": 2, "use_beam_search": True, "max_tokens": 6}),
    ("/v1/chat/completions", {"messages": HELLO, "response_format": SCHEMA, "seed": 1}),
    ("/v1/completions", {"prompt": "Once", "stop": ["e"], **GREEDY}),
    ("/v1/embeddings", {"input": ["Once", "upon"], "model": "tiny"}),
    ("/v1/completions", {"prompt": "word " * 500}),                        # too long
    ("/v1/completions", {"prompt": "Once", "regex": "(", **GREEDY}),
    ("/v1/completions", {"prompt": "Once", "model": "none"}),
])
def test_the_answers_are_the_same(both, path, body):
    near, far = (said(client, path, body) for client in both)
    assert near[0] == far[0]
    if "embeddings" in path:
        for a, b in zip(near[1]["data"], far[1]["data"], strict=True):
            assert a["embedding"] == pytest.approx(b["embedding"], abs=1e-6)
    else:
        assert json.loads(json.dumps(near[1]), parse_float=lambda x: round(float(x), 4)) == json.loads(
            json.dumps(far[1]), parse_float=lambda x: round(float(x), 4))


def test_streams_and_adapters(both):
    for client in both:
        body = {"prompt": "Once upon a time", "stream": True, **GREEDY}
        plain = client.post("/v1/completions", json=body).text
        assert plain.endswith("data: [DONE]\n\n")
        assert client.post("/v1/load_lora_adapter", json={"lora_name": "one", "lora_path": "one"}).status_code == 200
        assert client.post("/v1/load_lora_adapter", json={"lora_name": "one", "lora_path": "one"}).status_code == 400
        assert {m["id"] for m in client.get("/v1/models").json()["data"]} == {"tiny", "one"}
        assert client.post("/v1/completions", json={**body, "model": "one"}).status_code == 200
        assert 'ayllu_adapter_requests_total{adapter="one"} 1.0' in client.get("/metrics").text
        assert client.post("/v1/unload_lora_adapter", json={"lora_name": "one"}).status_code == 200
        assert client.post("/v1/completions", json={**body, "model": "one"}).status_code == 404
    near, far = (client.get("/metrics").text for client in both)
    for name in ("ayllu_computed_tokens_total", "ayllu_pages_free", "ayllu_running"):
        assert [x for x in near.splitlines() if x.startswith(name)] == [x for x in far.splitlines() if
                                                                        x.startswith(name)]


def test_what_is_wrong_with_a_model_is_told_here(tmp_path):
    with pytest.raises(Exception, match="nowhere") as error:
        serve_apart(str(tmp_path / "nowhere"), {})
    assert not isinstance(error.value, EngineFailed)
