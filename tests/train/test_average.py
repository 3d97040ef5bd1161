"""EMA against its sum written out, weights that come back bit for bit, early stopping with the best kept."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ayllu.data.loader import WindowLoader
from ayllu.errors import ConfigError
from ayllu.model.build import build_model
from ayllu.model.config import LlamaConfig
from ayllu.model.init import initialise
from ayllu.train.adapt import AdaptConfig
from ayllu.train.average import averaged, new_average, update_average
from ayllu.train.best import Best, held_out_loss
from ayllu.train.checkpoints import restore, take_best
from ayllu.train.control import Control
from ayllu.train.loop import LoopConfig, fit
from ayllu.train.losses import next_token_loss
from ayllu.train.optim import OptimConfig, build_optimizer
from ayllu.train.schedule_free import ScheduleFree
from ayllu.train.state import TrainState

CONFIG = LlamaConfig(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, hidden_dim=24, vocab_size=64)
OPTIM = OptimConfig(lr=1e-2)


def test_an_average_is_the_weighted_sum_of_all_weights():
    model = nn.Linear(3, 2).double()
    history = [model.weight.detach().clone()]
    average = new_average(model)
    for n in range(40):
        with torch.no_grad():
            model.weight += torch.randn(2, 3, dtype=torch.float64)
        history.append(model.weight.detach().clone())
        update_average(average, model, 0.7, n)
    keeps = [min(0.7, (1 + n) / (10 + n)) for n in range(40)]
    slow = math.prod(keeps) * history[0] + sum(
        (1 - keeps[n]) * math.prod(keeps[n + 1:]) * history[n + 1] for n in range(40))
    torch.testing.assert_close(average["weight"], slow)


def test_inside_is_the_average_and_afterwards_the_weights_are_back_bit_for_bit():
    model = nn.Linear(5, 5)
    average = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    before = [p.detach().clone() for p in model.parameters()]
    with averaged(model, torch.optim.AdamW(model.parameters()), average):
        assert torch.equal(model.weight, average["weight"])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_schedule_free_is_evaluated_at_x_and_trained_at_y():
    model = nn.Linear(4, 4)
    optimizer = ScheduleFree([{"params": list(model.parameters())}], 0.1, (0.9, 0.95), 1e-8)
    for _ in range(5):
        model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    y, x = model.weight.detach().clone(), optimizer.averages()[model.weight]
    with averaged(model, optimizer, None):
        assert torch.equal(model.weight, x)
    assert torch.equal(model.weight, y)
    assert not torch.allclose(x, y)


@given(st.lists(st.floats(allow_nan=True), min_size=1, max_size=30))
def test_the_best_is_the_first_lowest_and_since_counts_from_it(losses):
    best = Best()
    for step, loss in enumerate(losses, start=1):
        best = best.judge(loss, step)
    lowest = min((x for x in losses if x < math.inf), default=math.inf)
    assert best.loss == lowest
    assert best.since == (len(losses) - best.step)
    if lowest < math.inf:
        assert best.step == losses.index(lowest) + 1


def test_the_held_out_loss_is_the_mean_of_what_was_held_out():
    assert held_out_loss({"bits_per_byte_en": 1.0, "bits_per_byte_zh": 2.0, "step": 9}) == 1.5
    assert held_out_loss({"held_out": 3.0}) == 3.0
    assert held_out_loss({"loss": 1.0}) is None


class Silent:
    def __init__(self):
        self.rows = []

    def log(self, row):
        self.rows.append(row)

    def advance(self, state, row):
        pass


def train(folder, curve, patience, state=None, steps=20, control=None):
    """Train with a held-out loss that is given for each evaluation."""
    if state is None:
        model = build_model(CONFIG)
        initialise(model, 1, 0)
        state = TrainState(model, build_optimizer(model, OPTIM), best=Best() if patience else None,
                           control=control)
    tokens = torch.arange(900).numpy().astype("<u2") % 64
    observer = Silent()
    settings = LoopConfig(steps=steps, batch_size=2, micro_batch=2, eval_every=2, checkpoint_every=3, autocast=False,
                          patience=patience)
    seen = {}

    def evaluate(state):
        seen[state.step] = state.model.tok_embeddings.weight.detach().clone()
        return {"held_out": curve[state.step // 2 - 1]}

    fit(state, WindowLoader(tokens, 16, 2), next_token_loss, loop=settings, optim=OPTIM, run=folder,
        observer=observer, evaluate=evaluate, device=torch.device("cpu"))
    return state, observer, seen


def test_training_stops_after_the_patience_and_the_best_weights_are_taken(tmp_path):
    state, observer, seen = train(tmp_path, [5, 3, 4, 3.5, 3.1, 1, 1, 1, 1, 1], patience=3)
    assert (state.step, state.best) == (10, Best(3, 4, 3))
    assert observer.rows[-1]["decision"] == "stop"
    assert "no held-out loss below 3.0000 (step 4) in 3 evaluations" in observer.rows[-1]["reason"]
    take_best(state, tmp_path)
    assert torch.equal(state.model.tok_embeddings.weight, seen[4])
    assert state.step == 10                              # what was spent stays spent


def test_a_controller_has_no_say_once_the_patience_is_over(tmp_path):
    """One evaluation and one reason at the last step, as without it."""
    curve = [3, 4, 4, 1, 1, 1, 1, 1, 1, 1]
    state, observer, _ = train(tmp_path, curve, patience=2, control=Control(AdaptConfig(kind="plateau", patience=0)))
    assert (state.step, state.best) == (6, Best(3, 2, 2))
    last = [row for row in observer.rows if row["step"] == 6]
    assert [row["held_out"] for row in last if "held_out" in row] == [4]
    assert [row["decision"] for row in last if "decision" in row] == ["stop"]


def test_a_stopped_run_stays_stopped_after_a_resume(tmp_path):
    state, _, _ = train(tmp_path, [3, 4, 4, 4, 1, 1, 1, 1, 1, 1], patience=2)
    model = build_model(CONFIG)
    again = TrainState(model, build_optimizer(model, OPTIM), best=Best())
    assert restore(again, tmp_path)
    assert (again.step, again.stopped) == (6, state.stopped)
    again, observer, _ = train(tmp_path, [], patience=2, state=again)
    assert (again.step, observer.rows) == (6, [])


def test_without_patience_nothing_is_judged(tmp_path):
    state, _, _ = train(tmp_path, [3, 4, 4, 4, 4, 4, 4, 4, 4, 4], patience=0)
    assert state.step == 20
    assert not (tmp_path / "checkpoints" / "best").exists()


def test_a_setting_without_its_part_is_refused(tmp_path):
    model = build_model(CONFIG)
    state = TrainState(model, build_optimizer(model, OPTIM))
    with pytest.raises(ConfigError, match=r"loop\.patience=3, but the state was built without it"):
        train(tmp_path, [1] * 10, patience=3, state=state)
