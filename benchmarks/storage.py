"""A store of years of candles: one tick written, what an opening reads, beside plainer ways."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import duckdb
import pandas as pd
import polars as pl
import typer
from measuring import (
    MINUTE,
    NO_LIMIT,
    SYMBOL,
    Figure,
    Timed,
    loopback_exchange,
    made_up_candles,
    show,
)

from btc_lifecycle.adapters.exchange import Exchange, Pace
from btc_lifecycle.adapters.warehouse import CandleBatch, CandleStore, Warehouse, write_snapshots
from btc_lifecycle.domain.ingest.gaps import Stretch, missing_within
from btc_lifecycle.domain.tables import CANDLES, CandleTables
from btc_lifecycle.orchestration.fetching import BATCH_ROWS
from btc_lifecycle.orchestration.ingestion import ingest_new
from btc_lifecycle.settings import IngestSettings

START = datetime(2017, 8, 17, 4, 0, tzinfo=UTC)
"""Binance's first BTC/USDT candle; 4.7 million minutes later it is July 2026."""

WINDOW_DAYS = 90
SOURCE = "synthetic"
MOST_REWRITES = 3
"""Rewriting the file takes seconds each time."""

_FEATHER_COLUMNS = ["date", "open", "high", "low", "close", "volume"]


def main(
    candles: Annotated[int, typer.Option(help="how many are stored before", min=2000)] = 4_700_000,
    runs: Annotated[int, typer.Option(help="how often each is measured, in turns")] = 15,
) -> None:
    """Measure a store of many candles, each way on a copy of its own."""
    with TemporaryDirectory() as path:
        store = CandleStore(Warehouse(Path(path) / "store.duckdb"), CandleTables.named())
        building = build(store, n=candles)
        plain = store.warehouse.path.with_name("plain.duckdb")
        shutil.copy(store.warehouse.path, plain)
        feather = write_feather(store)
        show(f"{candles:,} candles stored", looks(store, n_runs=max(1, runs // 2)))
        show(
            f"A tick into {candles:,} candles",
            [*ticks(store, plain=plain, feather=feather, n_runs=runs), *ingests(store, runs=runs)],
        )
        show(
            "Around it",
            [
                Figure.of_time("storing all of them by batches", building),
                Figure(
                    name="size of the database",
                    unit="MB",
                    values=[store.warehouse.path.stat().st_size / 1e6],
                ),
            ],
        )


def build(store: CandleStore, *, n: int) -> Timed:
    """Store ``n`` candles as a backfill does, without one hour of each batch."""
    candles, timed = made_up_candles(start=START, n=n), Timed()
    for at in range(0, n, BATCH_ROWS):
        whole = candles[at : at + BATCH_ROWS]
        asked = Stretch(start=whole["open_time"][0], end=whole["open_time"][-1] + MINUTE)
        kept = pl.concat([whole[:600], whole[660:]])
        timed.run(partial(store.store, batch_of(kept, asked=asked)))
    return Timed(wall_s=[sum(timed.wall_s)], cpu_s=[sum(timed.cpu_s)])


def batch_of(candles: pl.DataFrame, *, asked: Stretch) -> CandleBatch:
    """Return candles as what came of asking for a stretch."""
    return CandleBatch(
        symbol=SYMBOL,
        candles=candles,
        rejected=pl.DataFrame(
            schema={
                "symbol": pl.String,
                "kline": pl.String,
                "open_time": CANDLES.schema["open_time"],
                "reason": pl.String,
            }
        ),
        asked=asked,
        now=asked.end,
        source=SOURCE,
    )


def looks(store: CandleStore, *, n_runs: int) -> list[Figure]:
    """Measure what is read of the store."""
    warehouse, folder = store.warehouse, store.warehouse.path.with_name("snapshots")
    written = Timed()
    written.run(lambda: write_snapshots(warehouse, store.tables, folder=folder))
    ways: dict[str, tuple[Callable[[], object], float | None]] = {
        "count, in a process that sees the file first": (partial(first_count, warehouse.path), 1.5),
        "count": (partial(warehouse.count, CANDLES), 1.5),
        "holdings: rows, bounds, gaps, what was asked for": (
            partial(store.holdings, SYMBOL),
            1.5,
        ),
        "scan of all open times for gaps": (partial(scan_for_gaps, store), 1.5),
        f"the last {WINDOW_DAYS} days as a frame": (
            partial(warehouse.read, CANDLES, symbol=SYMBOL, window_days=WINDOW_DAYS),
            1.5,
        ),
        "all rows as a frame": (partial(warehouse.read, CANDLES, symbol=SYMBOL), None),
        "verify: every value of every row": (warehouse.verify, None),
        "snapshots, nothing changed": (
            partial(write_snapshots, warehouse, store.tables, folder=folder),
            None,
        ),
    }
    timed = {name: Timed() for name in ways}
    for _ in range(n_runs):
        for name, (way, _) in ways.items():
            result = timed[name].run(way)
            if isinstance(result, Timed):
                # That process measured itself; starting it is no part of the look.
                timed[name].wall_s[-1:], timed[name].cpu_s[-1:] = result.wall_s, result.cpu_s
    return [
        *(Figure.of_time(name, timed[name], aim=aim) for name, (_, aim) in ways.items()),
        Figure.of_time("snapshots, all of them written", written),
    ]


def first_count(database: Path) -> Timed:
    """Return the time that a count takes in a process that never saw the file."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed_count, (database,))


def _timed_count(database: Path) -> Timed:
    timed = Timed()
    timed.run(lambda: Warehouse(database).count(CANDLES))
    return timed


def scan_for_gaps(store: CandleStore) -> list[Stretch]:
    """Return the gaps between a symbol's first and last candle, from its open times alone."""
    times = store.warehouse.open_times(store.tables.candles, symbol=SYMBOL)
    return missing_within(times, stretch=Stretch(start=times[0], end=times[-1] + MINUTE))


def ticks(store: CandleStore, *, plain: Path, feather: Path, n_runs: int) -> list[Figure]:
    """Measure one and ten new candles into the store, into plain DuckDB, into a feather file."""
    newest = store.holdings(SYMBOL).last_open_time
    assert newest is not None
    made = made_up_candles(start=newest + MINUTE, n=11 * n_runs)
    sizes = [(1, "one candle"), (10, "ten candles")]
    names = {
        "store": "ours: store with its story and manifest",
        "plain": "DuckDB: connect, INSERT OR REPLACE, close",
        "feather": "feather read and rewritten, six columns",
    }
    timed = {(way, n): Timed() for way in names for n, _ in sizes}
    at = 0
    for number in range(n_runs):
        for n, _ in sizes:
            rows = made[at : at + n]
            asked = Stretch(start=rows["open_time"][0], end=rows["open_time"][-1] + MINUTE)
            timed["store", n].run(partial(store.store, batch_of(rows, asked=asked)))
            timed["plain", n].run(partial(upsert_plainly, plain, rows))
            if number < MOST_REWRITES:
                timed["feather", n].run(partial(rewrite_feather, feather, rows))
            at += n
    return [
        Figure.of_time(
            f"{names[way]}, {words}",
            timed[way, n],
            unit="ms",
            aim=100.0 if way == "store" else None,
        )
        for n, words in sizes
        for way in names
    ]


def upsert_plainly(database: Path, rows: pl.DataFrame) -> None:
    """Upsert as plainly as DuckDB allows, into the same table with the same key."""
    with duckdb.connect(str(database)) as connection:
        incoming = rows.with_columns(pl.col("open_time").dt.replace_time_zone(None)).to_arrow()
        connection.register("incoming", incoming)
        connection.execute("INSERT OR REPLACE INTO candles SELECT * FROM incoming")


def write_feather(store: CandleStore) -> Path:
    """Write the candles as freqtrade does; return the file."""
    path = store.warehouse.path.with_suffix(".feather")
    rows = store.warehouse.read(CANDLES, symbol=SYMBOL).rename({"open_time": "date"})
    rows.select(_FEATHER_COLUMNS).to_pandas().to_feather(
        path, compression_level=9, compression="lz4"
    )
    return path


def rewrite_feather(path: Path, rows: pl.DataFrame) -> None:
    """Append as freqtrade's data handler does: read all, join, write all again."""
    new = rows.rename({"open_time": "date"}).select(_FEATHER_COLUMNS).to_pandas()
    joined = pd.concat([pd.read_feather(path), new], ignore_index=True)
    joined.to_feather(path, compression_level=9, compression="lz4")


@contextmanager
def exchange_after(store: CandleStore) -> Iterator[tuple[Exchange, Callable[[datetime], None]]]:
    """Serve minutes around the store's newest; yield a client and what sets the exchange's time."""
    newest = store.holdings(SYMBOL).last_open_time
    assert newest is not None
    with loopback_exchange(start=newest - timedelta(days=1), now=newest) as exchange:
        pace = Pace(store.warehouse.path.with_name("pace"), limit_per_min=NO_LIMIT)
        client = Exchange("binance", base_urls=(exchange.url,), pace=pace)
        yield client, exchange.set_time


def ingests(store: CandleStore, *, runs: int) -> list[Figure]:
    """Measure the whole of an ingest of one new candle, after a first that is not counted."""
    timed, now = Timed(), store.holdings(SYMBOL).last_open_time
    assert now is not None
    with exchange_after(store) as (client, set_time):
        # The first one replaces made-up candles by the exchange's, which the others need not.
        for number in range(runs + 1):
            set_time(now + (number + 2) * MINUTE + timedelta(seconds=1))
            ingestion = (timed if number else Timed()).run(
                lambda: ingest_new(client, store, settings=IngestSettings())
            )
            counts = ingestion.stats[0]
            if number and (counts.new_rows, counts.revised_rows) != (1, 0):
                raise RuntimeError(f"one new candle was due, and there came {counts}")
    name = "ours: ingest_new, ten candles read again and one new"
    return [Figure.of_time(name, timed, unit="ms")]


if __name__ == "__main__":
    typer.run(main)
