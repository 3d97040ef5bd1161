"""Office hours: when people answer, and when they will again."""

from datetime import date, datetime, time, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import field_validator, model_validator

from ayllu.config import Settings
from ayllu.errors import ConfigError

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
FAR_DAYS = 400                                           # a year of closed days, and some


class Hours(Settings):
    """Spans such as "09:00-12:00, 13:00-18:00" for each day of the week; a day without any is closed."""

    timezone: str = "UTC"
    closed: tuple[str, ...] = ()                         # "12-25" each year, "2026-05-14" once
    monday: str = ""
    tuesday: str = ""
    wednesday: str = ""
    thursday: str = ""
    friday: str = ""
    saturday: str = ""
    sunday: str = ""

    @field_validator("closed")
    @classmethod
    def _are_dates(cls, closed: tuple[str, ...]) -> tuple[str, ...]:
        for day in closed:
            date.fromisoformat(day if day.count("-") == 2 else f"2024-{day}")        # a leap year has all days
        return closed

    @model_validator(mode="after")
    def _can_be_read(self) -> "Hours":
        for day in DAYS:
            _spans(getattr(self, day))
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ConfigError(f"no time zone {self.timezone!r} on this machine: use a name such as Europe/Berlin "
                              "(where there are none at all: pip install tzdata)") from error
        return self

    @cached_property
    def zone(self) -> ZoneInfo:
        """The zone that all spans are told in."""
        return ZoneInfo(self.timezone)

    def is_open(self, at: datetime) -> bool:
        """Whether people answer then (`at` with its zone)."""
        here = at.astimezone(self.zone)
        return any(begin <= here.time() < end for begin, end in self._of(here.date()))

    def opens_at(self, at: datetime) -> datetime | None:
        """`at` itself while open, else the next opening; None where there is none within a year."""
        if self.is_open(at):
            return at
        here = at.astimezone(self.zone)
        for offset in range(FAR_DAYS):
            day = here.date() + timedelta(days=offset)
            for begin, _ in self._of(day):
                opening = datetime.combine(day, begin, self.zone)
                if opening.timestamp() > at.timestamp():
                    return opening
        return None

    def _of(self, day: date) -> list[tuple[time, time]]:
        if {f"{day:%m-%d}", f"{day:%Y-%m-%d}"} & set(self.closed):
            return []
        return _spans(getattr(self, DAYS[day.weekday()]))


def _spans(text: str) -> list[tuple[time, time]]:
    """Sorted spans of one day; the end 24:00 is midnight."""
    spans = []
    for part in filter(None, map(str.strip, text.split(","))):
        begin, dash, end = part.partition("-")
        first = time.fromisoformat(begin.strip())
        last = time.max if end.strip() == "24:00" else time.fromisoformat(end.strip())
        if not dash or first >= last:
            raise ValueError(f"{part!r} is no span of a day: write 09:00-18:00")
        spans.append((first, last))
    return sorted(spans)
