"""Who waits, and for how many: counted here, where calls come in, since the engine may be in another process.

The engine tells how many requests its queue holds. Of the requests without a token the last so many are those in the
queue, as long as nobody overtakes; where tenants share the engine someone may, and a number is then off by a few.
"""

from collections.abc import Callable

READING = b": reading\n\n"


class Queue:
    """The calls that have no token yet, in the order in which they came."""

    def __init__(self) -> None:
        self.n_waiting: Callable[[], int] = lambda: 0    # requests in the engine's queue
        self._calls: dict[int, int] = {}                 # call -> how many requests it holds
        self._n_calls = 0

    def enter(self, n_requests: int) -> int:
        """A call is with the engine; gives its number."""
        number, self._n_calls = self._n_calls, self._n_calls + 1
        self._calls[number] = n_requests
        return number

    def leave(self, call: int) -> None:
        """It has a token, or is over."""
        self._calls.pop(call, None)

    def holds(self, call: int) -> bool:
        """Whether it has no token yet."""
        return call in self._calls

    def ahead(self, call: int) -> int | None:
        """How many requests are before it in the queue; None: it is being read, or isn't here."""
        waiting = self.n_waiting()
        if not waiting or call not in self._calls:
            return None
        before = sum(n for number, n in self._calls.items() if number < call)
        at = before - (sum(self._calls.values()) - waiting)
        return at if at >= 0 else None


class Waiting:
    """What a stream's client is told of its place until the first token, as comments that other clients pass over."""

    def __init__(self, queue: Queue, call: int) -> None:
        self.queue, self.call = queue, call
        self._told = b""

    def __call__(self) -> bytes | None:
        """A comment where there is news, b"" where there is none; None: there will be none any more."""
        if not self.queue.holds(self.call):
            return None
        ahead = self.queue.ahead(self.call)
        says = b": queue %d\n\n" % ahead if ahead is not None else READING if self._told else b""
        if says == self._told:
            return b""
        self._told = says
        return says
