"""How long a new request would wait in the queue, from how fast answers come to an end. Free of torch and of clocks.

A queue that is bounded by its length alone lets everybody wait for its whole length when more is asked than can be
answered: each answer comes, and each comes too late. Refusing at once those who would wait too long keeps the answers
that are given useful (Welsh and Culler, "Adaptive overload control for busy Internet servers", 2003).

Two estimates, of which the longer counts. By the rows: each running answer is taken to be as long as those that ended
lately (one that is longer already, as long again), and at one step per token the first to end makes room for the first
in the queue. By the queue: as many requests as left it lately will leave it soon; this one sees what rows don't tell,
such as a lack of pages.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

WINDOW_S = 10.0                                          # older moves of the queue say nothing of now
FEWEST = 4                                               # moves from which a rate is told
MEMORY_S = 20.0                                          # after which a finished answer counts 1/e in the mean length
SMOOTHING = 0.1                                          # weight of the newest step in the mean time of a step


class Pace:
    """What the steps of an engine have shown so far."""

    def __init__(self) -> None:
        self._last_s: float | None = None                # of the last step that had rows
        self._step_s: float | None = None
        self._tokens = self._answers = 0.0               # chosen, and ended, both fading
        self._since_s: float | None = None               # when somebody began to wait; None: nobody waits
        self._moves: deque[tuple[float, int]] = deque()  # when, and how many left the queue

    def observe(self, now_s: float, *, n_tokens: int, n_finished: int, n_moved: int, n_waiting: int) -> None:
        """After a step: what was chosen, which answers ended, who left the queue, and who is in it still."""
        if self._last_s is not None:
            passed_s = now_s - self._last_s
            fade = math.exp(-passed_s / MEMORY_S)
            self._tokens, self._answers = self._tokens * fade, self._answers * fade
            if n_tokens:
                self._step_s = passed_s if self._step_s is None else (
                    self._step_s + SMOOTHING * (passed_s - self._step_s))
        self._tokens, self._answers = self._tokens + n_tokens, self._answers + n_finished
        self._last_s = now_s if n_tokens else None       # the time until the next request isn't a step's
        if not n_waiting:
            self._since_s = None
            self._moves.clear()
        elif self._since_s is None:
            self._since_s = now_s
        elif n_moved:
            self._moves.append((now_s, n_moved))
        while self._moves and now_s - self._moves[0][0] > WINDOW_S:
            self._moves.popleft()

    def wait_s(self, n_ahead: int, rows: Sequence[tuple[int, int]], n_free: int, now_s: float) -> float | None:
        """Seconds until a request with so many ahead of it leaves the queue; None where too little is known. `rows`:
        for each running one how many tokens it has, and how many it may still get; `n_free` more may run at once. Any
        thread may ask."""
        left, each_s = self._left(rows), self._each_s(now_s)
        found = [self._by_rows(n_ahead - n_free, left), None if each_s is None else n_ahead * each_s]
        return max((wait for wait in found if wait is not None), default=None)

    def most_ahead(self, limit_s: float, rows: Sequence[tuple[int, int]], n_free: int, now_s: float,
                   most: int) -> int | None:
        """The largest number, up to `most`, of requests ahead with which `wait_s` is within the limit;
        None where too little is known."""
        left, each_s = self._left(rows), self._each_s(now_s)
        if left is None and each_s is None:
            return None
        by_queue = most if not each_s else min(most, int(limit_s / each_s))
        ahead = bisect_right(range(by_queue + 1), limit_s, key=lambda n: self._by_rows(n - n_free, left) or 0.0)
        return max(0, ahead - 1)

    def _left(self, rows: Sequence[tuple[int, int]]) -> tuple[list[float], float] | None:
        """What each row is taken to have left, the least first, in tokens; and the mean answer."""
        if not rows or self._step_s is None or self._answers < 0.5:
            return None
        length = self._tokens / self._answers
        return sorted(min(room, length - done if done < length else length) for done, room in rows), length

    def _by_rows(self, n_ahead: int, known: tuple[list[float], float] | None) -> float | None:
        if n_ahead < 0:
            return 0.0
        if known is None or self._step_s is None:
            return None
        left, length = known
        rounds, place = divmod(n_ahead, len(left))
        return (left[place] + rounds * length) * self._step_s

    def _each_s(self, now_s: float) -> float | None:
        """For each request of the queue, by how many left it lately."""
        n_moved = sum(n for at_s, n in tuple(self._moves) if now_s - at_s <= WINDOW_S)
        if self._since_s is None or n_moved < FEWEST:
            return None
        return min(now_s - self._since_s, WINDOW_S) / n_moved
