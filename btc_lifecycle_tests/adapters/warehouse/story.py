"""A store with two months of candles of two symbols, and the tables that tell their story."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from btc_lifecycle.adapters.warehouse import Warehouse, upsert_rows
from btc_lifecycle.adapters.warehouse.snapshots import write_snapshots
from btc_lifecycle.domain.tables import (
    CANDLE_QUARANTINE,
    CANDLE_REVISIONS,
    CANDLES,
    DRIFT_METRICS,
    CandleTables,
)
from btc_lifecycle_tests.builders import make_candles

TABLES = CandleTables.named()
TABLE_NAMED = {table.name: table for table in (*vars(TABLES).values(), DRIFT_METRICS)}
SOURCE = "binance"
N_ROWS = 110 + 120 + 6
"""Candles of both symbols, and the rows of the tables beside them."""

NOW = datetime(2026, 11, 23, 16, 5, tzinfo=UTC)
MONTHS_START = datetime(2024, 1, 31, 23, tzinfo=UTC)
"""An hour before a month ends."""

GAP = (MONTHS_START + timedelta(minutes=30), MONTHS_START + timedelta(minutes=40))
END = MONTHS_START + timedelta(hours=2)


def candles() -> pl.DataFrame:
    """Two hours across the end of a month, ten minutes of one symbol missing."""
    bitcoin, ether = (
        make_candles(120, start=MONTHS_START, symbol=f"{it}/USDT") for it in ("BTC", "ETH")
    )
    is_gap = pl.col("open_time").is_between(*GAP, closed="left")
    return pl.concat([bitcoin.filter(~is_gap), ether])


def frame(table, *rows: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=table.schema, orient="row")


def beside() -> dict[str, pl.DataFrame]:
    """The rows of the tables beside candles, by name."""
    revised = candles()[:1].with_columns(pl.lit(NOW).alias("revised_at"))
    drift = ("BTC/USDT", NOW, NOW, "3", "psi", "close", 10, None, 0.2, False)
    return {
        "candle_gaps": frame(TABLES.gaps, ("BTC/USDT", *GAP, NOW, 3, None)),
        "fetched_ranges": frame(
            TABLES.ranges,
            ("BTC/USDT", MONTHS_START, END),
            ("ETH/USDT", MONTHS_START, END),
        ),
        "candle_revisions": revised.select(CANDLE_REVISIONS.schema.names()),
        "candle_quarantine": frame(
            CANDLE_QUARANTINE, ("BTC/USDT", "[1, 'é\"']", None, "high below low", NOW)
        ),
        "archive_files": TABLES.archive_files.schema.to_frame(),
        "drift_metrics": frame(DRIFT_METRICS, drift),
    }


def make_template(folder: Path) -> Path:
    """Fill a store in a folder, with snapshots beside it; return the folder, to be copied."""
    warehouse = Warehouse(folder / "bitcoin.duckdb")
    with warehouse.connect() as connection:
        upsert_rows(connection, CANDLES, candles(), source=SOURCE)
        for name, rows in beside().items():
            upsert_rows(connection, TABLE_NAMED[name], rows)
    write_snapshots(warehouse, TABLES, folder=folder / "snapshots")
    return folder


def assert_filled(warehouse: Warehouse) -> None:
    """Every row is there as it was stored, and its source is known."""
    assert warehouse.source() == SOURCE
    assert_frame_equal(warehouse.read(CANDLES), candles())
    for name, rows in beside().items():
        assert_frame_equal(warehouse.read(TABLE_NAMED[name]), rows)


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
