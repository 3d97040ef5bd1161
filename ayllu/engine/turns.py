"""`Turns`: an engine's steps, and between them what was asked of it. Whoever runs an engine for others has one.

Commands may come from any thread and are done in the one that runs, so that `Engine` itself needs no locks.
"""

import math
import queue
import time
from collections.abc import Callable, Sequence

from ayllu.engine.engine import Engine
from ayllu.engine.pace import Pace
from ayllu.engine.ranks import LedEngine
from ayllu.engine.request import Request, Token
from ayllu.errors import EngineFailed, Overloaded

KEPT_S = 0.02                                            # that estimates of the queue are good for
MOST_RETRY_S = 600                                       # an estimate that far ahead is worth nothing
Command = Callable[[EngineFailed | None], None]          # called with what keeps it from being done, if anything


class Turns:
    """Runs an engine until it is told to end, or breaks."""

    def __init__(self, engine: Engine | LedEngine, max_wait_s: float | None,
                 give: Callable[[Sequence[Token]], None]) -> None:
        """`give` gets what each step chose; `max_wait_s` is for `refusal`."""
        self.engine, self.max_wait_s, self._give = engine, max_wait_s, give
        self.failure = ""                                # why it ended, if by an error
        self._pace = Pace()
        self._room: tuple[float, int | None, int] = (0.0, None, Overloaded.retry_s)   # when, and what was estimated
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()   # None: end when all is done

    def put(self, command: Command | None) -> None:
        """Have something done before the next step; None: end once nothing is left to do."""
        self._commands.put(command)

    def run(self) -> None:
        """Take turns. An error of the engine's is raised; commands that came too late learn of it."""
        is_ending = False
        try:
            while not (is_ending and self.engine.is_idle and self._commands.empty()):
                is_ending |= self._obey(wait=self.engine.is_idle and not is_ending)
                chosen = self.engine.step()
                self._observe(chosen)
                self._give(chosen)
        except Exception as error:                       # whatever broke: told to those who wait, then raised
            self.failure = f"the engine failed: {type(error).__name__}: {error}"
            while not self._commands.empty():
                command = self._commands.get()
                if command is not None:
                    command(EngineFailed(self.failure))
            raise

    def refusal(self, n_coming: int = 0) -> str | None:
        """Why a new request wouldn't be taken after `n_coming` others, or None. Any thread may ask: it reads a few
        counts."""
        scheduler = self.engine.scheduler
        n_ahead = len(scheduler.waiting) + n_coming
        if self.max_wait_s is None or not n_ahead:
            return None
        wait_s = self._pace.wait_s(n_ahead, *self._rows(), time.monotonic())
        if wait_s is None and n_ahead >= self.engine.settings.max_rows:      # as long as nothing is known
            return f"{n_ahead} requests wait already: try again later"
        if wait_s is not None and wait_s > self.max_wait_s:
            return (f"a new request would wait about {wait_s:.1f} s, and this server lets nobody wait longer than "
                    f"{self.max_wait_s:g} s: try again later")
        return None

    def submit(self, request: Request) -> int:
        """Queue a request in the engine; raises Overloaded, with the time after which to try again."""
        try:
            if why := self.refusal():
                raise Overloaded(why)
            return self.engine.submit(request)
        except Overloaded as error:
            error.retry_s = self.retry_s()
            raise

    def retry_s(self) -> int:
        """Whole seconds until what waits now has begun: an estimate, 1 at least. Any thread may ask."""
        wait_s = self._pace.wait_s(len(self.engine.scheduler.waiting), *self._rows(), time.monotonic())
        return min(MOST_RETRY_S, math.ceil(wait_s or 1))

    def entry(self) -> tuple[int | None, int]:
        """How many more requests `refusal` would let in now (None: there is no limit to the wait), and `retry_s`. Asked
        after each step, so that the estimates are kept for a moment."""
        now, n_waiting, n_rows = time.monotonic(), len(self.engine.scheduler.waiting), self.engine.settings.max_rows
        if now - self._room[0] >= KEPT_S:
            most = None if self.max_wait_s is None else self._pace.most_ahead(
                self.max_wait_s, *self._rows(), now, n_waiting + 4 * n_rows)
            self._room = now, most, self.retry_s()
        _, most, retry_s = self._room
        n_more = max(0, 1 + (n_rows - 1 if most is None else most) - n_waiting)
        return None if self.max_wait_s is None else n_more, retry_s

    def _rows(self) -> tuple[list[tuple[int, int]], int]:
        """Of each running row its tokens and those that it may still get; and how many more may run."""
        rows = [(len(row.ids) - row.n_prompt, row.room) for row in tuple(self.engine.scheduler.running)]
        return rows, self.engine.settings.max_rows - len(rows)

    def _observe(self, chosen: Sequence[Token]) -> None:
        n_tokens = n_finished = n_moved = 0
        for token in chosen:
            n_tokens += token.id is not None
            n_finished += token.finish is not None
            n_moved += token.start is not None
        self._pace.observe(time.monotonic(), n_tokens=n_tokens, n_finished=n_finished, n_moved=n_moved,
                           n_waiting=len(self.engine.scheduler.waiting))

    def _obey(self, wait: bool) -> bool:
        """Do what was asked since the last step; gives whether the end was asked for."""
        is_ending = False
        while wait or not self._commands.empty():
            command = self._commands.get()
            wait = False
            if command is None:
                is_ending = True
            else:
                command(None)
        return is_ending
