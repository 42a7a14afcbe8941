"""Candles with what markets and exchanges do to them, for tests of features."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import polars as pl
from hypothesis import strategies as st

from btc_lifecycle_tests.builders import make_candles

PRICES = ("open", "high", "low", "close")
VOLUMES = ("volume", "taker_buy_base")
AMOUNTS = (*VOLUMES, "trades")
N_CANDLES = 700


def troubled_candles(
    *,
    seed: int,
    gaps: Iterable[int] = (),
    quiet_from: int = 1,
    quiet_rows: int = 0,
    extras: Iterable[int] = (),
) -> pl.DataFrame:
    """Return candles with a burst, minutes without a trade, rows missing and rows too many."""
    row = pl.int_range(pl.len())
    is_quiet = row.is_between(quiet_from, quiet_from + quiet_rows - 1)
    price = pl.col("close").get(quiet_from)
    burst = pl.when(row == quiet_from - 1).then(1_000_000).otherwise(1)
    changed = make_candles(N_CANDLES, seed=seed).with_columns(
        *(pl.when(is_quiet).then(price).otherwise(pl.col(n)).alias(n) for n in PRICES),
        *(pl.when(is_quiet).then(0).otherwise(pl.col(n) * burst).alias(n) for n in AMOUNTS),
    )
    wild = with_wild_candles_after(changed, sorted(extras))
    return pl.concat([changed.filter(~row.is_in(list(gaps))), wild]).sort("open_time")


def with_wild_candles_after(candles: pl.DataFrame, rows: list[int]) -> pl.DataFrame:
    """Return, for each of the rows, a candle 20 seconds later at ten times its prices."""
    return candles[rows].with_columns(
        pl.col("open_time") + timedelta(seconds=20), *(pl.col(name) * 10.0 for name in PRICES)
    )


def scaled(
    candles: pl.DataFrame, names: Iterable[str], *, factor: float, from_row: int = 0
) -> pl.DataFrame:
    """Return the candles with some columns multiplied from a row on."""
    is_scaled = pl.int_range(pl.len()) >= from_row
    return candles.with_columns(
        pl.when(is_scaled).then(pl.col(name) * factor).otherwise(pl.col(name)) for name in names
    )


troubles = st.builds(
    troubled_candles,
    seed=st.integers(0, 50),
    gaps=st.sets(st.integers(1, N_CANDLES - 1), max_size=3),
    quiet_from=st.integers(1, 600),
    quiet_rows=st.sampled_from([0, 1, 20, 70, 260]),
    extras=st.sets(st.integers(1, N_CANDLES - 2), max_size=3),
)
"""Any of these troubles, together."""
