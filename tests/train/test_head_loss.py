"""The chunked head loss is its slow twin: losses, gradients, tied and untied, weighted, under autocast and compiled."""

import shutil
import sys
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ayllu.data.loader import Batch
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import initialise
from ayllu.train.head_loss import HeadLoss, Kernels, softmax_loss
from ayllu.train.losses import IGNORED, next_token_loss, plain_loss

SHAPE = {"dim": 16, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "head_dim": 8, "hidden_dim": 24, "vocab_size": 50}
MODELS = {"tied": LlamaConfig(**SHAPE, tie_embeddings=True), "untied": LlamaConfig(**SHAPE),
          "transformer": TransformerConfig(**SHAPE, dropout=0.0)}
EXTRAS = [{}, {"z_loss": 0.02}, {"label_smoothing": 0.2}, {"z_loss": 0.01, "label_smoothing": 0.1}]
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")) or sys.version_info >= (3, 14), reason="no compiler that fits")


def new_model(name):
    model = build_model(MODELS[name])
    initialise(model, 1, 0)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(10)                                   # far from uniform: mistakes show
    return model


def batch():
    draw = torch.Generator().manual_seed(3)
    ids, labels = (torch.randint(0, 50, (3, 9), generator=draw) for _ in range(2))
    labels[1, 4:] = IGNORED
    return Batch(ids, labels)


def gradients(model, loss, autocast=False):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = loss(model, batch())
    return value, torch.autograd.grad(value.total, list(model.parameters()))


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("extra", EXTRAS, ids=str)
def test_losses_and_gradients_are_those_of_all_logits_at_once(name, extra):
    """Logits go up to 100, where float32 knows exp(x) to 1e-5 only: 5e-5 of the norm."""
    model = new_model(name)
    slow, by_slow = gradients(model, partial(next_token_loss, chunk=0, **extra))
    for chunk in (1, 7, 27, 1000):
        fast, by_fast = gradients(model, partial(next_token_loss, chunk=chunk, **extra))
        torch.testing.assert_close(fast.total, slow.total)
        torch.testing.assert_close(fast.per_example, slow.per_example)
        assert fast.weight == slow.weight == 9 + 4 + 9
        assert max(map(relative, by_fast, by_slow)) < 5e-5


@given(n=st.integers(1, 40), chunk=st.integers(1, 50), scale=st.floats(-3, 3).filter(lambda x: abs(x) > 0.01),
       z_loss=st.sampled_from([0.0, 0.1]), smoothing=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_any_weights_chunks_and_upstream_gradient(n, chunk, scale, z_loss, smoothing, seed):
    """Float32 sums in another order: 5e-5 of the norm."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, 6, generator=draw, requires_grad=True)
    matrix = torch.randn(11, 6, generator=draw, requires_grad=True)
    labels, weights = torch.randint(0, 11, (n,), generator=draw), torch.rand(n, generator=draw) + 0.1
    total, each = HeadLoss(labels, weights, z_loss, smoothing, chunk)(hidden, matrix)
    slow = plain_loss((hidden @ matrix.t())[None], labels[None], z_loss, smoothing)[0] * weights
    torch.testing.assert_close(each, slow.detach())
    torch.testing.assert_close(total, slow.sum())
    found = torch.autograd.grad(total * scale, (hidden, matrix))
    expected = torch.autograd.grad(slow.sum() * scale, (hidden, matrix))
    assert max(map(relative, found, expected)) < 1e-5


def test_the_form_of_the_products_that_bfloat16_gets_on_a_cpu_gives_the_same():
    """bfloat16 in both; only the order of the sums differs."""
    draw = torch.Generator().manual_seed(0)
    hidden, matrix = (torch.randn(n, 32, generator=draw, requires_grad=True) for n in (24, 50))
    labels, weights = torch.randint(0, 50, (24,), generator=draw), torch.ones(24)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        total, _ = HeadLoss(labels, weights, chunk=7)(hidden.to(dtype), matrix.to(dtype))
        found.append(torch.autograd.grad(total, (hidden, matrix)))
    assert max(map(relative, found[1], found[0])) < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("learned", "computed"), [(0, 0), (1, 1), (20, 20), (36, 40), (40, 40)])
def test_places_without_a_weight_cost_nothing_and_change_nothing(dtype, learned, computed):
    """Sums of float32 in another order, and of bfloat16 by other chunks. Few such places aren't worth a copy."""
    draw = torch.Generator().manual_seed(0)
    hidden, matrix = (torch.randn(n, 32, generator=draw, requires_grad=True) for n in (40, 50))
    labels = torch.randint(0, 50, (40,), generator=draw)
    weights = (torch.rand(40, generator=draw) + 0.1) * (torch.randperm(40, generator=draw) < learned)
    found, counts = [], []

    def counted(logits, *rest):
        counts[-1] += len(logits)
        return softmax_loss(logits, *rest)

    for leaves_out in (True, False):
        counts.append(0)
        total, each = HeadLoss(labels, weights, 0.01, 0.1, 7, Kernels(counted), leaves_out)(
            hidden.to(dtype), matrix.to(dtype))
        found.append((total, each, *torch.autograd.grad(total, (hidden, matrix))))
    assert counts == [computed, 40]
    for fast, slow in zip(*found, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=2e-6 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("name", MODELS)
def test_under_autocast_it_is_as_near_to_float32_as_all_logits_at_once(name):
    """bfloat16 rounds in both; the chunked one must not lose more, but for chance (a quarter)."""
    model = new_model(name)
    _, exact = gradients(model, partial(next_token_loss, chunk=0))
    _, slow = gradients(model, partial(next_token_loss, chunk=0), autocast=True)
    value, fast = gradients(model, partial(next_token_loss, chunk=8), autocast=True)
    assert value.total.dtype == torch.float32
    assert {g.dtype for g in fast} == {torch.float32}
    for a, b, c in zip(fast, slow, exact, strict=True):
        assert relative(a, c) < 1.25 * relative(b, c) + 1e-4


def test_a_certain_token_keeps_its_small_gradient():
    """p - 1 is formed before it is rounded to bfloat16, whose numbers near 1 are 0.004 apart."""
    logits = torch.tensor([[8.0, 0.0, 0.0, 0.0]])
    _, first, second = softmax_loss(logits.bfloat16(), torch.tensor([0]), torch.ones(1), 0.0, 0.0)
    assert (first * second)[0, 0].item() == pytest.approx(logits.softmax(-1)[0, 0].item() - 1, rel=0.005)


class Largest(TorchDispatchMode):
    """Remembers the most numbers that any tensor held."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.most = max(self.most, tensor.numel())
        return out


@pytest.mark.parametrize(("chunk", "most"), [(0, 600 * 97), (64, 64 * 97), (None, 600 * 97)])
def test_no_more_logits_than_a_chunk_exist(chunk, most):
    """A small vocabulary fits whole into the chunk that is picked."""
    hidden, matrix = torch.randn(600, 8, requires_grad=True), torch.randn(97, 8, requires_grad=True)
    labels, weights = torch.zeros(600, dtype=torch.long), torch.ones(600)
    with Largest() as seen:
        if chunk == 0:
            plain_loss((hidden @ matrix.t())[None], labels[None]).sum().backward()
        else:
            HeadLoss(labels, weights, chunk=chunk)(hidden, matrix)[0].backward()
    assert seen.most == most


def test_float32_logits_are_half_as_many_so_that_they_take_as_many_bytes():
    loss = HeadLoss(torch.zeros(1, dtype=torch.long), torch.ones(1))
    sizes = [loss.tokens(torch.empty(32_000, 1, dtype=dtype)) for dtype in (torch.bfloat16, torch.float32)]
    assert sizes == [512, 256]


def test_without_gradients_none_are_computed():
    hidden, matrix = torch.randn(30, 8, requires_grad=True), torch.randn(7, 8)
    calls = []

    def counting(*args):
        calls.append(args)
        return softmax_loss(*args)

    loss = HeadLoss(torch.zeros(30, dtype=torch.long), torch.ones(30), chunk=10, kernels=Kernels(softmax=counting))
    with torch.no_grad():
        assert not loss(hidden, matrix)[0].requires_grad
    loss(hidden, matrix)[0].backward()                   # a frozen head: its matrix gets none
    assert matrix.grad is None
    assert hidden.grad is not None
    assert len(calls) == 6


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("extra", [{}, {"z_loss": 0.01, "label_smoothing": 0.1}], ids=str)
def test_compiled_whole_or_only_the_softmax_it_is_the_same(extra):
    """As above: 5e-5 of the norm."""
    torch._dynamo.reset()
    model = new_model("tied")
    slow, by_slow = gradients(model, partial(next_token_loss, chunk=0, **extra))
    whole = torch.compile(partial(next_token_loss, chunk=9, **extra), fullgraph=True)
    part = partial(next_token_loss, chunk=10, kernels=Kernels.compiled(), **extra)
    for loss in (whole, part):
        fast, by_fast = gradients(model, loss)
        torch.testing.assert_close(fast.total, slow.total)
        assert max(map(relative, by_fast, by_slow)) < 5e-5
