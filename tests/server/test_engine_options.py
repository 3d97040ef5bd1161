"""What the engine does differently by option gives the same answers over HTTP."""

import httpx
import pytest
from server.live import serving

BODY = {"prompt": "The fox and the fox and the fox", "max_tokens": 40, "temperature": 0, "ignore_eos": True,
        "return_token_ids": True}


@pytest.mark.parametrize("options", [{"engine": {"n_guesses": 4}}, {"engine": {"n_guesses": 3}, "draft": True},
                                     {"engine": {"deterministic": True}}], ids=["repetition", "draft", "bits"])
def test_the_answers_are_the_same(live, chat_checkpoint, options):
    expected = httpx.post(f"{live.url}/v1/completions", json=BODY, timeout=60).json()
    draft = {"draft": str(chat_checkpoint)} if options.get("draft") else {}
    with serving(chat_checkpoint, engine=options["engine"], **draft) as other:
        found = httpx.post(f"{other.url}/v1/completions", json=BODY, timeout=60).json()
        metrics = httpx.get(f"{other.url}/metrics").text
    assert found["choices"][0]["token_ids"] == expected["choices"][0]["token_ids"]
    guessed = next(float(x.split()[1]) for x in metrics.splitlines() if x.startswith("ayllu_guessed_tokens_total"))
    assert (guessed > 0) == ("n_guesses" in options["engine"])
