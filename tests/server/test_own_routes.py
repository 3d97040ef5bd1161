"""Tokens, templates, health, metrics, the log, redaction, errors that no client library shows."""

import json
import logging
import struct

import httpx
import pytest
from server.frames import frames
from server.live import serving

from ayllu.server.access import logger
from ayllu.server.gate import Door
from ayllu.server.keys import Keys, key_of

CANARY = "zqxcanary"
SECRET = "a-key-that-a-person-chose"


@pytest.fixture(scope="module")
def http(live):
    with httpx.Client(base_url=live.url, timeout=30) as found:
        yield found


def test_tokens_and_back(http, live):
    for body in ({"prompt": "The fox"}, {"content": "The fox"}):
        found = http.post("/tokenize", json={**body, "return_token_strs": True}).json()
        assert found["tokens"] == live.served.tokenizer.encode("The fox", bos=live.served.tokenizer.add_bos)
        assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
        assert found["max_model_len"] == 128
    assert http.post("/detokenize", json={"tokens": found["tokens"], "skip_special_tokens": True}).json() == {
        "prompt": "The fox", "content": "The fox"}
    bare = http.post("/tokenize", json={"prompt": "The fox", "add_special_tokens": False}).json()["tokens"]
    assert bare == live.served.tokenizer.encode("The fox")
    assert http.post("/tokenize", json={"prompt": "x", "content": "x"}).status_code == 400
    wrong = http.post("/detokenize", json={"tokens": [10**6]})
    assert "vocabulary has ids 0 to" in wrong.json()["error"]["message"]


def test_the_template_shows_the_exact_prompt(http):
    messages = [{"role": "user", "content": "The fox"}]
    found = http.post("/apply-template", json={"messages": messages}).json()
    assert found["prompt"].endswith("[user]The fox\n[assistant]")
    tokens = http.post("/tokenize", json={"messages": messages}).json()["tokens"]
    assert found["tokens"] == tokens
    answer = http.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 1,
                                                     "return_token_ids": True}).json()
    assert answer["prompt_token_ids"] == tokens
    bad = http.post("/apply-template", json={"messages": messages, "chat_template_kwargs": {"messages": []}})
    assert bad.status_code == 400


def test_tokenizer_info_and_version(http, live):
    info = http.get("/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token_ids"], info["add_bos_token"]) == ("<s>", [2], True)
    assert http.get("/version").json() == http.get("/api/version").json()
    assert http.get("/health").json() == {"status": "ok"}


def test_no_path_is_read_without_a_folder_for_adapters(http):
    found = http.post("/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": "b"})
    assert (found.status_code, "--lora-folder" in found.json()["error"]["message"]) == (403, True)


@pytest.mark.parametrize(("path", "body", "status"), [
    ("/v1/completions", b"{", 400), ("/v1/completions", b"[" * 100_000, 400), ("/v1/completions", b"null", 400),
    ("/v1/completions", b'{"prompt": NaN}', 400), ("/v1/completions", b'{"prompt": "x", "temperature": NaN}', 400),
    ("/v1/completions", b'{"prompt": "\\ud83d"}', 400), ("/v1/completions", b'{"prompt": []}', 400),
    ("/v1/completions", b'{"prompt": ""}', 200), ("/v1/completions", b"\xff\xfe", 400),
    ("/v1/completions", b'{"prompt": "x", "seed": 1e400}', 400), ("/v1/completions", b'{"prompt": [-1]}', 400),
    ("/v1/completions", b'{"prompt": [99999]}', 400), ("/v1/completions", b'{"prompt": "x", "max_tokens": 1e9}', 400),
    ("/v1/completions", b'{"prompt": "x", "model": "\\ud83d"}', 400),
    ("/v1/completions", b'{"prompt": "x", "logit_bias": {"99999": 1}}', 400),
    ("/v1/completions", b'{"prompt": "x", "min_tokens": 50}', 400),
    ("/v1/completions", b'{"prompt": "x", "repetition_penalty": 1e-200}', 400),
    ("/v1/completions", b'{"prompt": "x", "temperature": 1e-300}', 200),
    ("/v1/completions", b'{"prompt": "x", "logit_bias": {"5": 1e300}}', 400),
    ("/v1/completions", b'{"prompt": "x", "best_of": 5}', 200),
    ("/v1/completions", b'{"prompt": "x", "stop": ""}', 400),
    ("/v1/embeddings", b'{"input": ""}', 200), ("/v1/nowhere", b"{}", 404), ("/health", b"{}", 405),
    ("/v1/messages", b"{}", 400), ("/api/chat", b"{}", 400),
])
def test_bad_bodies_are_the_callers_fault(http, path, body, status):
    found = http.post(path, content=body)
    assert found.status_code == status, found.text
    assert json.loads(found.content)


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/ui/js/main.js", "/nowhere"])
def test_whoever_asks_for_the_head_gets_the_head(http, path):
    """Ollama's own command asks so whether a server is there, and so do balancers."""
    head, whole = http.head(path), http.get(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    unlike = {"date"}
    assert {k: v for k, v in head.headers.items() if k not in unlike} == \
        {k: v for k, v in whole.headers.items() if k not in unlike}


def test_curl_without_a_header_works(http):
    found = http.post("/api/generate", content=b'{"model": "tiny", "prompt": "x", "stream": false, '
                      b'"options": {"num_predict": 2}}', headers={"content-type": "application/x-www-form-urlencoded"})
    assert found.json()["eval_count"] <= 2


def test_prompt_logprobs_by_id(http):
    found = http.post("/v1/completions", json={"prompt": "The fox", "max_tokens": 1, "prompt_logprobs": 2}).json()
    rows = found["choices"][0]["prompt_logprobs"]
    assert rows[0] is None
    assert all(2 <= len(row) <= 3 for row in rows[1:])
    assert len(rows) == found["usage"]["prompt_tokens"]


class Lines(logging.Handler):
    """Keeps what is logged, whatever other tests made of the handlers above this logger."""

    def __init__(self):
        super().__init__()
        self.found = []

    def emit(self, record):
        self.found.append(record.getMessage())


def test_log_and_metrics_hold_no_text(http, caplog):
    kept = Lines()
    logger.addHandler(kept)
    with caplog.at_level(logging.INFO, logger=logger.name):
        http.post("/v1/completions", json={"prompt": CANARY, "max_tokens": 2, "ignore_eos": True, "user": CANARY})
        http.post("/v1/completions", json={"prompt": CANARY, "model": CANARY})
        http.get(f"/v1/models/{CANARY}")
        http.get(f"/{CANARY}")
        http.post("/v1/chat/completions", json={"messages": CANARY})
        http.get(f"/version?{CANARY}", headers={"user-agent": CANARY})
        text = http.get("/metrics").text
    logger.removeHandler(kept)
    lines = kept.found
    assert len(lines) == 7, lines
    assert lines[0].startswith("POST /v1/completions 200 ")
    assert " 2 tokens, local" in lines[0]
    assert any("/v1/models/{id" in line for line in lines)
    assert CANARY not in "".join(lines)
    assert CANARY not in text
    for name in ('ayllu_requests_total{route="/v1/completions",status="200"}', "ayllu_first_token_seconds_count",
                 "ayllu_pages_free", "ayllu_answer_tokens_total"):
        assert name in text


@pytest.fixture(scope="module")
def guarded(chat_checkpoint):
    keys = Keys([key_of(SECRET, "alice", "acme", ("generate",))])
    with serving(chat_checkpoint, door=Door(keys=keys), redact=True) as found:
        yield found


def test_every_route_of_the_document_needs_the_key(guarded):
    auth = {"authorization": f"Bearer {SECRET}"}
    paths = httpx.get(f"{guarded.url}/openapi.json", headers=auth).json()["paths"]
    assert len(paths) > 20
    for path, methods in paths.items():
        for method in methods:
            status = httpx.request(method, guarded.url + path).status_code
            assert status == (200 if path == "/health" else 401), path
    assert httpx.post(f"{guarded.url}/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": "b"},
                      headers=auth).status_code == 401          # the key may generate, and is no admin


def test_personal_data_never_reaches_the_model(guarded):
    auth = {"x-api-key": SECRET}
    mail = {"role": "user", "content": "Write to anna@example.org"}
    found = httpx.post(f"{guarded.url}/apply-template", json={"messages": [mail]}, headers=auth).json()
    assert "[EMAIL]" in found["prompt"]
    for path, body in (("/v1/chat/completions", {"messages": [mail]}),
                       ("/v1/completions", {"prompt": mail["content"], "echo": True}),
                       ("/v1/messages", {"messages": [mail], "max_tokens": 4}),
                       ("/v1/responses", {"input": mail["content"]}),
                       ("/api/generate", {"model": "tiny", "prompt": mail["content"], "stream": False})):
        answer = httpx.post(guarded.url + path, json=body, headers=auth, timeout=30)
        assert answer.headers["x-ayllu-redacted"] == "email=1", path
        assert "anna@" not in answer.text
    ids = guarded.served.tokenizer.encode(mail["content"], bos=True)
    echoed = httpx.post(f"{guarded.url}/v1/completions", json={"prompt": ids, "echo": True}, headers=auth)
    assert echoed.json()["choices"][0]["text"].startswith("Write to [EMAIL]")
    clean = httpx.post(f"{guarded.url}/v1/completions", json={"prompt": "The fox"}, headers=auth)
    assert clean.headers["x-ayllu-redacted"] == "none"


def test_a_stream_is_one_frame_for_each_chunk(http):
    body = {"prompt": "The fox", "max_tokens": 5, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as found:
        assert found.headers["content-type"].startswith("text/event-stream")
        assert found.headers["cache-control"] == "no-store"
        data = [d for _, d in frames(found.iter_raw())]
    assert data[-1] == "[DONE]"
    assert all(json.loads(d)["object"] == "text_completion" for d in data[:-1])


def test_embeddings_in_base64_are_the_same_numbers(http):
    import base64

    plain = http.post("/v1/embeddings", json={"input": "the fox"}).json()["data"][0]["embedding"]
    packed = http.post("/v1/embeddings", json={"input": "the fox", "encoding_format": "base64"}).json()
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert struct.unpack(f"<{len(raw) // 4}f", raw) == pytest.approx(plain, abs=1e-7)


def test_biases_that_leave_no_id_are_the_callers_fault(http, live):
    none = {str(id): -100 for id in range(live.served.vocab_size)}
    found = http.post("/v1/completions", json={"prompt": "x", "logit_bias": none})
    assert (found.status_code, found.json()["error"]["param"]) == (400, "logit_bias")
