from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.learn.features import FEATURE_NAMES, WARMUP_MIN, compute_features
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.domain.learn.features.troubled_candles import (
    PRICES,
    VOLUMES,
    scaled,
    troubled_candles,
    troubles,
)
from btc_lifecycle_tests.reference_features import features_of_row

CALENDAR = tuple(name for name in FEATURE_NAMES if name.startswith(("minute_of", "day_of")))
QUOTE_VOLUMES = ("quote_volume", "taker_buy_quote")


def last_row(candles: pl.DataFrame) -> dict[str, float | None]:
    return compute_features(candles).row(-1, named=True)


def flat_candles(n: int) -> pl.DataFrame:
    return make_candles(n).with_columns(
        *(pl.lit(100.0).alias(name) for name in PRICES), volume=pl.lit(3.0), trades=pl.lit(7)
    )


def test_one_candle_gives_what_needs_no_window():
    candle = make_candles(1, start=datetime(2024, 1, 2, 5, 59, tzinfo=UTC)).with_columns(
        open=pl.lit(100.0),
        high=pl.lit(104.0),
        low=pl.lit(96.0),
        close=pl.lit(102.0),
        volume=pl.lit(10.0),
        taker_buy_base=pl.lit(7.0),
    )
    known = {n: value for n, value in last_row(candle).items() if n in FEATURE_NAMES and value}
    assert known == pytest.approx(
        {
            "high_low_range_1m": math.log(104 / 96),
            "body_ratio_1m": 2 / 8,
            "close_location_1m": (204 - 200) / 8,
            "taker_imbalance_1m": 0.4,
            # The close at Tuesday 06:00 is a quarter of its day and 30 of the week's 168 hours.
            "minute_of_day_sin": 1.0,
            "minute_of_day_cos": 0.0,
            "day_of_week_sin": math.sin(2 * math.pi * 30 / 168),
            "day_of_week_cos": math.cos(2 * math.pi * 30 / 168),
        }
    )


def test_the_week_starts_on_monday_and_both_phases_count_the_close():
    candle = make_candles(1, start=datetime(2024, 1, 7, 23, 59, tzinfo=UTC))
    assert compute_features(candle).select(CALENDAR).row(0) == pytest.approx((0, 1, 0, 1))


def test_a_steady_rise_gives_what_a_pencil_gives():
    # Each close is 0.1 % above the one before; high and low lie 1 % around it; open equals it.
    close = 100.0 * 1.001 ** np.arange(241)
    row = last_row(
        make_candles(241).with_columns(
            open=close, high=close * 1.01, low=close / 1.01, close=close, volume=2.0
        )
    )
    step, spread = math.log(1.001), math.log(1.01)
    assert row["log_return_240m"] == pytest.approx(240 * step)
    assert row["scaled_return_5m"] == pytest.approx(5 / math.sqrt(5))
    assert row["realized_volatility_60m"] == pytest.approx(step)
    assert row["volatility_ratio_15m_60m"] == pytest.approx(0.0, abs=1e-9)
    assert row["volatility_ratio_60m_240m"] == pytest.approx(0.0, abs=1e-9)
    in_steps = spread / step
    assert row["parkinson_ratio_60m"] == pytest.approx(2 * in_steps / math.sqrt(4 * math.log(2)))
    assert row["garman_klass_ratio_60m"] == pytest.approx(2 * in_steps / math.sqrt(2))
    assert row["rogers_satchell_ratio_60m"] == pytest.approx(in_steps * math.sqrt(2))
    assert row["volume_ratio_15m_240m"] == pytest.approx(0.0, abs=1e-9)
    assert row["rsi_14m"] == 1.0
    lowest, highest = close[-60] / 1.01, close[-1] * 1.01
    assert row["range_position_60m"] == pytest.approx((close[-1] - lowest) / (highest - lowest))
    typical = (1 + 1.01 + 1 / 1.01) / 3
    vwap = np.mean(close[-60:]) * typical
    assert row["vwap_deviation_60m"] == pytest.approx(math.log(close[-1] / vwap))
    # The moves are alike in both windows; the value traded is that of the mean price.
    assert row["illiquidity_ratio_60m_240m"] == pytest.approx(
        math.log(np.mean(close[-240:]) / np.mean(close[-60:]))
    )


def test_a_score_is_that_of_the_root_within_the_hour():
    # Roots are 1 in 30 minutes and 3 in 30: mean 2, deviation 1.
    volume = [1.0, 9.0] * 30
    row = last_row(make_candles(60).with_columns(volume=pl.Series(volume), trades=pl.lit(4)))
    assert row["volume_zscore_60m"] == pytest.approx(1.0)
    assert row["trades_zscore_60m"] is None


def test_moves_on_a_tenth_of_the_volume_are_ten_times_as_illiquid():
    is_last_hour = pl.int_range(pl.len()) > 240
    close = np.tile([100.0, 101.0], 151)[:301]
    even = make_candles(301).with_columns(
        open=close, high=pl.lit(101.0), low=pl.lit(100.0), close=close, volume=pl.lit(10.0)
    )
    thin = even.with_columns(volume=pl.when(is_last_hour).then(1.0).otherwise(10.0))
    assert last_row(even)["illiquidity_ratio_60m_240m"] == pytest.approx(0.0, abs=1e-9)
    # A tenth for 60 of 240 minutes: the longer window trades 1860 of 2400.
    assert last_row(thin)["illiquidity_ratio_60m_240m"] == pytest.approx(math.log(10 * 1860 / 2400))


@settings(max_examples=25, deadline=None)
@given(candles=troubles, data=st.data())
def test_every_row_equals_the_slow_reference(candles, data):
    row = data.draw(st.integers(0, candles.height - 1))
    computed = compute_features(candles).row(row, named=True)
    expected = features_of_row(candles[max(0, row - 300) :], min(row, 300))
    assert set(expected) == set(FEATURE_NAMES)
    assert {name for name in FEATURE_NAMES if computed[name] is None} == {
        name for name in FEATURE_NAMES if expected[name] is None
    }
    for name, value in expected.items():
        if value is not None:
            assert computed[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


@settings(max_examples=15, deadline=None)
@given(
    candles=troubles,
    price=st.floats(0.01, 100.0),
    volume=st.floats(0.01, 100.0),
    trades=st.integers(1, 1000),
)
def test_no_feature_depends_on_the_unit_of_price_volume_or_trades(candles, price, volume, trades):
    """Scores were those of log(1 + volume), which depend on whether that is told in BTC or sat."""
    in_other_units = scaled(scaled(candles, PRICES, factor=price), VOLUMES, factor=volume)
    in_other_units = scaled(in_other_units, ["trades"], factor=trades)
    in_other_units = scaled(in_other_units, QUOTE_VOLUMES, factor=price * volume)
    assert_frame_equal(
        compute_features(in_other_units), compute_features(candles), rel_tol=1e-8, abs_tol=1e-9
    )


def test_a_market_that_stands_still_has_only_what_is_defined_for_it():
    row = last_row(flat_candles(241))
    assert row["rsi_14m"] == 0.5
    assert row["body_ratio_1m"] == row["close_location_1m"] == 0.0
    assert row["realized_volatility_240m"] == row["high_low_range_1m"] == 0.0
    assert {name for name in FEATURE_NAMES if row[name] is None} == {
        "scaled_return_5m",
        "scaled_return_15m",
        "volatility_ratio_15m_60m",
        "volatility_ratio_60m_240m",
        "parkinson_ratio_60m",
        "garman_klass_ratio_60m",
        "rogers_satchell_ratio_60m",
        "volume_zscore_60m",
        "trades_zscore_60m",
        "illiquidity_ratio_60m_240m",
        "range_position_60m",
        "range_position_240m",
    }


def test_a_window_without_volume_after_a_burst_has_no_remains_of_it():
    """A running sum left 1e-14 of a burst behind, and a VWAP was made of it."""
    candles = troubled_candles(seed=1, quiet_from=300, quiet_rows=80)
    row = compute_features(candles).row(375, named=True)
    undefined = {"volume_ratio_15m_240m", "vwap_deviation_60m", "taker_imbalance_60m"}
    assert all(row[name] is None for name in {*undefined, "illiquidity_ratio_60m_240m"})
    assert row["realized_volatility_15m"] == 0.0


def test_a_broken_number_stays_within_its_own_windows_and_never_shows():
    broken = make_candles(600).with_columns(
        low=pl.when(pl.int_range(pl.len()) == 300).then(0.0).otherwise(pl.col("low"))
    )
    features = compute_features(broken)
    assert features.select(pl.col(FEATURE_NAMES).is_finite().all()).row(0) == (True,) * 35
    assert features["parkinson_ratio_60m"].is_null().arg_true().to_list() == [
        *range(60),
        *range(300, 360),
    ]
    assert features[300 + WARMUP_MIN :].null_count().sum_horizontal().item() == 0
