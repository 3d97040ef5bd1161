"""`use_beam_search` over HTTP: the answers are those of transformers' beam search; what can't be honoured is named."""

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

PROMPT = "The fox and the bird"


def post(live, path="/v1/completions", **body):
    return httpx.post(f"{live.url}{path}", json={"use_beam_search": True, **body}, timeout=60)


def test_answers_are_the_beams_of_transformers(live, chat_checkpoint):
    peer = AutoModelForCausalLM.from_pretrained(chat_checkpoint, dtype=torch.float32).eval()
    ids = live.served.tokenizer.encode(PROMPT, bos=True)
    for more, given, theirs in (({"n": 3}, 3, 3), ({"n": 2, "best_of": 5, "length_penalty": 0.5}, 2, 5)):
        expected = peer.generate(torch.tensor([ids]), num_beams=theirs, num_return_sequences=given, max_new_tokens=12,
                                 do_sample=False, length_penalty=more.get("length_penalty", 1.0), pad_token_id=0,
                                 eos_token_id=list(live.served.eos_ids))
        found = post(live, prompt=ids, max_tokens=12, return_token_ids=True, logprobs=1, **more).json()
        assert [c["index"] for c in found["choices"]] == list(range(given))
        for choice, row in zip(found["choices"], expected[:, len(ids):].tolist(), strict=True):
            assert choice["token_ids"] == row[:len(choice["token_ids"])]
            assert set(row[len(choice["token_ids"]):]) <= {0}
            assert len(choice["logprobs"]["token_logprobs"]) == len(choice["token_ids"])
        assert found["usage"]["completion_tokens"] == sum(len(c["token_ids"]) for c in found["choices"])
        assert found["usage"]["prompt_tokens"] == len(ids)


def test_chats_texts_and_a_single_beam(live):
    chat = {"messages": [{"role": "user", "content": "Who is it?"}], "max_tokens": 8}
    found = post(live, "/v1/chat/completions", n=2, logprobs=True, top_logprobs=2, **chat).json()
    assert len({choice["message"]["content"] for choice in found["choices"]}) == 2
    assert all(len(e["top_logprobs"]) == 2 for c in found["choices"] for e in c["logprobs"]["content"])
    for path, body in (("/v1/completions", {"prompt": PROMPT}), ("/v1/chat/completions", chat)):
        one = post(live, path, max_tokens=8, **{k: v for k, v in body.items() if k != "max_tokens"}).json()
        greedy = post(live, path, use_beam_search=False, temperature=0, **{**body, "max_tokens": 8}).json()
        assert one["choices"] == greedy["choices"]
    assert live.pages_free() == live.served.service.engine.scheduler.pool.n_pages


@pytest.mark.parametrize(("field", "body"), [
    ("stream", {"stream": True}), ("stop", {"stop": "x"}), ("temperature", {"temperature": 0.7}),
    ("top_p", {"top_p": 0.9}), ("n", {"n": 17}), ("best_of", {"n": 3, "best_of": 2}), ("best_of", {"best_of": 99}),
    ("response_format", {"response_format": {"type": "json_object"}}), ("length_penalty", {"length_penalty": 1e3}),
    ("length_penalty", {"use_beam_search": False, "length_penalty": 2}),
    ("early_stopping", {"use_beam_search": False, "early_stopping": "never"})])
def test_what_cannot_be_honoured_is_named(live, field, body):
    found = post(live, prompt=PROMPT, max_tokens=4, **{"n": 2, **body})
    assert (found.status_code, found.json()["error"]["param"]) == (400, field), found.text


def test_streams_and_tools_of_chats_are_named(live):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    for field, body in (("stream", {"stream": True}), ("tools", {"tools": [tool]})):
        found = post(live, "/v1/chat/completions", n=2, messages=[{"role": "user", "content": "x"}], **body)
        assert (found.status_code, found.json()["error"]["param"]) == (400, field), found.text
