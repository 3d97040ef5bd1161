"""The model that `ayllu chat` and `ayllu serve` use by default: it answers, in the question's language, and stops."""

import re

import pytest

from ayllu import LLM
from ayllu.cli import chat, serve
from ayllu.server.replicas import Replicated


@pytest.fixture(scope="module")
def llm() -> LLM:
    """The bundled chat model."""
    return LLM.load("ayllu-mini-chat")


@pytest.mark.parametrize(("asked", "language"), [("Who are you?", "en"), ("你是谁？", "zh")])
def test_it_says_what_it_is_and_stops(llm, asked, language):
    result = llm.chat([{"role": "user", "content": asked}], temperature=0, max_tokens=100)
    assert result.finish_reason == "stop"
    assert "ayllu-mini-chat" in result.text
    assert ("小语言模型" in result.text) == (language == "zh")


def test_by_default_it_stops_whatever_it_is_asked(llm):
    asked = ["Tell me a story about a fox.", "讲个故事吧。", "What is 2 + 3?", "翻译成英文：我很高兴。", "Thanks!"]
    for seed, question in enumerate(asked):
        result = llm.chat([{"role": "user", "content": question}], seed=seed)
        assert result.finish_reason == "stop", (question, result.text)
        assert not re.search(r"<\|im_", result.text)


def test_it_is_the_default_of_chat_and_serve():
    assert chat.chat.__defaults__[0] == serve.serve.__defaults__[0] == "ayllu-mini-chat"
    assert Replicated().model == "ayllu-mini-chat"
