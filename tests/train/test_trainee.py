"""What training computes with: the model's parameters and gradients, whatever is compiled, recomputed or rounded."""

import shutil
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ayllu.config import validate
from ayllu.data.loader import Batch, WindowLoader
from ayllu.model.account import compiled_layer_bytes
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import initialise
from ayllu.train.loop import LoopConfig, accumulate, step
from ayllu.train.losses import IGNORED, next_token_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.state import TrainState
from ayllu.train.trainee import KEPT, TraineeLoss, trainee

CPU = torch.device("cpu")
SHAPE = {"dim": 32, "n_layers": 3, "n_heads": 2, "n_kv_heads": 1, "head_dim": 16, "hidden_dim": 48, "vocab_size": 64,
         "max_context": 32}
MODELS = {"llama": LlamaConfig(**SHAPE, tie_embeddings=True), "untied": LlamaConfig(**SHAPE),
          "dropout": LlamaConfig(**SHAPE, residual_dropout=0.2),
          "transformer": TransformerConfig(**SHAPE, dropout=0.0)}


def new_model(name):
    model = build_model(MODELS[name])
    initialise(model, 3, 0)
    return model


def batch(rows=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    ids, labels = (torch.randint(0, 64, (rows, 16), generator=draw) for _ in range(2))
    for row in range(rows):
        labels[row, 1 + int(torch.randint(0, 15, (), generator=draw)):] = IGNORED
    return Batch(ids, labels)


def loop(**changes):
    return LoopConfig(**{"steps": 4, "batch_size": 4, "micro_batch": 4, "precision": "float32"} | changes)


def gradients(model, loss, config):
    model.zero_grad()
    torch.manual_seed(0)                                 # dropout draws from here
    _, weight = accumulate(model, batch(), loss, config, CPU)
    return [p.grad / weight for p in model.parameters()]


def relative(found, expected):
    difference, norm = 0.0, 0.0
    for a, b in zip(found, expected, strict=True):
        difference, norm = difference + (a - b).double().square().sum(), norm + b.double().square().sum()
    return (difference / norm).sqrt().item()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["float32", "autocast", "bf16_masters"])
def test_recomputed_activations_change_no_bit(name, precision):
    found, config = [], loop(precision=precision)
    for recomputes in (False, True):
        found.append(gradients(new_model(name), TraineeLoss(next_token_loss, precision, False, recomputes), config))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_recomputing_keeps_less():
    kept = []
    for recomputes in (False, True):
        sizes, model = [], trainee(new_model("llama"), "float32", False, recomputes)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.nbytes) or t, lambda t: t):
            model.trunk(model.embed(batch().ids))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 4


@pytest.mark.parametrize("name", ["llama", "untied", "transformer"])
def test_bfloat16_between_float32_weights(name):
    """Float32 gradients, as near to the exact ones as autocast's within a factor of 3: the residual is rounded too."""
    model = new_model(name)
    exact = gradients(model, next_token_loss, loop())
    cast = gradients(model, next_token_loss, loop(precision="autocast"))
    low = gradients(model, TraineeLoss(next_token_loss, "bf16_masters", False, False), loop(precision="bf16_masters"))
    assert {g.dtype for g in low} == {torch.float32}
    assert relative(low, exact) < 3 * relative(cast, exact)
    assert relative(low, exact) > 1e-4                   # it did round


def test_small_updates_are_not_lost_in_bfloat16():
    """A rate of 1e-5 is far below bfloat16's steps near 1 (0.008); the float32 weights take it."""
    model = new_model("llama")
    optim = OptimConfig(lr=1e-5, weight_decay=0.0)
    state = TrainState(model, build_optimizer(model, optim))
    before = model.norm.weight.detach().clone()
    config = loop(precision="bf16_masters")
    step(state, batch(), TraineeLoss(next_token_loss, "bf16_masters", False, False), config, optim, CPU)
    moved = (model.norm.weight - before).abs()
    assert 0 < moved.max() < 2e-5


@given(rows=st.integers(1, 9), micro=st.integers(1, 9), ranks=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_split_into_micro_batches_and_ranks_gives_the_same_gradient(rows, micro, ranks, seed):
    """Rows of unequal weight, split at will; the ranks' sums are added as `fit` adds them. In float64: 1e-6.

    The softmax's statistics are float32 in each row alone, so that no split can change them.
    """
    model, whole = new_model("llama").double(), batch(rows, seed)

    def mean(parts):
        model.zero_grad()
        totals = [accumulate(model, part, next_token_loss, loop(micro_batch=micro), CPU) for part in parts]
        weight = sum(weight for _, weight in totals)
        return [p.grad / weight for p in model.parameters()]

    shares = [Batch(whole.ids[r::ranks], whole.labels[r::ranks]) for r in range(ranks)]
    model.zero_grad()
    value = next_token_loss(model, whole)
    value.total.backward()
    expected = [p.grad / value.weight for p in model.parameters()]
    assert relative(mean([share for share in shares if len(share)]), expected) < 1e-6


def test_recipes_from_before_keep_their_meaning():
    table = {"steps": 1}
    assert validate(LoopConfig, {**table, "autocast": False}, "test").precision == "float32"
    assert validate(LoopConfig, {**table, "autocast": True}, "test").precision == "autocast"
    assert validate(LoopConfig, table, "test").precision == "autocast"


needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")) or sys.version_info >= (3, 14),
    reason="no C++ compiler for inductor, or Python is newer than torch.compile knows")


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-5), ("bf16_masters", 5e-3)])
def test_one_graph_serves_all_compiled_blocks_and_trains_like_eager(precision, close):
    """Three blocks and the last norm: two graphs, none made anew when weights move. Sums in another order."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    tokens = np.arange(2000, dtype="<u2") % 64
    losses = []
    for compiled in (False, True):
        model, optim = new_model("llama"), OptimConfig(lr=1e-2)
        state = TrainState(model, build_optimizer(model, optim))
        loss = TraineeLoss(next_token_loss, precision, compiled, False)
        losses.append([step(state, WindowLoader(tokens, 16, 4).batch(n), loss, loop(precision=precision), optim,
                            CPU)["loss"] for n in range(4)])
    assert losses[1] == pytest.approx(losses[0], rel=close)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


@pytest.mark.slow
@needs_compiler
def test_compiled_blocks_in_float32_keep_less_for_the_same_gradients(monkeypatch):
    """The slow twin keeps all that the compiler would. The account says no less, where products are large no more."""
    config = LlamaConfig(**SHAPE | {"dim": 64, "hidden_dim": 176, "n_kv_heads": 2, "head_dim": 32})
    kept, found = [], []
    for share in (1.0, KEPT):
        monkeypatch.setattr("ayllu.train.trainee.KEPT", share)
        torch._dynamo.reset()
        model = build_model(config)
        initialise(model, 3, 0)
        loss = TraineeLoss(next_token_loss, "float32", True, False)
        gradients(model, loss, loop())
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        sizes = dict[int, int]()
        twin = trainee(model, "float32", True, False)

        def note(tensor, sizes=sizes, own=own):
            if tensor.untyped_storage().data_ptr() not in own:
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x = twin.embed(batch().ids)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            for layer, attend in zip(twin.layers, twin.causal(), strict=True):
                x = layer(x, twin.rope(torch.arange(16), x.dtype), attend)
        kept.append(sum(sizes.values()) / (3 * 64))      # of a layer and a token
        found.append(gradients(model, loss, loop()))
    assert relative(found[1], found[0]) < 1e-5
    assert kept[1] < 0.9 * kept[0]
    assert kept[1] < 1.1 * compiled_layer_bytes(config, False, plain=True)
