"""What an engine holds and has done, in plain numbers that can be sent anywhere. Free of torch."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ayllu.engine.engine import Engine
    from ayllu.engine.ranks import LedEngine


class Counts(NamedTuple):
    """Each is right, though not all of one instant where the engine runs in another thread."""

    running: int                                         # rows that are computed
    waiting: int                                         # requests in the queue
    pages: int                                           # of the cache
    pages_free: int
    pages_known: int                                     # that hold a prefix which can be found
    preempted: int                                       # rows that lost their pages and were computed again
    computed_tokens: int
    guessed_tokens: int
    guessed_right_tokens: int
    pages_evicted: int


def counts_of(engine: "Engine | LedEngine") -> Counts:
    """Reads integers only: any thread may, while the engine's own runs."""
    s, pool = engine.scheduler, engine.scheduler.pool
    return Counts(len(s.running), len(s.waiting), pool.n_pages, pool.n_free, pool.n_published, s.counts.preempted,
                  s.counts.computed_tokens, s.counts.drafted_tokens, s.counts.accepted_tokens, pool.n_evicted)
