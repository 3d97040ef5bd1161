"""How long a new request would wait in the queue, from how fast the queue moved lately. Free of torch and of clocks.

A queue that is bounded by its length alone lets everybody wait for its whole length when more is asked than can be
answered: each answer comes, and each comes too late. Refusing at once those who would wait too long keeps the answers
that are given useful (Welsh and Culler, "Adaptive overload control for busy Internet servers", 2003).
"""

from collections import deque

WINDOW_S = 10.0                                          # older moves say nothing of now
FEWEST = 4                                               # moves from which a rate is told


class Pace:
    """How many requests left the queue since it has not been empty, 10 seconds back at most."""

    def __init__(self) -> None:
        self._since_s: float | None = None               # when somebody began to wait; None: nobody waits
        self._moves: deque[tuple[float, int]] = deque()  # when, and how many left the queue

    def observe(self, n_moved: int, n_waiting: int, now_s: float) -> None:
        """So many requests left the queue just now, and so many are in it still."""
        if not n_waiting:
            self._since_s = None
            self._moves.clear()
        elif self._since_s is None:
            self._since_s = now_s
        elif n_moved:
            self._moves.append((now_s, n_moved))

    def wait_s(self, n_ahead: int, now_s: float) -> float | None:
        """Seconds until so many requests have left the queue; None where too little is known."""
        if n_ahead == 0:
            return 0.0
        while self._moves and now_s - self._moves[0][0] > WINDOW_S:
            self._moves.popleft()
        n_moved = sum(n for _, n in self._moves)
        if self._since_s is None or n_moved < FEWEST:
            return None
        return n_ahead * min(now_s - self._since_s, WINDOW_S) / n_moved
