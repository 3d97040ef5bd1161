"""Beam search against transformers' on random models: ids, scores and order."""

import pytest
import torch
from transformers import LlamaConfig as HFConfig
from transformers import LlamaForCausalLM as HFLlama

from ayllu.errors import ConfigError, ContextTooLong
from ayllu.model.config import LlamaConfig
from ayllu.model.generate import generate
from ayllu.model.llama import Llama
from ayllu.model.sample import SamplingParams

NAMES = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
         "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
         "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
         "model.embed_tokens": "tok_embeddings", "lm_head": "output", "model.": ""}


@pytest.fixture(scope="module")
def pair():
    """The same small random model twice: ours and transformers'."""
    torch.manual_seed(0)
    theirs = HFLlama(HFConfig(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                              num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
                              rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.dim() == 2:
                parameter.mul_(7)
    ours = Llama(LlamaConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=48, vocab_size=61,
                             max_context=128)).eval()
    weights = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in NAMES.items():
            name = name.replace(old, new)
        weights[name] = tensor
    ours.load_state_dict(weights)
    ids = torch.randint(0, 61, (2, 9))
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)
    return ours, theirs


def prompts(count):
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(3, 61, (n % 7 + 2,), generator=generator).tolist() for n in range(count)]


@pytest.mark.parametrize("eos", [(2,), (7, 30), ()])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -1.0])
@pytest.mark.parametrize("early_stopping", [False, True, None])
def test_equals_transformers(pair, eos, length_penalty, early_stopping):
    ours, theirs = pair
    for beams, n, prompt in zip((2, 3, 5, 4), (1, 3, 2, 4), prompts(4), strict=True):
        params = SamplingParams(num_beams=beams, n=n, max_tokens=14, length_penalty=length_penalty,
                                early_stopping=early_stopping)
        got = generate(ours, [prompt], params, eos_ids=eos)[0]
        expected = theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), num_beams=beams, num_return_sequences=n,
            max_new_tokens=14, do_sample=False, length_penalty=length_penalty, eos_token_id=list(eos) or None,
            early_stopping="never" if early_stopping is None else early_stopping, pad_token_id=60,
            return_dict_in_generate=True, output_scores=True)
        for output, row in zip(got, expected.sequences[:, len(prompt):].tolist(), strict=True):
            assert output.ids == row[:len(output.ids)]
            assert set(row[len(output.ids):]) <= {60}
        assert [o.score for o in got] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


def test_the_rules_for_stopping_early_differ_as_they_do_in_transformers(pair):
    """Cases in which "False" gives up although a beam could still win at full length, which "never" waits for."""
    ours, theirs = pair
    ends, n_different = list(range(2, 12)), 0
    for prompt in prompts(5):
        found = []
        for early in (False, None, True):
            params = SamplingParams(num_beams=2, max_tokens=40, length_penalty=2.0, early_stopping=early)
            found.append(generate(ours, [prompt], params, eos_ids=ends)[0][0].ids)
            expected = theirs.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), num_beams=2, max_new_tokens=40,
                do_sample=False, length_penalty=2.0, early_stopping="never" if early is None else early,
                eos_token_id=ends, pad_token_id=60)
            assert found[-1] == expected[0, len(prompt):].tolist()[:len(found[-1])]
        n_different += found[0] != found[1]
    assert n_different                                   # else nothing was compared


def test_penalties_equal_transformers(pair):
    ours, theirs = pair
    for prompt in prompts(4):
        got = generate(ours, [prompt], SamplingParams(num_beams=3, max_tokens=15, repetition_penalty=1.5), [2])[0][0]
        expected = theirs.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), num_beams=3,
                                   max_new_tokens=15, do_sample=False, repetition_penalty=1.5, pad_token_id=60)
        assert got.ids == expected[0, len(prompt):].tolist()[:len(got.ids)]


def test_some_searches_end_by_the_end_id_and_others_by_length(pair):
    """The comparison above would say little if all rows ended the same way."""
    ends = [o.finish for prompt in prompts(12)
            for o in generate(pair[0], [prompt], SamplingParams(num_beams=4, n=4, max_tokens=14), [2, 9, 30])[0]]
    assert {"stop", "length"} == set(ends)


def test_more_beams_never_find_a_worse_full_length_text_than_greedy_here(pair):
    """With no end id and enough beams for the whole tree of two steps, the search is exact."""
    model, prompt = pair[0], prompts(1)[0]
    best = generate(model, [prompt], SamplingParams(num_beams=30, max_tokens=2, length_penalty=0.0))[0][0]
    with torch.inference_mode():
        first = model(torch.tensor([prompt]))[0, -1].log_softmax(-1)
        second = model(torch.tensor([[*prompt, i] for i in range(61)]))[:, -1].log_softmax(-1)
    total = first[:, None] + second
    assert best.ids == [int(total.argmax()) // 61, int(total.argmax()) % 61]
    assert best.score == pytest.approx(total.max().item(), abs=1e-4)


def test_logprobs_sum_to_the_score(pair):
    params = SamplingParams(num_beams=3, max_tokens=10, length_penalty=0.0, logprobs=0)
    got = generate(pair[0], [prompts(1)[0]], params, eos_ids=[2])[0][0]
    assert sum(got.logprobs) == pytest.approx(got.score, abs=1e-4)


def test_beams_and_samples_in_one_call(pair):
    each = [SamplingParams(num_beams=2, max_tokens=5), SamplingParams(temperature=0, max_tokens=5)]
    both = generate(pair[0], prompts(2), each, eos_ids=[2])
    assert both[0][0].ids == generate(pair[0], prompts(2)[:1], each[0], eos_ids=[2])[0][0].ids
    assert both[1][0].ids == generate(pair[0], prompts(2)[1:], each[1], eos_ids=[2])[0][0].ids


def test_what_cannot_be_is_refused(pair):
    with pytest.raises(ConfigError, match="lower num_beams"):
        generate(pair[0], prompts(1), SamplingParams(num_beams=31, max_tokens=3))
    with pytest.raises(ContextTooLong):
        generate(pair[0], [[3] * 128], SamplingParams(num_beams=2, max_tokens=3))
