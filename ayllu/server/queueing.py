"""Who waits, and for how many: counted here, where calls come in, since the engine may be in another process.

The engine tells how many requests its queue holds. Of the requests without a token the last so many are those in the
queue, as long as nobody overtakes; where tenants share the engine someone may, and a number is then off by a few.
One timer tells all of them, in one pass over the queue: a timer for each costs the more the longer the queue is.
"""

import asyncio
from collections.abc import Callable

NEWS_S = 1.0                                             # how often who waits is told its place
READING = b": reading\n\n"
Tell = Callable[[bytes], None]


class Queue:
    """The calls that have no token yet, in the order in which they came."""

    def __init__(self) -> None:
        self.n_waiting: Callable[[], int] = lambda: 0    # requests in the engine's queue
        self._calls: dict[int, int] = {}                 # call -> how many requests it holds
        self._listeners: dict[int, Listener] = {}        # of the calls that want to be told
        self._n_calls = 0
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, n_requests: int) -> int:
        """A call is with the engine; gives its number."""
        number, self._n_calls = self._n_calls, self._n_calls + 1
        self._calls[number] = n_requests
        return number

    def leave(self, call: int) -> None:
        """It has a token, or is over."""
        self._calls.pop(call, None)
        self._listeners.pop(call, None)

    def listen(self, call: int, tell: Tell) -> None:
        """Until it leaves, `tell` gets a comment for its stream whenever there is news."""
        if call in self._calls:
            self._listeners[call] = Listener(tell)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(NEWS_S, self._tick)

    def ahead(self) -> dict[int, int | None]:
        """How many requests are before each call in the queue; None: it is being read."""
        waiting = self.n_waiting()
        at, found = waiting - sum(self._calls.values()), dict[int, int | None]()
        for call, n in self._calls.items():
            found[call] = at if waiting and at >= 0 else None
            at += n
        return found

    def tell(self) -> None:
        """Whoever listens, if there is news."""
        for call, ahead in self.ahead().items():
            if call in self._listeners:
                self._listeners[call].hear(ahead)

    def _tick(self) -> None:
        self._timer = None
        self.tell()
        if self._listeners:
            self._timer = asyncio.get_running_loop().call_later(NEWS_S, self._tick)


class Listener:
    """What a stream's client was told of its place, in comments that other clients pass over."""

    def __init__(self, tell: Tell) -> None:
        self.tell, self._told = tell, b""

    def hear(self, ahead: int | None) -> None:
        """Tell it, if it's news; who never waited is told nothing."""
        says = b": queue %d\n\n" % ahead if ahead is not None else READING if self._told else b""
        if says != self._told:
            self._told = says
            self.tell(says)
