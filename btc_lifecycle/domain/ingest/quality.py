"""What is wrong or odd with stored candles: broken rules, leaps of the price, an old newest candle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from btc_lifecycle.domain.ingest.candles import INTERVAL, broken_stored_rule
from btc_lifecycle.domain.ingest.summary import one_minute_log_returns

SPIKE_RATIO = 0.10
"""A move of the close within one minute that is worth a look; it is kept all the same."""

STALE_AFTER = timedelta(minutes=5)
"""How far the newest candle may lie behind the exchange's time."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found: whether all is well, a sentence with the figures, and some rows to see."""

    is_passed: bool
    said: str
    rows: pl.DataFrame


def find_unsound(candles: pl.DataFrame) -> Finding:
    """Look for stored candles that break the rules of prices and amounts; any symbols."""
    unsound = candles.with_columns(reason=broken_stored_rule()).filter(
        pl.col("reason").is_not_null()
    )
    said = f"{unsound.height:,} of {candles.height:,} candles break a rule of prices and amounts"
    return Finding(is_passed=unsound.is_empty(), said=said, rows=unsound)


def find_repeated(candles: pl.DataFrame) -> Finding:
    """Look for candles of one symbol and open time that are there more than once."""
    repeated = candles.filter(pl.struct("symbol", "open_time").is_duplicated())
    said = f"{repeated.height:,} of {candles.height:,} candles share their symbol and open time"
    return Finding(is_passed=repeated.is_empty(), said=said, rows=repeated)


def find_spikes(candles: pl.DataFrame) -> Finding:
    """Look for closes more than ``SPIKE_RATIO`` away from the close one minute before.

    Args:
        candles: Any symbols, sorted by symbol and open time.
    """
    most = math.log1p(SPIKE_RATIO)
    spikes = pl.concat(
        [
            of_symbol.with_columns(log_return=one_minute_log_returns(of_symbol)).filter(
                pl.col("log_return").abs() > most
            )
            for of_symbol in candles.partition_by("symbol", maintain_order=True)
        ]
        or [candles.with_columns(log_return=pl.lit(None, dtype=pl.Float64))]
    )
    said = f"{spikes.height:,} of {candles.height:,} candles moved more than {SPIKE_RATIO:.0%}"
    return Finding(is_passed=spikes.is_empty(), said=said, rows=spikes)


def find_stale(newest: pl.DataFrame) -> Finding:
    """Look for symbols whose newest candle lies too far behind the exchange's time.

    Args:
        newest: One row per symbol: symbol, last_open_time, fetched_at, the exchange's time.
    """
    aged = newest.with_columns(
        behind=pl.col("fetched_at") - pl.col("last_open_time") - INTERVAL,
    )
    stale = aged.filter(pl.col("behind") > STALE_AFTER)
    said = f"{stale.height} of {newest.height} symbols lie more than {STALE_AFTER} behind"
    return Finding(is_passed=stale.is_empty(), said=said, rows=stale)
