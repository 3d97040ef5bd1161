"""The controller's decisions, without weights: properties over random losses, fixtures, and two published twins."""

import json
import math

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from ayllu.train.adapt import (
    AdaptConfig,
    AdaptState,
    Where,
    after_update,
    before_update,
    first_decision,
    rate_factor,
)
from ayllu.train.control import greedy, reduce_on_plateau
from ayllu.train.search import Round, Trial, judged, next_rate, shape

FOLLOW = AdaptConfig(kind="follow", rounds=(Round(), Round(at=0.1, factor=2)), trial_least=8, snapshot_every=10,
                     rollbacks=5, regain=40)
QUIET = FOLLOW.model_copy(update={"rounds": ()})         # no trial ever begins
LOSS = st.one_of(st.floats(0.01, 20), st.sampled_from([math.nan, math.inf]))


class Play:
    """The loop without weights: copies are the batches that they stood before."""

    def __init__(self, config, steps=300, base=0.9):
        self.config, self.steps, self.base = config, steps, base
        self.state, self.batch, self.step, self.copies, self.log, self.over = AdaptState(), 0, 0, {}, [], False
        self.state, decision = first_decision(config, self.state, self.where())
        self.carry_out(decision)

    def where(self):
        return Where(self.batch, self.steps - (self.step - self.batch), self.base)

    def carry_out(self, decision):
        if decision.reason:
            self.log.append((self.step, decision.action, decision.reason))
        if decision.store == "end":
            self.copies["end"] = self.batch
        if decision.load:
            at = self.copies[decision.load]              # a copy that was never made would fail here
            self.batch = at if decision.replay else self.batch
        if decision.store == "good":
            self.copies["good"] = self.batch
        if self.state.trial is None:
            self.copies.pop("end", None)
        self.over |= decision.action == "stop"

    def feed(self, loss, norm=1.0, held=None):
        self.state, decision = before_update(self.config, self.state, loss, norm)
        self.carry_out(decision)
        self.step += 1
        applied = decision.applies
        if applied:
            self.batch += 1
            self.state, decision = after_update(self.config, self.state, self.where(), loss, held)
            self.carry_out(decision)
        elif not decision.replay:
            self.batch += 1
        return applied

    def actions(self):
        return [action for _, action, _ in self.log]


@settings(deadline=None)
@given(st.lists(st.tuples(LOSS, LOSS, st.one_of(st.none(), st.floats(0.5, 5))), min_size=1, max_size=250),
       st.sampled_from([0.3, 1.0]))
def test_whatever_the_losses_do(seen, base):
    play = Play(FOLLOW, base=base)
    for loss, norm, held in seen:
        if play.over or play.step >= play.steps:
            break
        applied = play.feed(loss, norm, held)
        assert not applied or (math.isfinite(loss) and math.isfinite(norm))      # nothing broken is learned from
        assert FOLLOW.least <= play.state.multiplier <= FOLLOW.most
        assert 0 <= rate_factor(play.state, play.batch, base) <= FOLLOW.most
        assert play.state.rollbacks <= FOLLOW.rollbacks
        assert 0 <= play.batch <= play.step              # no batch from the future; the budget counts all that ran
        assert all(reason for _, _, reason in play.log)
        again = AdaptState.from_dict(json.loads(json.dumps(play.state.to_dict())))
        assert again == play.state                       # what a checkpoint brings back decides alike


@settings(deadline=None)
@given(st.lists(st.floats(0.5, 5), min_size=5, max_size=60))
def test_a_cooldown_never_raises_the_rate_and_ends(held):
    play = Play(QUIET, steps=100, base=1.0)
    rates = []
    for value in held * 20:
        if play.over:
            break
        play.feed(2.0, held=value)
        if play.state.cooldown_at is not None:
            rates.append(rate_factor(play.state, play.batch, 1.0))
    assert play.over
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0.0
    assert play.actions()[-2:] == ["cooldown", "stop"]


def curve(n):
    return 2.0 + 0.01 * math.sin(n)


def test_a_calm_run_is_left_alone():
    play = Play(QUIET)
    assert all(play.feed(curve(n)) for n in range(200))
    assert play.log == []
    assert play.state.multiplier == 1.0
    assert play.copies["good"] >= 190                    # good weights are copied on the way


def test_one_bad_batch_is_skipped_and_the_rate_stays():
    play = Play(QUIET)
    assert [play.feed(9.0 if n == 60 else curve(n)) for n in range(100)].count(False) == 1
    assert play.actions() == ["skip"]
    assert play.state.multiplier == 1.0


def test_a_second_spike_in_a_row_rolls_back_and_shrinks():
    play = Play(QUIET)
    for n in range(60):
        play.feed(curve(n))
    good, batch = play.copies["good"], play.batch
    play.feed(9.0)
    play.feed(9.0)
    assert play.actions() == ["skip", "roll back"]
    assert play.state.multiplier == 0.5
    assert good <= batch
    assert play.batch == batch + 2                       # the batches are skipped, not tried again


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan)])
def test_what_is_no_number_rolls_back_and_shrinks(loss, norm):
    play = Play(QUIET)
    for n in range(30):
        play.feed(curve(n))
    assert not play.feed(loss, norm)
    assert play.actions() == ["roll back"]
    assert play.state.multiplier == 0.5


def test_a_loss_that_rises_slowly_is_a_divergence_too():
    play = Play(QUIET)
    for n in range(200):
        play.feed(2.0 + 0.3 * math.sin(1.7 * n) + 0.01 * max(n - 50, 0))
        if play.log:
            break
    assert play.actions() == ["roll back"]
    assert "the smoothed loss rose from" in play.log[0][2]


def test_rolling_back_has_an_end():
    play = Play(QUIET)
    for _ in range(6):
        play.feed(math.nan)
    assert play.actions() == ["roll back"] * 5 + ["stop"]
    assert "given up" in play.log[-1][2]


def test_a_flat_held_out_curve_begins_the_cooldown_and_a_falling_one_does_not():
    for slope, expected in ((0.0, ["cooldown", "stop"]), (0.05, [])):
        play = Play(QUIET, steps=1000, base=0.9)
        for n in range(400):
            if not play.over:
                play.feed(curve(n), held=5.0 - slope * n / 10 if n % 10 == 0 else None)
        assert play.actions() == expected


def test_a_schedule_that_comes_down_by_itself_needs_no_cooldown():
    play = Play(QUIET, steps=1000, base=0.4)
    for n in range(400):
        play.feed(curve(n), held=5.0 if n % 10 == 0 else None)
    assert play.actions() == []


class Learner(Play):
    """A model whose loss falls fastest at the rate `best`; its weights are the losses that it has at each batch."""

    def __init__(self, best, **values):
        self.best, self.loss, self.kept = best, 5.0, {}
        super().__init__(**values)

    def carry_out(self, decision):
        if decision.store == "end":
            self.kept["end"] = self.loss
        if decision.load:
            self.loss = self.kept[decision.load]
        if decision.store == "good":
            self.kept["good"] = self.loss
        super().carry_out(decision)

    def learn(self):
        rate = self.state.multiplier
        loss, self.loss = self.loss, self.loss - 0.02 * math.exp(-abs(math.log(rate / self.best)))
        before = self.loss
        if not self.feed(loss) and self.loss == before:
            self.loss = loss


@pytest.mark.parametrize("start", [0.0, 0.1])
@pytest.mark.parametrize("best", [0.05, 0.1, 0.3, 1.0, 4.0, 10.0, 30.0])
def test_a_trial_finds_the_rate_that_learns_fastest_on_the_same_batches(best, start):
    config = FOLLOW.model_copy(update={"rounds": (Round(at=start, factor=2),)})
    play = Learner(best, config=config, steps=400)
    while play.state.round == 0:
        play.learn()
    assert best / 1.5 <= play.state.multiplier <= best * 1.5         # rates are a factor of 2 apart
    expected = "hold" if play.state.multiplier == 1 else "grow" if best > 1 else "shrink"
    assert play.actions()[-1] == expected
    assert play.batch == start * play.steps + 8          # the best end is kept: its updates are not lost
    worth = math.exp(-abs(math.log(play.state.multiplier / best)))
    assert play.loss == pytest.approx(5.0 - start * 400 * 0.02 * math.exp(-abs(math.log(best))) - 8 * 0.02 * worth)


def test_a_rate_that_breaks_in_a_trial_is_rejected_without_a_penalty():
    play = Play(FOLLOW)
    for _ in range(8):
        play.feed(2.0)
    assert play.state.multiplier == 4.0
    play.feed(math.nan)
    assert play.actions()[-1] == "skip"                  # one batch may be at fault itself
    play.feed(math.nan)
    assert play.state.multiplier == 0.25                 # no higher rate can be better: a lower one is tried
    assert play.state.rollbacks == 0
    assert "it broke at x 4" in play.log[-1][2]


def test_a_batch_that_is_broken_for_every_rate_decides_nothing():
    play = Learner(4.0, config=FOLLOW.model_copy(update={"rounds": (Round(),)}), steps=400)
    while play.state.round == 0:
        if play.batch == 5:
            play.feed(math.nan)
        else:
            play.learn()
    assert play.state.multiplier == 4.0
    assert play.state.rollbacks == 0


def test_what_one_glitch_shrunk_grows_back_and_what_comes_again_does_not():
    for again, expected in ((False, 1.0), (True, 0.25)):
        play = Play(QUIET, steps=1000)
        for n in range(200):
            play.feed(math.nan if n == 60 or (again and n == 80) else curve(n))
        assert play.state.multiplier == expected
        assert ("grow" in play.actions()) != again


@settings(deadline=None)
@given(st.lists(st.one_of(st.floats(1, 5), st.just(math.inf)), min_size=60, max_size=60), st.floats(1.5, 5),
       st.sampled_from([0.0, 0.02, 0.5]))
def test_the_rates_of_a_trial_are_neighbours_and_come_to_an_end(scores, factor, tie):
    trial, rate, now = Trial(0, 8, 1.0), 1.0, Round(factor=factor, tie=tie)
    for score in scores:
        broken = [m for m, s in trial.tried if s == math.inf]
        assert all(rate < m for m in broken)             # never above a rate that broke
        trial = judged(trial, rate, score, tie)
        rate = next_rate(trial, now, 1e-3, 1e3)
        if rate is None:
            break
        assert 1e-3 <= rate <= 1e3
        assert any(math.isclose(rate / m, f) for m, _ in trial.tried for f in (factor, 1 / factor))
    assert rate is None
    winner, score = trial.best(tie)
    least = min(s for _, s in trial.tried)
    assert score <= least * (1 + tie)
    assert all(s > least * (1 + tie) for m, s in trial.tried if m < winner)      # no lower one is as good
    assert tie or score == least
    lower = max((m for m, _ in trial.tried if m < winner), default=winner)
    assert lower <= trial.edge(tie) <= winner


def test_on_a_plain_the_lowest_rate_wins():
    trial = Trial(0, 8, 1.0)
    for rate, score in ((1.0, 4.7), (4.0, 4.3), (16.0, 3.76), (64.0, 3.417), (256.0, 3.411)):        # of a 5M model
        trial = judged(trial, rate, score, 0.02)
    assert trial.best(0.02) == (64.0, 3.417)
    assert trial.best(0.0) == (256.0, 3.411)
    assert trial.edge(0.0) == 256.0
    assert trial.edge(0.02) == pytest.approx(16 * 4 ** ((3.76 - 1.02 * 3.411) / (3.76 - 3.417)))
    assert 16 < trial.edge(0.05) < trial.edge(0.02) < 64
    assert next_rate(trial, Round(tie=0.02), 1e-3, 1e4) is None          # both neighbours of 64 were tried


@given(st.integers(4, 300))
def test_a_trials_rate_rises_once_and_falls_once(steps):
    rates = [shape(Trial(0, steps, 1.0, losses=(2.0,) * done)) for done in range(steps)]
    top = rates.index(max(rates))
    assert rates[:top + 1] == sorted(rates[:top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == 1.0
    assert 0 < rates[-1] <= 2 / steps


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=80), st.integers(0, 4))
def test_plateau_equals_torchs(losses, patience):
    config = AdaptConfig(kind="plateau", patience=patience, factor=0.5, threshold=1e-3, least=1e-9)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    twin = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, threshold=1e-3,
                                                      eps=0.0)
    state = AdaptState()
    for loss in losses:
        twin.step(loss)
        state, decision = reduce_on_plateau(config, state, loss)
        assert state.multiplier == pytest.approx(max(optimizer.param_groups[0]["lr"], 1e-9))
        assert (decision.action == "shrink") == bool(decision.reason)


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=80), st.integers(0, 4))
def test_greedy_equals_the_one_in_transformers(losses, patience):
    config = AdaptConfig(kind="greedy", patience=patience, factor=0.5, threshold=1e-3, least=1e-4, most=8.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    twin = transformers.optimization.GreedyLR(optimizer, factor=0.5, patience=patience, threshold=1e-3, min_lr=1e-4,
                                              max_lr=8.0, eps=0.0, reset_start=10**9)
    state = AdaptState()
    for loss in losses:
        twin.step(loss)
        state, _ = greedy(config, state, loss)
        assert state.multiplier == pytest.approx(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("decide", [reduce_on_plateau, greedy])
def test_without_an_evaluation_nothing_is_decided(decide):
    assert decide(AdaptConfig(), AdaptState(), None)[0] == AdaptState()
