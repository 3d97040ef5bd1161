"""Who is refused is told when to come again: an estimate from the queue."""

import pickle
from types import SimpleNamespace

import pytest

from ayllu.engine.turns import MOST_RETRY_S, Turns
from ayllu.errors import Overloaded
from ayllu.server.faults import fault_of
from ayllu.server.gate import Door, Gate
from ayllu.server.limits import Limits


def turns_of(n_waiting, each_s, now):
    """Two rows; in each step of `each_s` both get a token and every tenth ends, which one of the queue follows."""
    rows = [SimpleNamespace(ids=[0] * 3, n_prompt=1, room=50) for _ in range(2)]
    scheduler = SimpleNamespace(waiting=[None] * n_waiting, running=rows)

    def submit(request):
        raise Overloaded("the queue has its limit")

    turns = Turns(SimpleNamespace(scheduler=scheduler, settings=SimpleNamespace(max_rows=2), submit=submit), 0.5, print)
    for n in range(40):
        turns._pace.observe(now + (n - 40) * each_s, n_tokens=2, n_finished=n % 5 == 0, n_moved=n % 5 == 0,
                            n_waiting=n_waiting)
    return turns


@pytest.mark.parametrize(("n_waiting", "each_s", "least", "most"), [
    (0, 0.01, 1, 1), (3, 0.01, 1, 1), (20, 0.1, 8, 14), (200, 0.1, 80, 130), (100_000, 1, MOST_RETRY_S, MOST_RETRY_S)])
def test_it_is_about_what_the_queue_takes(n_waiting, each_s, least, most, monkeypatch):
    """One of the queue leaves it in five steps, so that n of them take about 5 n steps."""
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    assert least <= turns_of(n_waiting, each_s, 1000.0).retry_s() <= most


def test_what_is_refused_carries_it_to_the_answer(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    turns = turns_of(20, 0.1, 1000.0)
    with pytest.raises(Overloaded) as caught:
        turns.submit(None)
    there = pickle.loads(pickle.dumps(caught.value))     # from the engine's process
    assert fault_of(there).headers == {"retry-after": str(turns.retry_s())}
    assert fault_of(Overloaded("the server is shutting down")).headers == {"retry-after": "1"}


def test_so_does_what_the_gate_refuses_by_the_head():
    gate = Gate(None, Door(), Limits(), lambda n: "it is full", lambda: 17)
    assert gate.at_once("/v1/completions", {"host": "localhost"}, "http").headers == {"retry-after": "17"}
