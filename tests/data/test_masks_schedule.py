"""Schedules: the ends, the middle, and that no value leaves the bounds that room in a window is planned by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ayllu.data.mask_schedule import ByLoss, Moment, Ramp, Stairs, bounds, value

KINDS = [0.15, Ramp(kind="linear", start=0.3, end=0.15, steps=100, from_step=10),
         Ramp(kind="cosine", start=0.1, end=0.4, steps=50), Stairs(values=(0.4, 0.2, 0.3), at=(10, 20)),
         ByLoss(start=0.5, end=0.1, high=5.0, low=2.0)]


@pytest.mark.parametrize(("schedule", "step", "loss", "expected"), [
    (0.15, 1000, 2.0, 0.15),
    (KINDS[1], 0, None, 0.3), (KINDS[1], 10, None, 0.3), (KINDS[1], 60, None, 0.225), (KINDS[1], 999, None, 0.15),
    (KINDS[2], 0, None, 0.1), (KINDS[2], 25, None, 0.25), (KINDS[2], 50, None, 0.4),
    (KINDS[2], 10, None, 0.1 + 0.3 * (1 - 0.8090169943749475) / 2),          # cos(pi / 5)
    (KINDS[3], 9, None, 0.4), (KINDS[3], 10, None, 0.2), (KINDS[3], 20, None, 0.3),
    (KINDS[4], 0, None, 0.5), (KINDS[4], 0, 9.0, 0.5), (KINDS[4], 0, 3.5, 0.3), (KINDS[4], 0, 1.0, 0.1)])
def test_values(schedule, step, loss, expected):
    assert value(schedule, Moment(step, loss)) == pytest.approx(expected, abs=1e-12)


@given(st.sampled_from(KINDS), st.integers(0, 10**6), st.none() | st.floats(0, 100))
def test_no_value_leaves_the_bounds(schedule, step, loss):
    low, high = bounds(schedule)
    assert low - 1e-12 <= value(schedule, Moment(step, loss)) <= high + 1e-12
