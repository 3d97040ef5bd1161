"""The engine's own state in /metrics, guesses included."""

from types import SimpleNamespace

from ayllu.engine.counts import Counts
from ayllu.server.metrics import Metrics


def test_each_count_has_a_line_of_its_own():
    counts = Counts(running=3, waiting=4, pages=100, pages_free=60, pages_known=20, preempted=1, computed_tokens=5000,
                    guessed_tokens=90, guessed_right_tokens=70, pages_evicted=2)
    adapters = SimpleNamespace(loaded={"fox": SimpleNamespace(n_requests=8, n_users=1)})
    metrics = Metrics()
    metrics.watch(SimpleNamespace(counts=lambda: counts, engine=SimpleNamespace(adapters=adapters)))
    lines = set(metrics.text().decode().splitlines())
    assert {"ayllu_running 3.0", "ayllu_waiting 4.0", "ayllu_pages 100.0", "ayllu_pages_free 60.0",
            "ayllu_pages_known 20.0", "ayllu_preempted_total 1.0", "ayllu_computed_tokens_total 5000.0",
            "ayllu_guessed_tokens_total 90.0", "ayllu_guessed_right_tokens_total 70.0",
            "ayllu_pages_evicted_total 2.0", 'ayllu_adapter_requests_total{adapter="fox"} 8.0',
            'ayllu_adapter_running{adapter="fox"} 1.0'} <= lines
