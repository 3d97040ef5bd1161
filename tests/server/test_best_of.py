"""`best_of`: more answers are drawn than given, and those of the highest mean log-probability per token come back."""

import httpx
import pytest

BODY = {"prompt": ["The fox and", "A stone in"], "max_tokens": 9, "temperature": 1.0, "seed": 5,
        "return_token_ids": True}


def post(live, **body):
    return httpx.post(f"{live.url}/v1/completions", json={**BODY, **body}, timeout=60)


def test_the_best_of_those_drawn_are_given(live):
    every = post(live, n=5, logprobs=0).json()
    found = post(live, n=2, best_of=5).json()
    expected = []
    for prompt in range(2):
        group = every["choices"][5 * prompt:5 * prompt + 5]
        means = [sum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["token_logprobs"]) for c in group]
        expected += [group[i]["token_ids"] for i in sorted(range(5), key=lambda i: -means[i])[:2]]
    assert [c["token_ids"] for c in found["choices"]] == expected
    assert [c["index"] for c in found["choices"]] == [0, 1, 2, 3]
    assert found["choices"][2]["prompt_token_ids"] == every["choices"][5]["prompt_token_ids"]
    assert all(c["logprobs"] is None for c in found["choices"])          # they were not asked for
    assert found["usage"] == every["usage"]              # what was drawn is paid for


def test_best_of_one_alone_changes_nothing(live):
    assert post(live, best_of=1).json()["choices"] == post(live).json()["choices"]


@pytest.mark.parametrize("body", [{"n": 3, "best_of": 2}, {"best_of": 2, "stream": True}, {"best_of": 10_000}])
def test_what_cannot_be_is_named(live, body):
    found = post(live, **body)
    assert (found.status_code, found.json()["error"]["param"]) == (400, "best_of"), found.text
