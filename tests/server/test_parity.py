"""What evaluation harnesses read from a server: log-probabilities of given ids, and greedy texts, as transformers has
them. The requests have the form of lm-eval's `local-completions`."""

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

TEXTS = ["The fox and the bird walked along the river", "我喜欢阅读和编程。", "def add(a, b): return a + b"]


@pytest.fixture(scope="module")
def peer(chat_checkpoint):
    return AutoModelForCausalLM.from_pretrained(chat_checkpoint, dtype=torch.float32).eval()


def test_log_probabilities_are_those_of_transformers(live, peer):
    tokenizer = live.served.tokenizer
    prompts = [tokenizer.encode(text, bos=True) for text in TEXTS]
    body = {"model": "tiny", "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234,
            "echo": True}
    choices = httpx.post(f"{live.url}/v1/completions", json=body, timeout=60).json()["choices"]
    for ids, choice in zip(prompts, choices, strict=True):
        with torch.inference_mode():
            expected = peer(torch.tensor([ids])).logits[0].log_softmax(-1)
        logprobs = choice["logprobs"]
        found = logprobs["token_logprobs"][1:-1]                     # without the first id and the one token that came
        at = expected[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        assert found == pytest.approx(at.tolist(), abs=1e-3)         # float32 sums in another order differ by less
        greedy = [token == max(top, key=top.get) for token, top in
                  zip(logprobs["tokens"][1:-1], logprobs["top_logprobs"][1:-1], strict=True)]
        assert greedy == (expected[:-1].argmax(-1) == torch.tensor(ids[1:])).tolist()
        assert logprobs["tokens"][-1] != ""
        assert expected[-1].max().item() == pytest.approx(logprobs["token_logprobs"][-1], abs=1e-3)


def test_greedy_texts_are_those_of_transformers(live, peer):
    tokenizer = live.served.tokenizer
    for text in TEXTS:
        ids = tokenizer.encode(text, bos=True)
        expected = peer.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False, pad_token_id=0)[0, len(ids):]
        body = {"model": "tiny", "prompt": ids, "temperature": 0, "max_tokens": 20, "return_token_ids": True}
        found = httpx.post(f"{live.url}/v1/completions", json=body, timeout=60).json()["choices"][0]
        assert found["token_ids"] == expected.tolist()
