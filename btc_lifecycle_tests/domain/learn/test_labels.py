from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import ConfigurationError, DataError
from btc_lifecycle.domain.learn.labels import label_by_horizon
from btc_lifecycle.domain.tables import CANDLES, LABELS
from btc_lifecycle_tests import reference_learn
from btc_lifecycle_tests.builders import make_candles

MINUTE = timedelta(minutes=1)


def candles_closing_at(*closes: float) -> pl.DataFrame:
    return make_candles(len(closes)).with_columns(close=pl.Series(closes, dtype=pl.Float64))


def test_a_label_is_the_log_return_to_the_horizon_and_its_sign():
    labels = label_by_horizon(candles_closing_at(100, 101, 99, 100, 101, 98), horizon_min=3)
    assert labels.rows() == [
        ("BTC/USDT", datetime(2024, 1, 1, 0, 0, tzinfo=UTC), 3, 0.0, 0, _utc(4)),
        ("BTC/USDT", datetime(2024, 1, 1, 0, 1, tzinfo=UTC), 3, 0.0, 0, _utc(5)),
        ("BTC/USDT", datetime(2024, 1, 1, 0, 2, tzinfo=UTC), 3, math.log(98 / 99), -1, _utc(6)),
    ]


def _utc(minute: int) -> datetime:
    return datetime(2024, 1, 1, 0, minute, tzinfo=UTC)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 100),
    horizon_min=st.integers(1, 20),
    gaps=st.sets(st.integers(0, 79), max_size=30),
    offset_s=st.sampled_from([0.0, 20.799]),
)
def test_labels_equal_the_slow_reference(seed, horizon_min, gaps, offset_s):
    start = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=offset_s)
    candles = pl.concat(
        make_candles(80, seed=seed + i, start=start, symbol=symbol)
        for i, symbol in enumerate(("BTC/USDT", "ETH/USDT"))
    ).filter(~pl.int_range(pl.len()).is_in(list(gaps)))
    expected = reference_learn.labels(candles, horizon_min=horizon_min)
    labels = label_by_horizon(candles, horizon_min=horizon_min)
    assert labels.schema == LABELS.schema
    assert_frame_equal(labels, pl.DataFrame(expected, schema=LABELS.schema))


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
        close=pl.when(is_changed).then(pl.col("close") * factor).otherwise(pl.col("close"))
    )
    at = candles["open_time"][cut]
    elsewhere = ~pl.col("open_time").is_in([at, at - 10 * MINUTE])
    assert_frame_equal(
        label_by_horizon(changed, horizon_min=10).filter(elsewhere),
        label_by_horizon(candles, horizon_min=10).filter(elsewhere),
    )


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


@pytest.mark.parametrize("close", [0.0, -1.0, math.nan, math.inf])
def test_a_close_without_a_logarithm_is_refused(close):
    with pytest.raises(DataError, match=r"BTC/USDT: 1 closes .* first at 2024-01-01 00:01 UTC"):
        label_by_horizon(candles_closing_at(100, close, 100), horizon_min=1)
