"""The queue of a scheduler: rows in their order, kept sorted, so that no step looks at all of them. Free of torch."""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator

from ayllu.engine.plan import Row


class Waiting:
    """Rows that wait, the first in rank first. A row's order never changes as long as it lives."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self.tenants: Counter[str] = Counter()           # how many rows each has here

    @property
    def first(self) -> Row:
        """Whose turn it is."""
        return self._rows[0]

    def add(self, row: Row) -> None:
        """Let it wait."""
        insort(self._rows, row, key=_order)
        self.tenants[row.request.tenant] += 1

    def remove(self, row: Row) -> None:
        """It waits no more."""
        del self._rows[self._place(row)]
        self.tenants[row.request.tenant] -= 1
        if not self.tenants[row.request.tenant]:
            del self.tenants[row.request.tenant]

    def __contains__(self, row: Row) -> bool:
        """Whether it waits."""
        place = self._place(row)
        return place < len(self._rows) and self._rows[place] is row

    def __len__(self) -> int:
        """How many wait."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        """All, in their order."""
        return iter(self._rows)

    def _place(self, row: Row) -> int:
        return bisect_left(self._rows, row.order, key=_order)


def _order(row: Row) -> tuple[float, int, int]:
    return row.order
