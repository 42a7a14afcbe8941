"""Which minutes of a stretch have a candle, and which are missing. Nothing is ever filled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from btc_lifecycle.domain.ingest.gaps import Stretch, missing_within

MAX_GAPS = 20
_MINUTE = timedelta(minutes=1)


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
    gaps: tuple[Stretch, ...]
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
    # Off-grid candles stand for the minute that they opened in.
    minutes = open_time.dt.truncate("1m").unique().sort()
    span = Stretch(start=minutes[0], end=minutes[-1] + _MINUTE)
    gaps = sorted(
        missing_within(open_time, stretch=span), key=lambda gap: (-gap.n_minutes, gap.start)
    )
    return Coverage(
        first_open_time=open_time[0],
        last_open_time=open_time[-1],
        n_rows=candles.height,
        n_expected_min=span.n_minutes,
        n_missing_min=sum(gap.n_minutes for gap in gaps),
        n_gaps=len(gaps),
        gaps=tuple(gaps[:MAX_GAPS]),
        days=_days(minutes),
        n_off_grid=int((open_time != open_time.dt.truncate("1m")).sum()),
        n_zero_volume=int((candles["volume"] == 0).sum()),
    )


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
