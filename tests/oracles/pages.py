"""Slow, obvious twins of the page pool and of the memory that its pages stand for."""

from dataclasses import dataclass, field


@dataclass
class NaivePool:
    """Pages as a list in the order in which they would be lost; whatever a page holds is written out in full."""

    n_pages: int
    page_size: int
    refs: list[int] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    holds: dict[int, tuple] = field(default_factory=dict)    # page -> (root, all ids up to its end)

    def __post_init__(self):
        self.refs = [0] * self.n_pages
        self.free = list(range(self.n_pages))

    def take(self, n):
        taken, self.free = self.free[:n], self.free[n:]
        for page in taken:
            self.refs[page] = 1
            self.holds.pop(page, None)
        return taken

    def share(self, pages):
        for page in pages:
            self.refs[page] += 1
        self.free = [page for page in self.free if self.refs[page] == 0]

    def give_back(self, pages):
        for page in pages[::-1]:
            self.refs[page] -= 1
            if self.refs[page] == 0:
                self.free = [*self.free, page] if page in self.holds else [page, *self.free]

    def publish(self, page, root, ids):
        if (root, tuple(ids)) not in self.holds.values() and page not in self.holds:
            self.holds[page] = (root, tuple(ids))

    def find(self, root, ids):
        pages = []
        for end in range(self.page_size, len(ids) + 1, self.page_size):
            known = [page for page, what in self.holds.items() if what == (root, tuple(ids[:end]))]
            if not known:
                break
            pages += known
        return pages


class Memory:
    """What a model would have left in each slot: the tenant and all ids up to that token. Reading checks it."""

    def __init__(self, page_size):
        self.page_size, self.slots = page_size, {}

    def run(self, plan):
        """Copy, write, then read everything that attention would read."""
        taken = [(target, [self.slots.get((source, i)) for i in range(self.page_size)])
                 for source, target in plan.copies]
        for target, content in taken:
            self.slots.update({(target, i): what for i, what in enumerate(content)})
        for work in plan.work:
            ids = [*work.row.ids[:work.end], *work.draft]
            for place in range(work.begin, len(ids)):
                self.slots[self.slot(work.row, place)] = self.content(work.row, ids[:place + 1])
        for work in plan.work:
            ids = [*work.row.ids[:work.end], *work.draft]
            for place in range(len(ids)):
                found, want = self.slots.get(self.slot(work.row, place)), self.content(work.row, ids[:place + 1])
                assert found == want, (place, found, want)

    def slot(self, row, place):
        return row.pages[place // self.page_size], place % self.page_size

    @staticmethod
    def content(row, ids):
        return row.request.tenant, row.request.adapter, tuple(ids)
