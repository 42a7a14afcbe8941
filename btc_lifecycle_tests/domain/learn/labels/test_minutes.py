from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import ConfigurationError, DataError
from btc_lifecycle.domain.learn.labels.minutes import (
    MinuteRuns,
    blocks,
    in_order_of_minutes,
    refuse_bad_horizon,
    refuse_bad_prices,
)
from btc_lifecycle.domain.tables import CANDLES
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.domain.learn.labels.troubles import candles_of, markets


def test_runs_count_the_unbroken_minutes_before_and_after_each_candle():
    btc = make_candles(6).filter(pl.int_range(pl.len()) != 3)
    eth = make_candles(2, symbol="ETH/USDT", start=btc["open_time"][-1] + timedelta(minutes=1))
    runs = MinuteRuns.of(pl.concat([btc, eth]))
    assert runs.n_before.tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert runs.n_after.tolist() == [2, 1, 0, 1, 0, 1, 0]


def test_a_candle_off_the_others_minutes_breaks_the_run():
    candles = make_candles(4)
    extra = candles[1].with_columns(pl.col("open_time") + timedelta(seconds=20))
    runs = MinuteRuns.of(pl.concat([candles, extra]).sort("open_time"))
    assert runs.n_before.tolist() == [0, 1, 0, 0, 1]
    assert runs.n_after.tolist() == [1, 0, 0, 1, 0]


def test_no_candles_have_no_runs():
    assert MinuteRuns.of(pl.DataFrame(schema=CANDLES.schema)).n_after.size == 0


@settings(max_examples=25, deadline=None)
@given(candles=markets)
def test_what_needs_sorted_candles_gets_them_and_answers_in_the_candles_order(candles):
    seen = []

    def keep_high_candles(ordered: pl.DataFrame) -> pl.DataFrame:
        seen.append(ordered)
        return ordered.filter(pl.col("high") > 40_000).select("symbol", "open_time", "high")

    kept = in_order_of_minutes(candles, keep_high_candles)
    assert_frame_equal(seen[0], candles.sort("symbol", "open_time"))
    assert_frame_equal(
        kept, candles.filter(pl.col("high") > 40_000).select("symbol", "open_time", "high")
    )


@given(n_rows=st.integers(0, 60_000))
def test_blocks_tile_the_rows(n_rows):
    rows = [np.arange(n_rows)[block] for block in blocks(n_rows)]
    assert np.array_equal(np.concatenate([[], *rows]), np.arange(n_rows))
    assert all(block.stop <= n_rows for block in blocks(n_rows))


def test_the_first_bad_price_is_named_by_column_symbol_and_time():
    candles = candles_of((101, 99, 100), (101, 0, 100), (101, -1, 100))
    refuse_bad_prices(candles, columns=["high", "close"])
    with pytest.raises(
        DataError,
        match=r"BTC/USDT: 2 lows are not positive numbers, first at 2024-01-01 00:01 UTC; ingest",
    ):
        refuse_bad_prices(candles, columns=["high", "low", "close"])


def test_a_horizon_under_a_minute_is_refused():
    refuse_bad_horizon(1)
    with pytest.raises(ConfigurationError, match="horizon is -1 minutes"):
        refuse_bad_horizon(-1)
