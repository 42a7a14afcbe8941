"""Candles with all that goes wrong on a market, for the tests of labels."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import strategies as st

from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests.builders import START, make_candles

PRICES = ("open", "high", "low", "close")
CANDLE_DIR = Path(__file__).parents[5] / "shared/data/binance_spot_1m/BTCUSDT"

needs_real_candles = pytest.mark.skipif(
    not CANDLE_DIR.is_dir(), reason="no real candles under ../shared/data"
)


def real_candles(month: str) -> pl.DataFrame:
    return (
        pl.read_parquet(CANDLE_DIR / f"{month}.parquet")
        .with_columns(pl.lit("BTC/USDT").alias("symbol"))
        .select(pl.col(name).cast(dtype) for name, dtype in CANDLES.schema.items())
    )


def candles_of(*prices: tuple[float, float, float]) -> pl.DataFrame:
    """Return candles with these highs, lows and closes."""
    columns = zip(("high", "low", "close"), zip(*prices, strict=True), strict=True)
    return make_candles(len(prices)).with_columns(
        pl.Series(name, values, dtype=pl.Float64) for name, values in columns
    )


def candles_closing_at(*closes: float) -> pl.DataFrame:
    return candles_of(*((close, close, close) for close in closes))


def troubled_candles(
    *,
    n: int,
    seed: int,
    offset_s: float,
    tick: float,
    gaps: set[int],
    wild: set[int],
    extras: set[int],
    still_from: int,
    still_min: int,
) -> pl.DataFrame:
    """Return one symbol's candles: on a price grid, some wild, some still, some missing or extra.

    Args:
        n: Candles before any are missing or extra.
        seed: Of the random walk.
        offset_s: How far every open time lies off the full minute.
        tick: Grid of the closes in USDT; a coarse one makes minutes without a move.
        gaps: Rows that are missing.
        wild: Rows that reach far up and far down.
        extras: Rows with one candle more 20 seconds after them.
        still_from: First row of a stretch at one price.
        still_min: Length of that stretch.
    """
    row = pl.int_range(pl.len())
    is_still = row.is_between(still_from, still_from + still_min - 1)
    reach = pl.when(row.is_in(list(wild))).then(1.02).otherwise(1.0)
    candles = (
        make_candles(n, seed=seed, start=START + timedelta(seconds=offset_s))
        .with_columns((pl.col(name) / tick).round() * tick for name in PRICES)
        .with_columns(high=pl.col("high") * reach, low=pl.col("low") / reach)
        .with_columns(
            pl.when(is_still).then(40_000.0).otherwise(pl.col(name)).alias(name) for name in PRICES
        )
    )
    later = candles.filter(row.is_in(list(extras))).with_columns(
        pl.col("open_time") + timedelta(seconds=20)
    )
    return pl.concat([candles.filter(~row.is_in(list(gaps))), later]).sort("open_time")


def of_two_symbols(btc: pl.DataFrame, eth: pl.DataFrame, *, order: str, seed: int) -> pl.DataFrame:
    candles = pl.concat([btc, eth.with_columns(symbol=pl.lit("ETH/USDT"))])
    match order:
        case "by time":
            return candles.sort("open_time", "symbol")
        case "shuffled":
            return candles.sample(fraction=1.0, shuffle=True, seed=seed)
        case _:
            return candles


rare_rows = st.sets(st.integers(0, 119), max_size=3)
troubles = st.builds(
    troubled_candles,
    n=st.sampled_from([3, 40, 120]),
    seed=st.integers(0, 50),
    offset_s=st.sampled_from([0.0, 20.799]),
    tick=st.sampled_from([0.01, 25.0]),
    gaps=rare_rows,
    wild=rare_rows,
    extras=rare_rows,
    still_from=st.integers(0, 100),
    still_min=st.sampled_from([0, 12, 70]),
)
markets = st.builds(
    of_two_symbols,
    troubles,
    troubles,
    order=st.sampled_from(["by symbol", "by time", "shuffled"]),
    seed=st.integers(0, 9),
)
