"""Guesses at a row's next ids, which the model checks all at once: in one step a row gets the right ones and one more.

Two who guess: `Ngrams`, who remember what followed the row's last ids when they stood in it before, and `Draft`, a
smaller model of the same vocabulary. A guess is right if it's the id that the model chooses.

What `Ngrams` guess is one id d, so rejection sampling (arXiv:2211.17192, algorithm 1) has a simple form: draw x from
the model's own distribution p as ever; d = x happens with probability p(d). The ids are those of no guessing at all.

`Draft` has a distribution q. Where ids are drawn, it draws its guess from q, and the model's choice is the guess with
probability min(1, p / q), else drawn from what p has more than q (`draw_by_draft` in sampling.py). So a guess is right
as often as p and q overlap. The choice depends on p, q, seed and step alone, whether or not there was room for a guess:
the same seed gives the same text in any batch, though another one than without the draft model. Greedy ids are those
without it; so are the drawn ones in deterministic mode, which keeps q out of the choice, as its bits aren't held.

N tokens  D width  C tokens that choose  V vocabulary
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from ayllu.engine.batch import FlatBatch, flat_batch
from ayllu.engine.paged import PagedCache, Views
from ayllu.engine.paged_native import NativeViews
from ayllu.engine.paths import runner_for
from ayllu.engine.plan import Plan, Row, Work
from ayllu.errors import ConfigError
from ayllu.model.step import Runner

SHORTEST, LONGEST = 2, 4                                 # ids that must have stood in the row before


class Ngrams:
    """What followed each 2 to 4 ids of one row, the last time."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}     # ids -> the place behind them
        self._n_read = 0

    def guess(self, ids: Sequence[int], n: int) -> list[int]:
        """At most n ids that may follow; the longest match counts."""
        for place in range(max(self._n_read, SHORTEST), len(ids)):
            for length in range(SHORTEST, min(LONGEST, place) + 1):
                self._after[tuple(ids[place - length:place])] = place
        self._n_read = len(ids)
        for length in range(min(LONGEST, len(ids)), SHORTEST - 1, -1):
            found = self._after.get(tuple(ids[-length:]))
            if found is not None:
                return list(ids[found:found + n])
        return []


class Draft:
    """A smaller model that guesses. Its keys and values lie in pages of its own with the same numbers, so that
    shared prefixes are shared here too: it computes whatever the model computes."""

    def __init__(self, runner: Runner, model: Runner, n_pages: int, page_size: int, is_native: bool = False) -> None:
        if runner.config.vocab_size != model.config.vocab_size:
            raise ConfigError(f"the draft model has {runner.config.vocab_size} ids and the model "
                              f"{model.config.vocab_size}: they must have the same tokenizer")
        self.runner = runner_for(runner, is_native)
        self.cache = PagedCache(runner.config, n_pages, page_size, dtype=runner.dtype, device=runner.device)
        self.views: Views = NativeViews(self.cache) if is_native else self.cache

    def guess(self, plan: Plan, choose: Callable[[Tensor, Sequence[Row], Sequence[int]], list[int]]) -> Plan:
        """The plan with guesses in the places that it keeps for them. `choose(logits, rows, steps ahead)` gives ids."""
        self.cache.copy(plan.copies)
        drafts: dict[Work, list[int]] = {work: [] for work in plan.work if work.draft}
        while going := [work for work, ids in drafts.items() if len(ids) < len(work.draft)]:
            steps = dict[Work, Work]()                   # what is computed -> the work that it guesses for
            for work in going:
                known = [*work.row.ids[:work.end], *drafts[work]]
                steps[Work(replace(work.row, ids=known), len(known) - 1, len(known))] = work
            batch = flat_batch(Plan(tuple(steps), ()), self.cache.page_size, self.runner.device)
            order = [steps[step] for step in batch.works]
            ids = choose(self.runner.logits(self._flat(batch)), [work.row for work in order],
                         [len(drafts[work]) for work in order])
            for work, token in zip(order, ids, strict=True):
                drafts[work].append(token)
        return replace(plan, work=tuple(work._replace(draft=tuple(drafts.get(work, ()))) for work in plan.work))

    def follow(self, batch: FlatBatch) -> Tensor:                             # (N, D)
        """Compute what the model computes in this step, the last guess included."""
        return self._flat(batch)

    def _flat(self, batch: FlatBatch) -> Tensor:                              # (N, D)
        batch = batch.on(self.runner.device)
        return self.runner.flat(batch.ids, batch.positions, self.views.attends(batch))
