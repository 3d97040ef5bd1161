"""The text face: streams, batches, stop strings, chats and scores, over a tiny checkpoint with a real tokenizer."""

import math

import pytest
import torch

from ayllu.engine.llm import LLM, Candidate, NextToken
from ayllu.errors import ConfigError, ContextTooLong, RequestError
from ayllu.model.generate import generate
from ayllu.model.params import SamplingParams


@pytest.fixture(scope="module")
def llm(tiny_checkpoint):
    return LLM.load(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def chatty(chat_checkpoint):
    return LLM.load(chat_checkpoint, device="cpu")


def test_a_stream_is_the_text_of_the_ids(llm):
    stream = llm.stream("Once upon a time", temperature=0, max_tokens=40)
    assert stream.result is None
    pieces = list(stream)
    assert all(pieces)
    prompt = llm.encode("Once upon a time")
    ids = generate(llm.model, [prompt], SamplingParams(temperature=0, max_tokens=40), (2,))[0][0].ids
    assert stream.result.ids == ids
    whole = llm.tokenizer.decode(prompt + ids, skip_special=True)
    assert llm.tokenizer.decode(prompt, skip_special=True) + "".join(pieces) == whole
    assert stream.result.text == "".join(pieces)


def test_the_prompt_begins_with_bos(llm):
    assert llm.encode("fox")[0] == llm.tokenizer.bos_id
    assert llm.encode("<s>fox")[:2] != [1, 1]            # text typed by a user is text


def test_generate_keeps_the_order_of_prompts_whatever_their_length(llm):
    prompts = ["The fox and the bird walked along the river", "a", "我喜欢阅读和编程", "Once upon"] * 5
    together = llm.generate(prompts, temperature=0, max_tokens=12)
    assert [r.prompt for r in together] == list(range(20))
    alone = [llm.generate(p, temperature=0, max_tokens=12)[0] for p in prompts[:4]]
    assert [r.text for r in together] == [r.text for r in alone] * 5
    assert [r.prompt_tokens for r in alone] == [len(llm.encode(p)) for p in prompts[:4]]


def test_several_samples_of_each_prompt(llm):
    results = llm.generate(["The fox", "小狐狸"], n=3, seed=4, max_tokens=10)
    assert [(r.prompt, r.sample) for r in results] == [(p, s) for p in range(2) for s in range(3)]
    again = llm.generate("小狐狸", n=3, seed=4, max_tokens=10)
    assert [r.text for r in again] == [r.text for r in results[3:]]
    assert len({r.text for r in again}) == 3


def test_ids_are_a_prompt_too(llm):
    ids = llm.encode("The fox")
    by_ids, by_text = (llm.generate(prompt, temperature=0, max_tokens=5)[0] for prompt in (ids, "The fox"))
    assert by_ids.ids == by_text.ids
    assert len(llm.generate([ids, ids], temperature=0, max_tokens=5)) == 2


def test_a_stop_string_ends_the_text_before_it(llm):
    free = llm.generate("Once upon a time", temperature=0, max_tokens=60)[0]
    stop = free.text[6:9]
    assert stop
    assert free.text.find(stop) == free.text.index(stop)
    stopped = llm.generate("Once upon a time", temperature=0, max_tokens=60, stop=(stop,))[0]
    assert stopped.text == free.text[:free.text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert len(stopped.ids) < len(free.ids)
    streamed = llm.stream("Once upon a time", temperature=0, max_tokens=60, stop=(stop,))
    assert "".join(streamed) == stopped.text
    assert streamed.result.finish_reason == "stop"


def test_an_end_id_is_in_the_ids_and_not_in_the_text(llm):
    free = llm.generate("The bird", temperature=0, max_tokens=20)[0]
    end = free.ids[5]
    stopped = llm.generate("The bird", temperature=0, max_tokens=20, stop_ids=(end,))[0]
    cut = free.ids.index(end)
    assert (stopped.ids, stopped.finish_reason) == (free.ids[:cut + 1], "stop")
    assert stopped.text == llm.generate("The bird", temperature=0, max_tokens=cut)[0].text
    assert free.finish_reason == "length"


def test_closing_a_stream_keeps_what_came(llm):
    stream = llm.stream("The fox", temperature=0, max_tokens=50)
    first = next(stream)
    stream.close()
    assert list(stream) == []
    assert (stream.result.text, stream.result.finish_reason) == (first, "cancelled")


def test_timing_and_seed_are_told(llm):
    result = llm.generate("The fox", max_tokens=10)[0]
    assert 0 < result.timing.first_token_s <= result.timing.total_s
    assert result.timing.tokens_per_s(10) > 0
    assert result.timing.tokens_per_s(1) is None
    assert llm.generate("The fox", max_tokens=10, seed=result.seed)[0].text == result.text


def test_beams_give_text_and_scores(llm):
    results = llm.generate("The fox", num_beams=4, n=2, max_tokens=10)
    assert results[0].score >= results[1].score
    assert results[0].text != results[1].text
    assert results[0].seed is None
    with pytest.raises(ConfigError, match="stop strings"):
        llm.generate("The fox", num_beams=2, stop=("x",), max_tokens=3)


def test_logprobs_come_with_the_text(llm):
    result = llm.generate("The fox", temperature=0, max_tokens=6, logprobs=2)[0]
    assert len(result.logprobs) == len(result.top_logprobs) == 6
    assert all(top[0][0] == token for token, top in zip(result.ids, result.top_logprobs, strict=True))


def test_without_max_tokens_the_answer_fits_the_context(llm):
    prompt = [1] + [50] * 120
    assert len(llm.generate(prompt, temperature=0, ignore_eos=True)[0].ids) == 7
    with pytest.raises(ContextTooLong, match="121 tokens and max_tokens=20"):
        llm.generate(prompt, max_tokens=20)
    with pytest.raises(ContextTooLong, match="has 130 tokens"):
        llm.stream([1] * 130)


def test_settings_are_checked_and_near_names_told(llm):
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        llm.generate("a", temperatur=1)
    with pytest.raises(ConfigError, match="both given"):
        llm.generate("a", SamplingParams(), temperature=1)
    with pytest.raises(ConfigError, match="a stream is one text"):
        llm.stream("a", n=2)
    with pytest.raises(ConfigError, match="less than or equal to 1"):
        llm.stream("a", top_p=3)


def test_next_tokens_are_the_distribution(llm):
    found = llm.next("The fox", k=400)
    assert isinstance(found[0], NextToken)
    assert sum(t.probability for t in found) == pytest.approx(1, abs=1e-4)
    with torch.inference_mode():
        p = llm.model(torch.tensor([llm.encode("The fox")]))[0, -1].softmax(-1)
    assert [t.id for t in found[:5]] == p.topk(5).indices.tolist()
    assert all(t.piece == llm.tokenizer.id_to_piece(t.id) for t in found)


def test_candidates_of_several_tokens(llm):
    found = llm.next("我喜欢", candidates=["阅读", "编程", "旅行", "音乐"])
    assert isinstance(found[0], Candidate)
    assert {c.text for c in found} == {"阅读", "编程", "旅行", "音乐"}
    assert sum(c.share for c in found) == pytest.approx(1)
    assert [c.logprob for c in found] == sorted((c.logprob for c in found), reverse=True)
    for c in found:
        prompt, joint = llm.encode("我喜欢"), llm.encode("我喜欢" + c.text)
        if joint[:len(prompt)] == prompt:
            with torch.inference_mode():
                logp = llm.model(torch.tensor([joint]))[0].log_softmax(-1)
            expected = sum(logp[i - 1, joint[i]].item() for i in range(len(prompt), len(joint)))
            assert c.logprob == pytest.approx(expected, abs=1e-4)
            assert c.n_tokens == len(joint) - len(prompt)
        assert c.is_merged == (joint[:len(prompt)] != prompt)
        assert math.isfinite(c.logprob)


def test_a_chat_follows_the_template(chatty):
    assert chatty.has_chat_template
    messages = [{"role": "user", "content": "Hello"}]
    answer = chatty.chat(messages, temperature=0, max_tokens=8)
    expected = chatty.generate([1, *chatty.tokenizer.encode("[user]Hello\n[assistant]")], temperature=0, max_tokens=8)
    assert answer.ids == expected[0].ids
    assert "".join(chatty.stream_chat(messages, temperature=0, max_tokens=8)) == answer.text


def test_without_a_template_a_chat_is_a_transcript_that_ends_at_the_next_turn(llm):
    assert not llm.has_chat_template
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    answer = llm.chat(messages, temperature=0, max_tokens=8)
    assert answer.ids == llm.generate("Be kind.\n\nUser: Hello\nAssistant:", temperature=0, max_tokens=8)[0].ids
    assert answer.text == answer.text.lstrip()
    with pytest.raises(RequestError, match="role 'narrator'"):
        llm.chat([{"role": "narrator", "content": "x"}])
