"""Warm-up, decay and the floor, at their borders."""

import pytest

from ayllu.train.schedule import Schedule, factor


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear"])
def test_warm_up_is_linear_and_never_zero(kind):
    schedule = Schedule(kind=kind, warmup_steps=10)
    assert [factor(schedule, s, 100) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert factor(schedule, 10, 100) == pytest.approx(1.0)


@pytest.mark.parametrize(("kind", "middle", "end"),
                         [("constant", 1.0, 1.0), ("cosine", 0.55, 0.1), ("linear", 0.55, 0.1)])
def test_decay(kind, middle, end):
    schedule = Schedule(kind=kind, warmup_steps=0, floor=0.1)
    assert factor(schedule, 50, 100) == pytest.approx(middle)
    assert factor(schedule, 100, 100) == pytest.approx(end)


def test_never_rises_after_the_warm_up():
    for kind in ("cosine", "linear"):
        values = [factor(Schedule(kind=kind, warmup_steps=7), s, 50) for s in range(7, 50)]
        assert values == sorted(values, reverse=True)
