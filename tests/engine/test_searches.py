"""Beam searches on the engine's pages beside the dense cache's: the same ids, ends and scores, whatever else runs."""

import pytest
import torch
from engine.small import GQA, ids_of, model_of, requests_of, run

from ayllu.checkpoint.load import load_checkpoint
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Grammar, Request
from ayllu.engine.runner import make_runner
from ayllu.engine.searches import Searches
from ayllu.errors import ConfigError, ContextTooLong, RequestError
from ayllu.model.beam import beam_search
from ayllu.model.params import SamplingParams

EOS = (2, 50)
ROOMY = EngineSettings(n_pages=400, page_size=4, token_budget=40, max_rows=24)
TIGHT = EngineSettings(n_pages=22, page_size=4, token_budget=11, max_rows=8, max_waiting=40)


def searches_of(n, widths, **more):
    """Searches of all kinds; among a few ends some beams finish early and others at full length."""
    return [Request(request.ids[-20:], SamplingParams(
        num_beams=widths[i % len(widths)], n=1 + i % 2, max_tokens=4 + 3 * (i % 5), logprobs=(None, 0, 3)[i % 3],
        length_penalty=(1.0, 0.0, 2.0)[i % 3], early_stopping=(False, True, None)[i % 3],
        repetition_penalty=(1.0, 1.3)[i % 2], stop_ids=(7, 30)), eos_ids=EOS, **more)
        for i, request in enumerate(requests_of(n, seed=3))]


def assert_same_as_dense(model, request, rows):
    """`rows`: the tokens of each sample. Scores within the rounding of sums of float32 in another order."""
    expected = beam_search(model, request.ids, request.params, request.eos_ids)
    assert [[token.id for token in row] for row in rows] == [output.ids for output in expected]
    for row, output in zip(rows, expected, strict=True):
        assert [token.finish for token in row[:-1]] == [None] * (len(row) - 1)
        assert row[-1].finish == output.finish
        assert row[-1].score == pytest.approx(output.score, abs=1e-4)
        assert [token.logprob for token in row] == pytest.approx(output.logprobs or [None] * len(row), abs=1e-4)
        assert [[i for i, _ in token.top] for token in row] == [
            [i for i, _ in top] for top in output.top_logprobs or [()] * len(row)]


@pytest.mark.parametrize(("name", "settings", "widths"), [
    ("gqa", ROOMY, (2, 3, 6)), ("gqa", TIGHT, (2, 3, 4)), ("mistral", TIGHT, (2, 3, 4)),
    ("gqa", TIGHT.model_copy(update={"prefix_cache": False}), (2, 3, 4)),
    ("gqa", TIGHT.model_copy(update={"deterministic": True}), (2, 4))])
def test_searches_equal_the_dense_cache_among_other_requests(name, settings, widths):
    model, others = model_of(name), requests_of(8)
    searches = searches_of(10, widths)
    engine = Engine(model, settings)
    got = run(engine, [*searches, *others])
    for i, request in enumerate(searches):
        assert_same_as_dense(model, request, [got[i, sample] for sample in range(request.params.n)])
    alone = run(Engine(model, settings), others)
    assert {key: ids for key, ids in ids_of(got).items() if key[0] >= 10} == {
        (10 + i, sample): ids for (i, sample), ids in ids_of(alone).items()}
    assert (engine.scheduler.counts.preempted > 0) == (settings is not ROOMY)
    assert engine.scheduler.pool.n_free == settings.n_pages
    assert {row[-1].finish for (i, _), row in got.items() if i < 10} == {"stop", "length"}


def test_the_bundled_model():
    """Widths up to 8 beside drawn requests, in a pool too small for all of them."""
    checkpoint = load_checkpoint("ayllu-mini", device=torch.device("cpu"))
    tokenizer, runner = checkpoint.tokenizer, make_runner(checkpoint.model)
    prompts = [tuple(tokenizer.encode(text, bos=tokenizer.add_bos)) for text in (
        "Once upon a time there was a little girl who", "The capital of the country is", "He opened the door, and")]
    searches = [Request(prompt, SamplingParams(num_beams=width, n=2, max_tokens=24, length_penalty=0.8),
                        eos_ids=tokenizer.eos_ids) for prompt, width in zip(prompts, (2, 4, 8), strict=True)]
    engine = Engine(runner, EngineSettings(n_pages=60, page_size=4, max_rows=16, token_budget=40))
    drawn = [Request(prompt, SamplingParams(n=2, max_tokens=40, seed=1)) for prompt in prompts]
    got = run(engine, [*drawn, *searches])
    for i, request in enumerate(searches):
        assert_same_as_dense(runner, request, [got[3 + i, sample] for sample in range(2)])
    assert engine.scheduler.counts.preempted > 0


def test_preempted_beams_are_computed_again_together():
    """A request of higher rank grows until it needs their pages: they are sent back in the middle, and end the same."""
    model = model_of("gqa")
    engine = Engine(model, EngineSettings(n_pages=24, page_size=4, token_budget=30, max_rows=8, prefix_cache=False))
    search = Request(tuple(range(3, 17)), SamplingParams(num_beams=3, n=3, max_tokens=24))
    got = run(engine, [Request((5, 6) * 25, SamplingParams(max_tokens=40, temperature=0), priority=8), search])
    assert_same_as_dense(model, search, [got[1, sample] for sample in range(3)])
    counts = engine.scheduler.counts
    assert counts.preempted == 1
    assert counts.computed_tokens > 89 + 14 + 23 * 3 + 14                         # the prompt was read again


def test_beams_share_pages_and_dropped_beams_hold_none():
    """After each step the search holds as many pages as its texts have different beginnings of whole pages, and one
    for each text that isn't at a page's end."""
    engine = Engine(model_of("gqa"), EngineSettings(n_pages=60, page_size=4, token_budget=30, max_rows=8))
    engine.submit(Request(tuple(range(3, 25)), SamplingParams(num_beams=5, max_tokens=20)))
    n_shared = 0
    while not engine.is_idle:
        engine.step()
        rows = engine.scheduler.running
        full = {tuple(row.ids[:end]) for row in rows for end in range(4, row.computed + 1, 4)}
        n_held = engine.scheduler.pool.n_pages - engine.scheduler.pool.n_free
        assert len(full) <= n_held <= len(full) + len(rows)
        n_shared += sum(len(row.pages) for row in rows) - n_held
    assert n_shared > 100


def test_a_search_that_is_cancelled_frees_its_pages_at_once():
    engine = Engine(model_of("gqa"), ROOMY)
    params = SamplingParams(num_beams=4, n=2, max_tokens=30)
    for n_steps in (0, 1, 6):
        number = engine.submit(Request(tuple(range(3, 25)), params))
        for _ in range(n_steps):
            assert engine.step() == []
        engine.cancel(number, 0)
        engine.cancel(number, 0)                         # is over: nothing happens
        assert engine.scheduler.rows()
        engine.cancel(number)
        assert engine.scheduler.pool.n_free == 400
        assert [(t.sample, t.id, t.finish) for t in engine.step()] == [
            (0, None, "cancelled"), (1, None, "cancelled")]
        assert engine.is_idle
        assert not engine._requests
    number = engine.submit(Request((5, 6), params.model_copy(update={"max_tokens": 3})))
    engine.cancel(number, 0)
    tokens = []
    while not engine.is_idle:
        tokens += engine.step()
    assert [(t.sample, t.finish) for t in tokens] == [(0, "cancelled"), (1, None), (1, None), (1, "length")]
    assert tokens[1].start.prompt_tokens == 2


def test_prompt_logprobs_and_min_tokens():
    model = model_of("gqa")
    prompt = tuple(range(3, 14))
    params = SamplingParams(num_beams=3, max_tokens=12, stop_ids=tuple(range(2, 30)), early_stopping=True)
    plain = run(Engine(model, ROOMY), [Request(prompt, SamplingParams(max_tokens=1), prompt_logprobs=1)])
    got = run(Engine(model, ROOMY), [Request(prompt, params, prompt_logprobs=1, min_tokens=n) for n in (0, 6)])
    assert got[0, 0][0].start.prompt_logprobs == pytest.approx(plain[0, 0][0].start.prompt_logprobs, abs=1e-4)
    assert len(got[0, 0]) < 6 <= len(got[1, 0])
    assert not set(params.stop_ids) & {token.id for token in got[1, 0][:6]}


def test_broken_logits_end_the_search_alone():
    engine = Engine(model_of("gqa"), ROOMY)
    forbid = SamplingParams(num_beams=2, n=2, max_tokens=4, logit_bias=dict.fromkeys(range(101), -float("inf")))
    got = run(engine, [Request((5, 6), forbid), *requests_of(2)])
    assert [(row[0].id, row[0].finish) for key, row in got.items() if key[0] == 0] == [(None, "error")] * 2
    assert "logit_bias" in got[0, 0][0].error
    assert ids_of(got)[1, 0]
    assert engine.scheduler.pool.n_free == 400


@pytest.mark.parametrize(("more", "settings", "error", "says"), [
    ({"num_beams": 9}, TIGHT, RequestError, "8 rows at a time: lower num_beams"),
    ({"num_beams": 20, "stop_ids": range(5)}, ROOMY, ConfigError, "lower num_beams"),
    ({"num_beams": 6, "max_tokens": 60}, TIGHT, ContextTooLong, "6 beams of 4 \\+ 60 tokens")])
def test_what_cannot_be_searched_is_refused(more, settings, error, says):
    with pytest.raises(error, match=says):
        Engine(model_of("gqa"), settings).submit(Request((3, 4, 5, 6), SamplingParams(**{"max_tokens": 2, **more})))


def test_a_grammar_is_refused():
    request = Request((3,), SamplingParams(num_beams=2), grammar=Grammar("regex", "a"))
    with pytest.raises(RequestError, match="grammar"):
        Searches(GQA["vocab_size"], 4, torch.device("cpu")).check(request)
