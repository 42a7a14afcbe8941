"""What is stored of a symbol: rows, bounds, gaps, and the stretches of time that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from btc_lifecycle.adapters.warehouse.rows import database_source, is_table, quoted, read_rows
from btc_lifecycle.domain.ingest.gaps import (
    Stretch,
    TrackedGap,
    common,
    floor_minute,
    missing_within,
    track_gaps,
)
from btc_lifecycle.domain.tables import CANDLE_GAPS, FETCHED_RANGES, CandleTables, Table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """What is stored of a symbol; missing minutes lie between the first and the last candle.

    ``n_missing_min`` counts gaps, minutes asked for in vain, and minutes that nobody asked for.
    """

    source: str | None
    n_rows: int
    first_open_time: datetime | None
    last_open_time: datetime | None
    n_missing_min: int
    gaps: tuple[TrackedGap, ...]
    fetched: tuple[Stretch, ...]

    def due_gaps(self, *, now: datetime) -> tuple[Stretch, ...]:
        """Return the gaps whose next try has come, in order."""
        return tuple(
            gap.stretch
            for gap in self.gaps
            if gap.next_try_at is not None and gap.next_try_at <= now
        )


NOTHING = Holdings(
    source=None,
    n_rows=0,
    first_open_time=None,
    last_open_time=None,
    n_missing_min=0,
    gaps=(),
    fetched=(),
)


def read_holdings(connection: DuckDBPyConnection, tables: CandleTables, *, symbol: str) -> Holdings:
    """Return what an open database holds of a symbol."""
    if not is_table(connection, tables.candles):
        return NOTHING
    fetched = _read_ranges(connection, tables.ranges, symbol=symbol)
    gaps = _read_gaps(connection, tables.gaps, symbol=symbol)
    n_rows, first, last = _bounds(connection, tables.candles, symbol=symbol)
    source = database_source(connection)
    if first is None or last is None:
        return replace(NOTHING, source=source, fetched=fetched)
    held = stretch_of(first, last)
    if not fetched:
        # Stored by an earlier version, which kept no story: all of it was asked for once.
        opened = open_times(connection, tables.candles, symbol=symbol, within=held)
        missing, fetched = missing_within(opened, stretch=held), (held,)
        gaps = track_gaps((), missing=missing, asked=fetched, now=held.end)
    n_asked = sum(part.n_minutes for part in common(held, fetched))
    return Holdings(
        source=source,
        n_rows=n_rows,
        first_open_time=first,
        last_open_time=last,
        n_missing_min=held.n_minutes - n_asked + sum(gap.stretch.n_minutes for gap in gaps),
        gaps=gaps,
        fetched=fetched,
    )


def stretch_of(first: datetime, last: datetime) -> Stretch:
    """Return the minutes from a first to a last candle."""
    return Stretch(start=floor_minute(first), end=floor_minute(last) + _MINUTE)


def _bounds(
    connection: DuckDBPyConnection, table: Table, *, symbol: str
) -> tuple[int, datetime | None, datetime | None]:
    ((n_rows, first, last),) = connection.execute(
        f"SELECT count(*), min(open_time), max(open_time) FROM {quoted(table)} WHERE symbol = ?",
        [symbol],
    ).fetchall()
    return n_rows, first and first.replace(tzinfo=UTC), last and last.replace(tzinfo=UTC)


def open_times(
    connection: DuckDBPyConnection, table: Table, *, symbol: str, within: Stretch
) -> pl.Series:
    """Return the open times of a symbol's candles within a stretch, in order."""
    bounds = [time.replace(tzinfo=None) for time in (within.start, within.end)]
    times: pl.DataFrame = connection.sql(
        f"SELECT open_time FROM {quoted(table)} "
        "WHERE symbol = ? AND open_time >= ? AND open_time < ? ORDER BY open_time",
        params=[symbol, *bounds],
    ).pl()
    return times["open_time"].dt.replace_time_zone("UTC")


def _read_ranges(
    connection: DuckDBPyConnection, table: Table, *, symbol: str
) -> tuple[Stretch, ...]:
    rows = read_rows(connection, table, symbol=symbol).iter_rows(named=True)
    return tuple(Stretch(start=row["range_start"], end=row["range_end"]) for row in rows)


def _read_gaps(
    connection: DuckDBPyConnection, table: Table, *, symbol: str
) -> tuple[TrackedGap, ...]:
    rows = read_rows(connection, table, symbol=symbol).iter_rows(named=True)
    return tuple(
        TrackedGap(
            stretch=Stretch(start=row["gap_start"], end=row["gap_end"]),
            first_seen_at=row["first_seen_at"],
            tries=row["tries"],
            next_try_at=row["next_try_at"],
        )
        for row in rows
    )


def range_rows(symbol: str, stretches: Sequence[Stretch]) -> pl.DataFrame:
    """Return stretches as rows of the table of fetched ranges."""
    rows = [(symbol, stretch.start, stretch.end) for stretch in stretches]
    return pl.DataFrame(rows, schema=FETCHED_RANGES.schema, orient="row")


def gap_rows(symbol: str, gaps: Sequence[TrackedGap]) -> pl.DataFrame:
    """Return gaps as rows of their table."""
    rows = [
        (
            symbol,
            gap.stretch.start,
            gap.stretch.end,
            gap.first_seen_at,
            gap.tries,
            gap.next_try_at,
        )
        for gap in gaps
    ]
    return pl.DataFrame(rows, schema=CANDLE_GAPS.schema, orient="row")
