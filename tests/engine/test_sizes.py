"""Steps that are filled up to few sizes give what exact ones do, and the page of the filling is nobody's."""

import random

import pytest
from engine.small import ids_of, model_of, requests_of

from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.sizes import size_of
from ayllu.native.build import missing_vectors

SETTINGS = EngineSettings(n_pages=200, page_size=4, token_budget=150, max_rows=40, max_waiting=200)


def run_by_turns(engine, requests):
    """Tokens by request and sample; requests come a few at a time, so that steps have many sizes."""
    rng, left, found = random.Random(0), list(requests), {}
    while left or not engine.is_idle:
        for _ in range(min(len(left), rng.randrange(4))):
            engine.submit(left.pop(0))
        for token in engine.step():
            found.setdefault((token.request, token.sample), []).append(token)
    return found


def test_the_sizes():
    assert [size_of(n) for n in (1, 7, 8, 9, 12, 31, 33, 127, 129, 512)] == [1, 7, 8, 12, 12, 32, 40, 128, 160, 512]
    assert all(size_of(size_of(n)) == size_of(n) >= n for n in range(1, 2000))
    assert len({size_of(n) for n in range(1, 513)}) == 38


@pytest.mark.skipif(missing_vectors() is not None, reason="attention in C++ can't be compiled here")
def test_a_filled_up_step_gives_what_an_exact_one_does():
    requests, sizes, exact_sizes = requests_of(60), set(), set()
    engine, exact = (Engine(model_of("gqa"), SETTINGS.model_copy(update={"attention": "native"})) for _ in range(2))
    exact.paths.fills_up = False
    for one, seen in ((engine, sizes), (exact, exact_sizes)):
        flat = one.runner.flat
        one.runner.flat = lambda ids, *rest, flat=flat, seen=seen: (seen.add(len(ids)), flat(ids, *rest))[1]
    assert ids_of(run_by_turns(engine, requests)) == ids_of(run_by_turns(exact, requests))
    assert {size_of(n) for n in exact_sizes} == sizes
    assert len(sizes) < len(exact_sizes)
    assert engine.scheduler.pool.n_free == engine.scheduler.pool.n_pages == engine.cache.n_pages - 1
