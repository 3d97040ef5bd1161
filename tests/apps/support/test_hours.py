"""Office hours: the next opening is open, comes no earlier, and nothing before it is."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ayllu.apps.support.hours import Hours
from ayllu.apps.support.talk import when_people_answer
from ayllu.config import validate
from ayllu.errors import ConfigError

SHOP = Hours(timezone="Europe/Berlin", closed=("12-25", "2026-05-14"), monday="09:00-12:00, 13:00-18:00",
             friday="09:00-18:00", saturday="22:00-24:00")
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(lambda at: at.replace(tzinfo=UTC))


def test_examples():
    assert SHOP.is_open(datetime(2026, 1, 5, 8, 0, tzinfo=UTC))              # Monday, 9:00 in Berlin
    assert not SHOP.is_open(datetime(2026, 1, 5, 7, 59, tzinfo=UTC))
    assert not SHOP.is_open(datetime(2026, 1, 5, 11, 0, tzinfo=UTC))         # the end is no longer open
    assert SHOP.is_open(datetime(2026, 7, 6, 7, 0, tzinfo=UTC))              # summer time: two hours ahead
    assert not SHOP.is_open(datetime(2026, 12, 25, 10, 0, tzinfo=UTC))       # a Friday, but closed each year
    assert SHOP.is_open(datetime(2026, 1, 3, 22, 59, 59, tzinfo=UTC))        # Saturday until midnight


@settings(max_examples=150, deadline=None)
@given(MOMENTS)
def test_the_next_opening(at):
    opening = SHOP.opens_at(at)
    assert opening is not None
    assert opening >= at
    assert SHOP.is_open(opening)
    if opening != at:
        assert not SHOP.is_open(opening - timedelta(seconds=1))
        steps = int((opening - at) / timedelta(minutes=30))
        assert not any(SHOP.is_open(at + timedelta(minutes=30) * i) for i in range(steps))


def test_who_never_opens():
    assert Hours().opens_at(datetime(2026, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize("wrong", [{"monday": "9-18"}, {"monday": "18:00-09:00"}, {"timezone": "Europe/Atlantis"},
                                   {"closed": ["13-01"]}, {"mondays": "09:00-18:00"}])
def test_wrong_hours_are_refused(wrong):
    with pytest.raises(ConfigError):
        validate(Hours, wrong, where="rules.toml")


def test_what_customers_are_told():
    monday = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)
    assert "are here now" in when_people_answer(SHOP, monday, "en")
    assert "Monday, 05 January, at 09:00 (Europe/Berlin)" in when_people_answer(SHOP, monday - timedelta(hours=3), "en")
    assert "1月5日星期一 09:00" in when_people_answer(SHOP, monday - timedelta(hours=3), "zh")
    assert "as soon as possible" in when_people_answer(Hours(), monday, "en")
