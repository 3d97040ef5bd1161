"""fit(): the same gradient for every split, nothing swallowed, signals honoured."""

import os
import signal
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from train.observer import Remember

from ayllu.data.loader import Batch, WindowLoader
from ayllu.errors import TrainingDiverged
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig, TransformerConfig
from ayllu.model.init import initialise
from ayllu.train.checkpoints import restore
from ayllu.train.loop import Interrupted, LoopConfig, accumulate, fit
from ayllu.train.losses import Loss, next_token_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.state import TrainState

CPU = torch.device("cpu")
SHAPE = {"dim": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "head_dim": 16, "hidden_dim": 48, "vocab_size": 64,
         "max_context": 32, "tie_embeddings": True}
LLAMA = LlamaConfig(**SHAPE)
TRANSFORMER = TransformerConfig(**SHAPE, dropout=0.1)
OPTIM = OptimConfig(lr=1e-2)


def loop(**changes):
    return LoopConfig(**{"steps": 12, "batch_size": 4, "micro_batch": 4, "eval_every": 4, "checkpoint_every": 3,
                         "log_every": 1, "autocast": False, **changes})


def loader(context=16, batch_size=4):
    tokens = torch.randint(0, 64, (2000,), generator=torch.Generator().manual_seed(0)).numpy().astype("<u2")
    return WindowLoader(tokens, context, batch_size=batch_size, seed=2)


def new_state(config=LLAMA):
    torch.manual_seed(0)                                 # dropout draws from here
    model = build_model(config)
    initialise(model, config.n_layers, 0)
    return TrainState(model, build_optimizer(model, OPTIM))


def run_fit(state, folder, loss=next_token_loss, config=None, evaluate=lambda s: {"held_out": 1.0}):
    observer = Remember()
    fit(state, loader(), loss, loop=config or loop(), optim=OPTIM, run=folder, observer=observer, evaluate=evaluate,
        device=CPU)
    return observer


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_split_into_micro_batches_and_ranks_gives_the_same_gradient(data):
    """To 1e-6 of the gradient's norm: float32 sums in another order. Ranks add up what each of them accumulated."""
    state, rows = new_state(), data.draw(st.integers(1, 9))
    batch = loader(batch_size=rows).batch(data.draw(st.integers(0, 5)))
    batch = Batch(batch.ids, batch.labels.clone())
    for row in range(rows):                              # rows of unequal weight: means of means would differ
        batch.labels[row, data.draw(st.integers(0, 16)):] = -100
    batch.labels[0, 0] = 1                               # one at least teaches

    def gradient(parts, micro):
        state.model.zero_grad()
        weight = sum(accumulate(state.model, Batch(batch.ids[part], batch.labels[part]), next_token_loss,
                                loop(micro_batch=micro), CPU)[1] for part in parts)
        return torch.cat([p.grad.flatten() for p in state.model.parameters()]).double() / weight

    borders = sorted(data.draw(st.sets(st.integers(1, rows - 1), max_size=3))) if rows > 1 else []
    parts = [slice(begin, end) for begin, end in pairwise([0, *borders, rows])]
    whole = gradient([slice(0, rows)], rows)
    split = gradient(parts, data.draw(st.integers(1, rows)))
    assert (whole - split).norm() <= 1e-6 * whole.norm()


def test_a_model_learns(tmp_path):
    state, observer = new_state(), Remember()
    counting = WindowLoader(np.arange(2000, dtype="<u2") % 64, 16, batch_size=4)     # the next id is one more
    fit(state, counting, next_token_loss, loop=loop(steps=60, eval_every=60, checkpoint_every=60), optim=OPTIM,
        run=tmp_path, observer=observer, evaluate=lambda s: {}, device=CPU)
    assert observer.losses[0] > 4.0                      # ln 64 = 4.16
    assert observer.losses[-1] < 1.5


@pytest.mark.parametrize("config", [LLAMA, TRANSFORMER], ids=["llama", "transformer-with-dropout"])
@pytest.mark.parametrize("stop_at", [1, 5, 9])
def test_a_resume_is_bit_identical(tmp_path, config, stop_at):
    whole = new_state(config)
    expected = run_fit(whole, tmp_path / "whole").losses

    first, interrupted = new_state(config), []

    def stopping_loss(model, batch):
        if first.step + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return next_token_loss(model, batch)

    with pytest.raises(Interrupted) as stop:
        run_fit(first, tmp_path / "cut", stopping_loss)
    assert stop.value.step == stop_at
    second = new_state(config)
    torch.manual_seed(999)                               # the resume must bring back its own random numbers
    assert restore(second, tmp_path / "cut")
    interrupted = run_fit(second, tmp_path / "cut").losses
    assert interrupted == expected[stop_at:]
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (second.step, second.tokens) == (whole.step, whole.tokens)


def test_a_loss_that_is_no_number_stops_the_run_by_name(tmp_path):
    state = new_state()

    def poisoned(model, batch):
        loss = next_token_loss(model, batch)
        return Loss(loss.total * (float("nan") if state.step == 6 else 1.0), loss.weight, loss.per_example)

    with pytest.raises(TrainingDiverged, match=r"nan at step 7 \(batch 6\)"):
        run_fit(state, tmp_path, poisoned)
    fresh = new_state()
    assert restore(fresh, tmp_path)
    assert fresh.step == 6                               # the checkpoint before it is whole


def test_evaluation_does_not_change_training(tmp_path):
    def noisy(state):
        state.model.eval()
        with torch.no_grad():
            next_token_loss(state.model, loader().batch(0))
        state.model.train()
        return {"held_out": 0.0}

    often = run_fit(new_state(TRANSFORMER), tmp_path / "a", config=loop(eval_every=1), evaluate=noisy)
    never = run_fit(new_state(TRANSFORMER), tmp_path / "b", config=loop(eval_every=1000))
    assert often.losses == never.losses


@pytest.mark.parametrize(("precision", "emulates", "is_said"), [
    ("autocast", True, True), ("autocast", False, False), ("float32", True, False)])
def test_a_precision_that_this_cpu_only_emulates_is_said(tmp_path, monkeypatch, precision, emulates, is_said):
    said = []
    monkeypatch.setattr("ayllu.train.loop.emulates_bfloat16", lambda device: emulates)
    monkeypatch.setattr("ayllu.train.loop.say", said.append)
    run_fit(new_state(), tmp_path, config=loop(steps=1, autocast=precision == "autocast"))
    assert any("loop.precision=float32 is faster" in line for line in said) is is_said
