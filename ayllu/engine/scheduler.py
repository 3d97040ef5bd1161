"""Which tokens of which rows are computed next. Free of torch; engine.py computes what a `Plan` says.

A row is one sample of a request. It has ids (the prompt, then what was chosen) and a number of them that are computed;
the rest is pending. There are no phases: each step shares one budget of tokens among the rows that have pending ids,
rows that need a single one first, so that a long prompt delays nobody's next token; it is read in chunks. A row holds
the pages of all its ids from the moment it is admitted. When a running row needs a page and none is free, the row that
is last in rank loses its pages and waits to be computed again.

Rank is fair between tenants: a request starts where the tenant's last one ends or at the common clock, whichever is
later, all in tokens (start-time fair queueing, Goyal et al. 1996); priority shifts it by a bounded number of tokens.
The clock moves with the work, so that whoever waits comes first in the end. Nobody overtakes the head of the queue.

The beams of a search are rows that choose in the same step or not at all, since their choice is one: `commit` is told
which beam goes on with which ids. Several may go on from one, and share its pages; the next to write in a shared page
copies it, as samples do after their common prompt. They lose their pages together. When these are computed again, the
first beam computes what all begin with and the others wait for it as samples do.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from pydantic import Field, model_validator

from ayllu.config import Settings
from ayllu.engine.pages import PageKey, PagePool, page_keys, root_digest
from ayllu.engine.plan import Chosen, Counts, Forks, Plan, Row, Work
from ayllu.engine.request import Request
from ayllu.engine.waiting import Waiting
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


class Scheduler:
    """The queue, the running rows and their pages. `plan` and `commit` by turns; `submit` and `cancel` between them."""

    def __init__(self, settings: SchedulerSettings) -> None:
        self.settings = settings
        self.pool = PagePool(settings.n_pages, settings.page_size)
        self.waiting = Waiting()
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
        width = request.params.num_beams
        if width > 1 and self._n_together(n // s.page_size, [n + room] * width) > s.n_pages:
            raise ContextTooLong(f"{width} beams of {n} + {room} tokens may need more than the {s.n_pages} pages of "
                                 "the cache: lower max_tokens or num_beams, or start with more cache memory")
        number, self._n_requests = self._n_requests, self._n_requests + 1
        n_samples = request.params.n if width == 1 else 1
        rank = self._rank(request, n + room * max(width, n_samples))
        root = root_digest(request.tenant, request.adapter or "", salt)
        rows = [Row(number, sample, request, list(request.ids), room, rank, root) for sample in range(n_samples)]
        rows[0].followers = rows[1:]
        rows[0].beams = rows if width > 1 else []
        self.waiting.add(rows[0])
        return number

    def cancel(self, number: int, sample: int | None = None) -> list[Row]:
        """End a request, or one of its samples, or a search; gives the rows that were still alive."""
        gone = [row for row in self.rows()
                if row.number == number and (row.beams or sample in (None, row.sample))]
        for row in list(self.rows()):
            row.followers = [follower for follower in row.followers if follower not in gone]
        for row in gone:
            self._remove(row)
        return gone

    def plan(self) -> Plan:
        """What to compute now; nothing is computed twice, and nobody else may touch the rows until `commit`."""
        for row in [row for row in self.running if row.beams and row.followers]:
            self._join(row)
        copies, crowded = self._secure_pages()
        left, work = self.settings.token_budget, list[Work]()
        for row in sorted(self.running, key=lambda row: (row.n_pending > 1, *row.order)):
            left -= self._allot(row, left, work)
        while self.waiting and not crowded:
            row = self.waiting.first
            if left < max(1, len(row.beams)) or row.n_seats > self._n_free_seats or not self._admit(row):
                break
            for member in row.members:
                left -= self._allot(member, left, work)
        for place, item in enumerate(work):
            if item.choosers:
                work[place] = self._with_followers(item) if item.row.followers else self._with_draft(item, left)
                left -= len(work[place].draft)
        return Plan(tuple(work), tuple(copies))

    def commit(self, plan: Plan, chosen: Mapping[Row, Chosen], forks: Forks | None = None) -> None:
        """Take over what was computed; `chosen` has an entry for every chooser that isn't a beam, `forks` for each
        search whose beams chose: [] when it's over."""
        tenants = {row.request.tenant for row in self.running} | self.waiting.tenants.keys()
        n_tokens = plan.n_tokens
        self._clock += n_tokens / max(1, len(tenants))
        self.counts.computed_tokens += n_tokens
        for work in plan.work:
            row = work.row
            row.computed = work.end
            self.counts.drafted_tokens += len(work.draft)
            for follower in work.choosers[1:]:
                follower.pages, follower.computed = self.pool.share(row.pages), row.computed
                follower.keys, follower.n_published = list(row.keys), row.n_published
                follower.cached = row.cached
            for chooser in work.choosers:
                if not chooser.beams:
                    self._take_over(chooser, chosen[chooser])
            self._publish(row)                           # one that is over holds no page any more
        for first, beams in (forks or {}).items():
            self._fork(first.beams, beams)

    def _rank(self, request: Request, cost: int) -> float:
        start = max(self._clock, self._ends.get(request.tenant, 0.0))
        self._ends = {tenant: end for tenant, end in self._ends.items() if end > self._clock}
        self._ends[request.tenant] = start + cost
        return start - request.priority * PRIORITY_TOKENS

    def _secure_pages(self) -> tuple[list[tuple[int, int]], bool]:
        """A page of its own for whatever each running row writes next; whether somebody had to go for it."""
        copies, crowded = list[tuple[int, int]](), False
        some = [row for row in self.running if row.n_seats and self._lacks_any(row)]   # few of those that decode
        for row in sorted(some, key=lambda row: row.order):
            while row in self.running and self._lacks(row.members) > self.pool.n_free:
                self._preempt(max(self.running, key=lambda row: row.order))
                crowded = True
            for member in row.members if row in self.running else ():
                copies += self._extend(member)
        return copies, crowded

    def _lacks_any(self, row: Row) -> bool:
        """Whether it, or a beam with it, needs a page for what it writes next."""
        if row.beams:
            return self._lacks(row.members) > 0 or any(map(self._writes_shared, row.members))
        return len(row.ids) > len(row.pages) * self.settings.page_size or self._writes_shared(row)

    def _lacks(self, rows: Sequence[Row]) -> int:
        """Pages that these rows need for what they write next; the last of those that share one keeps it."""
        n_missing = sum(self.pool.pages_for(len(row.ids)) - len(row.pages) for row in rows)
        shared = Counter(row.pages[row.computed // self.settings.page_size] for row in rows if self._writes_shared(row))
        return n_missing + sum(min(n, self.pool.refs[page] - 1) for page, n in shared.items())

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
        """Give a row its part of the budget; gives what that costs. Beams compute their last ids together."""
        is_held = len(row.beams) > 1 and any(beam.n_pending > 1 for beam in row.beams)
        n = min(row.n_pending - is_held, left)
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
        need = self._n_together(self._n_common(row), [len(beam.ids) for beam in row.beams or [row]]) - len(found)
        spare = len(self.running) if self.running else 0             # a page for each that will soon want one
        if pool.n_free < need + spare:
            pool.give_back(found)
            return False
        row.computed = len(found) * self.settings.page_size
        row.pages, row.n_published = found + pool.take(pool.pages_for(len(row.ids)) - len(found)), len(found)
        if row.cached is None:
            row.cached = row.computed
            self.counts.prompt_tokens += row.n_prompt
            self.counts.cached_tokens += row.cached
        self.waiting.remove(row)
        self.running.append(row)
        if row.beams and row.followers:
            self._join(row)
            for beam in row.members[1:]:
                self._extend(beam)
        return True

    @property
    def _n_free_seats(self) -> int:
        return self.settings.max_rows - sum(row.n_seats for row in self.running)

    def _n_common(self, row: Row) -> int:
        """Full pages that all beams of a search begin with."""
        columns = zip(*(beam.ids for beam in row.beams), strict=True)
        return sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, columns)) // self.settings.page_size

    def _n_together(self, n_common: int, lengths: Sequence[int]) -> int:
        """Pages of rows so long that begin with the same ones."""
        return n_common + sum(self.pool.pages_for(n) - n_common for n in lengths)

    def _join(self, first: Row) -> None:
        """Once the first beam has computed what all begin with, the others run too, on its pages or on known ones."""
        n_common = self._n_common(first)
        if first.computed < n_common * self.settings.page_size:
            return
        for beam in first.followers:
            known = self.pool.find(self._findable(beam))
            beam.pages = self.pool.share(known if len(known) > n_common else first.pages[:n_common])
            beam.computed = len(beam.pages) * self.settings.page_size
        self.running += first.followers
        first.followers = []

    def _fork(self, old: Sequence[Row], beams: Sequence[tuple[Row, int]]) -> None:
        """The beams that go on take the places of the old ones, with these ones' pages; what nobody holds is free."""
        new = [replace(row, sample=sample, ids=[*row.ids, token], room=row.room - 1,
                       pages=self.pool.share(row.pages), keys=list(row.keys), followers=[])
               for sample, (row, token) in enumerate(beams)]
        for row in new:
            row.beams = new
        for row in old:
            self.pool.give_back(row.pages)
            self.running.remove(row)
        self.running += new

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
        n = max(0, self._n_free_seats)
        now, later = row.followers[:n], row.followers[n:]
        row.followers = []
        self.running += now
        if later:
            later[0].followers = later[1:]
            self.waiting.add(later[0])
        return Work(row, item.begin, item.end, (), (row, *now))

    def _take_over(self, row: Row, chosen: Chosen) -> None:
        row.computed += chosen.n_drafted
        self.counts.accepted_tokens += chosen.n_drafted
        row.ids += chosen.ids
        row.room -= len(chosen.ids)
        row.draft = []
        n_needed = self.pool.pages_for(len(row.ids))
        if n_needed < len(row.pages):                                # of guesses that were wrong
            self.pool.give_back(row.pages[n_needed:])
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
        members = row.members
        for member in members:
            self.running.remove(member)
            self._drop_pages(member)
        members[0].followers += members[1:]
        self.waiting.add(members[0])

    def _remove(self, row: Row) -> None:
        """Take a row out; if others wait for its prompt, the first of them takes its place."""
        self._drop_pages(row)
        runs, waits = row in self.running, row in self.waiting
        if runs:
            self.running.remove(row)
        if waits:
            self.waiting.remove(row)
        if (runs or waits) and row.followers:
            heir, heir_followers = row.followers[0], row.followers[1:]
            heir.followers, row.followers = heir_followers, []
            self.waiting.add(heir)

    def _drop_pages(self, row: Row) -> None:
        self.pool.give_back(row.pages)
        row.pages, row.n_published, row.computed, row.draft = [], 0, 0, []
