"""Likelihoods against plain sums one at a time, answers against LLM.generate, and borders against the tokenizer."""

import random

import pytest
import torch
from engine.small import MODELS, model_of

from ayllu.engine.llm import LLM
from ayllu.errors import ContextTooLong, RequestError
from ayllu.evaluate.likelihood import likelihoods, next_logprobs
from ayllu.evaluate.subject import Ask, Subject
from ayllu.model.params import SamplingParams
from ayllu.model.step import EagerRunner


def slow(model, context, continuation):
    """log p and rank of each id of the continuation: the whole text through the whole model, alone."""
    ids = [*context, *continuation]
    with torch.inference_mode():
        logp = model(torch.tensor([ids]))[0].double().log_softmax(-1)
    places = range(len(context), len(ids))
    return [logp[i - 1, ids[i]].item() for i in places], all(int(logp[i - 1].argmax()) == ids[i] for i in places)


def some_pairs(n, seed=0):
    """Contexts of many lengths (1 too), some of them shared by several continuations."""
    rng = random.Random(seed)
    pairs = []
    while len(pairs) < n:
        context = [rng.randrange(3, 101) for _ in range(rng.choice([1, 2, 9, 23]))]
        for _ in range(rng.choice([1, 1, 4])):
            pairs.append((context, [rng.randrange(3, 101) for _ in range(rng.randint(1, 7))]))
    return pairs


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_likelihoods_equal_plain_sums(name, batch):
    """float32, sums in another order: 1e-4 of log-probabilities of about -5."""
    model, pairs = model_of(name), some_pairs(20)
    found = likelihoods(EagerRunner(model), pairs, batch)
    for (context, continuation), one in zip(pairs, found, strict=True):
        logprobs, is_greedy = slow(model, context, continuation)
        assert one.logprobs == pytest.approx(logprobs, abs=1e-4)
        assert one.is_greedy == is_greedy


def test_what_comes_next_equals_likelihoods_of_one_id():
    runner, context = EagerRunner(model_of("gqa")), [5, 6, 7]
    one_by_one = [x.total for x in likelihoods(runner, [(context, [id]) for id in (3, 50, 99)])]
    assert next_logprobs(runner, context, [3, 50, 99]) == pytest.approx(one_by_one, abs=1e-5)


def test_the_likeliest_continuation_is_called_greedy():
    model = model_of("gqa")
    context, continuation = [5, 6, 7], []
    for _ in range(4):
        with torch.inference_mode():
            continuation.append(int(model(torch.tensor([context + continuation]))[0, -1].argmax()))
    other = [*continuation[:-1], (continuation[-1] + 1) % 101]
    assert [x.is_greedy for x in likelihoods(EagerRunner(model), [(context, continuation), (context, other)])] == [1, 0]


def test_what_does_not_fit_or_is_empty_is_refused():
    runner = EagerRunner(model_of("gqa"))
    assert len(likelihoods(runner, [([5] * 90, [6] * 7)])) == 1           # 97 ids, of which 96 are read
    with pytest.raises(ContextTooLong, match="98 tokens"):
        likelihoods(runner, [([5] * 90, [6] * 8)])
    with pytest.raises(RequestError, match="no tokens"):
        likelihoods(runner, [([5], [])])


@pytest.fixture(scope="module")
def llm(tiny_checkpoint):
    return LLM.load(tiny_checkpoint)


PROMPTS = ["Once upon a time", "从前有一只", "The fox", "def add(", "x", "The bird and the river"]


def test_answers_equal_those_of_generate(llm):
    subject = Subject.of(llm, "tiny", batch=4)
    params = [SamplingParams(max_tokens=12, temperature=0, stop=("e",) if i % 2 else ()) for i in range(len(PROMPTS))]
    params[2] = SamplingParams(max_tokens=12, seed=5)
    asks = [Ask(tuple(subject.encode(p)), s) for p, s in zip(PROMPTS, params, strict=True)]
    found = subject.answer(asks)
    expected = llm.generate(PROMPTS, params)
    assert [a.text for a in found] == [r.text for r in expected]
    assert [a.ids for a in found] == [tuple(r.ids) for r in expected]
    assert [a.finish for a in found] == [r.finish_reason for r in expected]
    assert found == subject.answer(asks)


def test_beams_are_those_of_generate_and_end_at_a_stop_text(llm):
    subject = Subject.of(llm, "tiny", batch=4)
    params = SamplingParams(max_tokens=10, num_beams=3)
    asks = [Ask(tuple(subject.encode(p)), params) for p in PROMPTS]
    found, expected = subject.answer(asks), [llm.generate(p, params)[0] for p in PROMPTS]
    assert [a.text for a in found] == [r.text for r in expected]
    stop = found[0].text[3:5]
    stopped = subject.answer([Ask(asks[0].ids, params.model_copy(update={"stop": (stop,)}))])[0]
    assert stopped.text == found[0].text.partition(stop)[0]


@pytest.mark.parametrize(("text", "more"), [("Once upon a", " time"), ("Once upon a ", "time"), ("从前有", "一只"),
                                            ("", "The fox"), ("  ", "The")])
def test_a_pair_is_the_whole_text_cut_in_two(llm, text, more):
    subject = Subject.of(llm, "tiny")
    context, continuation = subject.encode_pair(text, more)
    assert context + continuation == subject.encode(text + more)
    assert context == subject.encode(text.rstrip())
    assert continuation
