"""Intervals: they cover what they should, twins agree, and few or equal items don't look sure."""

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipys

from ayllu.errors import DataError
from ayllu.evaluate.intervals import Interval, bootstrap, bootstrap_mean, compare, draws, effect_size, mcnemar, mean
from ayllu.evaluate.scores import interval, measures
from ayllu.evaluate.task import Task


def test_interval_equals_scipys():
    values = np.random.default_rng(1).normal(3, 2, size=80)
    ours = bootstrap_mean(values, samples=4000)
    low, high = scipys((values,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    assert ours.value == pytest.approx(values.mean(), abs=1e-12)
    assert ours.low == pytest.approx(low, abs=0.06)                       # 4,000 other draws: the noise of a quantile
    assert ours.high == pytest.approx(high, abs=0.06)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(200):
        found = bootstrap_mean((rng.uniform(size=120) < 0.3).astype(float), samples=300, seed=i)
        covered += found.low <= 0.3 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_same_seed_same_interval_and_another_seed_another():
    values = np.random.default_rng(0).uniform(size=50)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


@pytest.mark.parametrize(("n", "k"), [(10, 0), (10, 10), (400, 0)])
def test_all_right_or_all_wrong_is_not_certain(n, k):
    found = bootstrap_mean([1.0] * k + [0.0] * (n - k))
    exact = binomtest(k, n).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-9)


@pytest.mark.parametrize("kept", [0, 2])
def test_no_rule_or_each_kept_is_not_certain_either(kept):
    """A share of rules, which is no mean of the items: two rules each of 12 answers."""
    task = Task(file="-", kind="instruct", prompt="-", answer="rules")
    records = [{"scores": {"prompt_accuracy": kept / 2, "kept": kept, "rules": 2}}] * 12
    by_prompt, by_rule = (interval(measure, 12) for measure in measures(task, records))
    assert (by_rule.low, by_rule.high) == (by_prompt.low, by_prompt.high) != (kept / 2, kept / 2)


def test_groups_are_drawn_whole_and_widen_the_interval():
    groups = [i // 10 for i in range(200)]
    for items in draws(200, 5, 0, groups):
        counts = np.bincount(items, minlength=200).reshape(20, 10)
        assert (counts == counts[:, :1]).all()
    values = np.repeat(np.random.default_rng(0).uniform(size=20), 10)     # items of a group are alike
    alone, together = bootstrap_mean(values), bootstrap_mean(values, groups=groups)
    assert together.high - together.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 0), (10, 22), (300, 250), (5, 5)])
def test_mcnemar_equals_the_binomial_test(only_a, only_b):
    a = np.array([1] * only_a + [0] * only_b + [1] * 7)
    b = np.array([0] * only_a + [1] * only_b + [1] * 7)
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)


def test_paired_is_narrower_than_apart_and_finds_a_small_difference():
    rng = np.random.default_rng(0)
    a = rng.normal(size=300)
    b = a + 0.1 + rng.normal(scale=0.2, size=300)
    found = compare(mean(a), mean(b), 300, (a, b))
    assert found.is_shown
    assert found.difference.low < 0.1 < found.difference.high
    assert found.difference.high - found.difference.low < 0.1 < bootstrap_mean(b).high - bootstrap_mean(b).low
    assert found.effect == pytest.approx((b - a).mean() / (b - a).std(ddof=1))
    assert found.mcnemar is None


def test_three_items_show_nothing_whatever_the_bootstrap_says():
    a, b = np.zeros(3), np.ones(3)
    found = compare(mean(a), mean(b), 3, (a, b))
    assert found.difference.excludes_zero                                 # resamples of three equal items are all equal
    assert found.mcnemar == pytest.approx(0.25)
    assert not found.is_shown
    assert effect_size(a, b) is None


def test_no_items_is_an_error():
    with pytest.raises(DataError, match="no items"):
        bootstrap(lambda items: 0.0, 0)
    assert not Interval(0.0, -1.0, 1.0, 5).excludes_zero
