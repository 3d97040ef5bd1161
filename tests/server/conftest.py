"""A server of a tiny chat model, and the official clients of whichever server the fixture `live` of a file is."""

from collections.abc import Iterator
from typing import Any

import pytest
from server.live import Live, serving

STRICT = {"api_key": "none", "max_retries": 0, "_strict_response_validation": True}


@pytest.fixture(scope="session")
def live(chat_checkpoint) -> Iterator[Live]:
    """Shared by all tests that don't change it."""
    with serving(chat_checkpoint, aliases=("other",)) as found:
        yield found


@pytest.fixture(scope="module")
def client(live) -> Iterator[Any]:
    import openai
    with openai.OpenAI(base_url=f"{live.url}/v1", **STRICT) as found:
        yield found


@pytest.fixture(scope="module")
def claude(live) -> Iterator[Any]:
    import anthropic
    with anthropic.Anthropic(base_url=live.url, **STRICT) as found:
        yield found


@pytest.fixture(scope="module")
def llama(live) -> Any:
    import ollama
    return ollama.Client(host=live.url)
