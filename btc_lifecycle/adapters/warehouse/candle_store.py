"""Candles and their story: new, revised, refused, missing, and what was asked for, in one transaction.

What lives here: the order of reads and writes. What does not: the rules of gaps and revisions, which
are in domain/ingest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from btc_lifecycle.adapters.warehouse.holdings import (
    NOTHING,
    Holdings,
    gap_rows,
    open_times,
    range_rows,
    read_holdings,
    stretch_of,
)
from btc_lifecycle.adapters.warehouse.rows import (
    claim_source,
    create_tables,
    insert_missing,
    insert_rows,
    quoted,
    read_rows,
    write_rows,
)
from btc_lifecycle.domain.ingest.gaps import (
    Stretch,
    common,
    floor_minute,
    merged,
    missing_within,
    track_gaps,
    without,
)
from btc_lifecycle.domain.ingest.revisions import compare
from btc_lifecycle.domain.tables import ARCHIVE_FILES, CandleTables, Table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from btc_lifecycle.adapters.warehouse.warehouse import Warehouse

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class CandleBatch:
    """What came of asking for a symbol's candles.

    ``candles`` are closed and of the table's columns; ``rejected`` is as ``parse_pages`` gives it.
    ``asked`` are the minutes asked for; ``now`` is the exchange's time. With ``stored_wins`` a candle
    that is stored keeps its values, the difference is told, and minutes without a candle do not count
    as asked for: the exchange has the last word.
    """

    symbol: str
    candles: pl.DataFrame
    rejected: pl.DataFrame
    asked: Stretch
    now: datetime
    source: str
    stored_wins: bool = False


@dataclass(frozen=True, kw_only=True)
class BatchCounts:
    """What storing a batch did; ``differing`` are the open times whose stored values stayed."""

    n_new: int
    n_revised: int
    n_rejected: int
    differing: tuple[datetime, ...] = ()


class CandleStore:
    """One table of candles with the tables beside it."""

    def __init__(self, warehouse: Warehouse, tables: CandleTables) -> None:
        self.warehouse, self.tables = warehouse, tables

    def holdings(self, symbol: str) -> Holdings:
        """Return what is stored of a symbol."""
        if not self.warehouse.path.exists():
            return NOTHING
        with self.warehouse.connect(read_only=True) as connection:
            return read_holdings(connection, self.tables, symbol=symbol)

    def checksums(self, symbol: str) -> dict[str, str]:
        """Return the SHA-256 of each file of the archive that is stored, by its name."""
        if not self.warehouse.path.exists():
            return {}
        files = self.warehouse.read(self.tables.archive_files, symbol=symbol)
        return dict(files.select("file_name", "sha256").iter_rows())

    def remember_file(
        self, symbol: str, *, name: str, sha256: str, n_rows: int, n_differing: int, now: datetime
    ) -> None:
        """Remember a file of the archive as stored and settled."""
        row = (symbol, name, sha256, n_rows, n_differing, now)
        rows = pl.DataFrame([row], schema=ARCHIVE_FILES.schema, orient="row")
        self.warehouse.upsert(self.tables.archive_files, rows)

    def store(self, batch: CandleBatch) -> BatchCounts:
        """Store a batch and what it says about gaps, whole or not at all.

        Raises:
            DataError: If the database holds candles of another source.
        """
        with self.warehouse.connect() as connection:
            create_tables(connection, vars(self.tables).values())
            claim_source(connection, self.tables.candles, source=batch.source)
            before = read_holdings(connection, self.tables, symbol=batch.symbol)
            counts = self._store_candles(connection, batch)
            self._store_rejected(connection, batch)
            self._store_story(connection, batch, before=before)
            return counts

    def _store_candles(self, connection: DuckDBPyConnection, batch: CandleBatch) -> BatchCounts:
        table, times = self.tables.candles, batch.candles["open_time"]
        n_rejected = batch.rejected.height
        if times.is_empty():
            return BatchCounts(n_new=0, n_revised=0, n_rejected=n_rejected)
        stored = read_rows(
            connection, table, symbol=batch.symbol, start=times[0], end=times[-1] + _TICK
        )
        found = compare(batch.candles, stored=stored)
        insert_rows(connection, table, found.new)
        if batch.stored_wins:
            differing = tuple(found.revised["open_time"])
            return BatchCounts(
                n_new=found.new.height, n_revised=0, n_rejected=n_rejected, differing=differing
            )
        if not found.revised.is_empty():
            seen = found.replaced.with_columns(pl.lit(batch.now).alias("revised_at"))
            insert_missing(connection, self.tables.revisions, seen)
            write_rows(connection, table, found.revised)
        return BatchCounts(
            n_new=found.new.height, n_revised=found.revised.height, n_rejected=n_rejected
        )

    def _store_rejected(self, connection: DuckDBPyConnection, batch: CandleBatch) -> None:
        if not batch.rejected.is_empty():
            rows = batch.rejected.with_columns(pl.lit(batch.now).alias("seen_at"))
            write_rows(connection, self.tables.quarantine, rows.unique("kline", keep="last"))

    def _store_story(
        self, connection: DuckDBPyConnection, batch: CandleBatch, *, before: Holdings
    ) -> None:
        symbol = batch.symbol
        held = _held(batch, before=before)
        if held is None:
            return
        asked = _asked(batch, held=held)
        fetched = merged([*before.fetched, *asked])
        looked_at = [
            part
            for stretch in merged([*asked, *_newly_between(batch, before=before)])
            for within in common(stretch, fetched)
            for part in common(within, [held])
        ]
        gaps = track_gaps(
            before.gaps,
            missing=self._missing(connection, batch, looked_at),
            asked=looked_at,
            now=batch.now,
        )
        _replace(connection, self.tables.ranges, range_rows(symbol, fetched), symbol=symbol)
        _replace(connection, self.tables.gaps, gap_rows(symbol, gaps), symbol=symbol)

    def _missing(
        self, connection: DuckDBPyConnection, batch: CandleBatch, stretches: Sequence[Stretch]
    ) -> list[Stretch]:
        # Where the batch has every minute, the table need not be looked at.
        lacking = [
            part
            for stretch in stretches
            for part in missing_within(batch.candles["open_time"], stretch=stretch)
        ]
        return [
            missing
            for stretch in lacking
            for missing in missing_within(
                open_times(connection, self.tables.candles, symbol=batch.symbol, within=stretch),
                stretch=stretch,
            )
        ]


def _held(batch: CandleBatch, *, before: Holdings) -> Stretch | None:
    """Return the minutes from the first to the last candle once the batch is stored."""
    times = batch.candles["open_time"]
    edges = [before.first_open_time, before.last_open_time, *times[:1], *times[-1:]]
    known = [time for time in edges if time is not None]
    return stretch_of(min(known), max(known)) if known else None


def _asked(batch: CandleBatch, *, held: Stretch) -> tuple[Stretch, ...]:
    """Return the minutes that count as asked for."""
    # What is asked for beyond the newest candle is not missing: it is not there yet.
    asked = Stretch(start=batch.asked.start, end=min(batch.asked.end, held.end))
    if not batch.stored_wins:
        return merged([asked])
    # What the archive lacks the exchange may have: it was not asked yet.
    return without(asked, missing_within(batch.candles["open_time"], stretch=asked))


def _newly_between(batch: CandleBatch, *, before: Holdings) -> tuple[Stretch, ...]:
    """Return the minutes from a batch's start to what was the oldest candle before.

    Minutes that were asked for before the oldest candle are no gap until an older one comes.
    """
    if before.first_open_time is None:
        return ()
    return merged([Stretch(start=batch.asked.start, end=floor_minute(before.first_open_time))])


def _replace(
    connection: DuckDBPyConnection, table: Table, rows: pl.DataFrame, *, symbol: str
) -> None:
    if not rows.equals(read_rows(connection, table, symbol=symbol)):
        connection.execute(f"DELETE FROM {quoted(table)} WHERE symbol = ?", [symbol])
        insert_rows(connection, table, rows)
