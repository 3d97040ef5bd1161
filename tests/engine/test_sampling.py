"""Sampling of the whole batch against its slow twin: the Sampler of ayllu/model/sample.py, one row at a time."""

import random

import numpy as np
import pytest
import torch

from ayllu.engine.request import Request
from ayllu.engine.sampling import SamplingTables, uniforms
from ayllu.errors import RequestError
from ayllu.model.params import SamplingParams
from ayllu.model.sample import Sampler, top_logprobs, uniform

V = 300
CPU = torch.device("cpu")


def random_params(rng):
    def maybe(value, off):
        return value if rng.random() < 0.5 else off

    return SamplingParams(
        temperature=rng.choice([0, 0.3, 0.8, 1, 1.7]), top_k=maybe(rng.randint(1, 40), 0),
        top_p=maybe(rng.uniform(0.1, 0.99), 1.0), min_p=maybe(rng.uniform(0.001, 0.3), 0.0),
        typical_p=maybe(rng.uniform(0.2, 0.95), 1.0), repetition_penalty=maybe(rng.uniform(0.7, 1.5), 1.0),
        presence_penalty=maybe(rng.uniform(-1, 2), 0.0), frequency_penalty=maybe(rng.uniform(-1, 2), 0.0),
        logit_bias=maybe({rng.randrange(V): rng.uniform(-5, 5) for _ in range(3)}, {}),
        logprobs=rng.choice([None, 0, 1, 5]), seed=rng.randrange(2**64))


def test_uniforms_are_those_of_single_rows():
    rng = random.Random(0)
    cases = [(rng.randrange(2**64), rng.randrange(1024), rng.randrange(2**20)) for _ in range(2000)]
    got = uniforms(*np.array(cases, dtype=np.uint64).T)
    assert got.tolist() == [uniform(*case) for case in cases]


def test_a_batch_chooses_as_its_rows_do_alone():
    """Rows of random settings come and go; each must choose what it would alone, to the last id and bit."""
    rng = random.Random(1)
    generator = torch.Generator().manual_seed(1)
    tables, alive = SamplingTables(V, CPU), []
    n_drawn = 0
    for _ in range(120):
        for _ in range(rng.choice([0, 1, 1, 4]) if len(alive) < 30 else 0):
            params, number = random_params(rng), rng.randrange(4)
            prompt = [rng.randrange(V) for _ in range(rng.randint(1, 9))]
            place = tables.add(Request(tuple(prompt), params), params.seed, number)
            alive.append((place, Sampler([params], [params.seed], [number], [prompt], V, CPU), params))
        rows = rng.sample(alive, rng.randint(0, len(alive)))                  # a row may sit a step out
        if not rows:
            continue
        logits = 3 * torch.randn(len(rows), V, generator=generator)
        places = [place for place, _, _ in rows]
        got = tables.choose(logits, places)
        tables.advance(places, [1] * len(rows))
        for i, (_, alone, params) in enumerate(rows):
            want = alone.choose(logits[i:i + 1])
            assert got.ids[i] == int(want), params
            n_drawn += not params.is_greedy
            if params.logprobs is not None:
                logprob, values, ids = top_logprobs(logits[i:i + 1], want, params.logprobs)
                assert got.logprobs[i] == logprob.item()
                assert got.tops[i] == tuple(zip(ids[0].tolist(), values[0].tolist(), strict=True))
            else:
                assert got.logprobs[i] is None
                assert got.tops[i] == ()
        for gone in [row for row in alive if rng.random() < 0.1]:
            tables.drop(gone[0])
            alive.remove(gone)
    assert n_drawn > 500


def test_stop_ids_and_min_tokens():
    tables = SamplingTables(V, CPU)
    greedy = {"temperature": 0}
    places = [tables.add(request, 0, 0) for request in (
        Request((1,), SamplingParams(**greedy, stop_ids=(8,)), eos_ids=(7,)),
        Request((1,), SamplingParams(**greedy, stop_ids=(8,)), eos_ids=(7,), min_tokens=2),
        Request((1,), SamplingParams(**greedy, ignore_eos=True), eos_ids=(7,), min_tokens=2))]
    logits = torch.zeros(3, V)
    logits[:, 7], logits[:, 8], logits[:, 9] = 3.0, 2.0, 1.0
    for step in range(3):
        choice = tables.choose(logits, places)
        tables.advance(places, [1] * 3)
        assert choice.ids == [7, 7 if step == 2 else 9, 7]
        assert choice.is_stop == [True, step == 2, False]
    assert logits[0, 7] == 3                             # the caller's logits are as they were


def test_rows_without_a_largest_logit_are_told():
    tables = SamplingTables(V, CPU)
    places = [tables.add(Request((1,), SamplingParams(seed=0)), 0, 0) for _ in range(3)]
    logits = torch.randn(3, V)
    logits[0, 5] = torch.nan
    logits[2] = -torch.inf
    choice = tables.choose(logits, places)
    assert choice.is_bad == [True, False, True]
    with pytest.raises(RequestError):                    # the twin refuses the whole batch
        Sampler([SamplingParams(seed=0)], [0], [0], [[1]], V, CPU).choose(logits[:1])
