from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.learn.features import (
    WARMUP_MIN,
    compute_features,
    computing,
)
from btc_lifecycle.domain.tables import CANDLES, FEATURES
from btc_lifecycle.domain.tables.features import CATALOGUE
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.domain.learn.features.troubled_candles import (
    troubled_candles,
    troubles,
    with_wild_candles_after,
)

CANDLE_DIR = Path(__file__).parents[5] / "shared/data/binance_spot_1m/BTCUSDT"
VALUES = tuple(name for name in CANDLES.schema.names() if name not in CANDLES.key)
MINUTE = timedelta(minutes=1)
TOLERANCE = 1e-12
"""What the last hours alone may differ by from the whole history, absolute and relative."""


def poisoned(candles: pl.DataFrame, *, from_row: int, by: float | None) -> pl.DataFrame:
    """Return the candles with every value replaced from a row on, and the minutes after it gone."""
    row = pl.int_range(pl.len())
    changed = candles.with_columns(
        pl.when(row >= from_row).then(pl.lit(by).cast(dtype)).otherwise(name).alias(name)
        for name, dtype in CANDLES.schema.items()
        if name in VALUES
    )
    return changed.filter((row <= from_row) | (row > from_row + 2))


def assert_near(computed: pl.DataFrame, expected: pl.DataFrame) -> None:
    assert_frame_equal(computed, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


@settings(max_examples=30, deadline=None)
@given(
    candles=troubles,
    t=st.integers(0, 600),
    extreme=st.sampled_from([0.0, -1.0, 1e-300, 1e15, None]),
)
def test_row_t_ignores_every_candle_after_t(candles, t, extreme):
    before = compute_features(candles).head(t + 1)
    after = compute_features(poisoned(candles, from_row=t + 1, by=extreme)).head(t + 1)
    assert_frame_equal(after, before, check_exact=True)
    assert_near(compute_features(candles.head(t + 1)), before)


@settings(max_examples=10, deadline=None)
@given(huge=st.sampled_from([1e300, 1e-300]), column=st.sampled_from(VALUES), t=st.integers(0, 400))
def test_one_huge_number_in_the_next_candle_changes_nothing_before_it(huge, column, t):
    candles = make_candles(500).with_columns(pl.col("trades").cast(pl.Float64))
    is_next = pl.int_range(pl.len()) == t + 1
    changed = candles.with_columns(pl.when(is_next).then(huge).otherwise(column).alias(column))
    before = compute_features(candles).head(t + 1)
    assert_frame_equal(compute_features(changed).head(t + 1), before, check_exact=True)


@settings(max_examples=20, deadline=None)
@given(candles=troubles, end=st.integers(1, 690), more=st.integers(1, 100))
def test_the_last_hours_alone_give_what_the_whole_history_gives(candles, end, more):
    history = candles.head(end)
    served = compute_features(history.tail(WARMUP_MIN + more)).tail(more)
    if history.height > WARMUP_MIN + more:
        assert_near(served, compute_features(history).tail(more))
    else:
        assert_near(served, compute_features(history).tail(served.height))


def test_a_row_depends_on_as_many_candles_as_the_warm_up_says():
    candles = make_candles(500)
    known = compute_features(candles.tail(WARMUP_MIN + 1)).tail(1)
    assert known.null_count().sum_horizontal().item() == 0
    short = compute_features(candles.tail(WARMUP_MIN)).tail(1)
    assert short["log_return_240m"].item() is None


@settings(max_examples=20, deadline=None)
@given(gaps=st.lists(st.tuples(st.integers(1, 690), st.integers(1, 300)), max_size=4))
def test_a_feature_is_missing_just_where_its_window_spans_a_gap(gaps):
    gone = {minute for start, length in gaps for minute in range(start, start + length)}
    minutes = [minute for minute in range(700) if minute not in gone]
    features = compute_features(make_candles(700)[minutes])
    there = set(minutes)
    for entry in CATALOGUE:
        spans_a_gap = [
            any(minute - back not in there for back in range(entry.window_min + 1))
            for minute in minutes
        ]
        assert features[entry.name].is_null().to_list() == spans_a_gap, entry.name


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


@pytest.mark.parametrize("block_rows", [1, 299, 300])
def test_a_long_history_is_computed_in_blocks_without_a_seam(monkeypatch, block_rows):
    candles = troubled_candles(seed=2, gaps={200, 310}, extras={298})
    whole = compute_features(candles)
    monkeypatch.setattr(computing, "_BLOCK_ROWS", block_rows)
    assert_near(compute_features(candles), whole)


def test_one_candle_without_taker_data_silences_the_windows_over_it():
    is_bare = pl.int_range(pl.len()) == 10
    bare = make_candles(30).with_columns(
        taker_buy_base=pl.when(~is_bare).then(pl.col("taker_buy_base"))
    )
    missing = compute_features(bare)["taker_imbalance_5m"].is_null().arg_true().to_list()
    assert missing == [0, 1, 2, 3, 10, 11, 12, 13, 14]


def test_columns_that_the_exchange_does_not_tell_leave_the_rest_as_it_is():
    told, bare = make_candles(400), make_candles(400, with_taker=False)
    bare = bare.with_columns(told.select("open", "high", "low", "close", "volume"))
    optional = [entry.name for entry in CATALOGUE if entry.is_optional]
    features = compute_features(bare)
    assert_frame_equal(features.drop(optional), compute_features(told).drop(optional))
    assert features.select(optional).count().sum_horizontal().item() == 0


@pytest.mark.parametrize("symbol", ["ETH/USDT", "DOGE/BTC"])
def test_a_symbol_has_the_features_of_its_own_candles_alone(symbol):
    ours = compute_features(make_candles(300))
    theirs = compute_features(make_candles(300, symbol=symbol))
    assert theirs["symbol"].unique().to_list() == [symbol]
    assert_frame_equal(theirs.drop("symbol"), ours.drop("symbol"))


def test_candles_stay_as_they_are_and_rows_in_their_order():
    candles = make_candles(300)
    features = compute_features(candles)
    assert_frame_equal(candles, make_candles(300))
    assert_frame_equal(features.select(CANDLES.key), candles.select(CANDLES.key))


def test_candles_in_several_chunks_give_the_same():
    candles = make_candles(400)
    in_chunks = pl.concat([candles[:100], candles[100:250], candles[250:]], rechunk=False)
    assert_frame_equal(compute_features(in_chunks), compute_features(candles))


def test_features_follow_the_table_even_for_no_candles():
    assert compute_features(make_candles(5)).schema == FEATURES.schema
    nothing = compute_features(pl.DataFrame(schema=CANDLES.schema))
    assert nothing.schema == FEATURES.schema
    assert nothing.is_empty()


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
        assert_near(served, features[row])
