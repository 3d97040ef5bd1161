"""The official client against a live server, with strict validation of every answer."""

import asyncio

import openai
import pytest

CHAT = [{"role": "user", "content": "Tell me about the fox"}]


@pytest.fixture(scope="module")
def lenient(live):
    """Where the client's own types are narrower than what OpenAI's servers send (nulls, base64)."""
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def chat(client, **options):
    return client.chat.completions.create(**{"model": "tiny", "messages": CHAT, "max_tokens": 12, "seed": 1, **options})


def test_chat_whole_and_streamed_are_equal(client):
    whole = chat(client, logprobs=True, top_logprobs=2)
    chunks = list(chat(client, logprobs=True, top_logprobs=2, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert [i for i, c in enumerate(chunks) if c.choices and c.choices[0].delta.role] == [0]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    entries = [e for c in chunks if c.choices and c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert [e.token for e in entries] == [e.token for e in whole.choices[0].logprobs.content]
    # the second call finds its prompt in the cache and reads less of it at once: float32 sums in another order
    expected = [e.logprob for e in whole.choices[0].logprobs.content]
    assert [e.logprob for e in entries] == pytest.approx(expected, abs=1e-5)
    assert all(len(e.top_logprobs) == 2 for e in entries)
    assert b"".join(bytes(e.bytes) for e in entries).decode(errors="replace").lstrip() == text.lstrip()
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_several_answers(client):
    found = chat(client, n=3, temperature=1.5)
    assert [c.index for c in found.choices] == [0, 1, 2]
    assert len({c.message.content for c in found.choices}) == 3
    texts = ["", "", ""]
    for chunk in chat(client, n=3, temperature=1.5, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [c.message.content for c in found.choices]
    greedy = chat(client, n=2, temperature=0)
    assert greedy.choices[0].message.content == greedy.choices[1].message.content
    assert greedy.usage.prompt_tokens == found.usage.prompt_tokens


def test_cached_tokens(client):
    long = [{"role": "user", "content": "a b c d e f g h " * 4}]
    first, second = chat(client, messages=long), chat(client, messages=long)
    assert second.usage.prompt_tokens_details.cached_tokens > first.usage.prompt_tokens_details.cached_tokens
    assert second.choices[0].message.content == first.choices[0].message.content


def test_stop_string_in_text_and_stream(client):
    full = chat(client, temperature=0, max_tokens=30, logprobs=True)
    text = full.choices[0].message.content
    stop = text[8:14]
    cut = text[:text.index(stop)]
    whole = chat(client, temperature=0, max_tokens=30, stop=[stop], logprobs=True)
    assert whole.choices[0].message.content == cut
    assert whole.choices[0].finish_reason == "stop"
    told = b"".join(bytes(e.bytes) for e in whole.choices[0].logprobs.content)
    assert cut.startswith(told.decode(errors="replace").rstrip("\N{REPLACEMENT CHARACTER}"))
    assert "".join(c.choices[0].delta.content or "" for c in
                   chat(client, temperature=0, max_tokens=30, stop=stop, stream=True)) == cut


def test_parameters_change_what_they_should(client):
    ids = chat(client, temperature=0, extra_body={"return_token_ids": True}).choices[0].token_ids
    biased = chat(client, temperature=0, logit_bias={str(ids[0]): -100}, extra_body={"return_token_ids": True})
    assert ids[0] not in biased.choices[0].token_ids
    forced = chat(client, temperature=0, logit_bias={"300": 100}, extra_body={"return_token_ids": True})
    assert set(forced.choices[0].token_ids) == {300}
    stopped = chat(client, temperature=0, extra_body={"stop_token_ids": [ids[2]], "return_token_ids": True})
    assert stopped.choices[0].token_ids == ids[:ids.index(ids[2]) + 1]
    assert stopped.choices[0].finish_reason == "stop"
    kept = chat(client, temperature=0, extra_body={"stop_token_ids": [ids[2]], "min_tokens": 8,
                                                   "return_token_ids": True})
    assert len(kept.choices[0].token_ids) >= 8
    eos = chat(client, temperature=0, logit_bias={"2": 100})
    assert (eos.choices[0].message.content, eos.choices[0].finish_reason) == ("", "stop")
    ignored = chat(client, temperature=0, logit_bias={"2": 100}, extra_body={"ignore_eos": True})
    assert (ignored.usage.completion_tokens, ignored.choices[0].finish_reason) == (12, "length")
    assert chat(client, seed=5).choices[0].message.content == chat(client, seed=5).choices[0].message.content
    assert chat(client, seed=5).choices[0].message.content != chat(client, seed=6).choices[0].message.content
    assert chat(client, seed=-3).choices[0].message.content
    assert chat(client, extra_body={"top_k": 1}).choices[0].message.content == \
        chat(client, temperature=0).choices[0].message.content


def test_continue_final_message(client):
    begun = [*CHAT, {"role": "assistant", "content": "The fox"}]
    found = chat(client, messages=begun, temperature=0, extra_body={"continue_final_message": True,
                                                                    "return_token_ids": True})
    new_turn = chat(client, messages=begun, temperature=0, extra_body={"return_token_ids": True})
    assert found.usage.prompt_tokens < new_turn.usage.prompt_tokens
    with pytest.raises(openai.BadRequestError, match="continue_final_message"):
        chat(client, extra_body={"continue_final_message": True})


def test_completions_with_echo_and_prompt_logprobs(lenient):
    client = lenient
    found = client.completions.create(model="tiny", prompt="The fox", max_tokens=4, temperature=0, echo=True,
                                      logprobs=2)
    choice = found.choices[0]
    assert choice.text.startswith("The fox")
    logprobs = choice.logprobs
    n = found.usage.prompt_tokens + found.usage.completion_tokens
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == n
    assert logprobs.token_logprobs[0] is None
    assert all(p <= 0 for p in logprobs.token_logprobs[1:])
    for token, p, top in list(zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True))[1:]:
        assert top[token] == p
        assert 2 <= len(top) <= 3
    streamed = list(client.completions.create(model="tiny", prompt="The fox", max_tokens=4, temperature=0, echo=True,
                                              logprobs=2, stream=True))
    assert "".join(c.choices[0].text for c in streamed) == choice.text
    assert [t for c in streamed for t in c.choices[0].logprobs.tokens] == logprobs.tokens
    assert [o for c in streamed for o in c.choices[0].logprobs.text_offset] == logprobs.text_offset
    only = client.completions.create(model="tiny", prompt="The fox", max_tokens=0, echo=True, logprobs=1)
    assert only.choices[0].text == "The fox"
    assert only.usage.completion_tokens == 0
    assert only.choices[0].logprobs.token_logprobs[1:] == pytest.approx(
        logprobs.token_logprobs[1:found.usage.prompt_tokens], abs=1e-5)


def test_prompts_as_texts_and_ids(client, live):
    tokenizer = live.served.tokenizer
    texts = ["The fox", "the river and"]
    ids = [tokenizer.encode(text, bos=tokenizer.add_bos) for text in texts]
    options = {"model": "tiny", "max_tokens": 5, "temperature": 0, "n": 2}
    by_text = client.completions.create(prompt=texts, **options)
    by_ids = client.completions.create(prompt=ids, **options)
    assert [c.text for c in by_text.choices] == [c.text for c in by_ids.choices]
    assert [c.index for c in by_ids.choices] == [0, 1, 2, 3]
    assert by_ids.choices[0].text == by_ids.choices[1].text
    assert client.completions.create(prompt=ids[1], **options).choices[0].text == by_ids.choices[2].text
    assert by_ids.usage.prompt_tokens == sum(map(len, ids))


def test_responses(client):
    options = {"model": "tiny", "input": "Tell me", "instructions": "Be kind.", "max_output_tokens": 8,
               "temperature": 0, "store": False, "include": ["message.output_text.logprobs"], "top_logprobs": 1}
    whole = client.responses.create(**options)
    assert whole.status == "incomplete"
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert whole.usage.output_tokens == 8
    events = list(client.responses.create(**options, stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert [events[0].type, events[1].type, events[-1].type] == ["response.created", "response.in_progress",
                                                                 "response.incomplete"]
    deltas = [e for e in events if e.type == "response.output_text.delta"]
    assert "".join(e.delta for e in deltas) == whole.output_text == events[-1].response.output_text
    assert len(whole.output[0].content[0].logprobs) == sum(len(e.logprobs) for e in deltas)
    items = [{"role": "user", "content": [{"type": "input_text", "text": "Tell me"}]}]
    again = client.responses.create(**{**options, "input": items})
    assert again.output_text == whole.output_text


def test_embeddings(client, lenient):
    found = lenient.embeddings.create(model="tiny", input=["the fox", "the river"])       # base64 by itself
    plain = client.embeddings.create(model="tiny", input="the fox", encoding_format="float")
    assert len(found.data) == 2
    assert sum(x * x for x in found.data[0].embedding) == pytest.approx(1, abs=1e-5)     # float32 rounding
    assert found.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert found.data[0].embedding != found.data[1].embedding
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model="tiny", input="the fox", dimensions=7)
    assert error.value.param == "dimensions"


def test_models(client):
    assert [m.id for m in client.models.list().data] == ["tiny", "other"]
    assert client.models.retrieve("other").id == "other"
    assert chat(client, model="other").model == "other"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt-4")
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        chat(client, model="gpt-4")


@pytest.mark.parametrize(("options", "param"), [
    ({"temperature": -1}, "temperature"), ({"n": 99}, "n"), ({"stop": ["x"] * 40}, "stop"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"response_format": {"type": "json_schema"}}, "response_format"), ({"store": True}, "store"),
    ({"logit_bias": {"x": 1}}, "logit_bias"), ({"top_logprobs": 3}, "top_logprobs"),
    ({"extra_body": {"temprature": 1}}, "temprature"), ({"extra_body": {"bad_words": ["x"]}}, "bad_words"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
     "messages.0.content.0"),
])
def test_what_cant_be_honoured_is_named(client, options, param):
    with pytest.raises(openai.BadRequestError) as error:
        chat(client, **options)
    assert error.value.param == param
    assert error.value.type == "invalid_request_error"


def test_neutral_values_pass(client):
    assert chat(client, tools=[], store=False, response_format={"type": "text"}, modalities=["text"], user="x",
                service_tier="auto", metadata={"a": "b"}, parallel_tool_calls=True)


def test_a_prompt_that_is_too_long_names_both_numbers(client):
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=r"\d+ tokens and the model's context takes 128") as error:
            chat(client, messages=[{"role": "user", "content": "fox " * 200}], stream=stream)
        assert error.value.code == "context_length_exceeded"


def test_many_at_once_are_as_alone(live):
    async def ask(client, seed):
        found = await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=10, seed=seed)
        return found.choices[0].message.content

    async def both():
        async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
            together = await asyncio.gather(*(ask(client, seed) for seed in range(20)))
            return together, [await ask(client, seed) for seed in (0, 7, 19)]

    together, alone = asyncio.run(both())
    assert [together[0], together[7], together[19]] == alone
