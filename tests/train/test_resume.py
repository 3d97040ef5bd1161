"""A resume repeats an undisturbed run bit for bit, with each optimiser and each extra."""

import os
import signal

import pytest
import torch
from train.observer import Remember

from ayllu.data.loader import WindowLoader
from ayllu.device import matrix_peak
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.train import report
from ayllu.train.adapt import AdaptConfig
from ayllu.train.average import new_average
from ayllu.train.best import Best
from ayllu.train.checkpoints import restore, save
from ayllu.train.control import Control
from ayllu.train.loop import Interrupted, LoopConfig, fit
from ayllu.train.losses import Loss, next_token_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.search import Round
from ayllu.train.state import TrainState

CPU = torch.device("cpu")
CONFIG = LlamaConfig(dim=32, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=16, hidden_dim=48, vocab_size=64,
                     max_context=32, tie_embeddings=True)
FOLLOW = AdaptConfig(kind="follow", rounds=(Round(), Round(at=0.2, factor=2)), trial_least=4, snapshot_every=2,
                     regain=4)
CASES = {
    "adamw": {"optim": OptimConfig(lr=1e-2)},
    "muon": {"optim": OptimConfig(kind="muon", lr=1e-2)},
    "muon with a head of its own": {"optim": OptimConfig(kind="muon", lr=1e-2), "model": {"tie_embeddings": False}},
    "schedule_free": {"optim": OptimConfig(kind="schedule_free", lr=1e-2)},
    "prodigy": {"optim": OptimConfig(kind="prodigy")},
    "average": {"optim": OptimConfig(lr=1e-2), "loop": {"ema": 0.9}},
    "early stopping": {"optim": OptimConfig(lr=1e-2), "loop": {"patience": 9}},
    "muon, average and early stopping": {"optim": OptimConfig(kind="muon", lr=1e-2),
                                         "loop": {"patience": 9, "ema": 0.8}},
    "plateau": {"optim": OptimConfig(lr=1e-2), "adapt": AdaptConfig(kind="plateau", patience=0),
                "loop": {"eval_every": 2}},
    "follow": {"optim": OptimConfig(lr=1e-2), "adapt": FOLLOW, "loop": {"steps": 24}},
    "follow with an average, over a bad batch": {"optim": OptimConfig(lr=1e-2), "loop": {"steps": 24, "ema": 0.9},
                                                 "adapt": FOLLOW.model_copy(update={"rounds": ()}), "bad": (3, 9)},
    "follow with muon": {"optim": OptimConfig(kind="muon", lr=1e-2), "adapt": FOLLOW, "loop": {"steps": 24}},
}


def new_state(case):
    config = CONFIG.model_copy(update=case.get("model", {}))
    model = build_model(config)
    initialise(model, 2, 0)
    extras = case.get("loop", {})
    return TrainState(model, build_optimizer(model, case["optim"]),
                      average=new_average(model) if "ema" in extras else None,
                      best=Best() if "patience" in extras else None,
                      control=Control(case["adapt"]) if "adapt" in case else None)


def test_measuring_the_machine_draws_nothing_that_training_draws():
    before = torch.get_rng_state()
    assert matrix_peak(CPU, size=64) > 0
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("precision", "products"), [("float32", torch.float32), ("autocast", torch.bfloat16),
                                                     ("bf16_masters", torch.bfloat16)])
def test_the_share_of_the_peak_is_that_of_the_products_of_training(precision, products, monkeypatch, tmp_path):
    """Otherwise a CPU that emulates bfloat16 is told to run at twice its peak in float32."""
    measured = []
    monkeypatch.setattr(report, "matrix_peak", lambda device, dtype: measured.append(dtype) or 1e12)
    report.Report(tmp_path, new_state(CASES["adamw"]), 3, 8, 8, CPU, precision=precision)
    assert measured == [products]


def train(case, state, folder, loss=next_token_loss):
    settings = LoopConfig(**{"steps": 14, "batch_size": 4, "micro_batch": 4, "eval_every": 4, "checkpoint_every": 3,
                             "log_every": 1, "autocast": False, **case.get("loop", {})})
    tokens = torch.randint(0, 64, (2000,), generator=torch.Generator().manual_seed(0)).numpy().astype("<u2")
    observer = Remember()

    def broken(model, batch):                            # no number at the steps that the case names
        value = loss(model, batch)
        scale = float("nan") if state.step in case.get("bad", ()) else 1.0
        return Loss(value.total * scale, value.weight, value.per_example)

    fit(state, WindowLoader(tokens, 16, batch_size=4, seed=2), broken, loop=settings, optim=case["optim"], run=folder,
        observer=observer, evaluate=held_out, device=CPU)
    return observer


def held_out(state):
    """A number that follows the weights that evaluation sees."""
    state.model.eval()
    with torch.no_grad():
        value = sum(p.double().abs().sum().item() for p in state.model.parameters())
    state.model.train()
    return {"held_out": value}


@pytest.mark.parametrize("stop_at", [1, 5, 12])
@pytest.mark.parametrize("name", CASES)
def test_a_resume_is_bit_identical(tmp_path, name, stop_at):
    case = CASES[name]
    whole = new_state(case)
    expected = train(case, whole, tmp_path / "whole")
    first = new_state(case)

    def stopping_loss(model, batch):
        if first.step + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return next_token_loss(model, batch)

    with pytest.raises(Interrupted):
        train(case, first, tmp_path / "cut", stopping_loss)
    second = new_state(case)
    assert restore(second, tmp_path / "cut")
    found = train(case, second, tmp_path / "cut")
    assert str(found.losses) == str(expected.losses[stop_at:])          # as text, where nan equals nan
    timeless = [[{k: v for k, v in row.items() if k != "seconds"} for row in rows if row["step"] > stop_at]
                for rows in (found.rows, expected.rows)]
    assert str(timeless[0]) == str(timeless[1])
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert second.best == whole.best
    assert second.stopped == whole.stopped
    if whole.control is not None:
        assert (second.control.state, second.control.batch) == (whole.control.state, whole.control.batch)
        assert any("decision" in row for row in expected.rows)
    for name, value in (whole.average or {}).items():
        assert torch.equal(value, second.average[name])


@pytest.mark.parametrize("name", ["adamw", "muon", "schedule_free", "prodigy"])
def test_a_save_before_the_first_update_changes_nothing(tmp_path, name):
    """torch would fill an optimiser's moments by a step, and count it."""
    plain, saved, loaded = (new_state(CASES[name]) for _ in range(3))
    save(saved.state_dict(), tmp_path, keep=1)
    assert restore(loaded, tmp_path)
    for state in (saved, loaded):
        assert not state.optimizer.state
        assert [{**g, "params": 0} for g in state.optimizer.param_groups] == [
            {**g, "params": 0} for g in plain.optimizer.param_groups]
        assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), state.model.parameters(), strict=True))
