"""Which tokens of which rows are computed next. Free of torch; engine.py computes what a `Plan` says.

A row is one sample of a request. It has ids (the prompt, then what was chosen) and a number of them that are computed;
the rest is pending. There are no phases: each step shares one budget of tokens among the rows that have pending ids,
rows that need a single one first, so that a long prompt delays nobody's next token; it is read in chunks. A row holds
the pages of all its ids from the moment it is admitted. When a running row needs a page and none is free, the row that
is last in rank loses its pages and waits to be computed again.

Rank is fair between tenants: a request starts where the tenant's last one ends or at the common clock, whichever is
later, all in tokens (start-time fair queueing, Goyal et al. 1996); priority shifts it by a bounded number of tokens.
The clock moves with the work, so that whoever waits comes first in the end. Nobody overtakes the head of the queue.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import Field, model_validator

from ayllu.config import Settings
from ayllu.engine.pages import PageKey, PagePool, page_keys, root_digest
from ayllu.engine.request import Request
from ayllu.errors import ContextTooLong, Overloaded

PRIORITY_TOKENS = 4096                                   # how far one step of priority moves a request ahead


class SchedulerSettings(Settings):
    """Limits of the engine's steps and memory, in tokens, rows and pages."""

    n_pages: int = Field(default=1024, ge=1)
    page_size: int = Field(default=16, ge=1)             # tokens
    token_budget: int = Field(default=512, ge=1)         # tokens computed in one step
    max_rows: int = Field(default=64, ge=1)              # samples that run at a time
    max_waiting: int = Field(default=1024, ge=0)         # requests in the queue; more are refused
    prefix_cache: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> "SchedulerSettings":
        if self.token_budget <= self.max_rows:
            raise ValueError(f"token_budget={self.token_budget} must be above max_rows={self.max_rows}: each running "
                             "row has one token in a step, and prompts need some besides")
        return self


@dataclass(eq=False)
class Row:
    """One sample of a request."""

    number: int                                          # of the request, as `submit` gave it
    sample: int
    request: Request
    ids: list[int]                                       # prompt and answer
    room: int                                            # tokens that the answer may still get
    rank: float
    root: bytes                                          # where the chain of its page keys begins
    computed: int = 0                                    # ids whose keys and values lie in the pages
    cached: int | None = None                            # prompt ids found in the prefix cache at first admission
    pages: list[int] = field(default_factory=list)
    n_published: int = 0                                 # of them, those that the pool knows as a prefix
    keys: list[PageKey] = field(default_factory=list)    # of full pages, made as far as they were needed
    followers: list["Row"] = field(default_factory=list)  # samples that wait for this one's prompt
    draft: list[int] = field(default_factory=list)       # guesses at the next ids, to be checked in one step

    @property
    def n_pending(self) -> int:
        """Ids that are not computed yet."""
        return len(self.ids) - self.computed

    @property
    def n_prompt(self) -> int:
        """Ids of the prompt."""
        return len(self.request.ids)

    @property
    def order(self) -> tuple[float, int, int]:
        """Who comes first."""
        return self.rank, self.number, self.sample


@dataclass(frozen=True)
class Work:
    """Compute ids `begin` to `end` of a row, then `draft`. If that reaches its last id, choose the next id of each of
    `choosers`: the row itself, and on the first time the samples that share its prompt."""

    row: Row
    begin: int
    end: int
    draft: tuple[int, ...] = ()
    choosers: tuple[Row, ...] = ()

    @property
    def n_tokens(self) -> int:
        """What it costs of the budget."""
        return self.end - self.begin + len(self.draft)


@dataclass(frozen=True)
class Plan:
    """One step: first copy pages (source, target), then compute; `commit` says what came of it."""

    work: tuple[Work, ...]
    copies: tuple[tuple[int, int], ...]

    @property
    def n_tokens(self) -> int:
        """Tokens that this step computes."""
        return sum(work.n_tokens for work in self.work)


@dataclass(frozen=True)
class Chosen:
    """What one row got in a step: ids, of which the first `n_drafted` were in its draft, and whether it is over."""

    ids: Sequence[int]
    is_over: bool
    n_drafted: int = 0


@dataclass
class Counts:
    """What happened since the start."""

    preempted: int = 0
    computed_tokens: int = 0
    prompt_tokens: int = 0                               # of prompts that were read, once for each
    cached_tokens: int = 0                               # of them, those found in the prefix cache
    drafted_tokens: int = 0                              # guesses that were checked
    accepted_tokens: int = 0                             # of them, those that were right


class Scheduler:
    """The queue, the running rows and their pages. `plan` and `commit` by turns; `submit` and `cancel` between them."""

    def __init__(self, settings: SchedulerSettings) -> None:
        self.settings = settings
        self.pool = PagePool(settings.n_pages, settings.page_size)
        self.waiting: list[Row] = []
        self.running: list[Row] = []
        self.counts = Counts()
        self._n_requests = 0
        self._clock = 0.0                                # tokens of fair service so far
        self._ends: dict[str, float] = {}                # tenant -> where its last request ends

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.running

    def rows(self) -> Iterator[Row]:
        """Every row that isn't over."""
        for row in (*self.running, *self.waiting):
            yield row
            yield from row.followers

    def submit(self, request: Request, room: int, salt: str = "") -> int:
        """Queue a request whose answers may have `room` tokens each; gives its number. Only requests with the same
        tenant, adapter and `salt` (what the adapter holds, say) share pages."""
        s, n = self.settings, len(request.ids)
        if len(self.waiting) >= s.max_waiting:
            raise Overloaded(f"{len(self.waiting)} requests are waiting, which is the limit: try again later")
        if self.pool.pages_for(n + room) > s.n_pages:
            raise ContextTooLong(f"prompt and answer may take {n} + {room} tokens, but the cache holds "
                                 f"{s.n_pages * s.page_size}: lower max_tokens, or start with more cache memory")
        number, self._n_requests = self._n_requests, self._n_requests + 1
        rank = self._rank(request, n + room * request.params.n)
        root = root_digest(request.tenant, request.adapter or "", salt)
        rows = [Row(number, sample, request, list(request.ids), room, rank, root)
                for sample in range(request.params.n)]
        rows[0].followers = rows[1:]
        self.waiting.append(rows[0])
        return number

    def cancel(self, number: int, sample: int | None = None) -> list[Row]:
        """End a request, or one of its samples; gives the rows that were still alive."""
        gone = [row for row in self.rows() if row.number == number and sample in (None, row.sample)]
        for row in list(self.rows()):
            row.followers = [follower for follower in row.followers if follower not in gone]
        for row in gone:
            self._remove(row)
        return gone

    def plan(self) -> Plan:
        """What to compute now; nothing is computed twice, and nobody else may touch the rows until `commit`."""
        copies, crowded = self._secure_pages()
        left, work = self.settings.token_budget, list[Work]()
        for row in sorted(self.running, key=lambda row: (row.n_pending > 1, *row.order)):
            left -= self._allot(row, left, work)
        while self.waiting and left > 0 and not crowded and len(self.running) < self.settings.max_rows:
            row = min(self.waiting, key=lambda row: row.order)
            if not self._admit(row):
                break
            left -= self._allot(row, left, work)
        for place, item in enumerate(work):
            if item.choosers:
                work[place] = self._with_followers(item) if item.row.followers else self._with_draft(item, left)
                left -= len(work[place].draft)
        return Plan(tuple(work), tuple(copies))

    def commit(self, plan: Plan, chosen: Mapping[Row, Chosen]) -> None:
        """Take over what was computed; `chosen` has an entry for every chooser."""
        tenants = {row.request.tenant for row in self.rows()}
        self._clock += plan.n_tokens / max(1, len(tenants))
        self.counts.computed_tokens += plan.n_tokens
        for work in plan.work:
            row = work.row
            row.computed = work.end
            self.counts.drafted_tokens += len(work.draft)
            for follower in work.choosers[1:]:
                follower.pages, follower.computed = self.pool.share(row.pages), row.computed
                follower.keys, follower.n_published = list(row.keys), row.n_published
                follower.cached = row.cached
            for chooser in work.choosers:
                self._take_over(chooser, chosen[chooser])
            if row in self.running:
                self._publish(row)

    def _rank(self, request: Request, cost: int) -> float:
        start = max(self._clock, self._ends.get(request.tenant, 0.0))
        self._ends = {tenant: end for tenant, end in self._ends.items() if end > self._clock}
        self._ends[request.tenant] = start + cost
        return start - request.priority * PRIORITY_TOKENS

    def _secure_pages(self) -> tuple[list[tuple[int, int]], bool]:
        """A page of its own for whatever each running row writes next; whether somebody had to go for it."""
        copies, crowded = list[tuple[int, int]](), False
        for row in sorted(self.running, key=lambda row: row.order):
            while row in self.running and self._lacks(row) > self.pool.n_free:
                self._preempt(max(self.running, key=lambda row: row.order))
                crowded = True
            if row in self.running:
                copies += self._extend(row)
        return copies, crowded

    def _lacks(self, row: Row) -> int:
        return self.pool.pages_for(len(row.ids)) - len(row.pages) + self._writes_shared(row)

    def _writes_shared(self, row: Row) -> bool:
        """Whether its next slot lies in a page that others hold too (samples after their common prompt)."""
        place = row.computed // self.settings.page_size
        return row.n_pending > 0 and place < len(row.pages) and self.pool.refs[row.pages[place]] > 1

    def _extend(self, row: Row) -> list[tuple[int, int]]:
        copies = []
        if self._writes_shared(row):
            place = row.computed // self.settings.page_size
            shared, own = row.pages[place], self.pool.take(1)[0]
            self.pool.give_back([shared])
            row.pages[place] = own
            copies.append((shared, own))
        row.pages += self.pool.take(self.pool.pages_for(len(row.ids)) - len(row.pages))
        return copies

    def _allot(self, row: Row, left: int, work: list[Work]) -> int:
        """Give a row its part of the budget; gives what that costs."""
        n = min(row.n_pending, left)
        if n > 0:
            end = row.computed + n
            work.append(Work(row, row.computed, end, choosers=(row,) if end == len(row.ids) else ()))
        return n

    def _with_draft(self, item: Work, left: int) -> Work:
        """As much of the row's draft as budget and free pages allow; guesses displace nobody."""
        row = item.row
        if not row.draft:
            return item
        slots = (len(row.pages) + self.pool.n_free) * self.settings.page_size - len(row.ids)
        draft = tuple(row.draft[:max(0, min(left, slots, row.room - 1))])
        row.pages += self.pool.take(self.pool.pages_for(len(row.ids) + len(draft)) - len(row.pages))
        return Work(row, item.begin, item.end, draft, item.choosers)

    def _admit(self, row: Row) -> bool:
        """Give the first in the queue the pages of all its ids, known prefixes shared, if there are enough."""
        pool = self.pool
        found = pool.share(pool.find(self._findable(row)))
        need = pool.pages_for(len(row.ids)) - len(found)
        spare = len(self.running) if self.running else 0             # a page for each that will soon want one
        if pool.n_free < need + spare:
            pool.give_back(found)
            return False
        row.computed = len(found) * self.settings.page_size
        row.pages, row.n_published = found + pool.take(need), len(found)
        if row.cached is None:
            row.cached = row.computed
            self.counts.prompt_tokens += row.n_prompt
            self.counts.cached_tokens += row.cached
        self.waiting.remove(row)
        self.running.append(row)
        return True

    def _findable(self, row: Row) -> list[PageKey]:
        """Keys of the pages that may come from the cache: never the last id, whose logits are wanted."""
        if not self.settings.prefix_cache or (row.request.prompt_logprobs is not None and row.n_prompt == len(row.ids)):
            return []
        self._make_keys(row, len(row.ids) - 1)
        return row.keys[:(len(row.ids) - 1) // self.settings.page_size]

    def _with_followers(self, item: Work) -> Work:
        """The samples that wait for this prompt choose their first id from the same logits, as far as rows are free;
        the others queue again and will find the prompt's pages in the cache."""
        row = item.row
        n = max(0, self.settings.max_rows - len(self.running))
        now, later = row.followers[:n], row.followers[n:]
        row.followers = []
        self.running += now
        if later:
            later[0].followers = later[1:]
            self.waiting.append(later[0])
        return Work(row, item.begin, item.end, (), (row, *now))

    def _take_over(self, row: Row, chosen: Chosen) -> None:
        row.computed += chosen.n_drafted
        self.counts.accepted_tokens += chosen.n_drafted
        row.ids += chosen.ids
        row.room -= len(chosen.ids)
        row.draft = []
        n_needed = self.pool.pages_for(len(row.ids))
        self.pool.give_back(row.pages[n_needed:])                    # of guesses that were wrong
        del row.pages[n_needed:]
        if chosen.is_over:
            self._publish(row)
            self._remove(row)

    def _publish(self, row: Row) -> None:
        """Let others find the pages that are full now."""
        n_full = row.computed // self.settings.page_size
        if not self.settings.prefix_cache or n_full <= row.n_published:
            return
        self._make_keys(row, row.computed)
        for place in range(row.n_published, n_full):
            self.pool.publish(row.pages[place], row.keys[place])
        row.n_published = n_full

    def _make_keys(self, row: Row, n_ids: int) -> None:
        size = self.settings.page_size
        if n_ids // size > len(row.keys):
            parent = row.keys[-1].digest if row.keys else row.root
            begin = len(row.keys) * size
            row.keys += page_keys(parent, row.ids[:n_ids], size, begin, row.request.media)

    def _preempt(self, row: Row) -> None:
        self.counts.preempted += 1
        self.running.remove(row)
        self._drop_pages(row)
        self.waiting.append(row)

    def _remove(self, row: Row) -> None:
        """Take a row out; if others wait for its prompt, the first of them takes its place."""
        self._drop_pages(row)
        was_queued = row in self.waiting or row in self.running
        for rows in (self.waiting, self.running):
            if row in rows:
                rows.remove(row)
        if was_queued and row.followers:
            heir, heir_followers = row.followers[0], row.followers[1:]
            heir.followers, row.followers = heir_followers, []
            self.waiting.append(heir)

    def _drop_pages(self, row: Row) -> None:
        self.pool.give_back(row.pages)
        row.pages, row.n_published, row.computed, row.draft = [], 0, 0, []
