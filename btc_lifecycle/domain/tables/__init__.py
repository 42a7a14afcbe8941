"""Every table of the warehouse, once: columns, types, units, nullability, meaning and key.

The store creates its tables from here, the checks and docs/tables.md are generated from here.
Times are stored as naive UTC microseconds and leave the store as aware UTC.
"""

from btc_lifecycle.domain.tables.features import CATALOGUE, FEATURE_COLUMNS, FEATURES
from btc_lifecycle.domain.tables.ingest import (
    ARCHIVE_FILES,
    CANDLE_GAPS,
    CANDLE_QUARANTINE,
    CANDLE_REVISIONS,
    CANDLES,
    FETCHED_RANGES,
    CandleTables,
)
from btc_lifecycle.domain.tables.learn import ALIAS_MOVES, LABELS
from btc_lifecycle.domain.tables.monitor import DRIFT_METRICS, OUTCOMES, PREDICTIONS
from btc_lifecycle.domain.tables.table import UTC_TIME, Column, ColumnType, Table

__all__ = [
    "ALIAS_MOVES",
    "ARCHIVE_FILES",
    "CANDLES",
    "CANDLE_GAPS",
    "CANDLE_QUARANTINE",
    "CANDLE_REVISIONS",
    "CATALOGUE",
    "DRIFT_METRICS",
    "FEATURES",
    "FEATURE_COLUMNS",
    "FETCHED_RANGES",
    "LABELS",
    "OUTCOMES",
    "PREDICTIONS",
    "TABLES",
    "UTC_TIME",
    "CandleTables",
    "Column",
    "ColumnType",
    "Table",
]

TABLES = (
    CANDLES,
    CANDLE_GAPS,
    CANDLE_REVISIONS,
    CANDLE_QUARANTINE,
    FETCHED_RANGES,
    ARCHIVE_FILES,
    FEATURES,
    LABELS,
    PREDICTIONS,
    OUTCOMES,
    DRIFT_METRICS,
    ALIAS_MOVES,
)
