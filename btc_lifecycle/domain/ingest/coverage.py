"""Which minutes of a stretch have a candle, and which are missing. Nothing is ever filled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

MAX_GAPS = 20
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A run of minutes without a candle, by its first missing minute."""

    start: datetime
    n_missing_min: int


@dataclass(frozen=True, kw_only=True)
class DayCoverage:
    """How many of a UTC day's minutes lie within the span, and how many of these are missing."""

    day: date
    n_expected_min: int
    n_missing_min: int


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What is there and what is not; minutes are counted on the grid of full minutes."""

    first_open_time: datetime
    last_open_time: datetime
    n_rows: int
    n_expected_min: int
    n_missing_min: int
    n_gaps: int
    gaps: tuple[Gap, ...]
    days: tuple[DayCoverage, ...]
    n_off_grid: int
    n_zero_volume: int

    @property
    def present_ratio(self) -> float:
        """The share of the span's minutes that have a candle, 0 to 1."""
        return 1 - self.n_missing_min / self.n_expected_min


def cover(candles: pl.DataFrame) -> Coverage:
    """Return what one symbol's candles cover; there is at least one."""
    open_time = candles["open_time"]
    minutes = _minutes(open_time)
    n_expected_min = (minutes[-1] - minutes[0]) // _MINUTE + 1
    gaps = _gaps(minutes)
    return Coverage(
        first_open_time=open_time[0],
        last_open_time=open_time[-1],
        n_rows=candles.height,
        n_expected_min=n_expected_min,
        n_missing_min=count_missing_minutes(open_time),
        n_gaps=len(gaps),
        gaps=gaps[:MAX_GAPS],
        days=_days(minutes),
        n_off_grid=int((open_time != open_time.dt.truncate("1m")).sum()),
        n_zero_volume=int((candles["volume"] == 0).sum()),
    )


def count_missing_minutes(open_times: pl.Series) -> int:
    """Return how many minutes between the first and last open time have no candle."""
    steps = _minutes(open_times).diff().drop_nulls().dt.total_minutes()
    return int((steps - 1).sum())


def _minutes(open_times: pl.Series) -> pl.Series:
    # Off-grid candles stand for the minute that they opened in.
    return open_times.dt.truncate("1m").unique().sort()


def _gaps(minutes: pl.Series) -> tuple[Gap, ...]:
    """Return the gaps between sorted, unique full minutes, longest first, then oldest first."""
    steps = (
        minutes.to_frame("minute")
        .select(
            start=pl.col("minute").shift() + _MINUTE,
            n_missing_min=pl.col("minute").diff().dt.total_minutes() - 1,
        )
        .filter(pl.col("n_missing_min") > 0)
        .sort("n_missing_min", "start", descending=[True, False])
    )
    return tuple(Gap(**row) for row in steps.iter_rows(named=True))


def _days(minutes: pl.Series) -> tuple[DayCoverage, ...]:
    first, last = minutes[0], minutes[-1]
    n_present = minutes.to_frame("day").group_by(pl.col("day").dt.truncate("1d")).len("n_present")
    days = pl.datetime_range(
        first.replace(hour=0, minute=0), last, "1d", time_zone="UTC", time_unit="us", eager=True
    )
    start = pl.max_horizontal(pl.col("day"), pl.lit(first))
    end = pl.min_horizontal(pl.col("day").dt.offset_by("1d"), pl.lit(last + _MINUTE))
    covered = (
        days.to_frame("day")
        .join(n_present, on="day", how="left", maintain_order="left")
        .with_columns(
            pl.col("n_present").fill_null(0).cast(pl.Int64),
            n_expected_min=(end - start).dt.total_minutes(),
        )
        .select(
            pl.col("day").dt.date(),
            "n_expected_min",
            n_missing_min=pl.col("n_expected_min") - pl.col("n_present"),
        )
    )
    return tuple(DayCoverage(**row) for row in covered.iter_rows(named=True))
