from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from btc_lifecycle.domain.learn.features.block import CandleBlock
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.domain.learn.features.troubled_candles import with_wild_candles_after


def one_candle(**prices: float) -> CandleBlock:
    return CandleBlock(make_candles(1).with_columns(**{n: pl.lit(p) for n, p in prices.items()}))


def test_minutes_in_a_row_are_counted_from_the_last_break():
    candles = make_candles(8)[[0, 1, 2, 5, 6, 7]]
    assert CandleBlock(candles).consecutive_min.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_candle_within_a_minute_breaks_the_row_twice():
    candles = make_candles(5)
    extra = with_wild_candles_after(candles, [2])
    together = pl.concat([candles, extra]).sort("open_time")
    assert CandleBlock(together).consecutive_min.tolist() == [0, 1, 2, 0, 0, 1]


def test_closes_are_counted_in_whole_minutes_since_the_epoch():
    candles = make_candles(2, start=datetime(1970, 1, 1, 0, 3, tzinfo=UTC))
    off_grid = candles.with_columns(pl.col("open_time") + timedelta(seconds=20.799))
    assert CandleBlock(candles).close_min.tolist() == [4, 5]
    assert CandleBlock(off_grid).close_min.tolist() == [4, 5]


def test_what_the_exchange_does_not_tell_is_not_a_number():
    block = CandleBlock(make_candles(3, with_taker=False))
    assert np.isnan(block.trades).all()
    assert np.isnan(block.buys).all()


def test_a_return_is_the_log_over_the_close_before():
    candles = make_candles(4).with_columns(close=pl.Series([100.0, 110.0, 121.0, 100.0]))
    block = CandleBlock(candles)
    assert block.log_return(1)[1:] == pytest.approx([math.log(1.1)] * 2 + [math.log(100 / 121)])
    assert block.log_return(3)[3] == 0.0


def test_variances_of_one_candle_are_those_of_a_pencil():
    block = one_candle(open=100.0, high=104.0, low=96.0, close=102.0)
    assert block.parkinson_variance().item() == pytest.approx(
        math.log(104 / 96) ** 2 / (4 * math.log(2))
    )
    assert block.garman_klass_variance().item() == pytest.approx(
        math.log(104 / 96) ** 2 / 2 - (2 * math.log(2) - 1) * math.log(102 / 100) ** 2
    )
    assert block.rogers_satchell_variance().item() == pytest.approx(
        math.log(104 / 102) * math.log(104 / 100) + math.log(96 / 102) * math.log(96 / 100)
    )


def test_a_candle_that_only_drifts_has_no_variance_by_rogers_and_satchell():
    drifting = one_candle(open=100.0, high=105.0, low=100.0, close=105.0)
    assert drifting.rogers_satchell_variance().item() == 0.0
    assert drifting.parkinson_variance().item() > 0.0
