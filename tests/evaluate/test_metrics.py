"""Metrics against scikit-learn, slow twins, and values counted by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from ayllu.errors import DataError
from ayllu.evaluate import metrics


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    expected, predicted = rng.integers(4, size=60), rng.integers(5, size=60)          # 4 is predicted and never right
    assert metrics.macro_f1_of(expected, predicted, 6) == pytest.approx(
        f1_score(expected, predicted, average="macro", zero_division=0), abs=1e-12)


def slow_calibration_error(confidence, correct, bins):
    total = 0.0
    for i in range(bins):
        inside = [j for j, p in enumerate(confidence) if i / bins < p <= (i + 1) / bins or (i == 0 and p == 0)]
        if inside:
            gap = sum(correct[j] for j in inside) / len(inside) - sum(confidence[j] for j in inside) / len(inside)
            total += abs(gap) * len(inside) / len(confidence)
    return total


def test_calibration_error_equals_its_definition():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=400)
    correct = rng.uniform(size=400) < confidence ** 2
    assert metrics.calibration_error(confidence, correct) == pytest.approx(
        slow_calibration_error(confidence.tolist(), correct.tolist(), 15), abs=1e-12)
    assert metrics.calibration_error([1.0, 1.0], [True, False]) == 0.5
    with pytest.raises(DataError, match="no probability"):
        metrics.calibration_error([1.5], [True])


@pytest.mark.parametrize(("predicted", "answers", "em", "f1"), [
    ("The Denver Broncos!", ["Denver Broncos"], 1, 1),
    ("Broncos of Denver", ["the Denver Broncos"], 0, 0.8),                # 2 shared of 3 and 2
    ("red", ["blue", "red car"], 0, 2 / 3),
    ("", ["x"], 0, 0),
])
def test_squad_matches(predicted, answers, em, f1):
    assert metrics.exact_match(predicted, answers) == em
    assert metrics.answer_f1(predicted, answers) == pytest.approx(f1)


@pytest.mark.parametrize(("predicted", "answers", "em", "f1"), [
    ("《泡泡堂》。", ["泡泡堂"], 1, 1),
    ("在北京大学", ["北京大学。"], 0, 8 / 9),                              # 4 shared of 5 and 4
    ("北大京学", ["北京大学"], 0, 2 / 8),                                  # the longest run is one character, not a bag
    ("1984年 NFL", ["NFL 1984年"], 0, 4 / 6),                             # pieces: 1984, 年, nfl
    ("Nexon", ["nexon"], 1, 1),
])
def test_cmrc_matches(predicted, answers, em, f1):
    assert metrics.exact_match(predicted, answers, "cmrc") == em
    assert metrics.answer_f1(predicted, answers, "cmrc") == pytest.approx(f1)


def test_perplexity_and_bits():
    assert metrics.perplexity(-10 * math.log(8), 10) == pytest.approx(8)
    assert metrics.bits_per_byte(-10 * math.log(8), 15) == pytest.approx(2)


def test_what_can_not_be_counted_is_said():
    with pytest.raises(DataError, match="2 items against 1"):
        metrics.calibration_error([0.5, 0.5], [True])
    with pytest.raises(DataError, match="no answer"):
        metrics.exact_match("a", [])
