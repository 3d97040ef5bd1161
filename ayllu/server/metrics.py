"""Counts and times for Prometheus. No label ever holds a text, a caller's name or an address: only routes,
statuses, kinds, and the names of adapters that were loaded."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from ayllu.engine.apart import Asking
    from ayllu.engine.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

GAUGES = {"running": "Rows that are computed.", "waiting": "Requests in the queue.", "pages": "Pages of the cache.",
          "pages_free": "Pages that nobody holds.", "pages_known": "Pages that hold a prefix which can be found."}
TOTALS = {"preempted": "Rows that lost their pages and were computed again.", "computed_tokens": "Tokens computed.",
          "guessed_tokens": "Tokens guessed ahead and checked.",
          "guessed_right_tokens": "Of them, those that were right.",
          "pages_evicted": "Known pages whose room was needed."}


class Metrics:
    """One registry for each server, so that two in one process don't mix."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        self.requests = Counter("ayllu_requests", "Answered requests.", ["route", "status"], registry=r)
        self.seconds = Histogram("ayllu_request_seconds", "Until the last byte of an answer.", ["route"],
                                 buckets=SECONDS, registry=r)
        self.dropped = Counter("ayllu_dropped", "Clients that left before their answer was complete.", registry=r)
        self.first_token = Histogram("ayllu_first_token_seconds", "From the request to its first token.",
                                     buckets=SECONDS, registry=r)
        self.between_tokens = Gaps()
        r.register(self.between_tokens)
        self.prompt_tokens = Counter("ayllu_prompt_tokens", "Tokens of prompts.", registry=r)
        self.cached_tokens = Counter("ayllu_cached_tokens", "Of them, found in the prefix cache.", registry=r)
        self.answer_tokens = Counter("ayllu_answer_tokens", "Tokens of answers.", registry=r)
        self.redacted = Counter("ayllu_redacted", "Pieces of personal data taken out of prompts.", ["kind"], registry=r)

    def watch(self, service: "Service | Asking") -> None:
        """Show the engine's own state, too."""
        self.registry.register(_EngineState(service))

    def text(self) -> bytes:
        """What Prometheus reads."""
        return generate_latest(self.registry)


class Gaps(Collector):
    """A histogram of the times between two tokens, in place of the library's: thousands are observed in a second, and
    that one takes a lock for each."""

    def __init__(self) -> None:
        self._counts, self._sum = [0] * (len(STEP_SECONDS) + 1), 0.0

    def observe(self, seconds: float) -> None:
        """In the event loop only."""
        self._counts[bisect_left(STEP_SECONDS, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[Metric]:
        """As Prometheus wants them: how many took so long at most."""
        bounds = [*(str(float(most)) for most in STEP_SECONDS), "+Inf"]
        yield HistogramMetricFamily("ayllu_between_tokens_seconds", "Between two tokens of one call.",
                                    buckets=list(zip(bounds, accumulate(self._counts), strict=True)),
                                    sum_value=self._sum)


class _EngineState(Collector):
    """What the engine told last of itself."""

    def __init__(self, service: "Service | Asking") -> None:
        self.service = service

    def collect(self) -> Iterator[Metric]:
        """One value each."""
        counts = self.service.counts()
        for name, says in GAUGES.items():
            yield GaugeMetricFamily(f"ayllu_{name}", says, value=getattr(counts, name))
        for name, says in TOTALS.items():
            yield CounterMetricFamily(f"ayllu_{name}", says, value=getattr(counts, name))
        requests = CounterMetricFamily("ayllu_adapter_requests", "Requests with an adapter since it was loaded.",
                                       labels=["adapter"])
        running = GaugeMetricFamily("ayllu_adapter_running", "Of them, those that aren't over.", labels=["adapter"])
        for name, adapter in dict(self.service.engine.adapters.loaded).items():
            requests.add_metric([name], adapter.n_requests)
            running.add_metric([name], adapter.n_users)
        yield requests
        yield running
