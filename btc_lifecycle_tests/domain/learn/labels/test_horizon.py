from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import ConfigurationError, DataError
from btc_lifecycle.domain.learn.labels import average_uniqueness, label_by_horizon
from btc_lifecycle.domain.tables import CANDLES, LABELS
from btc_lifecycle_tests import reference_labels
from btc_lifecycle_tests.builders import make_candles
from btc_lifecycle_tests.domain.learn.labels.troubles import (
    PRICES,
    candles_closing_at,
    markets,
    needs_real_candles,
    real_candles,
)

MINUTE = timedelta(minutes=1)


def test_a_label_is_the_log_return_to_the_horizon_and_its_sign():
    labels = label_by_horizon(candles_closing_at(100, 101, 99, 100, 101, 98), horizon_min=3)
    assert labels.rows() == [
        ("BTC/USDT", _utc(0), "horizon", 3, 0.0, 0, _utc(4), None),
        ("BTC/USDT", _utc(1), "horizon", 3, 0.0, 0, _utc(5), None),
        ("BTC/USDT", _utc(2), "horizon", 3, math.log(98 / 99), -1, _utc(6), None),
    ]


def _utc(minute: int) -> datetime:
    return datetime(2024, 1, 1, 0, minute, tzinfo=UTC)


@settings(max_examples=25, deadline=None)
@given(candles=markets, horizon_min=st.integers(1, 70))
def test_labels_equal_the_slow_reference(candles, horizon_min):
    expected = reference_labels.horizon_labels(candles, horizon_min=horizon_min)
    labels = label_by_horizon(candles, horizon_min=horizon_min)
    assert labels.schema == LABELS.schema
    assert_frame_equal(
        labels, pl.DataFrame(expected, schema=LABELS.schema), rel_tol=1e-9, abs_tol=1e-12
    )


@settings(max_examples=25, deadline=None)
@given(horizon_min=st.integers(1, 20), n_known=st.integers(1, 60))
def test_a_label_is_made_no_earlier_and_no_later_than_it_matures(horizon_min, n_known):
    candles = make_candles(60)
    labels = label_by_horizon(candles, horizon_min=horizon_min)
    known = candles.head(n_known)
    known_until = known["open_time"].max() + MINUTE
    assert_frame_equal(
        label_by_horizon(known, horizon_min=horizon_min),
        labels.filter(pl.col("matures_at") <= known_until),
    )


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 59), factor=st.floats(0.5, 2.0))
def test_a_label_ignores_all_candles_but_its_two_ends(cut, factor):
    candles = make_candles(60)
    is_changed = pl.int_range(pl.len()) == cut
    changed = candles.with_columns(
        pl.when(is_changed).then(pl.col(name) * factor).otherwise(pl.col(name)) for name in PRICES
    )
    at = candles["open_time"][cut]
    elsewhere = ~pl.col("open_time").is_in([at, at - 10 * MINUTE])
    assert_frame_equal(
        label_by_horizon(changed, horizon_min=10).filter(elsewhere),
        label_by_horizon(candles, horizon_min=10).filter(elsewhere),
    )


def test_the_volatility_of_the_hour_after_a_close_stands_beside_the_outcome():
    labels = label_by_horizon(make_candles(80), horizon_min=15)
    known = labels["forward_log_volatility"].is_not_null().to_list()
    assert known == [True] * 20 + [False] * 45


def test_a_neighbour_never_stands_in_for_a_missing_outcome():
    candles = make_candles(20).filter(pl.int_range(pl.len()) != 10)
    labelled = label_by_horizon(candles, horizon_min=5)["open_time"].dt.minute().to_list()
    assert labelled == [0, 1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14]


def test_no_candles_give_no_labels_in_the_table_s_form():
    labels = label_by_horizon(pl.DataFrame(schema=CANDLES.schema), horizon_min=15)
    assert labels.schema == LABELS.schema
    assert labels.is_empty()


def test_a_horizon_under_a_minute_is_refused():
    with pytest.raises(ConfigurationError, match="horizon is 0 minutes; set horizon_min to 1"):
        label_by_horizon(make_candles(5), horizon_min=0)


@pytest.mark.parametrize("close", [0.0, -1.0, math.nan, math.inf, None])
def test_a_close_without_a_logarithm_is_refused(close):
    with pytest.raises(DataError, match=r"BTC/USDT: 1 closes .* first at 2024-01-01 00:01 UTC"):
        label_by_horizon(candles_closing_at(100, close, 100), horizon_min=1)


@pytest.mark.real_data
@needs_real_candles
def test_labels_of_a_real_month_are_sane():
    candles = real_candles("2024-03")
    labels = label_by_horizon(candles, horizon_min=15)
    # The month has every minute: only the last 15 closes lack an outcome, and the last 60 the
    # volatility of the hour after them.
    assert labels.height == candles.height - 15
    assert labels["forward_log_volatility"].null_count() == 45
    # BTC rose by a sixth in the month: in each 15 minutes by 2 % of what a price moves in them.
    assert (labels["direction"] == 1).mean() == pytest.approx(0.5, abs=0.02)
    assert (labels["direction"] == 0).mean() < 0.001
    # Each minute but those at the ends is covered by 15 labels.
    assert average_uniqueness(labels).mean() == pytest.approx(1 / 15, rel=0.001)
    # 0.01 % to 0.7 % a minute are 9 % to 490 % a year.
    assert labels["forward_log_volatility"].drop_nulls().is_between(-9.0, -5.0).all()
