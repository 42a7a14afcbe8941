"""The months and days that the archive has one file each for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

_EPOCH = datetime.fromtimestamp(0, tz=UTC)
_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class ArchivePeriod:
    """The month or day that one file covers, ``[start, end)`` in UTC; ``name`` is YYYY-MM[-DD]."""

    start: datetime
    end: datetime
    name: str
    folder: Literal["monthly", "daily"]

    @property
    def days(self) -> tuple[ArchivePeriod, ...]:
        """The days of the period, each as a period of its own."""
        n_days = (self.end - self.start) // _DAY
        return tuple(_daily(self.start + number * _DAY) for number in range(n_days))


def periods_within(start: datetime, end: datetime) -> tuple[ArchivePeriod, ...]:
    """Return the periods that tile the whole UTC days within ``[start, end)``, in time order.

    Whole months are one period each; the days of broken months are one each.
    """
    day = _EPOCH - (_EPOCH - start) // _DAY * _DAY
    end_day = _EPOCH + (end - _EPOCH) // _DAY * _DAY
    periods: list[ArchivePeriod] = []
    while day < end_day:
        month = _monthly(day)
        is_whole = day == month.start and month.end <= end_day
        periods.append(month if is_whole else _daily(day))
        day = periods[-1].end
    return tuple(periods)


def _monthly(day: datetime) -> ArchivePeriod:
    start = day.replace(day=1)
    end = (start + 31 * _DAY).replace(day=1)
    return ArchivePeriod(start=start, end=end, name=f"{start:%Y-%m}", folder="monthly")


def _daily(day: datetime) -> ArchivePeriod:
    return ArchivePeriod(start=day, end=day + _DAY, name=f"{day:%Y-%m-%d}", folder="daily")
