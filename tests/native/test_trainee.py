"""A trainee with the kernels has the gradients and the training of one without, to bfloat16."""

from functools import partial

import pytest
import torch

from ayllu.data.loader import Batch
from ayllu.model.attend import Causal, packed
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import initialise
from ayllu.native import attention
from ayllu.train.head_loss import Kernels
from ayllu.train.loop import LoopConfig, accumulate, step
from ayllu.train.losses import next_token_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.state import TrainState
from ayllu.train.trainee import TraineeLoss, WithNative

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


def gradients(name, how, precision):
    model = new_state(name).model
    accumulate(model, batch(), how, LoopConfig(steps=1, micro_batch=2, precision=precision), CPU)
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
    calls, whole = [], attention.causal
    monkeypatch.setattr(attention, "causal", lambda *qkv: calls.append(1) or whole(*qkv))
    gradients("llama", loss("bf16_masters", native), "bf16_masters")
    gradients("grouped", loss("bf16_masters", native), "bf16_masters")        # fewer keys than queries: torch's
    assert len(calls) == (2 * 2 if native else 0)


def test_masks_windows_and_dropout_stay_with_torch():
    given = []
    block = WithNative(torch.nn.Module())
    block.module.forward = lambda x, rope, attend: given.append(attend)
    for attend in (packed(torch.zeros(1, 8)), Causal(window=4), Causal(dropout=0.1)):
        block(torch.zeros(1, 8, 2), None, attend)
        assert given[-1] is attend
    block(torch.zeros(1, 8, 2), None, Causal(window=8))
    assert given[-1].twin == Causal(window=8)


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
