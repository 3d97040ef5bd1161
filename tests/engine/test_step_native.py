"""Whole steps in C++ against the runner's own: the same hidden states, whatever the model and the step."""

from dataclasses import replace

import pytest
import torch
from engine.small import run
from step_kinds import step_kind  # noqa: F401 - a fixture

from ayllu.adapters.lora import LoraConfig, new_adapter
from ayllu.engine import matrix, runner, step_native
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.engine.runner import make_runner
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, RopeScaling
from ayllu.model.params import SamplingParams
from ayllu.native.build import missing_vectors

pytestmark = pytest.mark.skipif(bool(missing_vectors()), reason="no C++ compiler")

SHAPE = {"dim": 64, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "hidden_dim": 96, "vocab_size": 101,
         "max_context": 200}
MODELS = {"gqa": {}, "tied": {"tie_embeddings": True}, "wide heads": {"head_dim": 64, "n_kv_heads": 1},
          "mistral": {"sliding_window": 7}, "qwen2": {"qkv_bias": True, "sliding_window": 9, "first_sliding_layer": 2},
          "biased": {"qkv_bias": True, "out_bias": True, "mlp_bias": True},
          "yarn": {"rope_scaling": RopeScaling(kind="yarn", factor=4, original_context=32)}}
# Heads and pages that are whole tiles (native/mix_tiles.h); more heads than are computed together, two blocks of slots.
TILED = {"tiles": {"head_dim": 64}, "narrow": {"head_dim": 32, "n_kv_heads": 4},
         "one key": {"head_dim": 96, "n_heads": 12, "n_kv_heads": 1}, "window": {"head_dim": 64, "sliding_window": 70},
         "short window": {"head_dim": 64, "n_heads": 2, "sliding_window": 5}}
SETTINGS = EngineSettings(n_pages=60, page_size=4, token_budget=40, max_rows=12)
LARGE_PAGES = SETTINGS.model_copy(update={"page_size": 16})


def engine_of(settings=SETTINGS, dtype=torch.bfloat16, **more):
    torch.manual_seed(0)
    model = build_model(LlamaConfig(**{**SHAPE, **more})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) / 4)               # biases that are something, uneven norms
    return Engine(make_runner(model.to(dtype)), settings)


def requests():
    """Prompts of many lengths, so that chunks, single tokens and both together are computed."""
    return [Request(tuple((7 * n + i * i) % 98 + 3 for i in range(n)), SamplingParams(temperature=0, max_tokens=9))
            for n in (1, 3, 30, 70, 9, 5, 40, 64, 8, 33, 17, 2, 90)]


@pytest.mark.usefixtures("step_kind")
@pytest.mark.parametrize("more", [{}, {"kv_dtype": "int8"}, {"n_guesses": 3}], ids=str)
@pytest.mark.parametrize("name", MODELS | TILED)
def test_steps_are_the_runners(name, more, monkeypatch):
    """Each step is computed in both ways, from the same pages. Both round to bfloat16 in the same places (2^-9 of a
    number) from sums in another order; over 3 layers that grows to a few roundings of the largest numbers."""
    settings = LARGE_PAGES if name in TILED else SETTINGS
    engine = engine_of(settings.model_copy(update=more), **(MODELS | TILED)[name])
    seen = computed_both_ways(engine, monkeypatch)
    run(engine, requests())
    assert engine.paths.step._step.n == len(seen)        # no step was left to the runner
    assert any(singles and chunks for singles, chunks in seen)


@pytest.mark.usefixtures("step_kind")
@pytest.mark.parametrize("name", MODELS | TILED)
def test_adapted_steps_are_the_runners(name, monkeypatch):
    """As above; what adapters add is rounded twice more, and these let keys grow to 12, where 2^-4 is one rounding."""
    engine = engine_of(LARGE_PAGES if name in TILED else SETTINGS, **(MODELS | TILED)[name])
    seen = computed_both_ways(engine, monkeypatch, atol=2**-3)
    run(with_adapters(engine), adapted_requests())
    assert engine.paths.step._step.n == len(seen)
    engine.unload_adapter("1")                           # the tables of the others are made anew
    engine.load_adapter("1", filled(engine.config, 9, r=11))
    run(engine, adapted_requests())


@pytest.mark.usefixtures("step_kind")
@pytest.mark.parametrize("name", ["gqa", "tiles"])
def test_a_tokens_bits_do_not_depend_on_others_adapters(name):
    found = []
    for crowd in ([], requests(), adapted_requests()):
        engine = engine_of(LARGE_PAGES if name in TILED else SETTINGS, **(MODELS | TILED)[name])
        found.append({})
        engine.paths.hidden = Told(engine.paths.hidden, found[-1])
        mine = Request((*range(3, 100), 5), SamplingParams(temperature=0, max_tokens=5))
        run(with_adapters(engine), [mine, replace(mine, adapter="1"), *crowd])
    own = [key for key in found[0] if key[0] in (0, 1)]
    assert len(own) > 150
    assert not torch.equal(found[0][0, 40], found[0][1, 40])
    for others in found[1:]:
        assert all(torch.equal(found[0][key], others[key]) for key in own)


def filled(config, seed, **settings):
    """An adapter that does something."""
    adapter = new_adapter(build_model(config), LoraConfig(**settings), seed=seed)
    draw = torch.Generator().manual_seed(seed)
    return replace(adapter, pairs={name: replace(pair, b=torch.randn(pair.b.shape, generator=draw) / 8)
                                   for name, pair in adapter.pairs.items()})


def with_adapters(engine):
    """Of other ranks, and on fewer matrices."""
    for number, more in enumerate(({"r": 3}, {"r": 8}, {"r": 2, "target_modules": ("v_proj", "up_proj")},
                                   {"r": 20, "layers_to_transform": (1,)})):
        engine.load_adapter(str(number), filled(engine.config, number, **more))
    return engine


def adapted_requests():
    """Some are for the plain model."""
    return [replace(request, adapter=None if n % 5 == 4 else str(n % 5)) for n, request in enumerate(requests())]


def computed_both_ways(engine, monkeypatch, atol=2**-4):
    """Each step, from now on; the list that is given gets how many single tokens and chunks it had."""
    seen = []
    paths, native = engine.paths, engine.paths.step
    fast, head = paths.hidden, paths.logits

    def both(batch, adapt):
        paths.step = None
        want = fast(batch, adapt)
        paths.step = native
        kept = [buffer.clone() for buffer in engine.cache.buffers]
        found = fast(batch, adapt)
        seen.append((len(batch.singles), len(batch.chunks)))
        assert torch.allclose(found, want, rtol=2**-6, atol=atol)
        if engine.settings.kv_dtype != "int8":           # the written keys and values, too
            for a, b in zip(kept, engine.cache.buffers, strict=True):
                assert torch.allclose(a, b, rtol=2**-6, atol=atol)
        return found

    def logits(hidden):
        assert torch.allclose(head(hidden), paths.runner.logits(hidden), rtol=2**-7, atol=2**-7)
        return head(hidden)

    monkeypatch.setattr(paths, "hidden", both)
    monkeypatch.setattr(paths, "logits", logits)
    monkeypatch.setattr(native, "_step", Counted(native._step))
    return seen


@pytest.mark.usefixtures("step_kind")
@pytest.mark.parametrize("name", TILED)
def test_a_tokens_bits_depend_on_its_row_alone(name):
    """Whether a prompt is read at once or in pieces of any length, beside whatever else."""
    found = []
    for budget in (400, 40, 13):
        settings = LARGE_PAGES.model_copy(update={"token_budget": budget, "prefix_cache": False})
        engine = engine_of(settings, **TILED[name])
        found.append({})
        engine.paths.hidden = Told(engine.paths.hidden, found[-1])
        run(engine, [Request((*range(3, 100), 5), SamplingParams(temperature=0, max_tokens=2)), *requests()])
    assert len(found[0]) > 400
    for others in found[1:]:
        assert all(torch.equal(hidden, others[key]) for key, hidden in found[0].items())


class Told:
    def __init__(self, compute, found):
        self.compute, self.found = compute, found

    def __call__(self, batch, adapt):
        hidden = self.compute(batch, adapt)
        for work, span in zip(batch.works, batch.spans, strict=True):
            for i in range(span.end - span.begin):
                self.found[work.row.number, span.start + i] = hidden[span.begin + i].clone()
        return hidden


class Counted:
    def __init__(self, step):
        self.step, self.n = step, 0
        self.logits = step.logits

    def hidden(self, *args):
        self.n += 1
        return self.step.hidden(*args)


@pytest.mark.parametrize(("limit", "of"), [({"MOST": 100}, "gqa"), ({"MOST_PAIRS": 2000}, "gqa"),
                                           ({"MOST_PAIRS": 0, "MOST_FAST_PAIRS": 2000}, "tiles")], ids=str)
def test_what_is_too_much_goes_through_the_runner(limit, of, monkeypatch):
    for name, most in limit.items():
        monkeypatch.setattr(step_native, name, most)
    monkeypatch.setattr(step_native, "loses_to_tiles", lambda pool: of not in TILED)
    settings = LARGE_PAGES if of in TILED else SETTINGS
    engine = engine_of(settings.model_copy(update={"token_budget": 150}), **(MODELS | TILED)[of])
    monkeypatch.setattr(engine.paths.step, "_step", Counted(engine.paths.step._step))
    engine.submit(Request(tuple(range(3, 83)) * 2, SamplingParams(temperature=0, max_tokens=4)))
    n_steps = 0
    while not engine.is_idle:
        engine.step()
        n_steps += 1
    assert engine.paths.step._step.n == n_steps - 1      # the first had 150 tokens


@pytest.mark.parametrize("more", [
    {"dtype": torch.float32}, {"settings": SETTINGS.model_copy(update={"attention": "torch"})}, {"hidden_dim": 90},
    {"rope_scaling": RopeScaling(kind="dynamic", factor=2)}], ids=str)
def test_models_that_it_is_not_for(more):
    assert engine_of(**more).paths.step is None


def test_large_weights_lie_in_memory_once(monkeypatch):
    """Where products are oneDNN's there is no step, else it reads the runner's own."""
    monkeypatch.setattr(step_native, "MOST_BYTES", 1000)
    monkeypatch.setattr(matrix, "missing", lambda: "no AMX")
    engine = engine_of()
    assert engine.paths.step._step._head is engine.paths.runner.head.product
    monkeypatch.setattr(runner, "matrix_for", lambda model: None)
    assert engine_of().paths.step is None
