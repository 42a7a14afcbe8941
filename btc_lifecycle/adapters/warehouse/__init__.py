"""The DuckDB file that holds all tables: connections with bounded waiting, rows upserted by key."""

from __future__ import annotations

from btc_lifecycle.adapters.warehouse.rows import (
    UpsertCounts,
    is_table,
    read_rows,
    upsert_rows,
)
from btc_lifecycle.adapters.warehouse.warehouse import LOCK_WAIT, Warehouse

__all__ = [
    "LOCK_WAIT",
    "UpsertCounts",
    "Warehouse",
    "is_table",
    "read_rows",
    "upsert_rows",
]
