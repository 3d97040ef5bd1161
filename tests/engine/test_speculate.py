"""Guessing ahead changes how soon ids come: the same ids, or (drawn, with a draft model) the same distribution."""

import numpy as np
import pytest
import torch
from engine.small import ids_of, model_of, requests_of, run

from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.engine.sampling import ACCEPT, REDRAW, draw_by_draft, uniforms
from ayllu.engine.speculate import Ngrams
from ayllu.errors import ConfigError
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.params import SamplingParams
from ayllu.model.sample import draw

TIGHT = {"n_pages": 40, "page_size": 4, "token_budget": 30, "max_rows": 6}


def weaker(model):
    """A draft model that is often right: the same one, disturbed."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * parameter.std() * torch.randn_like(parameter)) if parameter.dim() == 2 else None
    return model


def engine_of(name, draft, n_guesses=4, **more):
    return Engine(model_of(name), EngineSettings(**{**TIGHT, **more}, n_guesses=n_guesses),
                  weaker(model_of(name)) if draft else None)


def mixed_requests():
    """Greedy, drawn and penalised ones, with log-probabilities, min_tokens and a stop id."""
    out = requests_of(10)
    for i, request in enumerate(requests_of(12, seed=5)):
        params = SamplingParams(temperature=4, top_p=0.95, seed=i, max_tokens=30, logprobs=i % 3 or None,
                                n=1 + i % 2, presence_penalty=0.5 * (i % 5 == 0), stop_ids=(7,))
        out.append(Request(request.ids, params, eos_ids=(2,), min_tokens=i % 7))
    return out


def guided(requests):
    """Those whose draws a draft model has a part in."""
    return {i for i, r in enumerate(requests) if r.params.temperature and not r.params.presence_penalty}


@pytest.mark.parametrize(("name", "draft", "deterministic"), [
    ("gqa", False, False), ("gqa", True, False), ("gqa", False, True), ("mistral", True, True)])
def test_the_ids_are_those_without_guesses(name, draft, deterministic):
    requests = mixed_requests()
    plain = run(engine_of(name, False, 0, deterministic=deterministic), requests)
    engine = engine_of(name, draft, deterministic=deterministic)
    got = run(engine, requests)
    if draft and not deterministic:
        plain = {key: row for key, row in plain.items() if key[0] not in guided(requests)}
        got = {key: got[key] for key in plain}
    assert ids_of(got) == ids_of(plain)
    for key, row in got.items():
        assert [token.finish for token in row] == [token.finish for token in plain[key]]
        assert [[i for i, _ in t.top] for t in row] == [[i for i, _ in t.top] for t in plain[key]]
    counts = engine.scheduler.counts
    assert 0 < counts.accepted_tokens < counts.drafted_tokens
    assert counts.preempted > 0
    assert engine.scheduler.pool.n_free == 40


@pytest.mark.parametrize("name", ["gqa", "mistral"])
def test_a_draft_that_is_the_model_is_always_right(name):
    """Its pages mirror the model's through shared prefixes, copies and preemption; else it would go astray."""
    engine = Engine(model_of(name), EngineSettings(**TIGHT, n_guesses=3), model_of(name))
    prompt = requests_of(1)[0].ids
    run(engine, [*requests_of(20, ignore_eos=True), Request(prompt, SamplingParams(n=3, max_tokens=9, top_k=1))])
    counts = engine.scheduler.counts
    assert counts.accepted_tokens == counts.drafted_tokens > 100
    assert counts.preempted > 0
    assert counts.cached_tokens > 100


def test_with_a_draft_drawn_ids_are_those_of_the_seed_whatever_else_is_in_the_batch():
    """Alone, among others in a pool so small that rows are preempted and guesses have no room, and with other numbers
    of guesses; penalised rows, which aren't guessed for, draw as without a draft."""
    requests = mixed_requests()
    engine = engine_of("gqa", True)
    got = ids_of(run(engine, requests))
    assert engine.scheduler.counts.preempted > 0
    for n_guesses, some in ((4, requests[10:13]), (1, requests[13:16]), (0, requests[16:19])):
        place = requests.index(some[0])
        alone = ids_of(run(engine_of("gqa", True, n_guesses, n_pages=400), some))
        assert alone == {(i - place, sample): ids for (i, sample), ids in got.items() if place <= i < place + 3}
    plain = ids_of(run(engine_of("gqa", False, 0), requests))
    assert set() < {key[0] for key in got if got[key] != plain[key]} <= guided(requests)


def test_a_draft_that_knows_the_distribution_is_right_as_often_as_the_two_overlap():
    """Drawn guesses of a model that is the same are always right, which a likeliest id as the guess would not be."""
    engine = Engine(model_of("gqa"), EngineSettings(n_guesses=3), model_of("gqa"))
    run(engine, [Request((5, 6, 7), SamplingParams(n=8, seed=3, max_tokens=30))])
    counts = engine.scheduler.counts
    assert counts.accepted_tokens == counts.drafted_tokens > 100


def test_draws_by_a_draft_follow_the_model_and_are_the_drafts_as_often_as_can_be():
    """Against the exact probabilities (chi-square, 5 sigma), which tell apart what a wrong rule would give."""
    torch.manual_seed(3)
    p_logits, q_logits = 1.5 * torch.randn(2, 6)
    n = 40_000
    keys = [np.arange(n, dtype=np.uint64), np.zeros(n, np.uint64), np.full(n, 7, np.uint64)]
    u = [torch.from_numpy(uniforms(keys[0], keys[1] + more, keys[2])) for more in (np.uint64(0), ACCEPT, REDRAW)]
    ids = draw_by_draft(p_logits.expand(n, -1), q_logits.expand(n, -1), u)
    p, q = p_logits.softmax(-1), q_logits.softmax(-1)
    overlap = torch.minimum(p, q).sum().item()
    counts = torch.bincount(ids, minlength=6)

    def square(wanted):
        return ((counts - n * wanted)**2 / (n * wanted)).sum().item()

    assert square(p) < 5 + 5 * (2 * 5)**0.5
    for wrong in (q, torch.minimum(p, q) + (1 - overlap) * p, torch.minimum(p, q) + (1 - overlap) * q):
        assert square(wrong) > 100                       # always taken; drawn again from all of p, or of q
    n_taken = (ids == draw(q_logits.expand(n, -1), u[0])).sum().item()
    assert abs(n_taken - n * overlap) < 5 * (n * overlap * (1 - overlap))**0.5
    assert 0.3 < overlap < 0.9


@pytest.mark.parametrize("has_draft", [False, True])
def test_drawn_ids_follow_the_models_distribution(has_draft):
    """Pairs of ids after a prompt that repeats itself, against their exact probabilities (chi-square, 5 sigma)."""
    torch.manual_seed(0)
    model, other = (build_model(LlamaConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=8, hidden_dim=16,
                                            vocab_size=5, max_context=64)).eval() for _ in range(2))
    prompt, n = (1, 2, 3, 1, 2, 3, 1, 2), 1000
    engine = Engine(model, EngineSettings(n_guesses=2, max_rows=100, token_budget=500), other if has_draft else None)
    tokens = {}
    for seed in range(3):
        got = run(engine, [Request(prompt, SamplingParams(n=n, seed=seed, max_tokens=4))])
        tokens.update({(seed, *key): [token.id for token in row] for key, row in got.items()})
    assert 100 < engine.scheduler.counts.accepted_tokens < engine.scheduler.counts.drafted_tokens - 100
    pairs = torch.zeros(5, 5)
    for ids in tokens.values():
        pairs[ids[1], ids[2]] += 1                       # of the second and third, which may both have been guessed
    expected = torch.zeros(5, 5)
    with torch.inference_mode():
        first = model(torch.tensor([prompt]))[0, -1].softmax(-1)
        for a in range(5):
            second = model(torch.tensor([[*prompt, a]]))[0, -1].softmax(-1)
            for b in range(5):
                expected[b] += first[a] * second[b] * model(torch.tensor([[*prompt, a, b]]))[0, -1].softmax(-1)
    expected *= 3 * n
    square = ((pairs - expected)**2 / expected).sum()
    assert square < 24 + 5 * (2 * 24)**0.5, square
    assert ((pairs - expected.T)**2 / expected.T).sum() > 100                 # the test can fail


def test_ngrams():
    ngrams = Ngrams()
    assert ngrams.guess([1, 2, 3], 3) == []
    assert ngrams.guess([1, 2, 3, 9, 1, 2], 3) == [3, 9, 1]
    assert ngrams.guess([1, 2, 3, 9, 1, 2, 4, 1, 2], 2) == [4, 1]             # the last time counts
    assert ngrams.guess([1, 2, 3, 9, 1, 2, 4, 1, 2, 3, 9], 1) == [1]          # and the longest match before that


def test_a_draft_of_another_vocabulary_is_refused():
    other = build_model(LlamaConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=8, hidden_dim=16,
                                    vocab_size=5, max_context=64))
    with pytest.raises(ConfigError, match="same tokenizer"):
        Engine(model_of("gqa"), EngineSettings(n_guesses=2), other)
