"""The engine against its slow twin, generation over the dense cache: the same ids, whatever else is in the batch."""

import pytest
import torch
from engine.small import MODELS, TIGHT, ids_of, model_of, requests_of, run

from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.engine.runner import make_runner
from ayllu.errors import ContextTooLong, Overloaded, RequestError
from ayllu.model.build import build_model
from ayllu.model.config import RopeScaling
from ayllu.model.generate import generate
from ayllu.model.params import SamplingParams


@pytest.mark.parametrize("runner", ["eager", "auto"])
@pytest.mark.parametrize("name", MODELS)
def test_greedy_ids_are_those_of_the_dense_cache(name, runner):
    """Two dozen requests that come and go, in chunks, with prefixes shared and rows preempted."""
    requests = requests_of(24)
    want = {(i, 0): generate(model_of(name), [r.ids], r.params, r.eos_ids)[0][0] for i, r in enumerate(requests)}
    engine = Engine(make_runner(model_of(name), runner), TIGHT)
    got = run(engine, requests)
    assert ids_of(got) == {key: output.ids for key, output in want.items()}
    assert [row[-1].finish for row in got.values()] == [want[key].finish for key in got]
    counts = engine.scheduler.counts
    assert counts.cached_tokens > 50
    assert counts.preempted > 0
    assert engine.scheduler.pool.n_free == 30
    assert not engine._places
    assert not engine._requests


def test_samples_share_their_prompts_pages_and_are_those_of_the_dense_cache():
    model = model_of("gqa")
    prompt = tuple(range(3, 40))
    params = SamplingParams(n=5, seed=11, max_tokens=12, temperature=0.9, top_p=0.9)
    want = generate(model, [prompt], params)[0]
    engine = Engine(model, TIGHT)
    engine.submit(Request(prompt, params))
    held, tokens = [], {}
    while not engine.is_idle:
        for token in engine.step():
            tokens.setdefault(token.sample, []).append(token.id)
        held.append(30 - engine.scheduler.pool.n_free)
    assert [tokens[i] for i in range(5)] == [output.ids for output in want]
    assert max(held) <= 10 + 5 * 4                       # ten pages of prompt once, and each answer's own
    assert engine.scheduler.counts.preempted == 0


def test_prompt_logprobs_and_logprobs():
    """Those of the plain model, also when the prompt is read in chunks."""
    model = model_of("gqa")
    prompt = tuple(range(3, 40))
    engine = Engine(model, TIGHT)
    request = Request(prompt, SamplingParams(temperature=0, max_tokens=4, logprobs=2), prompt_logprobs=3)
    for _ in range(2):                                   # the second time, its pages are in the cache
        tokens = run(engine, [request])[0, 0]
        start = tokens[0].start
        ids = torch.tensor([[*prompt, *[t.id for t in tokens]]])
        with torch.inference_mode():
            want = model(ids)[0].log_softmax(-1)
        assert start.prompt_tokens == 37
        assert start.cached_tokens == 0                  # logits of cached ids are not computed, so none are taken
        assert start.prompt_logprobs[0] is None
        places = torch.arange(36)
        torch.testing.assert_close(torch.tensor(start.prompt_logprobs[1:]), want[places, ids[0, 1:37]], atol=2e-5,
                                   rtol=1e-4)
        assert [[i for i, _ in top] for top in start.prompt_top[1:]] == want[:36].topk(3).indices.tolist()
        torch.testing.assert_close(torch.tensor([t.logprob for t in tokens]), want[36:40].amax(-1), atol=2e-5,
                                   rtol=1e-4)
        assert [[i for i, _ in t.top] for t in tokens] == want[36:40].topk(2).indices.tolist()


def test_the_prefix_cache_is_told_and_tenants_share_nothing():
    engine = Engine(model_of("gqa"), TIGHT)
    prompt = tuple(range(3, 40))
    params = SamplingParams(temperature=0, max_tokens=3)
    found = [run(engine, [Request(prompt, params, tenant=tenant)])[0, 0][0].start.cached_tokens
             for tenant in ("a", "a", "b")]
    assert found == [0, 36, 0]


def test_cancelled_requests_and_samples_free_their_pages():
    engine = Engine(model_of("gqa"), TIGHT)
    running = engine.submit(Request(tuple(range(3, 30)), SamplingParams(n=2, max_tokens=60)))
    queued = [engine.submit(Request((5, 6), SamplingParams(max_tokens=50))) for _ in range(3)]
    for _ in range(4):
        engine.step()
    engine.cancel(queued[2])
    engine.cancel(running, 1)
    events = [t for t in engine.step() if t.finish]
    assert [(t.request, t.sample, t.id, t.finish) for t in events] == [
        (queued[2], 0, None, "cancelled"), (running, 1, None, "cancelled")]
    for number in (running, *queued):
        engine.cancel(number)
    engine.cancel(running)                               # is over: nothing happens
    assert engine.scheduler.pool.n_free == 30
    assert len(engine.step()) == 3
    assert engine.is_idle
    assert not engine._places
    assert not engine._requests


def test_what_cannot_be_done_is_refused():
    engine = Engine(model_of("gqa"), EngineSettings(n_pages=8, page_size=4, token_budget=9, max_rows=2, max_waiting=2))
    for request, error in [
            (Request((1,) * 96), ContextTooLong), (Request((1,), SamplingParams(max_tokens=40)), ContextTooLong),
            (Request(()), RequestError), (Request((101,)), RequestError),
            (Request((1,), SamplingParams(logit_bias={101: 1.0})), RequestError),
            (Request((1,), SamplingParams(stop_ids=(101,))), RequestError),
            (Request((1,), SamplingParams(num_beams=3)), RequestError)]:
        with pytest.raises(error):
            engine.submit(request)
    for _ in range(2):
        engine.submit(Request((1, 2), SamplingParams(max_tokens=4)))
    with pytest.raises(Overloaded, match="2 requests are waiting"):
        engine.submit(Request((1, 2), SamplingParams(max_tokens=4)))


def test_dynamic_ntk_is_served_within_its_original_context():
    scaling = RopeScaling(kind="dynamic", factor=2, original_context=30)
    engine = Engine(build_model(MODELS["gqa"].model_copy(update={"rope_scaling": scaling})))
    for request in (Request((5,) * 30), Request((5,) * 20, SamplingParams(max_tokens=11))):
        with pytest.raises(ContextTooLong, match="of the 30"):
            engine.submit(request)
    tokens = run(engine, [Request((5,) * 20), Request((5,) * 20, SamplingParams(max_tokens=10))])
    assert [len(row) for row in tokens.values()] == [10, 10]


def test_a_row_with_broken_logits_fails_alone():
    model = model_of("gqa")
    engine = Engine(model, TIGHT)
    forbid_all = SamplingParams(max_tokens=4, logit_bias=dict.fromkeys(range(101), -float("inf")))
    tokens = run(engine, [Request((5, 6), forbid_all), Request((5, 6), SamplingParams(max_tokens=4))])
    assert tokens[0, 0][-1].finish == "error"
    assert "not finite" in tokens[0, 0][-1].error
    assert tokens[1, 0][-1].finish == "length"
