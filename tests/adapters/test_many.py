"""Many adapters in one batch: each row gets what it gets alone with its adapter beside the weights (the slow twin)."""

import random

import pytest
import torch
from adapters.small import CONFIG, filled, small_model
from engine.small import ids_of, model_of, run
from engine.test_tiles import Recorded

from ayllu.adapters.lora import attach
from ayllu.adapters.many import FEW, Bank, TiledBank, ready
from ayllu.engine.engine import Engine, EngineSettings
from ayllu.engine.request import Request
from ayllu.engine.runner import make_runner
from ayllu.errors import ConfigError, RequestError, UnknownAdapter
from ayllu.model.generate import generate
from ayllu.model.params import SamplingParams

CPU = torch.device("cpu")
SETTINGS = {"page_size": 4, "n_pages": 120, "token_budget": 24, "max_rows": 8}
# ranks, layers and strengths differ; "f" and "g" are for few layers, one of which the others have, too
KINDS = {"a": {"r": 4}, "b": {"r": 7, "use_rslora": True}, "c": {"r": 1, "lora_alpha": 3.0},
         "d": {"r": 2, "target_modules": ("q_proj", "down_proj")}, "e": {"r": 3},
         "f": {"r": 2, "layers_to_transform": (1,)}, "g": {"r": 5, "target_modules": r".*\.2\.self_attn\.o_proj"}}
ADAPTERS = {name: filled(small_model(), seed=i, **kind) for i, (name, kind) in enumerate(KINDS.items())}
ANSWERS = {}


def engine_of(kind="eager", names=KINDS, engine=Engine, **settings):
    made = engine(make_runner(small_model(), kind), EngineSettings(**{**SETTINGS, **settings}))
    for name in names:
        made.load_adapter(name, ADAPTERS[name])
    return made


def mixed_requests(n_requests=16, **more):
    """Some begin alike, so that pages would be shared if keys didn't hold the adapter."""
    rng = random.Random(0)
    common = [rng.randrange(3, 101) for _ in range(20)]
    return [Request(tuple(common[:rng.choice([0, 9, 20])] + [rng.randrange(3, 101) for _ in range(rng.randint(1, 9))]),
                    SamplingParams(**{"temperature": 0, "max_tokens": rng.randint(4, 16), **more}),
                    adapter=rng.choice([None, *KINDS])) for _ in range(n_requests)]


def alone(request):
    """The plain model with the adapter attached, one request, a dense cache; computed once."""
    if repr(request) in ANSWERS:
        return ANSWERS[repr(request)]
    model = small_model()
    if request.adapter is not None:
        attach(model, ADAPTERS[request.adapter])
    outputs = generate(model, [list(request.ids)], request.params, eos_ids=request.eos_ids)[0]
    return ANSWERS.setdefault(repr(request), [list(output.ids) for output in outputs])


@pytest.mark.parametrize("kind", ["eager", "fused"])
def test_a_mixed_batch_gives_what_each_gives_alone(kind):
    requests = mixed_requests()
    engine = engine_of(kind)
    found = ids_of(run(engine, requests, stagger=5))
    assert [found[i, 0] for i in range(len(requests))] == [alone(r)[0] for r in requests]
    plain = {i: alone(Request(r.ids, r.params))[0] for i, r in enumerate(requests)}
    differ = [i for i, r in enumerate(requests) if found[i, 0] != plain[i]]
    assert len(differ) > 8                               # so the adapters do something


@pytest.mark.parametrize("owners", [[0, 1, None, 2, 1], [3] * 5, [None] * 4, [0] * 9 + [1, 2, None, 4, 5, 6],
                                    [6, None, 6, 5] * 4, [2] * (FEW + 1) + [1], list(range(7)) * 3])
def test_a_step_adds_what_each_token_s_own_matrices_give(owners):
    """float32, sums of up to 48 terms in another order: a few units of the last place of results of about 10."""
    bank, names = Bank(CONFIG, torch.float32, CPU), list(KINDS)
    for slot, name in enumerate(names):
        bank.put(slot, ADAPTERS[name])
    own = {slot: ready(ADAPTERS[name], torch.float32, CPU) for slot, name in enumerate(names)}
    add = bank.adapt(owners)
    assert (add is None) == (set(owners) == {None})
    for (layer, part), (inputs, outputs) in bank.widths.items():
        x, y = torch.randn(len(owners), inputs), torch.randn(len(owners), outputs + 3)
        wanted = y.clone()
        for row, slot in enumerate(owners):
            if (layer, part) in own.get(slot, {}):
                a, b = own[slot][layer, part]
                wanted[row, :outputs] += b @ (a @ x[row])
        if add is not None:
            add(layer, part, x, y[:, :outputs])          # columns of a joined matrix: not contiguous
        torch.testing.assert_close(y, wanted, atol=2e-5, rtol=1e-5)


def test_memory_is_what_the_loaded_ones_need_and_is_free_again():
    bank = Bank(CONFIG, torch.float32, CPU)

    def held():
        return sum(t.numel() * 4 for pair in bank.buffers.values() for t in pair)

    sizes = []
    for slot, name in enumerate("cdba"):
        need = bank.bytes_with(slot, ADAPTERS[name])
        bank.put(slot, ADAPTERS[name])
        assert held() == need
        sizes.append(need)
    bank.drop(2)                                         # the largest rank
    bank.drop(3)
    assert held() == sizes[1]
    for slot in (0, 1):
        bank.drop(slot)
    assert held() == 0


def test_what_was_dropped_leaves_nothing_behind():
    bank = Bank(CONFIG, torch.float32, CPU)
    for slot, name in enumerate("abe"):
        bank.put(slot, ADAPTERS[name])
    bank.drop(0)
    bank.put(0, ADAPTERS["d"])
    x, y = torch.randn(3, 32), torch.zeros(3, 32)
    bank.adapt([0, 1, 2])(0, "attention.wq", x, y)
    a, b = ready(ADAPTERS["d"], torch.float32, CPU)[0, "attention.wq"]
    torch.testing.assert_close(y[0], b @ (a @ x[0]), atol=2e-5, rtol=1e-5)
    y.zero_()
    bank.adapt([0, 1, 2])(0, "attention.wo", x, y)       # which "d" doesn't have, and "a" had
    assert y[0].eq(0).all()
    assert y[1].ne(0).any()


def test_pre_empted_requests_keep_their_adapter():
    requests = mixed_requests(12)
    engine = engine_of(n_pages=24)
    found = ids_of(run(engine, requests, stagger=12))
    assert engine.scheduler.counts.preempted > 0
    assert [found[i, 0] for i in range(len(requests))] == [alone(r)[0] for r in requests]


def test_guesses_and_samples_keep_their_adapter():
    requests = mixed_requests(6, n=3, temperature=0.5, seed=4)
    plain, guessing = (ids_of(run(engine_of(n_guesses=n), requests)) for n in (0, 4))
    assert plain == guessing
    assert all([plain[i, sample] for sample in range(3)] == alone(r) for i, r in enumerate(requests))


def test_pages_are_shared_within_one_adapter_and_content_only():
    engine, ids = engine_of(names=()), tuple(range(3, 30))
    params = SamplingParams(temperature=0, max_tokens=2)

    def cached(adapter):
        return run(engine, [Request(ids, params, adapter=adapter)])[0, 0][0].start.cached_tokens

    engine.load_adapter("x", ADAPTERS["a"])
    assert [cached("x"), cached(None), cached("x"), cached(None)] == [0, 0, 24, 24]
    engine.load_adapter("x", ADAPTERS["b"], replace=True)
    assert cached("x") == 0                              # the same name, other weights
    engine.load_adapter("x", ADAPTERS["a"], replace=True)
    assert cached("x") == 24


def test_unloading_and_replacing_leave_running_requests_their_adapter():
    engine = engine_of(names="ab")
    request = Request((5, 6, 7), SamplingParams(temperature=0, max_tokens=20), adapter="a")
    other = Request((5, 6, 7), SamplingParams(temperature=0, max_tokens=20), adapter="b")
    numbers = [engine.submit(request), engine.submit(other)]
    tokens = engine.step()
    engine.load_adapter("b", ADAPTERS["c"], replace=True)
    assert engine.unload_adapter("a") == 1
    with pytest.raises(UnknownAdapter, match="loaded: b"):
        engine.submit(request)
    with pytest.raises(UnknownAdapter):
        engine.unload_adapter("a")
    assert len(engine.adapters.slots) == 3
    while not engine.is_idle:
        tokens += engine.step()
    for number, wanted in zip(numbers, (alone(request)[0], alone(other)[0]), strict=True):
        assert [t.id for t in tokens if t.request == number] == wanted
    assert [held.name for held in engine.adapters.slots.values()] == ["b"]
    assert ids_of(run(engine, [other]))[0, 0] != alone(other)[0]           # by now "b" is another one
    engine.submit(other)
    engine.cancel(engine.submit(other))
    assert engine.adapters.loaded["b"].n_users == 1


def test_the_shelf_has_limits():
    engine = engine_of(names="ab", max_adapters=2)
    with pytest.raises(RequestError, match="which is the limit"):
        engine.load_adapter("c", ADAPTERS["c"])
    with pytest.raises(RequestError, match="loaded already"):
        engine.load_adapter("a", ADAPTERS["c"])
    engine.unload_adapter("a")
    engine.load_adapter("c", ADAPTERS["c"])
    wide = small_model(CONFIG.model_copy(update={"dim": 2048}))
    with pytest.raises(RequestError, match="MiB"):
        Engine(wide, EngineSettings(**SETTINGS, adapter_mib=1)).load_adapter("a", filled(wide, r=64))


def test_what_cannot_be_served_is_said():
    engine = engine_of(names="a")
    with pytest.raises(ConfigError, match="DoRA"):
        engine.load_adapter("dora", filled(small_model(), r=2, use_dora=True))
    with pytest.raises(ConfigError, match="another base"):
        engine.load_adapter("wide", filled(small_model(CONFIG.model_copy(update={"hidden_dim": 64})), r=2))
    with pytest.raises(RequestError, match="Llama family"):
        Engine(model_of("transformer")).load_adapter("a", ADAPTERS["a"])
    assert list(engine.adapters.loaded) == ["a"]
    found = ids_of(run(engine, [Request((5, 6), SamplingParams(temperature=0, max_tokens=5), adapter="a")]))
    assert found[0, 0] == alone(Request((5, 6), SamplingParams(temperature=0, max_tokens=5), adapter="a"))[0]


def logits_of(engine, requests, stagger=20):
    run(engine, requests, stagger)
    return {key: torch.stack(rows) for key, rows in engine.logits.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_deterministic_logits_have_the_same_bits_alone_and_mixed(dtype):
    def fresh(names=KINDS):
        made = Recorded(make_runner(small_model(dtype=dtype)), EngineSettings(**SETTINGS, deterministic=True))
        for name in names:
            made.load_adapter(name, ADAPTERS[name])
        return made

    requests = mixed_requests(10)
    crowd = logits_of(fresh(), requests)
    for i, request in enumerate(requests):
        own = logits_of(fresh(request.adapter or ""), [request])[0, 0]
        assert torch.equal(own, crowd[i, 0]), request.adapter
    warm = fresh()
    run(warm, requests)
    warm.logits.clear()
    again = logits_of(warm, requests[:4], stagger=1)
    assert all(torch.equal(again[len(requests) + i, 0], crowd[i, 0]) for i in range(4))


def test_deterministic_steps_refuse_what_depends_on_the_place(monkeypatch):
    bank = TiledBank(CONFIG, torch.float32, CPU, 16)
    plain = torch.nn.functional.linear
    monkeypatch.setattr("ayllu.adapters.many.F.linear", lambda x, w: plain(x, w) + torch.arange(len(x))[:, None])
    with pytest.raises(ConfigError, match="place in the product"):
        bank.put(0, ADAPTERS["a"])
    assert not bank.slots


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_whatever_comes_and_goes(seed):
    """Random loading, replacing, unloading, requests and cancellations; in the end all memory is free again."""
    rng, engine, asked = random.Random(seed), engine_of(names=(), max_adapters=4, max_waiting=50), []
    for _ in range(120):
        name, kind = rng.choice("xyz"), rng.choice(list(KINDS))
        try:
            match rng.randrange(6):
                case 0:
                    engine.load_adapter(name, ADAPTERS[kind], replace=rng.random() < 0.5)
                case 1:
                    engine.unload_adapter(name)
                case 2 | 3:
                    params = SamplingParams(max_tokens=rng.randint(1, 6), n=rng.choice([1, 1, 2]), seed=1)
                    asked.append(engine.submit(Request((5, 6, rng.randrange(3, 101)), params, adapter=name)))
                case 4:
                    engine.cancel(rng.choice(asked or [0]))
                case 5:
                    engine.step()
        except RequestError:                             # unknown, loaded already, or the limit
            pass
        held = engine.adapters.slots.values()
        assert len(held) <= 4
        assert all(adapter.n_users > 0 or not adapter.is_gone for adapter in held)
        assert set(engine.adapters.loaded.values()) <= set(held)
    assert len(asked) > 10
    while not engine.is_idle:
        engine.step()
    for name in list(engine.adapters.loaded):
        engine.unload_adapter(name)
    assert not engine.adapters.slots
    assert engine.scheduler.pool.n_free == engine.scheduler.pool.n_pages
