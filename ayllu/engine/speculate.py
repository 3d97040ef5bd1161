"""Guesses at a row's next ids, which the model checks all at once: in one step a row gets the right ones and one more.

Two who guess: `Ngrams`, who remember what followed the row's last ids when they stood in it before, and `Draft`, a
smaller model of the same vocabulary. A guess is a single id, so rejection sampling (arXiv:2211.17192, algorithm 1) has
a simple form: draw x from the model's own distribution p as ever; the guess d is accepted if x = d, which happens with
probability p(d), and otherwise x is distributed as p without d. So the drawn ids are those of no guessing at all, with
the same seeds.

N tokens  D width
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ayllu.engine.batch import FlatBatch, flat_batch
from ayllu.engine.paged import PagedCache
from ayllu.engine.plan import Plan, Work
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
    """A smaller model that guesses greedily. Its keys and values lie in pages of its own with the same numbers, so that
    shared prefixes are shared here too: it computes whatever the model computes."""

    def __init__(self, runner: Runner, model: Runner, n_pages: int, page_size: int) -> None:
        if runner.config.vocab_size != model.config.vocab_size:
            raise ConfigError(f"the draft model has {runner.config.vocab_size} ids and the model "
                              f"{model.config.vocab_size}: they must have the same tokenizer")
        self.runner = runner
        self.cache = PagedCache(runner.config, n_pages, page_size, dtype=runner.dtype, device=runner.device)

    def guess(self, plan: Plan) -> Plan:
        """The plan with guesses in the places that it keeps for them."""
        self.cache.copy(plan.copies)
        drafts: dict[Work, list[int]] = {work: [] for work in plan.work if work.draft}
        while going := [work for work, ids in drafts.items() if len(ids) < len(work.draft)]:
            steps = dict[Work, Work]()                   # what is computed -> the work that it guesses for
            for work in going:
                known = [*work.row.ids[:work.end], *drafts[work]]
                steps[Work(replace(work.row, ids=known), len(known) - 1, len(known))] = work
            batch = flat_batch(Plan(tuple(steps), ()), self.cache.page_size, self.runner.device)
            best = self.runner.logits(self._flat(batch)).argmax(-1).tolist()
            for step, token in zip(batch.works, best, strict=True):             # in the order of the batch
                drafts[steps[step]].append(token)
        return replace(plan, work=tuple(replace(work, draft=tuple(drafts.get(work, ()))) for work in plan.work))

    def follow(self, batch: FlatBatch) -> None:
        """Compute what the model computes in this step, the last guess included."""
        self._flat(batch)

    def _flat(self, batch: FlatBatch) -> torch.Tensor:                        # (N, D)
        return self.runner.flat(batch.ids, batch.positions, self.cache.attends(batch))
