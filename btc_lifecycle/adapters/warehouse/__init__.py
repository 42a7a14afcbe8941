"""The DuckDB file that holds all tables: connections with bounded waiting, rows upserted by key."""

from __future__ import annotations

from btc_lifecycle.adapters.warehouse.candle_store import (
    BatchCounts,
    CandleBatch,
    CandleStore,
)
from btc_lifecycle.adapters.warehouse.holdings import Holdings
from btc_lifecycle.adapters.warehouse.recovery import (
    RebuildRecord,
    RestoreCounts,
    rebuild,
)
from btc_lifecycle.adapters.warehouse.rows import (
    UpsertCounts,
    is_table,
    read_rows,
    refuse_other_source,
    upsert_rows,
)
from btc_lifecycle.adapters.warehouse.snapshots import SnapshotCounts, write_snapshots
from btc_lifecycle.adapters.warehouse.warehouse import LOCK_WAIT, Warehouse

__all__ = [
    "LOCK_WAIT",
    "BatchCounts",
    "CandleBatch",
    "CandleStore",
    "Holdings",
    "RebuildRecord",
    "RestoreCounts",
    "SnapshotCounts",
    "UpsertCounts",
    "Warehouse",
    "is_table",
    "read_rows",
    "rebuild",
    "refuse_other_source",
    "upsert_rows",
    "write_snapshots",
]
