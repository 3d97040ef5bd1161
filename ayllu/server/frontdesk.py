"""The customer service behind a server: opened when it's first asked, and paced, since its key is on web pages."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from ayllu.apps.support.pages import sample
from ayllu.apps.support.service import Support, open_support, place_of
from ayllu.server.faults import Fault
from ayllu.server.served import Served

MOST_KNOWN = 10_000                                      # addresses that are counted at a time
KEY_TIMES = 30                                           # one key may bring as much as so many addresses


class Pace:
    """So many calls a minute from each: a bucket that fills evenly, and holds a minute's worth."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}                   # name -> (calls left, at what time)

    def take(self, name: str, per_minute: float) -> None:
        """One call; refused with 429 where the bucket is empty."""
        with self._lock:
            now = self._clock()
            left, at = self._buckets.pop(name, (per_minute, now))
            left = min(per_minute, left + (now - at) * per_minute / 60)
            if len(self._buckets) >= MOST_KNOWN:
                self._buckets.pop(next(iter(self._buckets)))                 # who was silent longest
            self._buckets[name] = (left - (left >= 1), now)
        if left < 1:
            wait = int((1 - left) * 60 / per_minute) + 1
            raise Fault(429, f"{per_minute:g} messages a minute are taken: wait {wait} s", "rate_limit_error", None,
                        "rate_limited", {"retry-after": str(wait)})


class FrontDesk:
    """The business's folder, and its service once somebody asked."""

    def __init__(self, served: Served, below: Path) -> None:
        self.served, self.below, self.pace = served, below, Pace()
        self._lock = threading.Lock()
        self._service: Support | None = None

    @property
    def is_sample(self) -> bool:
        """Whether a made-up shop answers."""
        return self.served.support is None

    def service(self) -> Support:
        """Opened once; reading the pages takes a moment."""
        with self._lock:
            if self._service is None:
                folder = self.served.support or sample()
                self._service = open_support(folder, place_of(folder, self.below))
            return self._service

    def close(self) -> None:
        """Close its file."""
        with self._lock:
            if self._service is not None:
                self._service.close()
                self._service = None
