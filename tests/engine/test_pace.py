"""Who would wait too long is told so at once, and the queue of the others stays short."""

import asyncio

import pytest
from engine.small import TIGHT, model_of

from ayllu.engine.engine import Engine
from ayllu.engine.pace import FEWEST, WINDOW_S, Pace
from ayllu.engine.request import Request
from ayllu.engine.service import Service
from ayllu.errors import Overloaded
from ayllu.model.params import SamplingParams


def test_the_wait_is_what_the_queue_took_lately():
    pace = Pace()
    assert pace.wait_s(0, 0.0) == 0
    assert pace.wait_s(3, 0.0) is None                   # nothing has moved yet
    pace.observe(5, 3, 0.0)                              # from now on somebody waits; who left before says nothing
    for second in range(1, FEWEST + 1):
        pace.observe(2, 4, float(second))
    assert pace.wait_s(4, FEWEST) == pytest.approx(4 / 2)
    assert pace.wait_s(4, FEWEST + 1) == pytest.approx(4 / 2 * (FEWEST + 1) / FEWEST)      # it stands still
    assert pace.wait_s(4, FEWEST + WINDOW_S + 1) is None
    pace.observe(1, 0, 20.0)
    assert pace.wait_s(1, 20.0) is None                  # the queue was empty: what comes next may be different


def simulate(limit_s, rate_per_s=100.0, rows=8, service_s=0.8, seconds=60.0):
    """Waits of the admitted requests of a queue that `rows` serve first come first served, at ten times what it can."""
    pace, waiting, busy, waits, now = Pace(), [], [], [], 0.0
    while now < seconds:
        now += 1 / rate_per_s
        busy, before = [end for end in busy if end > now], len(waiting)
        while waiting and len(busy) < rows:
            waits.append((now, now - waiting.pop(0)))
            busy.append(now + service_s)
        pace.observe(before - len(waiting), len(waiting), now)
        expected = pace.wait_s(len(waiting), now)
        if (expected <= limit_s) if expected is not None else len(waiting) < rows:
            waiting.append(now)
    return waits


def test_at_ten_times_the_load_nobody_waits_much_longer_than_the_limit():
    waits = simulate(limit_s=1.5)
    assert len(waits) > 0.95 * 60 / 0.8 * 8              # the rows were busy all the while
    assert max(wait for _, wait in waits) < 1.5 * 1.5    # estimates lag by a service time at most
    late = [wait for now, wait in waits if now > 10]
    assert max(late) < 1.5 + 0.4                         # half a service time
    assert sum(late) / len(late) > 0.5                   # and the queue is used


def test_a_service_refuses_at_once():
    async def main():
        async with Service(Engine(model_of("gqa"), TIGHT), max_wait_s=0.001) as service:
            streams, refused = [], []
            for _ in range(60):
                try:
                    streams.append(await service.submit(Request((5, 6), SamplingParams(max_tokens=40, temperature=0))))
                except Overloaded as error:
                    refused.append(str(error))
            for stream in streams:
                assert len([token async for token in stream]) == 40
            await (await service.submit(Request((5, 6), SamplingParams(max_tokens=1)))).__anext__()
            return refused

    refused = asyncio.run(main())
    assert refused
    assert all("lets nobody wait longer than 0.001 s" in text for text in refused)
