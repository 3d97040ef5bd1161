"""The official clients of Anthropic and Ollama against a live server."""

import anthropic
import ollama
import pytest

CHAT = [{"role": "user", "content": "Tell me about the fox"}]


def message(claude, **options):
    return claude.messages.create(**{"model": "tiny", "max_tokens": 10, "messages": CHAT,
                                     "extra_body": {"temperature": 0}, **options})


def test_messages_whole_and_streamed_are_equal(claude):
    whole = message(claude, system="Be kind.")
    assert whole.stop_reason == ("max_tokens" if whole.usage.output_tokens == 10 else "end_turn")
    with claude.messages.stream(model="tiny", max_tokens=10, messages=CHAT, system="Be kind.",
                                extra_body={"temperature": 0}) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    usage = final.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == \
        claude.messages.count_tokens(model="tiny", messages=CHAT, system="Be kind.").input_tokens
    types = [event.type for event in message(claude, stream=True)]
    assert [t for t in types if t not in ("content_block_delta", "ping")] == [
        "message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]


def test_messages_stop_sequence_and_prefill(claude):
    full = message(claude, max_tokens=30).content[0].text
    stop = full[6:12]
    found = message(claude, max_tokens=30, stop_sequences=[stop])
    assert (found.content[0].text, found.stop_reason, found.stop_sequence) == \
        (full[:full.index(stop)], "stop_sequence", stop)
    parts = [{"role": "user", "content": [{"type": "text", "text": "Tell me about the fox",
                                           "cache_control": {"type": "ephemeral"}}]}]
    assert message(claude, messages=parts, max_tokens=30).content[0].text == full
    prefilled = [*CHAT, {"role": "assistant", "content": "The fox"}]
    assert claude.messages.count_tokens(model="tiny", messages=prefilled).input_tokens > \
        claude.messages.count_tokens(model="tiny", messages=CHAT).input_tokens
    assert message(claude, messages=prefilled).usage.output_tokens == 10


def test_messages_more_tokens_than_the_context_are_an_upper_bound(claude):
    found = message(claude, max_tokens=5000, extra_body={"temperature": 0, "top_k": 1})
    assert found.stop_reason in ("max_tokens", "end_turn")


def test_messages_errors_have_their_form(claude):
    with pytest.raises(anthropic.NotFoundError) as error:
        message(claude, model="claude-x")
    assert error.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match=r"tools\.0\.type"):
        message(claude, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    with pytest.raises(anthropic.BadRequestError, match="128"):
        message(claude, messages=[{"role": "user", "content": "fox " * 200}])
    assert [m.id for m in claude.models.list()] == ["tiny", "other"]


def test_ollama_chat_and_generate(llama):
    options = {"temperature": 0, "num_predict": 8}
    whole = llama.chat("tiny", CHAT, options=options)
    parts = list(llama.chat("tiny:latest", CHAT, options=options, stream=True))
    assert "".join(p.message.content for p in parts) == whole.message.content
    assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].done_reason == whole.done_reason == "length"
    assert whole.eval_count == 8
    assert whole.total_duration >= whole.eval_duration > 0
    raw = llama.generate("tiny", "The fox", raw=True, options=options, logprobs=True, top_logprobs=2)
    assert len(raw.logprobs) == 8
    streamed = list(llama.generate("tiny", "The fox", raw=True, options=options, stream=True))
    assert "".join(p.response for p in streamed) == raw.response
    assert llama.generate("tiny", "The fox", options=options).response != raw.response     # within the template
    assert llama.generate("tiny", "").done_reason == "load"
    stop = raw.response[2:5]
    assert llama.generate("tiny", "The fox", raw=True, options={**options, "stop": [stop]}).response == \
        raw.response[:raw.response.index(stop)]


def test_ollama_keep_alive_and_windows_of_penalties(llama):
    """What changes nothing is taken, what would change something unseen is an error."""
    def text(**options):
        return llama.generate(model="tiny", prompt="The fox", options={"temperature": 0, "num_predict": 12, **options},
                              keep_alive=0).response

    plain = text()
    assert llama.generate(model="tiny", keep_alive=0).done_reason == "load"          # it is there, and stays
    assert llama.ps().models
    assert text(repeat_last_n=64) == text(repeat_last_n=0, repeat_penalty=5.0) == plain
    penalised = text(repeat_penalty=5.0)
    assert penalised != plain
    assert text(repeat_penalty=5.0, repeat_last_n=-1) == text(repeat_penalty=5.0, repeat_last_n=100_000) == penalised
    with pytest.raises(ollama.ResponseError, match=r"options\.repeat_last_n=8 with a penalty"):
        text(repeat_penalty=5.0, repeat_last_n=8)
    with pytest.raises(ollama.ResponseError, match="repeat_last_n"):
        text(repeat_last_n=-2)


def test_ollama_models(llama):
    assert [m.model for m in llama.list().models] == ["tiny", "other"]
    assert llama.ps().models[0].context_length == 128
    shown = llama.show("tiny")
    assert shown.modelinfo["llama.context_length"] == 128
    assert "[assistant]" in shown.template
    found = llama.embed("tiny", ["the fox", "the river"])
    assert len(found.embeddings) == 2
    assert llama.embeddings("tiny", "the fox").embedding == pytest.approx(found.embeddings[0], abs=1e-6)


def test_ollama_errors_have_their_form(llama):
    with pytest.raises(ollama.ResponseError, match="not served here") as error:
        llama.chat("mistral", CHAT)
    assert error.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="format"):
        llama.chat("tiny", CHAT, format={"type": "nonsense"})
    with pytest.raises(ollama.ResponseError, match="num_ctx=4"):
        llama.chat("tiny", CHAT, options={"num_ctx": 4})
    with pytest.raises(ollama.ResponseError, match="mirostat"):
        llama.chat("tiny", CHAT, options={"mirostat": 2})
