"""Random traces of the page pool and the scheduler against slow twins: no page is lost, nobody starves."""

import random
from collections import Counter

import pytest
from oracles.pages import Memory, NaivePool

from ayllu.engine.pages import PagePool, page_keys, root_digest
from ayllu.engine.plan import Chosen
from ayllu.engine.request import Request
from ayllu.engine.scheduler import Scheduler, SchedulerSettings
from ayllu.errors import ContextTooLong, Overloaded
from ayllu.model.params import SamplingParams

ROOTS = [root_digest("a"), root_digest("b")]
TRACES = [pytest.param(range(1500), id="1500"),
          pytest.param(range(1500, 10_000), id="8500", marks=pytest.mark.slow)]


def pool_trace(seed):
    rng = random.Random(seed)
    size = rng.randint(1, 3)
    fast, slow = PagePool(rng.randint(2, 8), size), NaivePool(0, size)
    slow.__init__(fast.n_pages, size)
    held = []
    for _ in range(60):
        match rng.choice(["read", "read", "fork", "drop"]):
            case "read":                                 # as a row does: find, share, take the rest, publish
                root, ids = rng.randrange(2), [rng.randrange(2) for _ in range(rng.randint(1, 8))]
                keys = list(page_keys(ROOTS[root], ids, size))
                found = fast.find(keys)
                assert found == slow.find(root, ids)
                fast.share(found)
                slow.share(found)
                need = fast.pages_for(len(ids)) - len(found)
                if need > fast.n_free:
                    fast.give_back(found)
                    slow.give_back(found)
                    continue
                new = fast.take(need)
                assert new == slow.take(need)
                held.append(found + new)
                for place, key in enumerate(keys):
                    fast.publish(held[-1][place], key)
                    slow.publish(held[-1][place], root, ids[:(place + 1) * size])
            case "fork" if held:
                held.append(fast.share(rng.choice(held)))
                slow.share(held[-1])
            case "drop" if held:
                pages = held.pop(rng.randrange(len(held)))
                fast.give_back(pages)
                slow.give_back(pages)
        counts = Counter(page for pages in held for page in pages)
        assert fast.refs == slow.refs == [counts[page] for page in range(fast.n_pages)]
        assert fast.n_free == fast.refs.count(0)
        assert fast.n_published == len(slow.holds)


@pytest.mark.parametrize("seeds", TRACES)
def test_pool_agrees_with_its_twin(seeds):
    for seed in seeds:
        pool_trace(seed)


class Trace:
    """A scheduler under random load, checked after every step."""

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)
        max_rows = rng.randint(1, 4)
        self.settings = SchedulerSettings(
            n_pages=rng.randint(6, 14), page_size=rng.randint(1, 4), max_rows=max_rows, max_waiting=6,
            token_budget=max_rows + rng.randint(1, 8), prefix_cache=rng.random() < 0.8)
        self.scheduler = Scheduler(self.settings)
        self.memory = Memory(self.settings.page_size)
        self.wanted, self.got = {}, Counter()            # (request, sample) -> ids asked for and given
        self.cancelled, self.forked, self.recomputed = set(), 0, 0

    def submit(self):
        rng, s = self.rng, self.settings
        most = s.n_pages * s.page_size
        ids = tuple(rng.randrange(2) for _ in range(rng.randint(1, min(12, most - 1))))
        room = rng.randint(1, min(8, most - len(ids)))
        params = SamplingParams(n=rng.choice([1, 1, 2, 3]))
        if rng.random() < 0.3 and s.max_rows > 1:
            params = SamplingParams(num_beams=rng.randint(2, s.max_rows))
        request = Request(ids, params, priority=rng.randint(-2, 2), tenant=rng.choice("ab"),
                          prompt_logprobs=rng.choice([None, None, 0]))
        try:
            number = self.scheduler.submit(request, room)
        except Overloaded:
            assert len(self.scheduler.waiting) >= s.max_waiting    # preempted rows come on top
            return
        except ContextTooLong:                           # all beams at full length
            assert params.num_beams > 1
            return
        self.wanted.update({(number, sample): room for sample in range(params.n)})

    def cancel(self):
        alive = list(self.scheduler.rows())
        if alive:
            row = self.rng.choice(alive)
            gone = self.scheduler.cancel(row.number, self.rng.choice([None, row.sample]))
            assert row in gone
            assert set(row.beams) <= set(gone)
            self.cancelled |= {(r.number, r.sample) for r in gone}

    def step(self):
        scheduler, s, rng = self.scheduler, self.settings, self.rng
        for row in scheduler.running:
            row.draft = [] if row.beams else [rng.randrange(2) for _ in range(rng.choice([0, 0, 1, 3]))]
        was_idle = scheduler.is_idle
        plan = scheduler.plan()
        assert was_idle or plan.n_tokens > 0
        assert plan.n_tokens <= s.token_budget
        assert len(scheduler.running) <= sum(row.n_seats for row in scheduler.running) <= s.max_rows
        worked = [work.row for work in plan.work]
        assert len(set(worked)) == len(worked)
        choosers = [chooser for work in plan.work for chooser in work.choosers]
        assert all(row in worked or row in choosers for row in scheduler.running if row.n_pending == 1
                   and all(beam.n_pending == 1 for beam in row.beams))
        assert all(set(row.beams) <= set(choosers) for row in choosers), "beams that choose without the others"
        self.recomputed += sum(row.n_pending > 1 for row in worked if len(row.beams) > 1)
        for work in plan.work:
            for place in range(work.begin, work.end + len(work.draft)):
                assert scheduler.pool.refs[self.memory.slot(work.row, place)[0]] == 1, "writes where others read"
        self.memory.run(plan)
        scheduler.commit(
            plan, {row: self.choose(row, work) for work in plan.work for row in work.choosers if not row.beams},
            {row: self.fork(row) for row in choosers if row.beams and row is row.beams[0]})
        self.check()

    def choose(self, row, work):
        accepted = self.rng.randint(0, len(work.draft))
        ids = [*work.draft[:accepted], self.rng.randrange(2)]
        self.got[row.number, row.sample] += len(ids)
        return Chosen(ids, len(ids) == row.room or self.rng.random() < 0.05, accepted)

    def fork(self, first):
        """Random beams go on with ids that tell them apart, as beams' ids do."""
        self.got[first.number, 0] += 1
        if first.room == 1 or self.rng.random() < 0.05:
            return []
        self.forked += 1
        beams, token = first.beams, self.rng.randrange(2)
        return [(self.rng.choice(beams), token + 2 * place) for place in range(first.request.params.num_beams)]

    def check(self):
        scheduler = self.scheduler
        held = Counter(page for row in scheduler.rows() for page in row.pages)
        pool = scheduler.pool
        assert pool.refs == [held[page] for page in range(pool.n_pages)]
        assert pool.n_free == pool.refs.count(0)
        assert all(not row.pages for row in scheduler.waiting)


@pytest.mark.parametrize("seeds", TRACES)
def test_scheduler_traces(seeds):
    happened = Counter()
    for seed in seeds:
        trace = Trace(seed)
        for _ in range(12):
            for _ in range(trace.rng.choice([0, 1, 1, 2])):
                trace.submit()
            if trace.rng.random() < 0.1:
                trace.cancel()
            trace.step()
        for _ in range(600):                             # everybody's turn comes
            if trace.scheduler.is_idle:
                break
            trace.step()
        assert trace.scheduler.is_idle
        assert trace.scheduler.pool.n_free == trace.settings.n_pages
        done = {key for key in trace.wanted if key not in trace.cancelled}
        assert all(1 <= trace.got[key] <= trace.wanted[key] for key in done)
        counts = trace.scheduler.counts
        happened.update(preempted=counts.preempted, cached=counts.cached_tokens, cancelled=len(trace.cancelled),
                        evicted=trace.scheduler.pool.n_evicted, forked=trace.forked, recomputed=5 * trace.recomputed)
    assert all(happened[what] > len(seeds) / 10 for what in (
        "preempted", "cached", "cancelled", "evicted", "forked", "recomputed")), happened


def served(scheduler, n_steps, each=lambda step: None):
    """The requests in the order of their first ids, with `each` called before every step."""
    order = []
    for step in range(n_steps):
        each(step)
        plan = scheduler.plan()
        choosers = [row for work in plan.work for row in work.choosers]
        order += [row.number for row in choosers if row.number not in order]
        scheduler.commit(plan, {row: Chosen([0], row.room == 1) for row in choosers})
    return order


def request(tenant="a", priority=0, n=4):
    return Request(tuple(range(n)), tenant=tenant, priority=priority)


def small(**more):
    return Scheduler(SchedulerSettings(**{"n_pages": 64, "page_size": 4, "max_rows": 1, "token_budget": 8, **more}))


def test_a_tenant_that_floods_the_queue_waits_for_the_others():
    scheduler = small()
    flood = [scheduler.submit(request("a"), 4) for _ in range(50)]
    single = scheduler.submit(request("b"), 4)
    assert served(scheduler, 40).index(single) <= 1
    assert served(scheduler, 400)[-1] == flood[-1]


def test_low_priority_is_late_but_not_starved():
    """One urgent request comes at each step, more than can be served; the unhurried one is served all the same."""
    scheduler = small(max_waiting=100_000)
    late = scheduler.submit(request("a", priority=-1), 4)
    order = served(scheduler, 4500, each=lambda step: scheduler.submit(request("a", priority=1), 4))
    assert order.index(late) > 100


def test_a_long_prompt_delays_nobodys_next_token():
    scheduler = small(max_rows=4, token_budget=8)
    first = scheduler.submit(request(n=3), 30)
    served(scheduler, 1)
    scheduler.submit(request(n=100), 1)
    for _ in range(13):
        plan = scheduler.plan()
        assert plan.work[0].row.number == first
        assert plan.n_tokens == 8
        scheduler.commit(plan, {row: Chosen([0], False) for work in plan.work for row in work.choosers})


def test_equal_digests_with_other_ids_share_nothing():
    pool = PagePool(2, 2)
    key = next(page_keys(ROOTS[0], [1, 2], 2))
    pool.publish(pool.take(1)[0], key)
    assert pool.find([key]) == [0]
    assert pool.find([type(key)(key.digest, key.parent, (1, 3))]) == []
