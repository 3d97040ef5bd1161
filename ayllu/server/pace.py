"""How often whoever comes with a key that stands in a web page may call: anybody can read such a key."""

import threading
import time
from collections.abc import Callable

from starlette.requests import Request

from ayllu.principal import Principal
from ayllu.server.faults import Fault

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
            raise Fault(429, f"{per_minute:g} calls a minute are taken: wait {wait} s", "rate_limit_error", None,
                        "rate_limited", {"retry-after": str(wait)})

    def take_from(self, request: Request, principal: Principal, per_minute: float) -> None:
        """One call of an address, and of the key that it comes with."""
        self.take(f"address {request.client.host if request.client else ''}", per_minute)
        self.take(f"key {principal.tenant} {principal.owner}", per_minute * KEY_TIMES)
