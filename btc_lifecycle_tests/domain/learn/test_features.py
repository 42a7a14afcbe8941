from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn import features as module
from btc_lifecycle.domain.learn.features import (
    FEATURE_NAMES,
    WARMUP_MIN,
    available_features,
    compute_features,
)
from btc_lifecycle.domain.tables import CANDLES, FEATURES
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.reference_learn import features_of_row

CANDLE_DIR = Path(__file__).parents[4] / "shared/data/binance_spot_1m/BTCUSDT"
PRICES = ("open", "high", "low", "close")
VOLUMES = ("volume", "taker_buy_base")
CALENDAR = tuple(name for name in FEATURE_NAMES if name.startswith(("minute_of", "day_of")))


def troubled_candles(
    *, seed: int, gaps: set[int], quiet_from: int, quiet_rows: int, extras: set[int] = frozenset()
) -> pl.DataFrame:
    """Return 700 candles with a burst, minutes without a trade, rows missing and rows too many."""
    row = pl.int_range(pl.len())
    is_quiet = row.is_between(quiet_from, quiet_from + quiet_rows - 1)
    price = pl.col("close").get(quiet_from)
    burst = pl.when(row == quiet_from - 1).then(1e6).otherwise(1.0)
    candles = make_candles(700, seed=seed)
    changed = candles.with_columns(
        *(pl.when(is_quiet).then(price).otherwise(pl.col(name)).alias(name) for name in PRICES),
        *(pl.when(is_quiet).then(0.0).otherwise(pl.col(n) * burst).alias(n) for n in VOLUMES),
    )
    wild = with_wild_candles_after(changed, sorted(extras))
    return pl.concat([changed.filter(~row.is_in(list(gaps))), wild]).sort("open_time")


def with_wild_candles_after(candles: pl.DataFrame, rows: list[int]) -> pl.DataFrame:
    """Return, for each of the rows, a candle 20 seconds later at ten times its prices."""
    return candles[rows].with_columns(
        pl.col("open_time") + timedelta(seconds=20), *(pl.col(name) * 10.0 for name in PRICES)
    )


troubles = st.builds(
    troubled_candles,
    seed=st.integers(0, 50),
    gaps=st.sets(st.integers(1, 699), max_size=3),
    quiet_from=st.integers(1, 600),
    quiet_rows=st.sampled_from([0, 1, 20, 70, 260]),
    extras=st.sets(st.integers(1, 698), max_size=3),
)


def scaled(candles: pl.DataFrame, names, *, factor: float, from_row: int = 0) -> pl.DataFrame:
    is_scaled = pl.int_range(pl.len()) >= from_row
    return candles.with_columns(
        pl.when(is_scaled).then(pl.col(name) * factor).otherwise(pl.col(name)) for name in names
    )


def flat_candles(n: int) -> pl.DataFrame:
    return make_candles(n).with_columns(
        *(pl.lit(100.0).alias(name) for name in PRICES), volume=pl.lit(3.0)
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
    row = compute_features(candle).row(0, named=True)
    known = {name: value for name, value in row.items() if name in FEATURE_NAMES and value}
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
    candles = make_candles(241).with_columns(
        open=close, high=close * 1.01, low=close / 1.01, close=close, volume=2.0
    )
    row = compute_features(candles).row(-1, named=True)
    step, spread = math.log(1.001), math.log(1.01)
    assert row["log_return_240m"] == pytest.approx(240 * step)
    assert row["scaled_return_5m"] == pytest.approx(5 / math.sqrt(5))
    assert row["realized_volatility_60m"] == pytest.approx(step)
    assert row["volatility_ratio_15m_240m"] == pytest.approx(0.0, abs=1e-9)
    assert row["parkinson_volatility_60m"] == pytest.approx(2 * spread / math.sqrt(4 * math.log(2)))
    assert row["garman_klass_volatility_60m"] == pytest.approx(2 * spread / math.sqrt(2))
    assert row["volume_ratio_15m_240m"] == pytest.approx(0.0, abs=1e-9)
    assert row["rsi_14m"] == 1.0
    lowest, highest = close[-60] / 1.01, close[-1] * 1.01
    assert row["range_position_60m"] == pytest.approx((close[-1] - lowest) / (highest - lowest))
    typical_price = np.mean(close[-60:]) * (1 + 1.01 + 1 / 1.01) / 3
    assert row["vwap_deviation_60m"] == pytest.approx(math.log(close[-1] / typical_price))


@settings(max_examples=15, deadline=None)
@given(candles=troubles, data=st.data())
def test_every_row_equals_the_slow_reference(candles, data):
    row = data.draw(st.integers(0, candles.height - 1))
    computed = compute_features(candles).row(row, named=True)
    expected = features_of_row(candles, row)
    assert {name for name in FEATURE_NAMES if computed[name] is None} == {
        name for name in FEATURE_NAMES if expected[name] is None
    }
    for name, value in expected.items():
        if value is not None:
            assert computed[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


@settings(max_examples=15, deadline=None)
@given(candles=troubles, cut=st.integers(0, 600), factor=st.floats(0.5, 2.0))
def test_row_t_ignores_every_candle_after_t(candles, cut, factor):
    changed = scaled(candles, [*PRICES, *VOLUMES], factor=factor, from_row=cut + 1)
    before = compute_features(candles).head(cut + 1)
    assert_frame_equal(compute_features(changed).head(cut + 1), before, check_exact=True)
    assert_frame_equal(compute_features(candles.head(cut + 1)), before, check_exact=True)


@settings(max_examples=15, deadline=None)
@given(candles=troubles, end=st.integers(1, 690))
def test_the_last_hours_alone_give_the_same_bits_as_the_whole_history(candles, end):
    history = candles.head(end)
    served = compute_features(history.tail(WARMUP_MIN + 1)).tail(1)
    assert_frame_equal(served, compute_features(history).tail(1), check_exact=True)


def test_a_row_depends_on_as_many_candles_as_the_warm_up_says():
    candles = make_candles(500)
    known = compute_features(candles.tail(WARMUP_MIN + 1)).tail(1)
    assert known.null_count().sum_horizontal().item() == 0
    short = compute_features(candles.tail(WARMUP_MIN)).tail(1)
    assert short["log_return_240m"].item() is None


@settings(max_examples=15, deadline=None)
@given(candles=troubles, factor=st.floats(0.01, 100.0))
def test_features_do_not_depend_on_the_unit_of_price(candles, factor):
    # Rows that rest on a flat price are exact only while a scaled price stays equal to itself.
    features = compute_features(candles)
    in_other_unit = compute_features(scaled(candles, PRICES, factor=factor))
    assert_frame_equal(in_other_unit, features, rel_tol=1e-6, abs_tol=1e-9)


@settings(max_examples=15, deadline=None)
@given(candles=troubles, factor=st.floats(0.01, 100.0))
def test_only_volume_zscores_depend_on_the_unit_of_volume(candles, factor):
    zscores = [name for name in FEATURE_NAMES if name.startswith("volume_zscore")]
    features = compute_features(candles)
    in_other_unit = compute_features(scaled(candles, VOLUMES, factor=factor))
    assert_frame_equal(
        in_other_unit.drop(zscores), features.drop(zscores), rel_tol=1e-6, abs_tol=1e-9
    )


def test_a_long_history_is_computed_in_blocks_without_a_seam(monkeypatch):
    candles = troubled_candles(seed=2, gaps={200, 310}, quiet_from=1, quiet_rows=0, extras={298})
    whole = compute_features(candles)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 300)
    assert_frame_equal(compute_features(candles), whole, check_exact=True)


@pytest.mark.parametrize(
    ("name", "n_lost"),
    [
        ("high_low_range_1m", 0),
        ("taker_imbalance_1m", 0),
        ("log_return_1m", 1),
        ("taker_imbalance_5m", 4),
        ("log_return_5m", 5),
        ("rsi_14m", 14),
        ("realized_volatility_15m", 15),
        ("vwap_deviation_60m", 59),
        ("range_position_240m", 239),
        ("volume_ratio_15m_240m", 239),
        ("scaled_return_5m", 240),
    ],
)
def test_a_gap_silences_a_window_until_it_lies_behind(name, n_lost):
    candles = make_candles(800).filter(pl.int_range(pl.len()) != 400)
    values = compute_features(candles)[name]
    assert values[n_lost:400].null_count() == 0
    assert values[400:].is_null().to_list() == [True] * n_lost + [False] * (399 - n_lost)


def test_a_candle_too_many_does_not_make_up_for_one_that_is_missing():
    """Only a window's two ends were looked at, so this one, wild candle and all, passed."""
    candles = make_candles(800)
    is_missing = pl.int_range(pl.len()) == 405
    extra = with_wild_candles_after(candles, [400])
    features = compute_features(pl.concat([candles.filter(~is_missing), extra]).sort("open_time"))
    known = {
        name: features.filter(pl.col(name).is_not_null())["open_time"].to_list()
        for name in ("log_return_5m", "realized_volatility_60m", "log_return_240m")
    }
    minutes = candles["open_time"].to_list()
    assert known == {
        "log_return_5m": minutes[5:401] + minutes[411:],
        "realized_volatility_60m": minutes[60:401] + minutes[466:],
        "log_return_240m": minutes[240:401] + minutes[646:],
    }


def test_a_constant_offset_from_the_full_minute_changes_nothing_but_the_clock():
    candles = make_candles(300)
    offset = candles.with_columns(pl.col("open_time") + timedelta(seconds=20, milliseconds=799))
    assert_frame_equal(
        compute_features(offset).drop("open_time"), compute_features(candles).drop("open_time")
    )


def test_absent_taker_data_are_missing_and_the_rest_is_not():
    features = compute_features(make_candles(600, with_taker=False))
    taker = {name for name in FEATURE_NAMES if name.startswith("taker_")}
    assert set(FEATURE_NAMES) - set(available_features(features)) == taker
    assert available_features(compute_features(make_candles(600))) == FEATURE_NAMES


@pytest.mark.parametrize(("n_known", "is_available"), [(1, False), (299, False), (300, True)])
def test_a_feature_known_in_less_than_half_of_the_rows_is_not_available(n_known, is_available):
    """One value made a feature available, and every row without it vanished from the examples."""
    features = compute_features(make_candles(600)).with_columns(
        taker_imbalance_1m=pl.when(pl.int_range(pl.len()) < n_known).then(0.5)
    )
    assert ("taker_imbalance_1m" in available_features(features)) == is_available


def test_one_candle_without_taker_data_silences_the_windows_over_it():
    is_bare = pl.int_range(pl.len()) == 10
    bare = make_candles(30).with_columns(
        taker_buy_base=pl.when(~is_bare).then(pl.col("taker_buy_base"))
    )
    missing = compute_features(bare)["taker_imbalance_5m"].is_null().arg_true().to_list()
    assert missing == [0, 1, 2, 3, 10, 11, 12, 13, 14]


def test_a_market_that_stands_still_has_only_what_is_defined_for_it():
    row = compute_features(flat_candles(241)).row(-1, named=True)
    assert row["rsi_14m"] == 0.5
    assert row["body_ratio_1m"] == row["close_location_1m"] == 0.0
    assert row["realized_volatility_240m"] == 0.0
    undefined = {name for name in FEATURE_NAMES if row[name] is None}
    assert undefined == {
        "scaled_return_5m",
        "scaled_return_15m",
        "volatility_ratio_15m_240m",
        "volume_zscore_60m",
        "volume_zscore_240m",
        "range_position_60m",
        "range_position_240m",
    }


def test_a_window_without_volume_after_a_burst_has_no_remains_of_it():
    """A running sum left 1e-14 of a burst behind, and a VWAP was made of it."""
    candles = troubled_candles(seed=1, gaps=set(), quiet_from=300, quiet_rows=80)
    row = compute_features(candles).row(375, named=True)
    undefined = {"volume_ratio_15m_240m", "vwap_deviation_60m", "taker_imbalance_60m"}
    assert all(row[name] is None for name in undefined)
    assert row["realized_volatility_15m"] == 0.0


def test_a_broken_number_stays_within_its_own_windows_and_never_shows():
    broken = make_candles(600).with_columns(
        low=pl.when(pl.int_range(pl.len()) == 300).then(0.0).otherwise(pl.col("low"))
    )
    features = compute_features(broken)
    assert features.select(pl.col(FEATURE_NAMES).is_finite().all()).row(0) == (True,) * 32
    assert features["parkinson_volatility_60m"].is_null().arg_true().to_list() == [
        *range(59),
        *range(300, 360),
    ]


def test_features_follow_the_table_even_for_no_candles():
    candles = make_candles(5)
    assert compute_features(candles).schema == FEATURES.schema
    nothing = compute_features(pl.DataFrame(schema=CANDLES.schema))
    assert nothing.schema == FEATURES.schema
    assert available_features(nothing) == ()


def test_candles_of_two_symbols_are_refused():
    candles = pl.concat([make_candles(5), make_candles(5, symbol="ETH/USDT")])
    with pytest.raises(DataError, match="2 symbols in one frame; compute them for one symbol"):
        compute_features(candles)


@pytest.mark.parametrize("order", [[0, 1, 1, 2], [0, 2, 1]])
def test_candles_out_of_order_or_twice_are_refused(order):
    with pytest.raises(DataError, match=r"BTC/USDT: 1 of \d candles do not open after"):
        compute_features(make_candles(3)[order])


@pytest.mark.real_data
@pytest.mark.skipif(not CANDLE_DIR.is_dir(), reason="no real candles under ../shared/data")
@pytest.mark.parametrize("month", ["2017-12", "2021-04"])
def test_off_grid_and_broken_months_serve_as_they_train(month):
    candles = (
        pl.read_parquet(CANDLE_DIR / f"{month}.parquet")
        .with_columns(pl.lit("BTC/USDT").alias("symbol"))
        .select(pl.col(name).cast(dtype) for name, dtype in CANDLES.schema.items())
    )
    features = compute_features(candles)
    assert features["log_return_240m"].count() > 0.9 * candles.height
    for row in (300, 5_000, 20_000, candles.height - 1):
        served = compute_features(candles[: row + 1].tail(WARMUP_MIN + 1)).tail(1)
        assert_frame_equal(served, features[row], check_exact=True)
