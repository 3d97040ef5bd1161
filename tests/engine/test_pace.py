"""Who would wait too long is told so at once, and the queue of the others stays short."""

import asyncio
import random
import statistics

import pytest
from engine.small import TIGHT, model_of
from hypothesis import given
from hypothesis import strategies as st

from ayllu.engine.engine import Engine
from ayllu.engine.pace import FEWEST, WINDOW_S, Pace
from ayllu.engine.request import Request
from ayllu.engine.service import Service
from ayllu.errors import Overloaded
from ayllu.model.params import SamplingParams

SHORT = SamplingParams(max_tokens=4, temperature=0)


def test_the_wait_is_told_by_the_rows_that_run():
    pace, rows = Pace(), [(2, 50), (8, 50), (8, 1)]
    assert pace.wait_s(1, rows, 0, 0.0) is None             # nothing is known yet
    for i in range(31):                                  # 30 steps of 0.1 s, 3 tokens each, 10 answers of 9.3 tokens
        pace.observe(i / 10, n_tokens=3, n_finished=int(i % 3 == 2), n_moved=0, n_waiting=0)
    steps = pace._tokens / pace._answers
    assert steps == pytest.approx(9.3, rel=0.02)
    assert pace.wait_s(1, rows, 2, 3.0) == 0             # both may run at once
    assert pace.wait_s(0, rows, 0, 3.0) == pytest.approx(0.1)                   # the third one may get one more
    assert pace.wait_s(1, rows, 0, 3.0) == pytest.approx((steps - 8) * 0.1)
    assert pace.wait_s(2, rows, 0, 3.0) == pytest.approx((steps - 2) * 0.1)
    assert pace.wait_s(4, rows, 0, 3.0) == pytest.approx((steps - 8 + steps) * 0.1)           # a round later


def test_the_wait_is_told_by_the_queue_where_it_moves_more_slowly():
    pace = Pace()
    pace.observe(0.0, n_tokens=0, n_finished=0, n_moved=5, n_waiting=3)      # who left before anybody waited: no matter
    for second in range(1, FEWEST + 1):
        pace.observe(float(second), n_tokens=0, n_finished=0, n_moved=2, n_waiting=4)
    assert pace.wait_s(4, [], 0, FEWEST) == pytest.approx(4 / 2)
    assert pace.wait_s(4, [], 0, FEWEST + 1) == pytest.approx(4 / 2 * (FEWEST + 1) / FEWEST)  # it stands still
    assert pace.wait_s(4, [], 0, FEWEST + WINDOW_S + 1) is None
    pace.observe(20.0, n_tokens=0, n_finished=0, n_moved=1, n_waiting=0)
    assert pace.wait_s(1, [], 0, 20.0) is None              # the queue was empty: what comes next may be different


@given(st.data())
def test_the_most_that_may_be_ahead_is_the_last_that_waits_no_longer(data):
    """The twin: `wait_s` for one number after the other."""
    draw, pace, now = data.draw, Pace(), 0.0
    for _ in range(draw(st.integers(0, 12))):
        now += draw(st.floats(0.01, 3))
        pace.observe(now, n_tokens=draw(st.integers(0, 5)), n_finished=draw(st.integers(0, 2)),
                     n_moved=draw(st.integers(0, 3)), n_waiting=draw(st.integers(0, 4)))
    rows = draw(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), max_size=5))
    free, limit = draw(st.integers(0, 3)), draw(st.floats(0.01, 10))
    waits = [pace.wait_s(n, rows, free, now) for n in range(31)]
    found = pace.most_ahead(limit, rows, free, now, 30)
    if found is None:
        assert waits[free:] == [None] * (31 - free)
    else:
        assert found == max((n for n in range(31) if (waits[n] or 0.0) <= limit), default=0)


def simulate(lengths, limit_s=1.5, step_s=0.05, places=32, seconds=60.0):
    """(time, wait) of each request that was let in, and the share of places in use: ten times what can be answered."""
    rng, pace, waiting, running, waits, used = random.Random(0), Pace(), [], [], [], 0
    per_step = 10 * places / statistics.mean(lengths)
    for step in range(int(seconds / step_s)):
        now = step * step_s
        for _ in range(int(per_step) + (rng.random() < per_step % 1)):
            rows = [(done, 10**6) for done, _ in running]
            wait = pace.wait_s(len(waiting), rows, places - len(rows), now) if waiting else 0.0
            if wait <= limit_s if wait is not None else len(waiting) < places:
                waiting.append((now, rng.choice(lengths)))
        n_moved = 0
        while waiting and len(running) < places:
            came, length = waiting.pop(0)
            waits.append((now, now - came))
            running.append([0, length])
            n_moved += 1
        for row in running:
            row[0] += 1
        n_finished = sum(done >= length for done, length in running)
        running = [row for row in running if row[0] < row[1]]
        pace.observe(now + step_s, n_tokens=len(running) + n_finished, n_finished=n_finished, n_moved=n_moved,
                     n_waiting=len(waiting))
        used += len(running) + n_finished
    return waits, used / (places * seconds / step_s)


@pytest.mark.parametrize("lengths", [[64], [40, 64, 90], [5, 20, 20, 200], [8]], ids=str)
def test_at_ten_times_the_load_those_who_are_let_in_wait_no_longer(lengths):
    """Equal lengths end together, in waves: the hardest case for who looks at rates alone."""
    waits, used = simulate(lengths)
    late = [wait for now, wait in waits if now > 15]     # before that lengths are unknown
    assert used > 0.9                                    # hardly a place was ever free
    assert statistics.quantiles(late, n=20)[-1] < 2.0    # 95 % within half a second of the limit


def test_a_service_refuses_at_once():
    async def main():
        async with Service(Engine(model_of("gqa"), TIGHT), max_wait_s=0.001) as service:
            assert len([token async for token in await service.submit(Request((5, 6), SHORT))]) == 4
            streams, refused = [], []
            for _ in range(60):
                try:
                    streams.append(await service.submit(Request((5, 6), SamplingParams(max_tokens=40, temperature=0))))
                except Overloaded as error:
                    refused.append(str(error))
            for stream in streams:
                assert len([token async for token in stream]) == 40
            assert len([token async for token in await service.submit(Request((5, 6), SHORT))]) == 4
            return refused

    refused = asyncio.run(main())
    assert refused
    assert all(text.endswith("try again later") for text in refused)
