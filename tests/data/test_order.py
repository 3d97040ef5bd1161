"""Which source's window stands in which row: exact shares, whole epochs, and no need to walk there."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ayllu.data.order import UNIT, Order
from ayllu.errors import ConfigError

SHARES = st.lists(st.floats(0.01, 100), min_size=1, max_size=6)


def walked(shares, rows):
    """The slow twin: each row goes to the first source whose turn it is among the rows that were left to it."""
    left, odds = sum(shares), []
    for share in shares[:-1]:
        odds.append(round(UNIT * share / left))
        left -= share
    seen, offered = [0] * len(shares), [0] * len(shares)
    for _ in range(rows):
        for source in range(len(shares)):
            offered[source] += 1
            if source == len(shares) - 1 or offered[source] * odds[source] // UNIT > seen[source]:
                yield source, seen[source]
                seen[source] += 1
                break


@given(SHARES)
def test_every_turn_is_the_walked_one(shares):
    order = Order([7] * len(shares), shares)
    assert [order.turn(row) for row in range(200)] == list(walked(shares, 200))


@given(SHARES, st.integers(0, 10**9))
def test_shares_are_exact_at_every_row(shares, rows):
    """Never further off than there are sources, however far the run has come."""
    order = Order([7] * len(shares), shares)
    visits = order.visits(rows)
    assert sum(visits) == rows
    for share, found in zip(shares, visits, strict=True):
        assert abs(found - rows * share / sum(shares)) < len(shares) + rows * 1e-9


@given(SHARES, st.integers(0, 300))
def test_visits_count_the_turns(shares, rows):
    order = Order([7] * len(shares), shares)
    counts = Counter(order.turn(row)[0] for row in range(rows))
    assert order.visits(rows) == [counts[source] for source in range(len(shares))]


def test_each_source_has_whole_epochs_of_its_own():
    order = Order([3, 10], [1, 1], seed=4)
    rows = [order.at(row) for row in range(60)]
    for source, items in ((0, range(3)), (1, range(3, 13))):
        mine = [row for row in rows if row[0] in items]
        assert len(mine) == 30
        for epoch in range(30 // len(items)):
            visit = mine[epoch * len(items):(epoch + 1) * len(items)]
            assert sorted(visit) == [(item, epoch) for item in items]
        if source:
            assert mine[:10] != [(item, 0) for item in items]


def test_any_row_without_the_ones_before():
    walked_there = Order([5, 4, 9], [1, 2, 3], seed=1)
    for row in range(500):
        walked_there.at(row)
    assert walked_there.at(321) == Order([5, 4, 9], [1, 2, 3], seed=1).at(321)


def test_a_source_without_a_share_is_never_seen_and_may_be_empty():
    order = Order([3, 0, 4], [1, 0, 1])
    assert order.visits(100) == [50, 0, 50]
    with pytest.raises(ConfigError, match="source 1 of the mixture fills no window"):
        Order([3, 0, 4], [1, 1, 1])
