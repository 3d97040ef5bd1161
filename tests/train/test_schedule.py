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


def test_wsd_is_flat_and_then_comes_down_by_one_minus_sqrt():
    schedule = Schedule(kind="wsd", warmup_steps=10, decay_steps=16, floor=0.2)
    assert [factor(schedule, s, 100) for s in (10, 50, 84)] == [1.0, 1.0, 1.0]
    assert factor(schedule, 88, 100) == pytest.approx(0.2 + 0.8 * (1 - 0.5))
    assert factor(schedule, 100, 100) == pytest.approx(0.2)


def test_wsd_before_its_decay_knows_no_end():
    schedule = Schedule(kind="wsd", warmup_steps=3, decay_steps=5)
    assert [factor(schedule, s, 20) for s in range(15)] == [factor(schedule, s, 1000) for s in range(15)]


@pytest.mark.parametrize("settings", [{"kind": "wsd"}, {"kind": "cosine", "decay_steps": 3}])
def test_decay_steps_belong_to_wsd_alone(settings):
    with pytest.raises(ValueError, match="decay_steps"):
        Schedule(**settings)


def test_inverse_square_root_meets_the_warm_up_and_halves_at_four_times_the_steps():
    schedule = Schedule(kind="inverse_sqrt", warmup_steps=16, floor=0.01)
    values = [factor(schedule, s, 1000) for s in (15, 16, 63, 255)]
    assert values == pytest.approx([1.0, (16 / 17) ** 0.5, 0.5, 0.25])
    assert factor(schedule, 10**9, 1000) == 0.01
    assert factor(schedule, 63, 1000) == factor(schedule, 63, 77)          # knows no end


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear", "inverse_sqrt"])
def test_a_cooldown_starts_where_the_rate_is_and_ends_at_the_floor(kind):
    base = Schedule(kind=kind, warmup_steps=4, floor=0.05)
    cooled = base.model_copy(update={"cooldown_at": 30, "cooldown_steps": 16})
    assert [factor(cooled, s, 100) for s in range(31)] == [factor(base, s, 100) for s in range(31)]
    start = factor(base, 30, 100)
    assert factor(cooled, 34, 100) == pytest.approx(0.05 + (start - 0.05) * 0.5)
    assert factor(cooled, 46, 100) == pytest.approx(0.05)
    assert factor(cooled, 99, 100) == pytest.approx(0.05)
    assert all(factor(cooled, s, 100) >= factor(cooled, s + 1, 100) for s in range(30, 60))


@pytest.mark.parametrize("settings", [{"cooldown_at": 3}, {"cooldown_steps": 3}])
def test_a_cooldown_needs_both_numbers(settings):
    with pytest.raises(ValueError, match="cooldown"):
        Schedule(**settings)
