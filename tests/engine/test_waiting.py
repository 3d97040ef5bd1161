"""The scheduler's queue against its slow twin: a plain list that is searched."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ayllu.engine.plan import Row
from ayllu.engine.request import Request
from ayllu.engine.waiting import Waiting


def row_of(number, rank, tenant):
    return Row(number, 0, Request((1,), tenant=tenant), [1], 1, rank, b"")


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 2.5, 7.0]), st.sampled_from("abc"), st.integers(0, 3)),
                max_size=40))
def test_it_is_a_list_that_is_always_in_order(steps):
    """Each step adds a row, and takes out the first, one that is asked for, or none."""
    fast, plain = Waiting(), []
    for number, (rank, tenant, what) in enumerate(steps):
        row = row_of(number, rank, tenant)
        assert row not in fast
        fast.add(row)
        plain.append(row)
        gone = fast.first if what == 0 else plain[number % len(plain)] if what == 1 else None
        if gone is not None:
            assert gone in fast
            assert what == 1 or gone is min(plain, key=lambda row: row.order)
            fast.remove(gone)
            plain.remove(gone)
        assert list(fast) == sorted(plain, key=lambda row: row.order)
        assert len(fast) == len(plain)
        assert fast.tenants == Counter(row.request.tenant for row in plain)
        assert all(fast.tenants.values())
