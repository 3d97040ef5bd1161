"""A trainee with the kernels has the gradients and the training of one without, to bfloat16."""

from functools import partial

import pytest
import torch

from ayllu.data.loader import Batch
from ayllu.data.pack_loader import PackedBatch
from ayllu.model.attend import Causal, Within, packed
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import initialise
from ayllu.native import attention
from ayllu.train.head_loss import Kernels
from ayllu.train.loop import LoopConfig, accumulate, step
from ayllu.train.losses import next_token_loss
from ayllu.train.objective import masked_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.state import TrainState
from ayllu.train.trainee import NativeAttend, TraineeLoss, WithNative

CPU = torch.device("cpu")
SHAPE = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4, "head_dim": 16, "hidden_dim": 96, "vocab_size": 200,
         "max_context": 96}
MODELS = {"llama": LlamaConfig(**SHAPE, tie_embeddings=True), "transformer": TransformerConfig(**SHAPE, dropout=0.0),
          "grouped": LlamaConfig(**SHAPE | {"n_kv_heads": 2})}


def new_state(name="llama"):
    model = build_model(MODELS[name])
    initialise(model, 2, 0)
    return TrainState(model, build_optimizer(model, OptimConfig(lr=2e-3)))


def loss(precision, native, compiled=False):
    return TraineeLoss(partial(next_token_loss, kernels=Kernels(native=native)), precision, compiled, False, native)


def batch(seed=0):
    ids = torch.randint(0, 14, (4, 97), generator=torch.Generator().manual_seed(seed)) ** 2
    ids[:, 1::2] = ids[:, :-1:2] // 2                    # something to learn
    return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())


def gradients(name, how, precision, of=None):
    model = new_state(name).model
    accumulate(model, of or batch(), how, LoopConfig(steps=1, micro_batch=2, precision=precision), CPU)
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", ["autocast", "bf16_masters"])
def test_gradients_are_as_near_to_float32_as_without(name, precision):
    exact = gradients(name, next_token_loss, "float32")
    slow, fast = (gradients(name, loss(precision, native), precision) for native in (False, True))
    assert (fast - exact).norm() < 1.1 * (slow - exact).norm()
    assert not torch.equal(fast, slow)


@pytest.mark.parametrize("native", [False, True])
def test_the_kernel_is_called_where_it_was_asked_for(monkeypatch, native):
    calls, whole = [], attention.attention
    monkeypatch.setattr(attention, "attention", lambda *qkv: calls.append(1) or whole(*qkv))
    gradients("llama", loss("bf16_masters", native), "bf16_masters")
    gradients("grouped", loss("bf16_masters", native), "bf16_masters")
    assert len(calls) == (2 * 2 * 2 if native else 0)


@pytest.mark.parametrize("changes", [{}, {"sliding_window": 20, "first_sliding_layer": 1}])
def test_packed_gradients_are_as_near_to_float32_as_without(monkeypatch, changes):
    """Documents of any length, of which some places are seen by all where no layer has a window."""
    plain, calls, whole = batch(), [], attention.attention
    document = (torch.rand(4, 96, generator=torch.Generator().manual_seed(1)) < 0.05).cumsum(1)
    place = torch.arange(96).expand(4, -1)
    packed_batch = PackedBatch(plain.ids, plain.labels, torch.ones(4, 96), document, place,
                               (place < 7) & (document == 0) & (not changes))
    monkeypatch.setitem(MODELS, "packed", LlamaConfig(**SHAPE | {"n_kv_heads": 2} | changes, tie_embeddings=True))
    monkeypatch.setattr(attention, "attention", lambda *qkv: calls.append(1) or whole(*qkv))
    exact = gradients("packed", masked_loss, "float32", packed_batch)
    slow, fast = (gradients("packed", TraineeLoss(partial(masked_loss, by=by), "bf16_masters", False, False, native),
                            "bf16_masters", packed_batch) for by, native in (("mask", False), ("within", True)))
    assert len(calls) == 2 * 2                           # layers, micro-batches
    assert (fast - exact).norm() < 1.1 * (slow - exact).norm()
    assert not torch.equal(fast, slow)


def test_masks_and_dropout_stay_with_torch():
    given = []
    block = WithNative(torch.nn.Module())
    block.module.forward = lambda x, rope, attend: given.append(attend)
    for attend in (packed(torch.zeros(1, 8)), Causal(dropout=0.1)):
        block(torch.zeros(1, 8, 2), None, attend)
        assert given[-1] is attend
    for attend in (Causal(window=4), Within(torch.zeros(1, 8), torch.ones(1, 8))):
        block(torch.zeros(1, 8, 2), None, attend)
        assert given[-1].twin is attend


def test_a_window_is_a_window():
    """Values are rounded to bfloat16, after sums of rounded probabilities: 2^-7 of numbers about 1."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 70, 2, 16, generator=draw).bfloat16() for _ in range(3))
    for window in (1, 20, 70):
        found, expected = NativeAttend(Causal(window))(q, k, v), Causal(window)(q.float(), k.float(), v.float())
        torch.testing.assert_close(found.float(), expected, rtol=2**-7, atol=2**-7)


def test_fifty_steps_learn_the_same():
    """Rounding differs, so the curves part slowly: 1 % of the loss at the end, which has fallen by a fifth or more."""
    curves, optim, loop = [], OptimConfig(lr=2e-3), LoopConfig(steps=50, batch_size=4, micro_batch=4,
                                                              precision="bf16_masters")
    for native in (False, True):
        state, how = new_state(), loss("bf16_masters", native)
        curves.append([step(state, batch(n), how, loop, optim, CPU)["loss"] for n in range(50)])
    assert curves[1] == pytest.approx(curves[0], rel=0.01)
    assert curves[1][-1] < 0.8 * curves[1][0]
    assert curves[0] != curves[1]


@pytest.mark.slow
def test_compiled_blocks_call_the_kernel_too():
    exact = gradients("llama", next_token_loss, "float32")
    slow, fast = (gradients("llama", loss("bf16_masters", native, compiled=True), "bf16_masters")
                  for native in (False, True))
    assert (fast - exact).norm() < 1.1 * (slow - exact).norm()
