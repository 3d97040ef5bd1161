"""Generation against its slow twin (tests/oracles/generate.py), which keeps no cache and knows one sequence only."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from ayllu.errors import ConfigError, ContextTooLong, RequestError
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.generate import Generation, generate, stream
from ayllu.model.init import initialise
from ayllu.model.llama import Llama
from ayllu.model.sample import SamplingParams
from ayllu.model.transformer import Transformer

_spec = importlib.util.spec_from_file_location("naive", Path(__file__).parents[1] / "oracles" / "generate.py")
naive = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(naive)

GREEDY = SamplingParams(temperature=0, max_tokens=30)


def small_model(**fields):
    shape = {"dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "hidden_dim": 64,
             "vocab_size": 101, "max_context": 256}
    model = Llama(LlamaConfig(**{**shape, **fields})).eval()
    initialise(model, 2, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    return model


def prompts_of(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 101, (n,), generator=generator).tolist() for n in lengths]


def ids_of(outputs):
    return [[output.ids for output in each] for each in outputs]


def test_greedy_equals_the_oracle_for_200_tokens():
    model, prompt = small_model(), prompts_of(7)[0]
    expected, _ = naive.naive_generate(model, prompt, 200)
    assert len(set(expected)) > 10                       # not one id over and over
    assert generate(model, [prompt], SamplingParams(temperature=0, max_tokens=200))[0][0].ids == expected


@pytest.mark.parametrize("fields", [{}, {"sliding_window": 6}, {"rope_scaling": {"kind": "yarn", "factor": 2.0}}])
def test_a_batch_of_different_lengths_equals_each_alone(fields):
    model, prompts = small_model(**fields), prompts_of(3, 25, 1, 12)
    got = ids_of(generate(model, prompts, GREEDY))
    assert got == [[naive.naive_generate(model, prompt, 30)[0]] for prompt in prompts]


@pytest.mark.parametrize("settings", [
    {"temperature": 1.0}, {"temperature": 0.6, "top_k": 8}, {"temperature": 2.0, "top_p": 0.7},
    {"temperature": 1.5, "min_p": 0.1}, {"temperature": 1.0, "repetition_penalty": 1.4, "top_k": 20},
    {"temperature": 0.0, "presence_penalty": 1.5, "frequency_penalty": 0.7},
])
def test_sampling_equals_the_oracle(settings):
    model, prompts = small_model(), prompts_of(4, 9)
    got = generate(model, prompts, SamplingParams(max_tokens=25, seed=42, **settings))
    assert ids_of(got) == [[naive.naive_generate(model, prompt, 25, seed=42, **settings)[0]] for prompt in prompts]


def test_samples_of_one_prompt_equal_the_oracle_and_differ():
    model, prompts = small_model(), prompts_of(5, 8)
    got = ids_of(generate(model, prompts, SamplingParams(max_tokens=20, seed=3, n=4)))
    assert got == [[naive.naive_generate(model, prompt, 20, temperature=1.0, seed=3, sample=i)[0] for i in range(4)]
                   for prompt in prompts]
    assert len({tuple(ids) for ids in got[0]}) == 4


def test_same_seed_same_ids_whatever_else_is_in_the_batch():
    model, prompts = small_model(), prompts_of(5, 14, 2)
    params = [SamplingParams(max_tokens=30, seed=11, temperature=0.9), SamplingParams(max_tokens=9, seed=1, top_k=3),
              SamplingParams(max_tokens=17, temperature=0)]
    together = ids_of(generate(model, prompts, params))
    assert together == [ids_of(generate(model, [prompt], p))[0] for prompt, p in zip(prompts, params, strict=True)]
    assert [len(each[0]) for each in together] == [30, 9, 17]


def test_a_drawn_seed_is_named_and_repeats_the_text():
    model, prompt = small_model(), prompts_of(4)
    first = generate(model, prompt, SamplingParams(max_tokens=20))[0][0]
    again = generate(model, prompt, SamplingParams(max_tokens=20, seed=first.seed))[0][0]
    other = generate(model, prompt, SamplingParams(max_tokens=20, seed=first.seed + 1))[0][0]
    assert first.ids == again.ids != other.ids


def test_stop_ids_end_a_row_and_the_others_go_on():
    model, prompts = small_model(), prompts_of(3, 25, 12)
    free = [naive.naive_generate(model, prompt, 30)[0] for prompt in prompts]
    stop = free[1][4]
    got = generate(model, prompts, GREEDY, eos_ids=[stop])
    expected = [naive.naive_generate(model, prompt, 30, stop_ids=[stop])[0] for prompt in prompts]
    assert [each[0].ids for each in got] == expected
    assert got[1][0].finish == "stop"
    assert len(got[1][0].ids) <= 5
    assert [each[0].finish for each in got] == ["stop" if stop in ids else "length" for ids in expected]
    ignoring = generate(model, prompts, SamplingParams(temperature=0, max_tokens=30, ignore_eos=True), eos_ids=[stop])
    assert ids_of(ignoring) == [[ids] for ids in free]
    own = generate(model, prompts, SamplingParams(temperature=0, max_tokens=30, stop_ids=(stop,), ignore_eos=True))
    assert [each[0].ids for each in own] == expected


def test_logprobs_are_the_models_own():
    model, prompt = small_model(), prompts_of(6)[0]
    params = SamplingParams(max_tokens=12, seed=5, temperature=0.5, top_k=4, logprobs=3)
    got = generate(model, [prompt], params)[0][0]
    _, expected = naive.naive_generate(model, prompt, 12, seed=5, temperature=0.5, top_k=4)
    assert got.logprobs == pytest.approx(expected, abs=1e-4)
    assert all(len(top) == 3 for top in got.top_logprobs)
    for token, logprob, top in zip(got.ids, got.logprobs, got.top_logprobs, strict=True):
        assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)
        assert dict(top).get(token, logprob) == logprob
    chosen_only = generate(model, [prompt], params.model_copy(update={"logprobs": 0}))[0][0]
    assert chosen_only.logprobs == got.logprobs
    assert chosen_only.top_logprobs is None


def test_streaming_gives_the_same_tokens_step_by_step():
    model, prompts = small_model(), prompts_of(3, 9)
    params = [SamplingParams(temperature=0, max_tokens=5), SamplingParams(temperature=0, max_tokens=8)]
    steps = list(stream(model, prompts, params))
    assert [len(step) for step in steps] == [2] * 5 + [1] * 3
    got = [[token.id for step in steps for token in step if token.prompt == i] for i in range(2)]
    assert got == [each[0].ids for each in generate(model, prompts, params)]
    assert [token.finish for token in steps[4]] == ["length", None]


def test_a_cancelled_row_leaves_and_the_others_are_not_disturbed():
    model, prompts = small_model(), prompts_of(3, 9)
    generation = Generation(model, prompts, GREEDY)
    generation.step()
    generation.cancel(0, 0)
    rest = [generation.step() for _ in range(29)]
    assert all([token.prompt for token in step] == [1] for step in rest)
    assert generation.step() == []
    assert [token.id for step in rest for token in step] == naive.naive_generate(model, prompts[1], 30)[0][1:]


def test_a_long_prompt_is_read_in_chunks(monkeypatch):
    model, prompts = small_model(), prompts_of(50, 31)
    whole = ids_of(generate(model, prompts, GREEDY))
    monkeypatch.setattr("ayllu.model.step.CHUNK", 8)
    assert ids_of(generate(model, prompts, GREEDY)) == whole


def test_without_max_tokens_the_context_is_filled_and_no_more():
    model, prompts = small_model(max_context=40), prompts_of(10, 39)
    got = generate(model, prompts, SamplingParams(temperature=0))
    assert [(len(each[0].ids), each[0].finish) for each in got] == [(30, "length"), (1, "length")]
    assert got[0][0].ids == naive.naive_generate(model, prompts[0], 30)[0]


def test_what_does_not_fit_is_refused_with_both_numbers():
    model = small_model(max_context=40)
    with pytest.raises(ContextTooLong, match=r"45 tokens.*takes 40"):
        generate(model, prompts_of(3, 45), GREEDY)
    with pytest.raises(ContextTooLong, match=r"20 tokens and max_tokens=30.*40.*at most 20"):
        generate(model, prompts_of(20), GREEDY)


@pytest.mark.parametrize(("prompts", "words"), [([], "no prompt"), ([[]], "no tokens"), ([[101]], "id 101"),
                                                ([[3, -1]], "id -1")])
def test_prompts_that_make_no_sense_are_refused(prompts, words):
    with pytest.raises(RequestError, match=words):
        generate(small_model(), prompts, GREEDY)


def test_settings_must_match_the_prompts():
    with pytest.raises(RequestError, match="2 prompts but 3 settings"):
        generate(small_model(), prompts_of(1, 2), [GREEDY] * 3)
    with pytest.raises(ConfigError, match="beam"):
        Generation(small_model(), prompts_of(1), SamplingParams(num_beams=2))


def test_a_forbidden_id_never_comes():
    model, prompt = small_model(), prompts_of(5)
    first = generate(model, prompt, GREEDY)[0][0].ids[0]
    got = generate(model, prompt, GREEDY.model_copy(update={"logit_bias": {first: -math.inf}}))[0][0].ids
    assert first not in got


@pytest.mark.parametrize("fields", [{}, {"positions": "rope", "norm_place": "pre"}, {"order": "literal"}])
def test_the_original_transformer_generates_too(fields):
    model = Transformer(TransformerConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=4, head_dim=8, hidden_dim=64,
                                          vocab_size=101, **fields)).eval()
    prompts = prompts_of(3, 14)
    assert ids_of(generate(model, prompts, GREEDY)) == [[naive.naive_generate(model, p, 30)[0]] for p in prompts]
