"""Packing, masks and a schedule that follows the loss: a resume repeats the undisturbed run bit for bit."""

import os
import signal

import numpy as np
import pytest
import torch
from train.observer import Remember

from ayllu.data.mask_marks import Marks
from ayllu.data.mask_schedule import ByLoss
from ayllu.data.masks import Causal, FillIn, Mixture, Spans, Tokens
from ayllu.data.order import Part
from ayllu.data.pack_loader import PackedLoader
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.train.adapt import AdaptConfig
from ayllu.train.checkpoints import restore
from ayllu.train.control import Control
from ayllu.train.loop import Interrupted, LoopConfig, fit
from ayllu.train.objective import masked_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.search import Round
from ayllu.train.state import TrainState

MARKS = Marks(vocab_size=200, bos=1, eos=2, pad=3, mask=4, fim=(5, 6, 7, 8), sentinels=tuple(range(10, 110)),
              special=frozenset(range(110)))
FALLS = {"high": 5.4, "low": 4.6}
MASKS = Mixture(parts=(Causal(weight=ByLoss(start=0.2, end=2.0, **FALLS)), Spans(attention="prefix"), FillIn(),
                       Tokens(ratio=ByLoss(start=0.5, end=0.1, **FALLS))), smoothing=0.5)
OPTIM = OptimConfig(lr=1e-2)
FOLLOW = AdaptConfig(kind="follow", rounds=(Round(), Round(at=0.2, factor=2)), trial_least=4, snapshot_every=2,
                     regain=4)


def batches():
    draw = np.random.default_rng(0)
    tokens = np.concatenate([[1, *draw.integers(110, 120, draw.integers(3, 40)), 2] for _ in range(80)])
    border = int(np.flatnonzero(tokens == 1)[40])
    return PackedLoader(tokens.astype("<u2"), MARKS, 64, 4, MASKS, seed=5, reserve=0.2,
                        parts=(Part(0, border, 3.0), Part(border, len(tokens), 1.0)))


def new_state(adapt):
    config = LlamaConfig(dim=32, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=16, hidden_dim=48, vocab_size=200,
                         max_context=64, tie_embeddings=True)
    model = build_model(config)
    initialise(model, 2, 0)
    return TrainState(model, build_optimizer(model, OPTIM), follower=batches(),
                      control=Control(adapt) if adapt else None)


def train(state, folder, loss=masked_loss):
    loop = LoopConfig(steps=24, batch_size=4, micro_batch=4, eval_every=50, checkpoint_every=3, log_every=1,
                      autocast=False)
    observer = Remember()
    fit(state, state.follower, loss, loop=loop, optim=OPTIM, run=folder, observer=observer,
        evaluate=lambda state: {}, device=torch.device("cpu"))
    return observer


@pytest.mark.parametrize("adapt", [None, FOLLOW], ids=["plain", "with the controller"])
@pytest.mark.parametrize("stop_at", [1, 4, 17])          # 4: back at the very first weights
def test_a_resume_is_bit_identical(tmp_path, adapt, stop_at):
    whole, first, second = (new_state(adapt) for _ in range(3))
    expected = train(whole, tmp_path / "whole")

    def stopping_loss(model, batch):
        if first.step + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return masked_loss(model, batch)

    with pytest.raises(Interrupted):
        train(first, tmp_path / "cut", stopping_loss)
    assert restore(second, tmp_path / "cut")
    assert second.follower.loss == first.follower.loss is not None
    found = train(second, tmp_path / "cut")
    assert found.losses == expected.losses[stop_at:]
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    rows = [[{k: v for k, v in row.items() if k.startswith("masks/")} for row in seen.rows if row["step"] > stop_at]
            for seen in (found, expected)]
    assert rows[0] == rows[1]


def test_without_the_loader_s_state_it_would_not_be(tmp_path):
    whole, second = new_state(None), new_state(None)
    expected = train(whole, tmp_path)
    assert restore(second, tmp_path)
    seen = [row["masks/loss"] for row in expected.rows if "masks/loss" in row]
    assert seen[-1] < FALLS["high"]                      # the schedule has moved
    assert second.follower.batch(30).ids.tolist() == whole.follower.batch(30).ids.tolist()
    assert second.follower.batch(30).ids.tolist() != batches().batch(30).ids.tolist()


def test_a_loss_that_is_no_number_says_nothing():
    loader = batches()
    loader.observe(5.0)
    loader.observe(float("nan"))
    assert loader.state() == {"loss": 5.0}
