"""Packed training with the kernels goes on exactly where it was stopped or killed, to the last bit."""

import os
import random
import shutil
import signal
import time
from collections import Counter

import pytest
import torch
from flows.test_kills import MOST, Told, rows
from flows.tiny import PACKED, same_weights, write_recipe, write_texts
from train.observer import Remember
from train.test_resume_masks import FOLLOW, OPTIM, new_state

from ayllu.files import cache_folder
from ayllu.native import attention, head, linear
from ayllu.native.build import library
from ayllu.train.checkpoints import restore
from ayllu.train.head_loss import Kernels
from ayllu.train.loop import Interrupted, LoopConfig, fit
from ayllu.train.objective import masked_loss
from ayllu.train.trainee import TraineeLoss

STEPS = 24
LOW = ("compile=on", "loop.precision=bf16_masters", "loop.steps=80", "context=32")


def kernels(model, batch):
    return masked_loss(model, batch, by="within", kernels=Kernels(native=True))


def train(state, folder, stop_at=None):
    how = TraineeLoss(kernels, "bf16_masters", False, False, native=True)

    def loss(model, batch):
        if state.step + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return how(model, batch)

    loop = LoopConfig(steps=STEPS, batch_size=4, micro_batch=4, eval_every=50, checkpoint_every=50, log_every=1,
                      precision="bf16_masters")
    observer = Remember()
    fit(state, state.follower, loss, loop=loop, optim=OPTIM, run=folder, observer=observer,
        evaluate=lambda state: {}, device=torch.device("cpu"))
    return observer.losses


@pytest.mark.parametrize("adapt", [None, FOLLOW], ids=["plain", "with the controller"])
def test_stops_at_random_steps_change_nothing(tmp_path, monkeypatch, adapt):
    calls = Counter()

    def counting(real, name):
        return lambda *args, **kwargs: calls.update([name]) or real(*args, **kwargs)

    for module, name in ((attention, "attention"), (head, "head_loss"), (linear, "weight_gradient")):
        monkeypatch.setattr(module, name, counting(getattr(module, name), name))
    whole = new_state(adapt)
    expected, at = train(whole, tmp_path / "whole"), 0
    assert min(calls["attention"], calls["head_loss"], calls["weight_gradient"]) >= STEPS
    for stop_at in sorted(random.Random(2).sample(range(1, STEPS), 5)):
        state = new_state(adapt)
        assert restore(state, tmp_path / "cut") == (at > 0)
        with pytest.raises(Interrupted) as stopped:
            train(state, tmp_path / "cut", stop_at)
        assert (at := stopped.value.step) == stop_at
    last = new_state(adapt)
    assert restore(last, tmp_path / "cut")
    found = train(last, tmp_path / "cut")
    assert found == expected[at:]
    for a, b in zip(whole.model.parameters(), last.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.fixture
def told(tmp_path, monkeypatch, request):
    """Commands with an empty cache but for the kernels; compiling is left out unless it is asked for."""
    for name in ("attention", "head", "linear"):
        library(name)
    shutil.copytree(cache_folder() / "native", tmp_path / "cache" / "ayllu" / "native")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "" if request.param else "1")
    told = Told(tmp_path)
    told.patience_s = 300
    yield told
    told.close()


@pytest.mark.slow
@pytest.mark.parametrize(("told", "moments"), [(False, "tsmettsm"), (True, "s")], ids=["eager", "compiled"],
                         indirect=["told"])
def test_kills_at_random_moments_change_nothing(told, moments, tmp_path):
    """As in flows/test_kills.py: t in training, s in saving, m in publishing, e in evaluation. Compiling takes long."""
    write_texts(tmp_path, times=1)
    whole, cut = (write_recipe(tmp_path, name, end=PACKED) for name in ("whole", "cut"))
    told.train(whole, *LOW)
    assert told.status() == 0, told.said()
    assert "training uses C++ kernels" in told.said()
    chance = random.Random(3)
    for letter in (name.encode() for name in moments):
        told.heard()
        pid = told.train(cut, *LOW, "--resume", "auto")
        told.wait_for(letter, chance.randint(1, MOST[letter]))
        time.sleep(chance.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        assert told.status() == -9, f"the run was over before it was killed: {told.said()}"
    told.train(cut, *LOW, "--resume", "auto")
    assert told.status() == 0, told.said()
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert rows(tmp_path / "cut" / name) == rows(tmp_path / "whole" / name)
    assert same_weights(tmp_path / "cut", tmp_path / "whole")
    assert rows(tmp_path / "whole" / "metrics.jsonl")[-1]["step"] == 80
