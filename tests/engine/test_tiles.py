"""The deterministic mode: logits are equal to the bit, alone and in a crowd, in chunks, from the cache, recomputed."""

import random

import pytest
import torch
from engine.small import MODELS, model_of, run

from ayllu.checkpoint.load import load_checkpoint
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.engine.runner import make_runner
from ayllu.engine.tiles import TiledSteps
from ayllu.errors import ConfigError
from ayllu.model.build import build_model
from ayllu.model.generate import generate
from ayllu.model.init import initialise
from ayllu.model.params import SamplingParams
from ayllu.model.presets import preset

DTYPES = [torch.float32, torch.bfloat16]


class Recorded(Engine):
    """An engine that keeps the logits of each choice, by (request, sample)."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.logits = {}
        choose = self.tables.choose

        def record(logits, places, *more):
            rows = {place: row for row, place in self._places.items()}
            for line, place in zip(logits, places, strict=True):
                self.logits.setdefault((rows[place].number, rows[place].sample), []).append(line.clone())
            return choose(logits, places, *more)

        self.tables.choose = record


def engine_of(model, n_pages=None, attention="auto", **more):
    """Two runners would each take the model's weights over, so a model is given afresh for each engine."""
    settings = EngineSettings(deterministic=True, n_pages=n_pages, attention=attention, **more)
    return Recorded(make_runner(model), settings)


def prompt_of(n, seed, vocabulary):
    rng = random.Random(seed)
    return tuple(rng.randrange(3, vocabulary) for _ in range(n))


def five_ways(make_model, n_prompt=45, n_new=20, crowd=63, attention="auto"):
    """The logits of one request under five conditions, and whether each condition was met."""
    vocabulary = make_model().config.vocab_size
    target = Request(prompt_of(n_prompt, 0, vocabulary), SamplingParams(seed=5, max_tokens=n_new))
    others = [Request(prompt_of(3 + i % n_prompt // 2, i + 1, vocabulary),
                      SamplingParams(max_tokens=4 + i % n_new, seed=i)) for i in range(crowd)]
    ways = {}

    engine = engine_of(make_model(), attention=attention)
    run(engine, [target])
    ways["alone"] = engine.logits[0, 0]
    run(engine, [target])
    assert engine.scheduler.counts.cached_tokens == (n_prompt - 1) // 16 * 16
    ways["warm cache"] = engine.logits[1, 0]

    engine = engine_of(make_model(), attention=attention, token_budget=600)
    run(engine, [*others, target], stagger=crowd + 1)
    ways["crowd"] = engine.logits[crowd, 0]

    engine = engine_of(make_model(), attention=attention, token_budget=7, max_rows=2, prefix_cache=False)
    run(engine, [others[0], target])
    ways["chunks"] = engine.logits[1, 0]

    engine = engine_of(make_model(), n_pages=n_prompt + max(11, n_new), page_size=1, max_rows=4, prefix_cache=False,
                       attention=attention)
    run(engine, [Request(prompt_of(9, 7, vocabulary), SamplingParams(max_tokens=n_new, seed=1)), target])
    assert engine.scheduler.counts.preempted > 0
    ways["preempted"] = engine.logits[1, 0]
    return ways


def assert_equal_bits(ways, n_new=20):
    alone = ways.pop("alone")
    assert len(alone) == n_new
    for way, logits in ways.items():
        assert all(map(torch.equal, alone, logits)), way


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gqa", "mistral", "transformer"])
@pytest.mark.parametrize("attention", ["auto", "torch"])
def test_small_models(name, dtype, attention):
    """`auto` is the kernel in C++ where there can be one."""
    assert_equal_bits(five_ways(lambda: model_of(name, dtype), n_prompt=41, crowd=20, attention=attention))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_bundled_model(dtype):
    def load():
        return load_checkpoint("ayllu-mini", dtype=dtype, device=torch.device("cpu")).model

    assert_equal_bits(five_ways(load, n_new=8), 8)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_110m(dtype):
    model = build_model(preset("stories110m"))
    initialise(model, 12, seed=0)

    def copy():
        twin = build_model(preset("stories110m")).eval()
        twin.load_state_dict(model.state_dict())
        return twin.to(dtype)

    assert_equal_bits(five_ways(copy, n_prompt=20, n_new=3, crowd=63), 3)


@pytest.mark.parametrize("name", MODELS)
def test_tiles_agree_with_the_dense_cache(name):
    params = SamplingParams(temperature=0, max_tokens=40)
    prompts = [prompt_of(n, n, 101) for n in (1, 5, 30)]
    want = [outputs[0].ids for outputs in generate(model_of(name), prompts, params)]
    got = run(Engine(model_of(name), EngineSettings(deterministic=True, page_size=4)),
              [Request(p, params) for p in prompts])
    assert [[token.id for token in got[i, 0]] for i in range(3)] == want


def test_plain_steps_do_differ():
    """Without tiles, the crowd changes last bits: else the tests above would show nothing."""
    model = model_of("gqa")
    engine = Recorded(model, EngineSettings())
    target = Request(prompt_of(45, 0, 101), SamplingParams(seed=5, max_tokens=20))
    run(engine, [target])
    run(engine, [target, *[Request(prompt_of(n, n, 101), SamplingParams(max_tokens=20)) for n in range(1, 40)]], 40)
    assert not all(map(torch.equal, engine.logits[0, 0], engine.logits[1, 0]))


def test_a_machine_that_cannot_is_told():
    class Shaky(TiledSteps):
        def logits(self, hidden):
            return super().logits(hidden) + torch.arange(len(hidden))[:, None]

    engine = Engine(model_of("gqa"), EngineSettings(deterministic=True))
    with pytest.raises(ConfigError, match="place in a product"):
        Shaky(engine.runner, engine.cache)
