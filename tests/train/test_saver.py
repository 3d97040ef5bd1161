"""Checkpoints in the background: the same bytes as at once, one at a time, and a failure is heard."""

import signal
import threading

import pytest
import torch
from train.observer import Remember

from ayllu.data.loader import WindowLoader
from ayllu.errors import CheckpointError, TrainingDiverged
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.train import checkpoints
from ayllu.train.best import Best
from ayllu.train.checkpoints import restore
from ayllu.train.loop import LoopConfig, fit
from ayllu.train.losses import next_token_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.saver import Saver, copied
from ayllu.train.state import TrainState

CPU = torch.device("cpu")
CONFIG = LlamaConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, hidden_dim=24, vocab_size=50,
                     max_context=16)


def new_state():
    model = build_model(CONFIG)
    initialise(model, 1, 0)
    return TrainState(model, build_optimizer(model, OptimConfig(lr=1e-2)), best=Best())


def train(run, state=None, loss=next_token_loss, **loop):
    state = state or new_state()
    settings = LoopConfig(**{"steps": 6, "batch_size": 2, "micro_batch": 2, "eval_every": 3, "checkpoint_every": 2,
                             "log_every": 1, "autocast": False, **loop})
    tokens = torch.randint(0, 50, (500,), generator=torch.Generator().manual_seed(0)).numpy().astype("<u2")
    fit(state, WindowLoader(tokens, 8, batch_size=2), loss, loop=settings, optim=OptimConfig(lr=1e-2), run=run,
        observer=Remember(), evaluate=lambda state: {"held_out": 9.0 - state.step}, device=CPU)
    return state


@pytest.fixture
def gate(monkeypatch):
    """Writing waits until the gate is opened; `begun` says that a write has begun."""
    opened, begun, real = threading.Event(), threading.Event(), checkpoints.write

    def write(parts, folder, group):
        begun.set()
        assert opened.wait(30)
        real(parts, folder, group)

    monkeypatch.setattr(checkpoints, "write", write)
    return begun, opened


def fail(monkeypatch, reason="No space left on device"):
    def write(parts, folder, group):
        (folder / "__0_0.distcp").write_bytes(b"half")
        raise OSError(28, reason)

    monkeypatch.setattr(checkpoints, "write", write)


@pytest.mark.parametrize("name", ["step-00000006", "best-00000006"])
def test_background_and_at_once_write_the_same(tmp_path, name):
    for way in (True, False):
        train(tmp_path / str(way), async_save=way)
    one, two = ([p.read_bytes() for p in sorted((tmp_path / way / "checkpoints" / name).glob("*.distcp"))]
                for way in ("True", "False"))
    found = []
    for way in ("True", "False"):
        state = new_state()
        checkpoints.load(state, tmp_path / way / "checkpoints" / name)
        found.append(state)
    assert len(one) == len(two) == 1
    for a, b in zip(found[0].model.parameters(), found[1].model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert found[0].step == found[1].step == 6


def test_training_goes_on_and_the_copy_stays_as_it_was(tmp_path, gate):
    begun, opened = gate
    state = new_state()
    before = state.model.norm.weight.detach().clone()
    with Saver(tmp_path, keep=2) as saver:
        saver.save(state)
        assert begun.wait(30)
        with torch.no_grad():
            state.model.norm.weight.fill_(5)             # an update while the checkpoint is being written
        assert not saver.failed                          # and nobody waits
        assert not (tmp_path / "checkpoints" / "latest").exists()
        opened.set()
    fresh = new_state()
    assert restore(fresh, tmp_path)
    assert torch.equal(fresh.model.norm.weight, before)


def test_one_at_a_time(tmp_path, gate):
    begun, opened = gate
    state = new_state()
    with Saver(tmp_path, keep=9) as saver:
        saver.save(state)
        begun.wait(30)
        state.step = 1
        second = threading.Thread(target=saver.save, args=(state,))
        second.start()
        second.join(0.2)
        assert second.is_alive()                         # it waits for the first
        opened.set()
        second.join(30)
    assert (tmp_path / "checkpoints" / "latest").read_text(encoding="utf-8") == "step-00000001\n"


def test_a_full_disk_ends_training_clearly_and_the_last_checkpoint_is_intact(tmp_path, monkeypatch):
    trained = train(tmp_path, steps=4)
    fail(monkeypatch)
    with pytest.raises(CheckpointError, match=r"best-00000006 could not be written: .*No space left on device\. "
                                              r".*step-00000004 is untouched, and --resume auto"):
        train(tmp_path, trained, steps=9)
    assert not list((tmp_path / "checkpoints").glob(".*"))
    monkeypatch.undo()
    again = new_state()
    assert restore(again, tmp_path)
    train(tmp_path, again, steps=9)
    whole = train(tmp_path / "whole", steps=9)
    assert torch.equal(again.model.norm.weight, whole.model.norm.weight)


def test_the_failure_is_heard_before_the_next_evaluation_and_at_the_end(tmp_path, monkeypatch):
    fail(monkeypatch)
    state = new_state()
    with pytest.raises(CheckpointError, match="no checkpoint had been written before"):
        train(tmp_path, state, steps=100, checkpoint_every=2, eval_every=3)
    assert state.step <= 3
    with pytest.raises(CheckpointError, match="best-00000001 could not be written"):
        train(tmp_path, steps=1, eval_every=50)


def test_an_error_in_training_is_not_hidden_by_one_in_saving(tmp_path, monkeypatch, caplog):
    fail(monkeypatch)

    def diverging():
        with Saver(tmp_path, keep=2) as saver:
            saver.save(new_state())
            raise TrainingDiverged("the loss is nan")

    with pytest.raises(TrainingDiverged):
        diverging()
    assert "No space left on device" in caplog.text


def test_a_stop_waits_until_the_checkpoint_is_written(tmp_path):
    import os

    from ayllu.train.loop import Interrupted

    def stopping(model, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return next_token_loss(model, batch)

    with pytest.raises(Interrupted) as stop:
        train(tmp_path, loss=stopping, checkpoint_every=50)
    assert stop.value.step == 1
    assert (tmp_path / "checkpoints" / "latest").read_text(encoding="utf-8") == f"{stop.value.folder.name}\n"


def test_copied_shares_nothing():
    parts = {"a": {"b": torch.zeros(2)}, "list": [torch.ones(1), 3], "text": "x"}
    copy = copied(parts)
    parts["a"]["b"] += 1
    parts["list"][0] += 1
    assert copy["a"]["b"].sum() == 0
    assert copy["list"] == [torch.ones(1), 3]
    assert copy["text"] == "x"
