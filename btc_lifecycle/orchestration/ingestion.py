"""One ingest: from the store's newest candle to the exchange's present, in pages, upserted by key.

What lives here: the order of calls to exchange and warehouse. What does not: rules of candles, which
are in domain/ingest/candles.py.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from btc_lifecycle.adapters.exchange import Exchange
from btc_lifecycle.adapters.files import write_atomically
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.errors import NothingToServeError
from btc_lifecycle.domain.ingest.candles import INTERVAL, closed_before
from btc_lifecycle.domain.ingest.coverage import count_missing_minutes
from btc_lifecycle.domain.tables import Table
from btc_lifecycle.settings import IngestSettings

BATCH_ROWS = 20_000
"""Candles per transaction: a killed backfill loses at most these, and a commit costs tens of milliseconds."""

_TICK = timedelta(milliseconds=1)
"""The exchange's resolution of time."""


@dataclass(frozen=True, kw_only=True)
class IngestionStats:
    """What one ingest of one symbol did, and what the table holds after it."""

    symbol: str
    interval: str
    new_rows: int
    revised_rows: int
    total_rows: int
    first_open_time: datetime
    last_open_time: datetime
    missing_minutes: int
    fetched_at: datetime
    source: str


def ingest_new(
    exchange: Exchange, warehouse: Warehouse, table: Table, *, symbol: str, settings: IngestSettings
) -> IngestionStats:
    """Store every candle that closed since the newest stored one; on the first call, reach back.

    Args:
        exchange: Where candles and the time that decides which are closed come from.
        warehouse: Where they are stored.
        table: The table of candles.
        symbol: Market in ccxt's form.
        settings: ``start`` or ``limit`` say how far the first ingest reaches back.

    Raises:
        LifecycleError: If the exchange or the store fails; batches stored before stay stored, and
            the next call continues after them.
    """
    now = exchange.server_time()
    this_minute = now.replace(second=0, microsecond=0)
    newest = warehouse.last_open_time(table, symbol=symbol)
    first = settings.start or this_minute - settings.limit * INTERVAL
    start = newest + _TICK if newest else first
    return ingest_range(exchange, warehouse, table, symbol=symbol, start=start, end=now, now=now)


def ingest_range(
    exchange: Exchange,
    warehouse: Warehouse,
    table: Table,
    *,
    symbol: str,
    start: datetime,
    end: datetime,
    now: datetime,
) -> IngestionStats:
    """Store the candles that open in ``[start, end)`` and are closed at ``now``, the exchange's time.

    Returns:
        What was stored, and what the table holds of the symbol afterwards.
    """
    warehouse.require_source(exchange.source)
    new_rows = revised_rows = 0
    for batch in _batches(exchange, symbol=symbol, start=start, end=min(end, now)):
        closed = closed_before(batch, now=now)
        counts = warehouse.upsert(table, closed, source=exchange.source)
        new_rows, revised_rows = new_rows + counts.n_new, revised_rows + counts.n_revised
    open_times = warehouse.open_times(table, symbol=symbol)
    if open_times.is_empty():
        raise NothingToServeError(
            f"{symbol}: the exchange has no closed candle from {start:%Y-%m-%d %H:%M} UTC on",
            hint="mend `start` or `limit` in the ingest configuration",
        )
    return IngestionStats(
        symbol=symbol,
        interval="1m",
        new_rows=new_rows,
        revised_rows=revised_rows,
        total_rows=len(open_times),
        first_open_time=open_times[0],
        last_open_time=open_times[-1],
        missing_minutes=count_missing_minutes(open_times),
        fetched_at=now,
        source=exchange.source,
    )


def write_stats(path: Path, stats: list[IngestionStats]) -> None:
    """Write the figures of an ingest: the first symbol's at the top, every symbol's in ``symbols``."""
    rows = [
        {
            key: value.isoformat() if isinstance(value, datetime) else value
            for key, value in asdict(figures).items()
        }
        for figures in stats
    ]
    write_atomically(path, json.dumps({**rows[0], "symbols": rows}, indent=2) + "\n")


def _batches(
    exchange: Exchange, *, symbol: str, start: datetime, end: datetime
) -> Iterator[pl.DataFrame]:
    pages, n_rows = list[pl.DataFrame](), 0
    while start < end:
        page = exchange.klines(symbol, start=start, end=end - _TICK)
        if page.is_empty():
            break
        pages.append(page)
        n_rows += page.height
        start = page["open_time"][-1] + _TICK
        if n_rows >= BATCH_ROWS:
            yield pl.concat(pages)
            pages, n_rows = [], 0
    if pages:
        yield pl.concat(pages)
