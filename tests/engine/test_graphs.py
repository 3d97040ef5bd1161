"""Steps that were recorded once against the plain way: the same ids, whatever comes and goes.

What records here is a tracer: it writes down each operation of torch that a function does and replays them on the same
buffers, without running its Python again. Like a CUDA graph it fixes shapes, plain numbers and where buffers lie, and a
step that asks the device for a number can't be recorded.
"""

import pytest
import torch
from engine.plain_mix import plain_mix
from engine.small import MODELS, TIGHT, ids_of, model_of, requests_of, run
from torch.fx.experimental.proxy_tensor import make_fx

from ayllu.engine import paths
from ayllu.engine.batch import Span, flat_batch
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.graphs import DecodeGraphs, ladder
from ayllu.engine.paged import PagedCache
from ayllu.engine.paths import Paths, uses_triton
from ayllu.engine.plan import Plan, Row, Work
from ayllu.engine.reads import TableViews
from ayllu.engine.request import Request
from ayllu.errors import ConfigError
from ayllu.model.fused import FusedRunner, TorchMatrix
from ayllu.model.params import SamplingParams


class Tracer:
    """Records; `replayed` counts how often each recording ran."""

    nbytes = 0

    def __init__(self, room=100):
        self.replayed, self.room = [], room

    def __call__(self, function):
        if len(self.replayed) == self.room:
            raise torch.OutOfMemoryError
        found = function().clone()
        graph, number = make_fx(function)(), len(self.replayed)
        self.replayed.append(0)

        def replay():
            self.replayed[number] += 1
            return found.copy_(graph())

        return replay


class Direct(Tracer):
    """Records nothing: runs the function itself."""

    def __call__(self, function):
        return function


def engine_of(model, settings=TIGHT, mix=plain_mix, tracer=None, most=None, n_processors=1):
    """An engine whose attention is a mix of tables, with the recordings of a tracer."""
    engine = Engine(model, settings)
    cache = PagedCache(engine.config, engine.cache.n_pages + 1, settings.page_size, dtype=engine.runner.dtype,
                       device=engine.runner.device, is_int8=settings.kv_dtype == "int8")
    views = TableViews(cache, mix, n_processors)
    graphs = tracer and DecodeGraphs(engine.runner, views, engine.context, most or settings.max_rows, tracer)
    engine.cache, engine.paths = cache, Paths(engine.runner, cache, views, graphs)
    return engine


def test_replayed_steps_choose_the_ids_of_plain_ones():
    """A few requests over two rungs; below, more of everything."""
    settings = TIGHT.model_copy(update={"max_rows": 2})
    requests, tracer = requests_of(4), Tracer()
    want = ids_of(run(Engine(model_of("gqa"), settings), requests))
    assert ids_of(run(engine_of(model_of("gqa"), settings, tracer=tracer), requests)) == want
    assert len(tracer.replayed) == 2
    assert sum(tracer.replayed) > 10


def test_a_fused_runner_is_recorded():
    """As on CUDA, where its table of rotations holds the whole context from the beginning: it asks the device nothing.
    """
    settings = TIGHT.model_copy(update={"max_rows": 2, "attention": "torch"})      # no C++, which a tracer doesn't see
    requests, tracer, runner = requests_of(3), Tracer(), FusedRunner(model_of("gqa"), make=TorchMatrix)
    runner.rotations(runner.config.max_context)
    want = ids_of(run(Engine(model_of("gqa"), settings), requests))
    assert ids_of(run(engine_of(runner, settings, tracer=tracer), requests)) == want
    assert sum(tracer.replayed) > 10


@pytest.mark.parametrize("kv_dtype", ["auto", "int8"])
def test_whole_prompts_read_no_pages(kv_dtype, monkeypatch):
    """Prompts of 9 tokens or more by themselves, two at a time, beside rows with one token and pieces of prompts."""
    monkeypatch.setattr("ayllu.engine.reads.ALONE", 9)
    settings = TIGHT.model_copy(update={"kv_dtype": kv_dtype, "token_budget": 40, "n_pages": 60})
    requests, seen = requests_of(12), set()
    want = ids_of(run(Engine(model_of("gqa"), settings), requests))
    engine = engine_of(model_of("gqa"), settings)
    engine.paths.views.has_flash = True
    make = engine.paths.views.layers

    def layers(slots, reads, alone=()):
        seen.add((len(alone), len(reads)))
        return make(slots, reads, alone)

    monkeypatch.setattr(engine.paths.views, "layers", layers)
    assert ids_of(run(engine, requests)) == want
    assert ids_of(run(engine, requests_of(1, seed=9))) == ids_of(run(engine_of(model_of("gqa"), settings),
                                                                     requests_of(1, seed=9)))
    assert {(1, 0), (2, 0), (1, 2)} <= seen


def test_a_prompt_with_a_window_or_something_before_it_reads_pages(monkeypatch):
    monkeypatch.setattr("ayllu.engine.reads.ALONE", 5)
    views = engine_of(model_of("mistral")).paths.views
    spans = [Span(0, 7, 0, [0, 1]), Span(0, 8, 0, [0, 1]), Span(0, 7, 4, [0, 1, 2]), Span(0, 4, 0, [0])]
    assert [views._is_alone(span) for span in spans] == [False] * 4
    views.has_flash = True
    assert [views._is_alone(span) for span in spans] == [True, False, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_with_every_model(name):
    """Requests that come and go, in chunks, with prefixes shared and rows preempted; one with samples."""
    drawn = Request(tuple(range(3, 20)), SamplingParams(n=3, seed=4, max_tokens=9, temperature=0.9))
    requests = [*requests_of(16), drawn]
    want = ids_of(run(Engine(model_of(name), TIGHT), requests))
    tracer = Tracer()
    engine = engine_of(model_of(name), tracer=tracer)
    assert ids_of(run(engine, requests)) == want
    assert engine.scheduler.counts.preempted > 0
    assert len(tracer.replayed) > 2                      # rungs
    assert sum(tracer.replayed) > 3 * len(tracer.replayed)


@pytest.mark.slow
def test_with_int8_pages():
    settings = TIGHT.model_copy(update={"kv_dtype": "int8"})
    requests, tracer = requests_of(12), Tracer()
    want = ids_of(run(Engine(model_of("gqa"), settings), requests))
    assert ids_of(run(engine_of(model_of("gqa"), settings, tracer=tracer), requests)) == want
    assert sum(tracer.replayed) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("room", "most"), [(2, 6), (100, 2), (0, 6)])
def test_what_has_no_recording_goes_the_plain_way(room, most):
    """Memory for two recordings only; a ladder too short; no memory at all."""
    requests, tracer = requests_of(24), Tracer(room)
    want = ids_of(run(Engine(model_of("gqa"), TIGHT), requests))
    engine = engine_of(model_of("gqa"), tracer=tracer, most=most)
    assert ids_of(run(engine, requests)) == want
    assert len(tracer.replayed) == min(room, 2)
    assert (sum(tracer.replayed) > 0) == (room > 0)


@pytest.mark.slow
def test_guesses_and_prompts_are_not_recorded_and_change_nothing():
    settings = TIGHT.model_copy(update={"n_guesses": 3})
    requests, tracer = requests_of(12), Tracer()
    want = ids_of(run(Engine(model_of("gqa"), TIGHT), requests))
    assert ids_of(run(engine_of(model_of("gqa"), settings, tracer=tracer), requests)) == want


@pytest.mark.parametrize(("moved", "is_clean"), [(0, True), (-1, False)])
def test_fillers_write_to_the_scratch_page_only(moved, is_clean):
    """Three rows on a rung of four; `moved` is a fault, by which the filler writes into the page before."""
    engine = engine_of(model_of("gqa"), tracer=Direct())
    rows = [Row(i, 0, Request((3, 4, 5)), [3, 4, 5], 1, 0.0, b"", pages=[i]) for i in range(3)]
    batch = flat_batch(Plan(tuple(Work(row, 2, 3) for row in rows), ()), 4, torch.device("cpu"))
    engine.paths.graphs.filler[2] += 4 * moved
    before = engine.cache.buffers[0].clone()
    with torch.inference_mode():
        assert engine.paths.graphs.hidden(batch).shape == (3, 32)
    changed = (engine.cache.buffers[0] != before).flatten(-2).any(-1).any(0).any(0)         # (P, page)
    assert changed[:3].tolist() == [[False, False, True, False]] * 3
    assert (not changed[3:-1].any()) == is_clean


def test_a_step_that_asks_the_device_cannot_be_recorded():
    """So the tests above show that a step of the model asks for nothing."""
    numbers = torch.ones(3)
    with pytest.raises(RuntimeError, match=r"(?i)data-dependent|concrete"):
        make_fx(lambda x: x * int(x.sum()))(numbers)


def test_ladder():
    assert [ladder(n) for n in (1, 2, 3, 6, 8, 64)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 4, 6), (1, 2, 4, 8),
                                                        (1, 2, 4, 8, 16, 32, 64)]


def test_bytes_are_counted():
    engine = engine_of(model_of("gqa"), tracer=Tracer())
    assert engine.paths.graphs.nbytes == 6 * 4 * (3 + 4 + 24)                 # 96 tokens are 24 pages of 4


def test_parts_fill_a_gpu():
    """132 processors and 2 key/value heads: few rows are read in many parts, many rows or short ones in one."""
    views = engine_of(model_of("gqa"), n_processors=132).paths.views
    assert [views.n_parts(rows, slots) for rows, slots in ((1, 100), (1, 300), (1, 4096), (1, 10**6), (8, 4096),
                                                           (64, 4096), (200, 4096))] == [1, 2, 32, 64, 16, 2, 1]


@pytest.mark.parametrize(("missing", "reason"), [
    ("", None), ("triton", "not installed"), ("capability", "8, 0"), ("compiler", "install gcc"),
    ("headers", "install python3-dev")])
def test_which_way_a_gpu_takes(monkeypatch, tmp_path, missing, reason):
    (tmp_path / "Python.h").touch()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(paths, "find_spec", lambda name: missing != "triton" or None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7 if missing == "capability" else 8, 0))
    monkeypatch.setattr(paths.shutil, "which", lambda name: None if missing == "compiler" else f"/usr/bin/{name}")
    include = tmp_path / ("no" if missing == "headers" else "")
    monkeypatch.setattr(paths.sysconfig, "get_path", lambda name: str(include))
    gpu, told = torch.device("cuda"), []
    monkeypatch.setattr(paths, "say", told.append)
    assert uses_triton("auto", gpu) == (reason is None)
    assert not uses_triton("torch", gpu)
    if reason is not None:
        assert reason in told[0]
        with pytest.raises(ConfigError, match=reason):
            uses_triton("triton", gpu)


def test_settings_that_cannot_be_had():
    with pytest.raises(ConfigError, match="attention='triton' can't be had"):
        Engine(model_of("gqa"), EngineSettings(attention="triton"))
    with pytest.raises(ValueError, match="deterministic"):
        EngineSettings(attention="triton", deterministic=True)
